"""What supervisor and worker tell each other.

At the start the worker gets an `Assignment` in an environment variable. From then on there are two pipes. On one the
worker writes lines of JSON. On the other it reads *orders*, a byte each; when that one ends, the supervisor is gone.

Orders are no signals, because signals come from others too: systemd sends SIGTERM to every process of a unit, and a
terminal SIGINT. A worker that is told twice to stop must not take that for impatience.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from daphne_ng.net.sockets.sharing import SharedSocket

__all__ = ["END", "ENVIRONMENT", "HURRY", "STOP", "Assignment", "LineReader", "line"]

ENVIRONMENT = "DAPHNE_NG_WORKER"
"""The variable that makes a process a worker."""

STOP = b"s"
"""Order: stop gracefully. Others go on; whoever waits to be accepted is theirs."""
END = b"e"
"""Order: stop gracefully. Nobody accepts after this; take those who wait first."""
HURRY = b"h"
"""Order: stop at once."""

_LINE_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told at its start."""

    number: int
    """Counts all workers that were ever started, from 1."""
    report: int
    """Descriptor to write to."""
    orders: int
    """Descriptor to read from."""
    sockets: list[SharedSocket]
    run: str = ""
    """The same for all workers of this supervisor, and for nobody else."""

    def to_environment(self) -> str:
        """Return what the variable holds."""
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Assignment | None:
        """Return what this process was told; None if it is no worker."""
        text = environment.get(ENVIRONMENT)
        if text is None:
            return None
        values = json.loads(text)
        values["sockets"] = [SharedSocket(**one) for one in values["sockets"]]
        return cls(**values)


def line(event: str, **values: Any) -> bytes:
    """Return one message."""
    return json.dumps({"event": event, **values}).encode() + b"\n"


class LineReader:
    """Takes messages out of what a pipe delivers."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages that are complete now; what is none is dropped."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX_BYTES:
            self._rest = b""
        messages = []
        for one in lines:
            try:
                message = json.loads(one)
            except (ValueError, RecursionError):  # the latter for ten thousand brackets
                continue
            if isinstance(message, dict):
                messages.append(message)
        return messages
