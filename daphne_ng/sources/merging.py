"""Flags win over variables, variables over the file, the file over the defaults."""

from __future__ import annotations

import argparse
import copy
import difflib
import logging
import os
import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.names import PREFIX, RESERVED, Name, names
from daphne_ng.sources.reading import FileValues, Passed, find_project, read_file
from daphne_ng.sources.values import from_text, from_toml

__all__ = ["FILE_VARIABLE", "PASSED_VARIABLE", "Sources"]

logger = logging.getLogger("daphne_ng.sources")

FILE_VARIABLE = f"{PREFIX}CONFIG"
"""Names the file, where no flag does."""
PASSED_VARIABLE = f"{PREFIX}SETTINGS"
"""What a supervisor tells its workers of the file; see `Passed`."""

# Kubernetes describes every Service to every container: DAPHNE_NG_PORT=tcp://10.0.0.1:80 for one called daphne-ng.
_LINK = re.compile(
    rf"{PREFIX}(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://", re.ASCII)


class _Unset(list[Any]):
    """Stands where no flag has put anything; argparse copies it for options that are repeated."""


class Sources:
    """All that is said about the settings outside of Python, and where.

    Args:
        parser: Has every option.
        args: The flags.
        environment: The variables. `PASSED_VARIABLE` is taken out of it, since no child of the application is a worker.
        is_worker: Whether a supervisor has said what the file holds.

    Raises:
        ConfigurationError: The file cannot be read.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        args: Sequence[str],
        environment: MutableMapping[str, str] = os.environ,
        is_worker: bool = False,
    ) -> None:
        self._parser = parser
        self._args = list(args)
        self._environment: Mapping[str, str] = environment
        self.flags = parser.parse_args(self._args)
        """The options by flags and defaults alone."""
        self._given = self._given_flags()
        passed = environment.pop(PASSED_VARIABLE, None)
        self._passed = Passed.from_text(passed) if passed is not None and is_worker else None
        self.named = self._path()
        self.file = self._passed.file if self._passed is not None else self._read()
        self.origins: dict[str, str] = {}
        """By the option's attribute, where its value is from; what has its default is not there."""
        self.mistakes: list[ConfigurationError] = []
        """What is wrong with single values, each with its place."""
        self.hints: list[str] = []
        """What is ignored, to be logged."""
        self.options = self._merge()
        """The options with everything in its place."""

    def with_file(self, file: FileValues) -> Sources:
        """Return the same with another reading of the file."""
        other = copy.copy(self)
        other.file = file
        other.origins, other.mistakes, other.hints = {}, [], []
        other.flags = self._parser.parse_args(self._args)
        other.options = other._merge()
        return other

    def read_again(self) -> FileValues:
        """Read the file as it is now.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return self._read()

    def passed(self) -> str:
        """Return what a worker is told."""
        return Passed(self.file).to_text()

    def raise_first(self) -> None:
        """Raise the first mistake, if there is one, and say how many more there are."""
        if self.mistakes:
            more = len(self.mistakes) - 1
            raise ConfigurationError(f"{self.mistakes[0]}{f' (and {more} more: see --check-config)' if more else ''}")

    def explained(self, error: ConfigurationError, dests: Sequence[str] = ()) -> str:
        """Return an error's message, with the origins of the settings that it is about, if not all are flags."""
        about = [dest for dest in dests or error.settings if dest in self.origins]
        if all(self.origins[dest] == "flag" for dest in about):
            return str(error)
        by_dest = {name.dest: name.key for name in names().values()}
        return f"{error} ({'; '.join(f'{by_dest[dest]}: {self.origins[dest]}' for dest in about)})"

    # -- what was given ----------------------------------------------------------------------------------------

    def _given_flags(self) -> frozenset[str]:
        empty = Namespace(**{action.dest: _Unset() for action in self._parser._actions})
        parsed = vars(self._parser.parse_args(self._args, empty))
        given = {dest for dest, value in parsed.items() if not (isinstance(value, _Unset) and not value)}
        return frozenset(given if parsed.get("application") is not None else given - {"application"})

    def _path(self) -> str | None:
        if getattr(self.flags, "config_file", None):
            return str(self.flags.config_file)
        return self._environment.get(FILE_VARIABLE) or None

    def _read(self) -> FileValues:
        if self.named is not None:
            return read_file(self.named)
        project = find_project()
        return FileValues() if project is None else read_file(project, found=True)

    # -- together ----------------------------------------------------------------------------------------------

    def _merge(self) -> Namespace:
        options = self.flags
        known = names()
        variables = self._variables(known) if self._passed is None or self._passed.variables else {}
        for key in self.file.values:
            if key not in known:
                self.mistakes.append(_error(self.file.origin(key), key, f"is no setting{_remedy(key)}"))
        for key, name in known.items():
            if name.dest in self._given:
                self.origins[name.dest] = "flag"
                continue
            try:
                if key in variables:
                    origin, place = f"variable {name.variable}", name.variable
                    value = from_text(name, variables[key])
                elif key in self.file.values:
                    origin = place = self.file.origin(key)
                    value = from_toml(name, self.file.values[key])
                else:
                    continue
                self._check(name, value)
            except (ValueError, ArgumentTypeError, ConfigurationError) as error:
                self.mistakes.append(_error(place, "" if place == name.variable else key, str(error)))
                continue
            self.origins[name.dest] = origin
            setattr(options, name.dest, value)
            if name.every:
                setattr(options, name.every, value)
                setattr(options, name.dest, value[-1] if value else None)
        if options.access_log and options.access_log_logger:
            both = ConfigurationError("access_log and access_log_logger exclude each other")
            self.mistakes.append(ConfigurationError(self.explained(both, ("access_log", "access_log_logger"))))
        return options

    def _variables(self, known: Mapping[str, Name]) -> dict[str, str]:
        found: dict[str, str] = {}
        links: list[str] = []
        for variable, text in sorted(self._environment.items()):
            if not variable.startswith(PREFIX) or variable in RESERVED:
                continue
            key = variable.removeprefix(PREFIX).lower()
            if _LINK.fullmatch(variable) or (variable.endswith("PORT") and _LINK_VALUE.match(text)):
                links.append(variable)
            elif key in known and known[key].variable == variable:
                found[key] = text
            else:
                close = difflib.get_close_matches(variable, [name.variable for name in known.values()], n=1)
                self.hints.append(f"{variable} is no setting and is ignored{f'; is it {close[0]}?' if close else ''}")
        if links:
            self.hints.append(
                f"{links[0]} is a link to a Service of Kubernetes, and no setting: it is ignored"
                f"{f', as {len(links) - 1} more are' if links[1:] else ''} (enableServiceLinks: false leaves them out)"
            )
        return found

    def _check(self, name: Name, value: Any) -> None:
        if name.setting is None or name.dest == "root_path":  # which is decoded first
            return
        try:
            name.setting.checked(tuple(value) if isinstance(value, list) else value)
        except ConfigurationError as error:
            # The place comes first, and the key stands there already.
            raise ConfigurationError(str(error).removeprefix(name.setting.label).removeprefix(":").strip()) from None


def _error(place: str, key: str, message: str) -> ConfigurationError:
    return ConfigurationError(f"{place}: {key}: {message}" if key else f"{place}: {message}")


def _remedy(key: str) -> str:
    known = names()
    flag = "--" + key.replace("_", "-")
    for name in known.values():
        if flag == name.flag or (name.setting is not None and flag in name.setting.flags):
            return f"; the key of {flag} is {name.key}"
    close = difflib.get_close_matches(key, known, n=1)
    return f"; is it {close[0]}?" if close else ""
