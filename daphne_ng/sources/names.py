"""The names of a setting: its flag, its variable and its key, by one rule.

The key in a file is the name of the field, with ``_`` or ``-``. The variable is ``DAPHNE_NG_`` and the key in capitals.
The flag is ``--`` and the key with ``-``; where a flag had another name before the rule, it has both. What is no field
of `Config` (where to listen, what to log, which application) has the key of its flag.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from daphne_ng.config import Setting, settings
from daphne_ng.serving.logconfig import LEVELS

__all__ = ["PREFIX", "RESERVED", "Name", "names", "ruled_flag"]

PREFIX: Final = "DAPHNE_NG_"

RESERVED: Final = frozenset(
    PREFIX + name
    for name in (
        "CONFIG",
        "COMPILE",
        "PURE",
        "INSTALL_AS_DAPHNE",
        "INSTALL_REACTOR",
        "SETTINGS",
        "TEST_OPTIONS",
        "WORKER",
    )
)
"""Variables that are no settings: the file's name, the build's, Django's, and those between supervisor and workers."""

# The file with the password of a key: under the name of the field somebody would write the password itself.
_OTHER_KEYS = {"ssl_keyfile_password": "ssl_keyfile_password_file"}
_KINDS = {"flag": "switch", "no-flag": "switch"}
# Lists that may be written as a table, and what stands between name and value otherwise.
_TABLES = {"static": "=", "headers": ":"}


@dataclass(frozen=True, slots=True)
class Name:
    """One setting or option of the command line, as files and variables know it."""

    key: str
    """In the file, with ``_``."""
    dest: str
    """Attribute of the parsed options."""
    kind: str
    """``str``, ``int``, ``float``, ``switch``, ``texts``, ``numbers``, ``headers``, or ``any``, a number or a text."""
    flag: str
    """The long flag that ``--help`` shows, or the one that the rule makes."""
    unit: str = ""
    choices: tuple[str, ...] = ()
    every: str = ""
    """Attribute that has all values, where `dest` has the last one alone."""
    table: str = ""
    """What stands between the two halves of an item, if the list may be a table."""
    help: str = ""
    setting: Setting | None = None

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return PREFIX + self.key.upper()

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times."""
        return self.kind in ("texts", "numbers", "headers")


_OPTIONS = (
    Name("application", "application", "str", "", help="the ASGI application, as package.module:name"),
    Name("factory", "factory", "switch", "--factory", help="the name stands for a function that makes the application"),
    Name("app_dir", "app_dirs", "texts", "--app-dir", help="directories to import the application from"),
    Name("env_file", "env_file", "str", "--env-file", help="file of variables for the application"),
    Name("port", "port", "int", "--port", help="TCP port to listen on"),
    Name("bind", "host", "texts", "--bind", every="hosts", help="addresses to listen on"),
    Name("unix_socket", "unix_socket", "texts", "--unix-socket", every="unix_sockets", help="UNIX sockets to create"),
    Name("fd", "file_descriptor", "numbers", "--fd", every="file_descriptors", help="inherited listening sockets"),
    Name("endpoint", "socket_strings", "texts", "--endpoint", help="Twisted server endpoint strings"),
    Name("verbosity", "verbosity", "int", "--verbosity", help="0 for warnings to 3 for asyncio's debug mode too"),
    Name("log_level", "log_level", "str", "--log-level", choices=tuple(LEVELS), help="level of the log"),
    Name("log_fmt", "log_fmt", "str", "--log-fmt", help="format of the log, as Python's logging takes it"),
    Name("access_log", "access_log", "str", "--access-log", help="file of the access log, - for standard output"),
    Name("access_log_logger", "access_log_logger", "switch", "--access-log-logger", help="access log through logging"),
    Name("proxy_headers", "proxy_headers", "switch", "--proxy-headers", help="believe X-Forwarded-* of trusted peers"),
    Name("proxy_headers_host", "proxy_headers_host", "str", "--proxy-headers-host", help="header of the address"),
    Name("proxy_headers_port", "proxy_headers_port", "str", "--proxy-headers-port", help="header of the port"),
)


@functools.cache
def names() -> dict[str, Name]:
    """Return every name by its key, in the order of ``--print-config``."""
    found = {name.key: name for name in _OPTIONS}
    for field, known in settings():
        key = _OTHER_KEYS.get(field, field)
        found[key] = Name(
            key,
            field,
            _KINDS.get(known.kind, known.kind),
            next((flag for flag in known.flags if flag.startswith("--")), ruled_flag(field)),
            known.unit,
            known.choices,
            table=_TABLES.get(field, ""),
            help=known.help,
            setting=known,
        )
    return found


def ruled_flag(field: str) -> str:
    """Return the flag that the rule makes of a field."""
    return "--" + _OTHER_KEYS.get(field, field).replace("_", "-")
