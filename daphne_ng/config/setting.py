"""What is known of a setting besides its name, type and default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daphne_ng.errors import ConfigurationError

__all__ = ["Setting", "check_type", "label_of", "setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a field besides its name, type and default."""

    group: str
    """Heading under which ``--help`` and the reference list it."""
    help: str
    """One sentence for ``--help``, without the default."""
    why: str = ""
    """Why the default is what it is; for the reference page."""
    unit: str = ""
    """``seconds``, ``bytes``, or empty for a count or a text."""
    flags: tuple[str, ...] = ()
    """Command line spellings, the first one canonical."""
    choices: tuple[str, ...] = ()
    """The values allowed, if they can be listed."""
    minimum: float | None = None
    """The least value allowed."""
    kind: str = "auto"
    """``int``, ``float``, ``str``, ``flag`` (true), ``no-flag`` (false), ``switch`` (``--x`` and ``--no-x``),
    ``headers``, ``texts`` (repeated); ``auto`` asks the default."""


def setting(default: Any, group: str, help: str, *, flags: tuple[str, ...] = (), **more: Any) -> Any:
    """Return a dataclass field with this default, and a `Setting` made of the rest."""
    return field(default=default, metadata={"setting": Setting(group=group, help=help, flags=flags, **more)})


def label_of(name: str, known: Setting) -> str:
    """Return what messages call a setting: its flag, or its name if it has none."""
    return next((flag for flag in known.flags if flag.startswith("--")), name)


def check_type(label: str, value: Any, wanted: type) -> None:
    """Check a value by the type of its default; numbers are not looked at.

    Raises:
        ConfigurationError: It is another: a text in place of a list, for instance, would be taken for its letters.
    """
    if wanted is str and not isinstance(value, str):
        raise ConfigurationError(f"{label} must be text, not {value!r}")
    if wanted is bool and not isinstance(value, bool):
        raise ConfigurationError(f"{label} must be True or False, not {value!r}")
    if wanted is tuple and not isinstance(value, tuple | list):
        raise ConfigurationError(f"{label} must be a list, not {value!r}")
