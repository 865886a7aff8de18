"""How new code takes over under ``--reload``: beside the old, or after it.

Beside it as a rule, so that there is always one that answers. An application may hold what one process alone can: a
port, a lock, the file of a database. Its new code fails as long as the old one runs. Then the old one ends, and the new
one starts once more, *alone*. Clients wait meanwhile, since the sockets are the supervisor's. Code that has started
alone and not beside the old is *exclusive*: from then on the old one ends first. Code that fails alone too *waits* for
the next change.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["Reloading", "is_codes_own"]

# Exceptions that no other process can have caused.
_OWN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    SyntaxError,
    TypeError,
)


def is_codes_own(error: BaseException, ours: type[BaseException]) -> bool:
    """Tell whether an application would fail in the same way if no other process ran.

    What is no sure sign of that, such as an `OSError` or an exception of some library, tells nothing.

    Args:
        error: What was raised, with all that it was raised from.
        ours: The class of the server's own errors, which only report others.
    """
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    return all(isinstance(one, (ours, *_OWN)) for one in chain)


class Reloading:
    """What the supervisor knows of the code's last start."""

    def __init__(self) -> None:
        self.alone = False
        """Whether the next one starts when all others have ended, or has done so and is not ready yet."""
        self.waits = False
        """Whether nothing starts before the next change."""
        self.exclusive = False
        """Whether the old one has to end first."""
        self._failed_beside = False

    def begin(self) -> None:
        """Take note that there is new code, or that a start is asked for."""
        # Where nobody is left to go on, there is nobody to start beside.
        self.alone = self.alone or self.waits
        self.waits = self._failed_beside = False

    def go_alone(self) -> None:
        """Have the old one end first; it is told by the caller."""
        self._failed_beside = not self.exclusive
        self.alone = True

    def succeeded(self) -> None:
        """Take note that a worker is ready."""
        self.exclusive = self.exclusive or (self.alone and self._failed_beside)
        self.alone = self.waits = self._failed_beside = False

    def failed(self) -> None:
        """Take note that one has failed with nobody beside it."""
        self.alone = self._failed_beside = False
        self.waits = True

    def holds(self, workers: Collection[object]) -> bool:
        """Tell whether no worker is to be started now."""
        return self.waits or (self.alone and bool(workers))
