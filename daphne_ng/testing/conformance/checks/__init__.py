"""The statements, in the order of the specification. An import of this package registers them all."""

from __future__ import annotations

from daphne_ng.testing.conformance.checks import (
    applications,
    disconnect,
    extensions,
    files,
    lifespan,
    request,
    response,
    scope,
    tls,
    websocket,
    websocket_endings,
)

__all__ = [
    "applications",
    "disconnect",
    "extensions",
    "files",
    "lifespan",
    "request",
    "response",
    "scope",
    "tls",
    "websocket",
    "websocket_endings",
]
