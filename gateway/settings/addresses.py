"""Checks of addresses, hosts and paths: the value in its one spelling, or a ValueError that says what to write.

No message repeats the address itself: it may carry a password.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The shape SQLAlchemy reads: the password may hold anything but `@`, a host may be missing (Unix socket).
_DATABASE = re.compile(
    r"(?P<scheme>[\w+]+)://(?:[^:/]*(?::[^@]*)?@)?(?:\[[^/?]+\]|[^/:?@]+)?(?::(?P<port>[^/?@]*))?"
    r"(?:/[^?]*)?(?:\?.*)?"
)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*\.?")
# What redis-py calls them; each with the values that are of use.
_REDIS_OPTIONS = {
    "db": r"[0-9]{1,5}",
    "username": r".*",
    "password": r".*",
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"(?i:true|false|yes|no|1|0)",
    "ssl_ca_certs": r".+",
    "ssl_ca_path": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
    "ssl_password": r".*",
}
TRACES = "/v1/traces"
_PERCENT_ENCODE = "percent-encode special characters of the password (@ is %40, / is %2F, # is %23, ? is %3F)"


def check_database_url(url: str) -> str:
    """`postgresql+psycopg://user:password@host:port/name`."""
    scheme = url.partition("://")[0]
    if scheme != "postgresql+psycopg":
        if scheme.partition("+")[0] in ("postgres", "postgresql"):
            raise ValueError(
                f"begins with {scheme}:// and must begin with postgresql+psycopg://; the rest stays as it is"
            )
        raise ValueError("must be a Postgres address: postgresql+psycopg://user:password@host:5432/name")
    found = _DATABASE.fullmatch(url)
    if found is None:
        raise ValueError(f"cannot be read as an address; {_PERCENT_ENCODE}")
    _check_port(found["port"])
    return url


def check_redis_url(url: str) -> str:
    """`redis://` or `rediss://` with a host and perhaps `/number`, or `unix://` with a path."""
    parts = _split(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            "must begin with redis://, rediss:// (TLS) or unix://, as in redis://localhost:6379/0"
        )
    if parts.fragment:
        raise ValueError(f"cannot be read as an address; {_PERCENT_ENCODE}")
    _check_redis_options(parts.query)
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("names no socket; write unix:///path/of/the.sock")
        return url
    if not parts.hostname:
        raise ValueError(f"names no host; write redis://host:6379/0 and {_PERCENT_ENCODE}")
    if not re.fullmatch(r"/?|/\d{1,5}", parts.path):
        raise ValueError("may have only a database number as its path, as in redis://host:6379/0")
    return url


def _check_redis_options(query: str) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        allowed = _REDIS_OPTIONS.get(name)
        if allowed is None:
            raise ValueError(f"has the option '{name}'; known ones are {', '.join(_REDIS_OPTIONS)}")
        if not re.fullmatch(allowed, value):
            raise ValueError(f"has an unusable value for the option '{name}'")


def check_origin(url: str) -> str:
    """An http or https origin without path, query or user name; a final `/` is dropped."""
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address like https://host or http://host:port")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if parts.path.strip("/") or "?" in url or "#" in url:
        raise ValueError(
            "must be scheme, host and perhaps port only; leave away the path (such as /v1) and what follows"
        )
    check_host(parts.hostname)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def check_collector(url: str) -> str:
    """An http or https address of OTLP, with `/v1/traces` at its end as OpenTelemetry has it."""
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address like http://collector:4318")
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user name or password; a token goes into OTEL_EXPORTER_OTLP_HEADERS"
        )
    if "?" in url or "#" in url:
        raise ValueError("must not have a query or fragment")
    check_host(parts.hostname)
    return url.rstrip("/").removesuffix(TRACES) + TRACES


def check_issuer(url: str) -> str:
    """An https address, perhaps with a path, kept to the letter: it is compared so. http is for this machine alone."""
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address like https://id.example.com")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("must begin with https:// unless the provider is on this machine")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("must not hold a user name, password, query or fragment")
    return url


def check_proxy(url: str) -> str:
    """An http or https proxy, perhaps with user name and password."""
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address like http://proxy:3128 (SOCKS proxies are not supported)")
    if parts.path.strip("/") or "?" in url or "#" in url:
        raise ValueError(f"must not have a path or query; {_PERCENT_ENCODE}")
    return url.rstrip("/")


def check_host(name: str) -> str:
    """A host name or address in lower case, without scheme and port (IPv6 without brackets)."""
    bare = name.strip().lower()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    if "*" in bare:
        raise ValueError("must not hold a wildcard (empty allowed_hosts accept any host)")
    if ":" in bare:
        try:
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            raise ValueError("must be a host without scheme and port") from None
    if not _HOST.fullmatch(bare):
        raise ValueError("is not a host name or address")
    return bare.rstrip(".")


def parse_network(value: object) -> object:
    """Text such as `10.0.0.0/8` or `192.0.2.7` as an IP network; other things are left to the type check."""
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value.strip())
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        raise ValueError("must be an IP address or network, such as 10.0.0.0/8") from None
    raise ValueError(f"has bits beyond its prefix; write {meant}")


def check_spool_directory(value: object) -> object:
    """An existing directory this process can write to; None means the system's temporary directory."""
    if value is None or value == "":
        try:
            return Path(tempfile.gettempdir())
        except FileNotFoundError:
            raise ValueError("is not set and the system has no temporary directory; name one") from None
    if not isinstance(value, str | Path):
        raise ValueError("must be the path of a directory")
    if not Path(value).is_dir():
        raise ValueError("is not an existing directory; create it or name another")
    if not os.access(value, os.W_OK | os.X_OK):
        raise ValueError("is not writable for this user")
    return Path(value)


def check_readable_file(path: Path) -> Path:
    """A file this process can read."""
    if not path.is_file():
        raise ValueError("is not an existing file")
    if not os.access(path, os.R_OK):
        raise ValueError("is not readable for this user")
    return path


def _split(url: str) -> SplitResult:
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("must not hold spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"cannot be read as an address; {_PERCENT_ENCODE}") from None
    if port == 0:
        raise ValueError("has port 0; write a port from 1 to 65535")
    return parts


def _check_port(port: str | None) -> None:
    if port and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise ValueError("has a port that is not a number from 1 to 65535")
