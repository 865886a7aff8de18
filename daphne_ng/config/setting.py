"""The description of a setting, and the check of its value."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from daphne_ng.errors import ConfigurationError

__all__ = ["TOKEN", "Setting", "SettingGroup", "setting"]

T = TypeVar("T")

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""The name of a header field (RFC 9110 section 5.6.2)."""

# The kind of a setting whose description names none, by its default.
_KINDS = {bool: "switch", int: "int", float: "float"}

# The types of a value that is no number, and the messages' word for them.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "flag": ((bool,), "True or False"),
    "no-flag": ((bool,), "True or False"),
    "switch": ((bool,), "True or False"),
    "headers": ((tuple, list), "a list"),
    "texts": ((tuple, list), "a list"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of a field of `Config`."""

    default: Any
    """The value of a `Config` that names no other."""
    help: str
    """One sentence for ``--help``, without the default."""
    name: str = ""
    """The field's name, which `SettingGroup` fills in."""
    group: str = ""
    """Heading under which ``--help`` and the reference list it, which `SettingGroup` fills in."""
    why: str = ""
    """Why the default is what it is; for the reference page."""
    unit: str = ""
    """``seconds``, ``bytes``, or empty for a count or a text."""
    flags: tuple[str, ...] = ()
    """Command line spellings, the first one canonical."""
    set_by: str = ""
    """The option that sets it among others, where it has no flag of its own."""
    choices: tuple[str, ...] = ()
    """The values allowed, if they can be listed."""
    minimum: float | None = None
    """The least value allowed."""
    maximum: float | None = None
    """The greatest value allowed."""
    zero: str = "no limit"
    """The meaning of 0, for a time that may be 0."""
    kind: str = ""
    """``int``, ``float``, ``str``, ``flag`` (true), ``no-flag`` (false), ``switch`` (``--x`` and ``--no-x``),
    ``headers``, ``texts`` (repeated), or ``any`` for a text that `check` alone looks at; `setting` asks the default."""
    process_wide: bool = False
    """Whether the command line and `daphne_ng.run` alone see to it, and a `Server` by itself refuses it."""
    check: Callable[[str, Any], None] | None = None
    """Called with the label and a value that has passed every other check; raises `ConfigurationError`."""
    keep: Callable[[Any], Any] | None = None
    """Makes of a checked value the one spelling that is kept."""

    @property
    def label(self) -> str:
        """The setting's name in messages: its flag, or the field if it has none."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.set_by or self.name)

    def checked(self, value: Any) -> Any:
        """Return the value as a `Config` keeps it.

        Raises:
            ConfigurationError: Names the setting (by its flag where it has one) and the rule.
        """
        if self.kind in ("int", "float"):
            # None is off, as Daphne's `Server` has it for some; a number with a greatest value has no off.
            if value is not None or self.maximum is not None:
                self._check_number(value)
        elif self.kind in _TYPES:
            # Another type may work in part: a text in place of a list would be taken for its letters. False is none,
            # as for the parser of Daphne, where none is the default.
            wanted, called = _TYPES[self.kind]
            if not isinstance(value, wanted) and (value or self.default is not None):
                raise ConfigurationError(f"{self.label} must be {called}, not {value!r}")
        if isinstance(value, list):
            value = tuple(value)
        if self.choices and value not in self.choices:
            raise ConfigurationError(f"{self.label} must be one of {', '.join(self.choices)}, not {value!r}")
        if self.check is not None:
            self.check(self.label, value)
        return value if self.keep is None else self.keep(value)

    def _check_number(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"{self.label} must be a number, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"{self.label} must be a finite number, not {value!r}")
        if self.minimum is not None and value < self.minimum:
            raise ConfigurationError(f"{self.label} must be at least {self.minimum:g}, not {value:g}")
        if self.maximum is not None and value > self.maximum:
            raise ConfigurationError(f"{self.label} must be at most {self.maximum:g}")


class SettingGroup:
    """The settings under one heading, as data: `Config` takes its fields from the groups by name."""

    def __init_subclass__(cls, heading: str) -> None:
        for name, entry in vars(cls).items():
            if isinstance(entry, dataclasses.Field):
                known = dataclasses.replace(entry.metadata["setting"], name=name, group=heading)
                entry.metadata = MappingProxyType({"setting": known})


def setting(default: T, help: str, *, kind: str = "", **more: Any) -> T:
    """Return a dataclass field with this default, and a `Setting` made of the rest.

    Type checkers take it for the default, as they do with `dataclasses.field`.
    """
    known = Setting(default, help, kind=kind or _KINDS.get(type(default), "str"), **more)
    described: T = field(default=default, metadata={"setting": known})
    return described
