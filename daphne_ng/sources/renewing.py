"""The file read again while the server runs: what new workers get of it, and what only a restart changes."""

from __future__ import annotations

from typing import Final

from daphne_ng.sources.merging import Sources
from daphne_ng.sources.names import names
from daphne_ng.sources.reading import FileValues

__all__ = ["FIXED", "renewed"]

FIXED: Final = (
    "port",
    "bind",
    "unix_socket",
    "fd",
    "endpoint",
    "workers",
    "limit_workers",
    "reload",
    "reload_dirs",
    "reload_includes",
    "reload_excludes",
    "pid_file",
    "user",
    "group",
    "backlog",
    "reuse_port",
    "unix_socket_mode",
    "unix_socket_owner",
)
"""Keys of what the supervisor has done once: sockets, processes, identity."""


def renewed(old: Sources) -> tuple[Sources, list[str]]:
    """Read the file again.

    Returns:
        The settings for new workers, in which what is fixed is as before; and the keys that the file would change.

    Raises:
        ConfigurationError: The file cannot be read, or holds a mistake.
    """
    file = old.read_again()
    wanted = old.with_file(file)
    wanted.raise_first()
    known = names()
    changed = []
    values = dict(file.values)
    for key in FIXED:
        dest = known[key].every or known[key].dest
        if getattr(wanted.options, dest, None) != getattr(old.options, dest, None):
            changed.append(key)
        values.pop(key, None)
        if key in old.file.values:
            values[key] = old.file.values[key]
    return old.with_file(FileValues(file.path or old.file.path, values, file.lines)), changed
