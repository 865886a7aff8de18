"""The budget of an HTTP/2 client beside its requests: what earns which frame, and how many are too many.

Theory of operation
-------------------

A frame that costs us work and carries nothing is suspicious only where nothing of ours called for it. Clients answer
what they are sent: they give windows back in small steps, measure the path with a PING for DATA that came, change the
priorities of what they asked for, and cancel it. So such a frame is paid for first by what the client has *earned*, and
takes from a bucket, which is refilled by time alone, only when nothing is left of that:

================================  =================================================================================
frame                             is earned by
================================  =================================================================================
WINDOW_UPDATE                     each DATA frame of ours, and its bytes; each request, and each of its DATA frames
PING, PRIORITY, PRIORITY_UPDATE   each DATA frame of ours; each request
acknowledgements                  each SETTINGS and PING of ours, one
RST_STREAM                        each response, one
================================  =================================================================================

1. Income is noted by adding to a number, and made into credit when a frame comes that has to be paid for.
2. Every credit has a most, so nothing is gained by saving. What the mosts stand for costs a second of work, and costs
   the client far more: it has had a response, or a DATA frame, for each.
3. Nothing but responses earns resets. A download, however large, earns one.
4. A reset that the client has us send (CVE-2025-8671) is earned by nothing.
"""

from __future__ import annotations

from typing import Final

from daphne_ng.config import Config
from daphne_ng.wire.bucket import TokenBucket

__all__ = ["Budget"]

# For a DATA frame, one WINDOW_UPDATE for the stream and one for the connection, twice over for clients that send them
# before and after they have worked on it. And one of each kind for each KiB: Go's client sends one of each kind for 4.
_UPDATES_PER_FRAME: Final = 4
_UPDATE_BYTES: Final = 512
# grpc-core gives back what it has read, to the byte, whenever it has something to send.
_UPDATES_PER_DATA_RECEIVED: Final = 2
# A hundred streams of which the client holds 4 MiB each, and gives it back in steps of 4 KiB. Go does both.
_UPDATES_MAX: Final = 262_144
# Updates that raise the windows at the start.
_UPDATES_AT_FIRST: Final = 64

# A PING when it is sent and one when it is cancelled (Go, from 1.24), its priority and changes of that (Chromium; old
# clients change the tree for each request, and again when it goes to the background), with room.
_CONTROLS_PER_REQUEST: Final = 8
# As many DATA frames may wait in buffers on the way. A client that measures the path sends a PING for the first of them
# that it reads, and another for the first that it reads after each answer.
_CONTROLS_MAX: Final = 4096


class Budget:
    """Credit that the client of one connection has earned and spent.

    Args:
        config: The sizes of the buckets.
    """

    __slots__ = (
        "_bucket",
        "_controls",
        "_reset_bucket",
        "_resets",
        "_resets_max",
        "_updates",
        "asked",
        "data_bytes",
        "data_frames",
        "data_received",
        "requests",
        "responses",
    )

    def __init__(self, config: Config) -> None:
        self._bucket = TokenBucket(config.http2_control_burst, config.http2_control_rate)
        # A client that may open so many streams may lose interest in all of them.
        self._resets_max = burst = max(config.http2_reset_burst, config.http2_max_concurrent_streams)
        self._reset_bucket = TokenBucket(burst, config.http2_reset_rate)
        self._updates = _UPDATES_AT_FIRST
        self._controls = 0
        self._resets = 0
        self.asked = 1
        """SETTINGS and PING frames of ours that have not been acknowledged; the first SETTINGS are always sent."""
        self.requests = 0
        """Requests that came since income was last counted, as the next four."""
        self.data_received = 0
        """DATA frames that came and were not empty."""
        self.data_frames = 0
        """DATA frames that we sent."""
        self.data_bytes = 0
        """Bytes in them."""
        self.responses = 0
        """Responses that we began."""

    def data_sent(self, count: int) -> None:
        """Note that a DATA frame of `count` bytes went out."""
        self.data_frames += 1
        self.data_bytes += count

    # Make credit of what has come in.
    def _earn(self) -> None:
        requests, frames, received = self.requests, self.data_frames, self.data_received
        if requests or frames or received:
            updates, self.data_bytes = divmod(self.data_bytes, _UPDATE_BYTES)
            updates += 2 * requests + _UPDATES_PER_FRAME * frames + _UPDATES_PER_DATA_RECEIVED * received
            self._updates = min(self._updates + updates, _UPDATES_MAX)
            self._controls = min(self._controls + _CONTROLS_PER_REQUEST * requests + frames, _CONTROLS_MAX)
            self.requests = self.data_frames = self.data_received = 0

    def pays_update(self, now: float) -> bool:
        """Whether a WINDOW_UPDATE is paid for; as in all of these, it is by now. If not, the client floods us."""
        self._earn()
        if self._updates:
            self._updates -= 1
            return True
        return self.pays_empty(now)

    def pays_control(self, now: float) -> bool:
        """Whether a PING, a PRIORITY or a PRIORITY_UPDATE is paid for."""
        self._earn()
        if self._controls:
            self._controls -= 1
            return True
        return self.pays_empty(now)

    def pays_acknowledgement(self, now: float) -> bool:
        """Whether an acknowledgement of SETTINGS or PING is paid for."""
        if self.asked:
            self.asked -= 1
            return True
        return self.pays_empty(now)

    def pays_empty(self, now: float) -> bool:
        """Whether a frame is paid for that nothing earns: SETTINGS, GOAWAY, and what carries nothing at all."""
        return self._bucket.take(now)

    def pays_reset(self, now: float) -> bool:
        """Whether a reset by the client is paid for."""
        if self.responses:
            self._resets = min(self._resets + self.responses, self._resets_max)
            self.responses = 0
        if self._resets:
            self._resets -= 1
            return True
        return self.pays_provoked(now)

    def pays_provoked(self, now: float, count: int = 1) -> bool:
        """Whether resets that the client has us send are paid for."""
        return all(self._reset_bucket.take(now) for _ in range(count))
