"""nginx and HAProxy as the examples of deploy/ configure them, on free ports, ended by their process id."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import page
from tests.fakes.certificate import self_signed

NGINX = "deploy/nginx/pixapi-gateway.conf"
HAPROXY = "deploy/haproxy/haproxy.cfg"
START_SECONDS = 15.0


def program(name: str) -> str | None:
    """Debian keeps both off the PATH of people who are not root."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its addresses, and the file with its own messages."""

    plain: str
    secure: str
    certificate: Path
    log: Path


@contextlib.contextmanager
def proxy(kind: str, folder: Path, *upstreams: int) -> Iterator[Proxy]:
    """The proxy `nginx` or `haproxy` in front of those local ports."""
    certificate = self_signed(folder / "tls.pem")
    plain, secure = free_port(), free_port()
    command = [*(nginx if kind == "nginx" else haproxy)(folder, certificate, plain, secure, upstreams)]
    log = folder / f"{kind}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not connects(secure):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Proxy(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}", certificate, log)
    finally:
        process.kill()
        process.wait()


def nginx(folder: Path, certificate: Path, plain: int, secure: int, upstreams: tuple[int, ...]) -> list[str]:
    """The example within the least that nginx wants around it; checked by `nginx -t`."""
    text = page(NGINX)
    (server,) = re.findall(r"^    server 127.*\n", text, re.MULTILINE)
    for old, new in (
        (server, "".join(server.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for port in upstreams)),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        ("/etc/nginx/tls/gateway.example.com.pem", str(certificate)),
        ("/etc/nginx/tls/gateway.example.com.key", str(certificate)),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text, "utf-8")
    paths = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy"))
    whole = folder / "nginx.conf"
    whole.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr info; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n",
        "utf-8",
    )
    binary = program("nginx")
    assert binary
    check([binary, "-t", "-c", str(whole), "-p", str(folder)])
    return [binary, "-c", str(whole), "-p", str(folder)]


def haproxy(
    folder: Path, certificate: Path, plain: int, secure: int, upstreams: tuple[int, ...]
) -> list[str]:
    """The example as it is; checked by `haproxy -c`."""
    text = page(HAPROXY)
    servers = "".join(f"    server gateway-{port} 127.0.0.1:{port}\n" for port in upstreams)
    for old, new in (
        (r"    server gateway-1 127\.0\.0\.1:8080.*\n", servers),
        (r"bind :80\b", f"bind 127.0.0.1:{plain}"),
        (r"bind :443\b", f"bind 127.0.0.1:{secure}"),
        (r"/etc/haproxy/tls/gateway\.example\.com\.pem", str(certificate)),
    ):
        text, count = re.subn(old, new, text)
        assert count == 1, old
    whole = folder / "haproxy.cfg"
    whole.write_text(text, "utf-8")
    binary = program("haproxy")
    assert binary
    check([binary, "-c", "-f", str(whole)])
    return [binary, "-db", "-f", str(whole)]


def check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass
class Deaf:
    """A gateway that takes requests whole and closes without an answer; it says it is ready. `got` are its requests."""

    port: int = 0
    got: list[str] = field(default_factory=list)
    _listener: socket.socket | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Deaf]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join(5)

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head and (piece := client.recv(65536)):
                    head += piece
                line = head.split(b"\r\n", 1)[0].decode("latin-1")
                if "/readyz" in line:
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    continue
                if not line:
                    continue
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = head.partition(b"\r\n\r\n")[2]
                while length and len(body) < int(length[1]) and (piece := client.recv(65536)):
                    body += piece
                self.got.append(line)
