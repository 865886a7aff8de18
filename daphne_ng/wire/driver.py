"""What every protocol on a connection needs from the I/O around it: `daphne_ng.net.channels.channel` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["COPY_MAX_BYTES", "PROBE_SECONDS", "ConnectionDriver"]

COPY_MAX_BYTES: Final = 16384
"""From this size on a payload is written beside its framing instead of being copied behind it."""

PROBE_SECONDS: Final = 5.0
"""How often a paused connection is asked whether its client is still there."""


class ConnectionDriver(Protocol):
    """Writing, reading, the ways to end, and one timer."""

    write: Callable[[bytes], None]
    full: Callable[[], bool]
    """Whether the transport holds more than its high mark."""
    clock: Callable[[], float]

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`; it may be so already."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def rearm(self, deadline: float) -> None:
        """The deadline is now earlier than the timer: move the timer."""

    def close(self) -> None:
        """Flush, then close both directions."""

    def finish(self) -> None:
        """Flush, then close both directions; but close only ours while the client has much to take yet.

        What is delivered afterwards is to be thrown away. When nothing is left, `release` closes the rest.
        """

    def close_writing(self) -> None:
        """Flush, then close our direction."""

    def unacknowledged_bytes(self) -> int:
        """Return how many bytes written the client has not acknowledged yet, as far as the system tells."""

    def unsent_bytes(self) -> int:
        """Return how many of them the kernel has not taken yet."""

    def release(self) -> None:
        """Close the socket; what the kernel holds still goes out."""

    def abort(self) -> None:
        """Drop the connection at once, so that what was cut off shows."""

    def break_off(self) -> None:
        """Drop the connection at once, with all that it carries besides."""

    def drop(self) -> None:
        """The client has stopped reading: say so in the log, and drop the connection at once."""
