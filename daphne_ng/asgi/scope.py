"""ASGI scopes for HTTP and WebSocket, from a request head and what is known of its connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo

__all__ = ["ASGI_VERSION", "SPEC_VERSION", "decoded", "http_scope", "prepending", "websocket_scope"]

ASGI_VERSION: Final = "3.0"
SPEC_VERSION: Final = "2.5"
"""HTTP and WebSocket message format that we implement, with ``send()`` raising after a disconnect."""


def http_scope(head: RequestHead, info: ConnectionInfo, root_path: str, state: dict[str, Any] | None) -> dict[str, Any]:
    """Build the scope of one request (ASGI HTTP, "HTTP connection scope").

    Args:
        head: The request.
        info: Its connection.
        root_path: The configured root path.
        state: The lifespan state, copied shallowly for each request; None if the application has no lifespan.
    """
    if head.root_path is not None and info.trusted:
        root_path = head.root_path
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": ASGI_VERSION, "spec_version": SPEC_VERSION},
        "http_version": head.http_version,
        "method": head.method,
        "scheme": info.scheme,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query_string,
        "root_path": root_path,
        "headers": head.headers,
        "client": info.client,
        "server": info.server,
        "extensions": info.extensions.copy(),
    }
    if state is not None:
        scope["state"] = state.copy()
    return scope


def websocket_scope(
    head: RequestHead, info: ConnectionInfo, root_path: str, state: dict[str, Any] | None, subprotocols: Iterable[str]
) -> dict[str, Any]:
    """Build the scope of one WebSocket (ASGI WebSocket, "WebSocket connection scope").

    Args:
        head: The request that asks for it.
        info: Its connection.
        root_path: The configured root path.
        state: The lifespan state, copied shallowly for each; None if the application has no lifespan.
        subprotocols: Those that the client offers, in its order; the scope has them `decoded`.
    """
    scope = http_scope(head, info, root_path, state)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = _WEBSOCKET_SCHEMES[info.scheme]
    scope["subprotocols"] = decoded(subprotocols)
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    scope["extensions"] = extensions
    for name, supported in info.extensions.items():
        extensions[_WEBSOCKET_EXTENSIONS[name]] = supported.copy()
    return scope


def decoded(subprotocols: Iterable[str]) -> list[str]:
    """Return the names of subprotocols percent-decoded, as Daphne has them.

    JavaScript has no other way to send a token along than ``new WebSocket(url, ["token", encodeURIComponent(token)])``.
    Each name is decoded by itself, so that none becomes two, and stays as it came if it would then be no UTF-8, hold a
    control character, or be one of the others.
    """
    names = list(subprotocols)
    for index, name in enumerate(names):
        if "%" in name:
            try:
                text = unquote(name, errors="strict")
            except UnicodeDecodeError:
                continue
            if text.isprintable() and text not in names:
                names[index] = text
    return names


# What the response in place of a WebSocket can do, and what it is called there, like the messages of it.
_WEBSOCKET_EXTENSIONS: Final = {
    "http.response.early_hint": "websocket.http.response.early_hint",
    "http.response.pathsend": "websocket.http.response.pathsend",
    "http.response.trailers": "websocket.http.response.trailers",
    "http.response.zerocopysend": "websocket.http.response.zerocopysend",
    "tls": "tls",
}
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}

_Maker = TypeVar("_Maker", bound=Callable[..., dict[str, Any]])


def prepending(make: _Maker) -> _Maker:
    """Return `http_scope` or `websocket_scope` with ``root_path`` put in front of ``path`` and ``raw_path``.

    For a proxy that strips the prefix: ASGI has the path hold the root path.
    """

    def make_and_prepend(*args: Any) -> dict[str, Any]:
        scope = make(*args)
        root_path = scope["root_path"]
        if root_path and scope["path"][:1] == "/":  # "*" is no path
            scope["path"] = root_path + scope["path"]
            # As it stands in a request target (RFC 3986 section 3.3).
            encoded = quote(root_path.encode("utf-8", "replace"), safe="/:@!$&'()*+,;=~").encode("ascii")
            scope["raw_path"] = encoded + scope["raw_path"]
        return scope

    return make_and_prepend  # type: ignore[return-value]
