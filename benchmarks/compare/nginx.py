"""nginx twice, each run from a folder of its own in the foreground: the upstream stub, and a bare reverse proxy."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from benchmarks.compare.children import Child, free_port, listens

MODEL = "gemini-2.5-flash-image"
IMAGE = '{"created":1761000000,"data":[{"url":"https://files.example.com/picture.png"}]}'
SUBMITTED = (
    f'{{"id":"task_$request_id","object":"task","status":"submitted","model":"{MODEL}","progress":0,'
    '"created_at":1761000000}'
)
FINISHED = (
    f'{{"id":"$task","status":"completed","credits_cost":2,"model":"{MODEL}","progress":100,"result":{{"type":"image",'
    '"data":[{"url":"https://files.example.com/picture.png"}]},"created":1761000000,"completed":1761000009}'
)
_NAMES = (MODEL, "gemini-3-pro-image-preview", "gemini-3.1-flash-image-preview", "gpt-image-2", "sora-2")
_LISTED = ",".join(
    f'{{"id":"{name}","object":"model","created":1761000000,"owned_by":"pixapi"}}' for name in _NAMES
)
MODELS = f'{{"object":"list","data":[{_LISTED}]}}'
_MAIN = """
daemon off; worker_processes 1; pid %(folder)s/nginx.pid; error_log %(folder)s/error.log warn; %(user)s
worker_rlimit_nofile 30000;
events { worker_connections 14000; }
http {
  access_log off; default_type application/json; keepalive_requests 1000000000; keepalive_timeout 600;
  client_max_body_size 100m; tcp_nodelay on; server_tokens off;
  client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy;
  fastcgi_temp_path %(folder)s/fastcgi; uwsgi_temp_path %(folder)s/uwsgi; scgi_temp_path %(folder)s/scgi;
  %(inside)s
}
"""
_STUB = """
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    location = /v1/images/generations { return 200 '%(image)s'; }
    location = /v1/async/images/generations { return 200 '%(submitted)s'; }
    location ~ ^/v1/tasks/(?<task>[A-Za-z0-9_-]+)$ { return 200 '%(finished)s'; }
    location = /v1/models { return 200 '%(models)s'; }
  }
"""
_PROXY = """
  upstream stub { server 127.0.0.1:%(upstream)d; keepalive 2048; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    location / {
      proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600;
    }
  }
"""


def start_stub(folder: Path) -> tuple[Child, int]:
    """Static answers that Pixapi could have given; the child and its port."""
    port = free_port()
    inside = _STUB % {
        "port": port,
        "image": IMAGE,
        "submitted": SUBMITTED,
        "finished": FINISHED,
        "models": MODELS,
    }
    return _start(folder / "stub", inside, port), port


def start_proxy(folder: Path, upstream: int) -> tuple[Child, int]:
    """One worker that passes everything on to the port `upstream`."""
    port = free_port()
    return _start(folder / "nginx", _PROXY % {"port": port, "upstream": upstream}, port), port


def _start(folder: Path, inside: str, port: int) -> Child:
    folder.mkdir(exist_ok=True)
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(_MAIN % {"folder": folder, "user": user, "inside": inside})
    command = [binary("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    child = Child(command, folder / "nginx.log")
    child.wait_until(lambda: listens(port))
    return child


def binary(name: str) -> str:
    """Where a program is, also where Debian keeps those of administrators; SystemExit when it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(
            f"{name} is needed and was not found on PATH (Debian: apt-get install nginx-light wrk)"
        )
    return found
