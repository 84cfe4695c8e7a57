"""/admin/: where a browser learns how this gateway is administered."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from gateway import __version__
from gateway.proxy.relay import reply

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pixapi gateway</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1>Pixapi gateway {__version__}</h1>
<p>Teams, keys, the upstream pool, tasks and the audit log are administered by the command line or the admin API.</p>
<pre>pixapi-gateway teams list
pixapi-gateway keys issue --team demo --name laptop
pixapi-gateway upstream-keys list</pre>
<p>The admin API answers under <code>/admin/api</code> with <code>Authorization: Bearer pxa_…</code> and describes
itself at <code>/admin/api/openapi.json</code>.</p>
</body>
</html>
""".encode()


class Front:
    """A page of text; it holds nothing secret and needs no sign-in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", b"default-src 'none'; img-src data:; frame-ancestors 'none'"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        await reply(send, 200, headers, _PAGE)
