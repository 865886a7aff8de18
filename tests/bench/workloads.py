"""All workloads by name, and the names that belong together.

Each measurement gets a server that was started for it alone. `Workload.check` runs first and raises for a wrong answer,
so a number in the report always belongs to a server that does the work.
"""

from __future__ import annotations

from collections.abc import Iterable

from .files_workloads import FILES_WORKLOADS
from .http_workloads import HTTP_WORKLOADS, WORKERS_WORKLOADS
from .latency import LATENCY_WORKLOADS
from .secure_workloads import HTTP2_WORKLOADS, TLS_WORKLOADS
from .websocket_workloads import WEBSOCKET_WORKLOADS
from .workload import Workload


def _names(workloads: Iterable[Workload]) -> tuple[str, ...]:
    return tuple(workload.name for workload in workloads)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        *HTTP_WORKLOADS,
        *WEBSOCKET_WORKLOADS,
        *HTTP2_WORKLOADS,
        *TLS_WORKLOADS,
        *WORKERS_WORKLOADS,
        *FILES_WORKLOADS,
        *LATENCY_WORKLOADS,
    )
}
HTTP = _names(HTTP_WORKLOADS)
"""HTTP/1.1 in cleartext."""
WEBSOCKET = _names(WEBSOCKET_WORKLOADS)
HTTP2 = _names(HTTP2_WORKLOADS)
TLS = _names(TLS_WORKLOADS)
"""HTTP/1.1 over TLS."""
WORKERS = _names(WORKERS_WORKLOADS)
"""With several workers."""
FILES = _names(FILES_WORKLOADS)
"""Files, by pathsend and without the application."""
LATENCY = _names(LATENCY_WORKLOADS)
TABLE = (
    *("hello", "echo", "hellolog", "stream", "upload", "idle"),
    *("tlshello", "h2hello", "h2paths", "h2idle"),
    *("ws64", "ws4k", "ws64k", "wsz4k", "wsconnect", "wsidle"),
)
"""What is measured if nothing else is asked for, and what the summary shows."""
