"""The demo's page, and the headers of all its responses: what a client controls is HTML-escaped."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from importlib import resources
from string import Template

from daphne_ng import __version__
from daphne_ng._types import Scope

__all__ = [
    "COMMON_HEADERS",
    "CONTENT_SECURITY_POLICY",
    "SCRIPT",
    "STYLE",
    "address_text",
    "protocol_name",
    "render_not_found",
    "render_page",
]


def _resource(name: str) -> str:
    return resources.files("daphne_ng.demo").joinpath(name).read_text("utf-8")


def _csp_hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


STYLE = _resource("demo.css")
SCRIPT = _resource("demo.js")
PAGE = Template(_resource("demo.html"))
NOT_FOUND_PAGE = Template(
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    "<title>Not found - daphne-ng</title>\n<style>$style</style>\n"
    '<main class="lost">\n<p class="eyebrow">404</p>\n<h1>Nothing grows here.</h1>\n'
    "<p>The demo has no <code>$path</code>.</p>\n"
    '<p><a href="$root_path/">Back to the demo</a></p>\n</main>\n</html>\n'
)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_csp_hash(SCRIPT)}",
        f"style-src {_csp_hash(STYLE)}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

COMMON_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]

# Shown by length only: the page ends up in screenshots, and HttpOnly cookies should stay out of any document.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def render_page(scope: Scope) -> bytes:
    """Return the page for this connection, every value from the client escaped."""
    values = {
        "protocol": protocol_name(scope),
        "scheme": scope.get("scheme", "http"),
        "client": address_text(scope.get("client")),
        "server": address_text(scope.get("server")),
        "version": __version__,
    }
    escaped = {name: html.escape(value) for name, value in values.items()}
    page = PAGE.substitute(escaped, headers=_header_rows(scope["headers"]), style=STYLE, script=SCRIPT)
    return page.encode()


def render_not_found(scope: Scope) -> bytes:
    """Return the 404 page, which repeats the path, escaped."""
    path, root_path = html.escape(scope["path"]), html.escape(scope.get("root_path", ""))
    # A percent-encoded path may decode to what UTF-8 cannot write back.
    return NOT_FOUND_PAGE.substitute(path=path, root_path=root_path, style=STYLE).encode("utf-8", "replace")


def _header_rows(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return "\n".join(_header_row(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _header_row(name: str, value: str) -> str:
    cell = html.escape(value)
    if name.lower() in SECRET_HEADERS:
        cell = f"<em>{len(value)} bytes, not shown</em>"
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{cell}</td></tr>'


def protocol_name(scope: Scope) -> str:
    """Return ``HTTP/1.1`` or ``HTTP/2`` for a scope."""
    return f"HTTP/{scope.get('http_version', '1.1')}"


def address_text(address: tuple[str, int | None] | None) -> str:
    """Return an ASGI ``client`` or ``server`` as text: ``host:port``, a socket's path, or that it is unknown."""
    if not address or not address[0]:
        return "not known"
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
