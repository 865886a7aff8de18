"""What a WebSocket client may send beside messages, and in how many pieces: who pays for it, and what is too much.

As in `http2.budget`, it is what frames carry that pays first, and time for the rest only.
"""

from __future__ import annotations

from typing import Final

from daphne_ng.config import Config
from daphne_ng.wire.bucket import TokenBucket

__all__ = ["FrameBudget"]

# Bytes that a fragment must carry on average to be free. Clients fragment what they stream, in pieces of a few KiB,
# which may be compressed; and how large a message may be is a limit of its own.
_FRAGMENT_BYTES: Final = 256
# Bytes that messages carry, in either direction, for each ping or pong that is free: a client may answer each message
# with one, or measure how long each takes. A control frame costs about as much as it does to receive a message.
_CONTROL_BYTES: Final = 32


class FrameBudget:
    """What one connection has earned and spent.

    Args:
        config: The limits.
    """

    __slots__ = ("_bucket", "_burst", "_earned", "_fragment_bytes", "_fragments", "_fragments_max", "_seen")

    def __init__(self, config: Config) -> None:
        self._fragments_max = config.websocket_max_fragments
        self._fragments = self._fragment_bytes = 0
        self._burst = config.websocket_control_burst
        self._bucket = TokenBucket(self._burst, config.websocket_control_rate)
        self._earned = 0
        self._seen = 0  # bytes of messages that have been made into what is earned

    def pays_fragment(self, size: int, first: bool) -> bool:
        """Count a frame of a message.

        Args:
            size: Its payload, in bytes.
            first: Whether the message begins with it.

        Returns:
            False if the message has too many fragments for what it has carried so far.
        """
        if first:
            self._fragments = self._fragment_bytes = 0
        self._fragments += 1
        within = self._fragments - self._fragment_bytes // _FRAGMENT_BYTES <= self._fragments_max
        self._fragment_bytes += size
        return within or not self._fragments_max

    def pays_control(self, carried: int, now: float) -> bool:
        """Count a ping or a pong.

        Args:
            carried: Bytes of all messages so far, in both directions.
            now: Seconds on a clock that does not go backwards.

        Returns:
            False if it is paid for by nothing.
        """
        earned = (carried - self._seen) // _CONTROL_BYTES
        self._seen += earned * _CONTROL_BYTES
        self._earned = min(self._earned + earned, self._burst)
        if self._earned:
            self._earned -= 1
            return True
        return self._bucket.take(now)
