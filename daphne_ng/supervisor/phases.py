"""The life of a worker as its supervisor sees it: phases, and the table of what leads from one to the next.

A phase is a number, and a worker only moves to the right: a larger number never becomes a smaller one. An input that
the table does not know in a phase is refused, and the worker stays where it is: a line that was in the pipe when the
worker was killed makes nobody ready. `docs/explanation/architecture.md` shows the table.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ABANDON",
    "EXIT",
    "GONE",
    "INPUTS",
    "KILL",
    "KILLED",
    "NEXT",
    "OVERDUE",
    "PHASES",
    "READY",
    "RETIRE",
    "RETIRING",
    "SETTLED",
    "STARTING",
    "TIME_UP",
    "WORKER_READY",
    "WORKER_STOPS",
]

# -- phases ----------------------------------------------------------------------------------------------------

STARTING: Final = 0
"""The process imports the application and starts it."""
OVERDUE: Final = 1
"""It was killed because it did not become ready in time; its end is a start that failed."""
READY: Final = 2
"""It serves; an end soon after the start still counts as a failure of the code."""
SETTLED: Final = 3
"""It has served for a while, and counts as one that works."""
RETIRING: Final = 4
"""It was told to stop, or stops by itself; it is killed when its limits have passed."""
KILLED: Final = 5
"""It was killed, and need not be replaced for that."""
GONE: Final = 6
"""Its process has ended, or cannot be ended and is left behind."""

PHASES: Final = ("STARTING", "OVERDUE", "READY", "SETTLED", "RETIRING", "KILLED", "GONE")
"""Names, by number."""

# -- inputs ----------------------------------------------------------------------------------------------------

WORKER_READY: Final = 0
"""The worker says that it serves."""
WORKER_STOPS: Final = 1
"""The worker says that it stops, without an order: others can tell it to."""
TIME_UP: Final = 2
"""The time for the phase has passed."""
RETIRE: Final = 3
"""The supervisor wants its end. A worker that serves nobody yet is killed for that."""
KILL: Final = 4
"""The supervisor wants its end at once."""
EXIT: Final = 5
"""The process has ended."""
ABANDON: Final = 6
"""The supervisor ends, and the kernel does not end a process that was killed."""

INPUTS: Final = ("WORKER_READY", "WORKER_STOPS", "TIME_UP", "RETIRE", "KILL", "EXIT", "ABANDON")
"""Names, by number."""

# (phase, input) -> the next phase.
NEXT: Final = {
    (STARTING, WORKER_READY): READY,
    (STARTING, TIME_UP): OVERDUE,
    (STARTING, RETIRE): KILLED,
    (STARTING, KILL): KILLED,
    (STARTING, EXIT): GONE,
    (OVERDUE, RETIRE): KILLED,
    (OVERDUE, KILL): KILLED,
    (OVERDUE, EXIT): GONE,
    (READY, WORKER_STOPS): RETIRING,
    (READY, TIME_UP): SETTLED,
    (READY, RETIRE): RETIRING,
    (READY, KILL): KILLED,
    (READY, EXIT): GONE,
    (SETTLED, WORKER_STOPS): RETIRING,
    (SETTLED, RETIRE): RETIRING,
    (SETTLED, KILL): KILLED,
    (SETTLED, EXIT): GONE,
    (RETIRING, TIME_UP): KILLED,
    (RETIRING, KILL): KILLED,
    (RETIRING, EXIT): GONE,
    (KILLED, KILL): KILLED,
    (KILLED, EXIT): GONE,
    (KILLED, ABANDON): GONE,
}
