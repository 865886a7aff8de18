"""The states of a stream's two halves: its request, which comes in, and its response, which goes out.

The request half
----------------

==============  =====================================================================================================
RECEIVING       its body comes, and the sink takes it
HOLDING         the sink is full: what comes is delivered all the same, but its window is held
DISCARDING      nothing will read the rest: it is thrown away for a while, and its window given back
UNWANTED        that while is over: the stream is reset behind its response
COMPLETE_HELD   its end has come, and the sink has not taken all before it
COMPLETE        its end has come
==============  =====================================================================================================

`REQUEST_MOVES` has every move. ``request >= COMPLETE_HELD`` is "the end has come", ``request >= DISCARDING`` before
that is "nothing reads it".

The response half
-----------------

==============  =====================================================================================================
AWAITED         nothing has been sent but interim responses
STARTED         its head has been sent, and its body goes on
ENDING          the exchange has ended it; something of it waits in the stream, if only its end
SENT            its last frame has been made; the stream is open as long as its request comes
OVER            the stream is closed: nothing can come or go on either half
==============  =====================================================================================================

It only moves to the right. ``response >= ENDING`` is "the exchange has nothing more to say".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "ABANDONED",
    "AWAITED",
    "COMPLETE",
    "COMPLETE_HELD",
    "CONSUMED",
    "DISCARDING",
    "DISCARD_OVER",
    "END",
    "ENDING",
    "HOLDING",
    "OVER",
    "RECEIVING",
    "REQUEST_MOVES",
    "SENT",
    "SINK_FULL",
    "STARTED",
    "UNWANTED",
]

# The states of the request half.
RECEIVING: Final = 0
HOLDING: Final = 1
DISCARDING: Final = 2
UNWANTED: Final = 3
COMPLETE_HELD: Final = 4
COMPLETE: Final = 5

# What happens to it.
SINK_FULL: Final = 0  # the sink has no room for more
CONSUMED: Final = 1  # the sink has room again
ABANDONED: Final = 2  # nothing will read the rest
DISCARD_OVER: Final = 3  # the time for the rest has passed, or the rest must not begin to come
END: Final = 4  # END_STREAM has come

REQUEST_MOVES: Final[Mapping[tuple[int, int], int]] = {
    (RECEIVING, SINK_FULL): HOLDING,
    (RECEIVING, ABANDONED): DISCARDING,
    (RECEIVING, END): COMPLETE,
    (HOLDING, CONSUMED): RECEIVING,
    (HOLDING, ABANDONED): DISCARDING,
    (HOLDING, END): COMPLETE_HELD,
    (DISCARDING, DISCARD_OVER): UNWANTED,
    (DISCARDING, END): COMPLETE,
    (UNWANTED, DISCARD_OVER): UNWANTED,
    (UNWANTED, END): COMPLETE,
    (COMPLETE_HELD, CONSUMED): COMPLETE,
    # A body that came whole before its exchange began is delivered when it has.
    (COMPLETE, SINK_FULL): COMPLETE_HELD,
}
"""(state, what happens) -> the next state. Nothing else can happen: a pair that is not here is an error of ours."""

# The states of the response half.
AWAITED: Final = 0
STARTED: Final = 1
ENDING: Final = 2
SENT: Final = 3
OVER: Final = 4
