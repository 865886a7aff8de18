"""Telling systemd how it goes: sd_notify(3), one datagram per message. Elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

__all__ = ["Notifier"]

# How much longer than its timeout a service may stop for, with each line of progress. More than twice the time between
# two lines, so that one may be late.
_EXTENSION_SECONDS = 5


class Notifier:
    """Sends to the socket that the environment names, and takes the variables out of it: children are not the service.

    Args:
        environment: Where to look.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self.watchdog_seconds = _watchdog(environment)
        """Half of the time within which systemd wants a sign of life; None if it wants none."""
        environment.pop("WATCHDOG_USEC", None)
        environment.pop("WATCHDOG_PID", None)

    def reloading(self, status: str) -> None:
        """Say that a reload has begun. Send ``READY=1`` when it is over."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def progress(self, status: str) -> None:
        """Say how a stop comes along, every second: a drain has limits of its own, and systemd need not know them."""
        self.send(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={_EXTENSION_SECONDS * 1_000_000}")

    def send(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``. A failure is nobody's concern."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto("\n".join(assignments).encode(), self._address)
            except OSError:
                return


def _watchdog(environment: Mapping[str, str]) -> float | None:
    text = environment.get("WATCHDOG_USEC", "")
    process = environment.get("WATCHDOG_PID")
    if not text.isdigit() or not int(text) or (process is not None and process != str(os.getpid())):
        return None
    return int(text) / 2e6
