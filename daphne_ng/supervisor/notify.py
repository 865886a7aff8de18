"""Telling systemd how it goes: sd_notify(3), one datagram per message. Elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

__all__ = ["Notifier"]


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
