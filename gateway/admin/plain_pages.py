"""The few pages that are plain HTML: no script, one style, nothing from elsewhere. What is put in is escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from urllib.parse import quote

from gateway import __version__
from gateway.admin.next_page import FRONT

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color:#1b1f24;"
    "background:#fff}input,button{font:inherit;padding:.4rem .6rem}input{width:100%;box-sizing:border-box;"
    "margin:.3rem 0 .8rem}pre{background:#f3f4f6;padding:.8rem;overflow:auto}.wrong{border-left:4px solid #b42318;"
    "padding-left:.8rem}@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#16181c}pre{background:#22262c}"
    "a{color:#8ab4f8}}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# No `no-referrer`: with it browsers send `Origin: null` with a form, even to the page's own host.
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"vary", b"cookie"),
)


def page(title: str, content: str) -> bytes:
    """A whole page; `content` is HTML, `title` text."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
""".encode()


def sign_in_form(next_path: str, *, wrong: str | None = None, provider: bool = False) -> bytes:
    """The form for an admin token; `wrong` says why the last try failed, `provider` offers single sign-on."""
    said = f'<p class="wrong" role="alert">{escape(wrong)}</p>\n' if wrong else ""
    other = f'<p><a href="{start_link(next_path)}">Sign in with single sign-on</a></p>\n' if provider else ""
    return page(
        "Sign in · Pixapi gateway",
        f"""<h1>Sign in</h1>
{said}{other}<form method="post" action="/admin/login">
<label for="token">Admin token</label>
<input id="token" name="token" type="password" autocomplete="current-password" spellcheck="false" required autofocus>
<input type="hidden" name="next" value="{escape(next_path)}">
<button>Sign in</button>
</form>
<p><code>pixapi-gateway admin-tokens issue</code> makes a token.</p>""",
    )


def notice(title: str, text: str, next_path: str = FRONT) -> bytes:
    """Why signing in did not work, and the way back."""
    return page(
        f"{title} · Pixapi gateway",
        f'<h1>{escape(title)}</h1>\n<p role="alert">{escape(text)}</p>\n'
        f'<p><a href="{escape("/admin/login?next=" + quote(next_path, safe="/"))}">Back to sign-in</a></p>',
    )


def start_link(next_path: str) -> str:
    return escape("/admin/oidc/start?next=" + quote(next_path, safe="/"))


def front(name: str | None, role: str | None) -> bytes:
    """The page at /admin/: for whom it is, and how the gateway is administered without a browser."""
    who = '<p><a href="/admin/login">Sign in</a></p>'
    if name is not None and role is not None:
        who = f"""<form method="post" action="/admin/logout">
<p>Signed in as <strong>{escape(name)}</strong>, role <strong>{escape(role)}</strong>. <button>Sign out</button></p>
</form>"""
    return page(
        "Pixapi gateway",
        f"""<h1>Pixapi gateway {__version__}</h1>
{who}
<p>Teams, keys, the upstream pool, tasks and the audit log are administered by the command line or the admin API.</p>
<pre>pixapi-gateway teams list
pixapi-gateway keys issue --team demo --name laptop
pixapi-gateway upstream-keys list</pre>
<p>The admin API answers under <code>/admin/api</code> with <code>Authorization: Bearer pxa_…</code> and describes
itself at <code>/admin/api/openapi.json</code>.</p>""",
    )
