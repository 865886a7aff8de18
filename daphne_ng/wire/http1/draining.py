"""Reading what has no reader any more: the rest of a request behind its response, and what follows the last response.

What a client sends to a closed socket is answered with a reset, which can destroy the response before it is read; and
many clients look for a response only when they have sent all of their request. So what comes is read and thrown away,
within bounds.
"""

from __future__ import annotations

from daphne_ng.config import Config
from daphne_ng.wire.ending import NEVER
from daphne_ng.wire.http1.message import Http1Message

__all__ = ["Drain"]


class Drain:
    """How much is read in vain on one connection, and for how long.

    Args:
        config: Limits and timeouts.
    """

    __slots__ = ("_config", "until")

    def __init__(self, config: Config) -> None:
        self._config = config
        self.until = 0.0
        """When what the client sends behind the last response is read no longer."""

    def worth_reading(self, message: Http1Message, told_to_continue: bool) -> bool:
        """Tell whether the rest of a body, wanted or not, will be read: its length is known, and short."""
        head = message.head
        if head.chunked:
            return False
        if head.expects_continue and not told_to_continue and not message.body_bytes:
            # The client may or may not send its body: the body could not be told from the next request.
            return False
        return head.content_length - message.body_bytes <= self._config.drain_max_bytes

    def body_deadline(self, now: float, stopping: bool) -> float:
        """Return until when the rest of a body is read whose response has promised to go on.

        For all of the rest the client has the time that one part of a body has.
        """
        timeout = self._config.body_timeout or NEVER
        return now + (min(timeout, self.last_request_seconds) if stopping else timeout)

    @property
    def last_request_seconds(self) -> float:
        """How long a stopping server waits for the request of a client that does not know of the end yet."""
        return min(self._config.shutdown_idle_timeout, self._config.graceful_timeout)

    def begin(self, now: float) -> float:
        """Begin to throw away what comes behind the last response. Returns when that is over without another byte."""
        self.until = now + self._config.drain_timeout
        return self.extended(now)

    def extended(self, now: float) -> float:
        """Return when it is over now that the client has sent something."""
        return min(now + self._config.drain_pause_timeout, self.until)
