"""The settings of files that the server answers by itself."""

from __future__ import annotations

import re
from typing import Final

from daphne_ng.config.setting import SettingGroup, setting
from daphne_ng.errors import ConfigurationError

__all__ = ["ACME_PREFIX", "HASHED_NAMES", "StaticSettings", "split_mount"]

ACME_PREFIX: Final = "/.well-known/acme-challenge"
"""Below it a certificate authority asks for proofs (RFC 8555 section 8.3), and no file of ours may answer."""

HASHED_NAMES: Final = {
    "django": r"\.[0-9a-f]{12}\.[^/]+$|\.[0-9a-f]{12}$",
    "vite": r"/assets/[^/]+-[A-Za-z0-9_-]{8}\.[^/]+$",
    "webpack": r"[.-](?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,64}\.[^/]+$",
}
"""By the tool that makes them, which paths hold a hash of what is in the file.

Django's ManifestStaticFilesStorage takes twelve hexadecimal digits. Vite takes eight characters, which words may have
too, and so only in the directory that it makes. Of webpack's digits one has to be a letter, since a date has none.
"""


def split_mount(text: str) -> tuple[str, str]:
    """Split ``PREFIX=DIRECTORY``; the prefix ``/`` becomes the empty one.

    Raises:
        ConfigurationError: One of both is missing.
    """
    prefix, _, directory = text.partition("=")
    if not prefix or not directory:
        raise ConfigurationError(f"--static takes PREFIX=DIRECTORY, such as /static=/srv/static, not {text!r}")
    return prefix.rstrip("/"), directory


def _check_mounts(label: str, value: tuple[str, ...]) -> None:
    directories: dict[str, str] = {}
    for text in value:
        if not isinstance(text, str):
            raise ConfigurationError(f"{label} takes texts, not {text!r}")
        prefix, directory = split_mount(text)
        if text[0] != "/":
            raise ConfigurationError(f"{label}: the prefix of {text!r} must begin with a slash")
        if re.search(r"[\x00-\x1f\x7f\\%?#]|//|/\.{1,2}(/|$)", prefix) or "\0" in directory:
            raise ConfigurationError(
                f"{label}: the prefix of {text!r} must be a plain path, decoded, without empty and dot segments"
            )
        if prefix == ACME_PREFIX or prefix.startswith(f"{ACME_PREFIX}/"):
            raise ConfigurationError(f"{label}: the proofs of automatic certificates are served at {ACME_PREFIX}")
        if prefix in directories:
            raise ConfigurationError(
                f"{label}: the prefix {prefix or '/'} is given twice, for {directories[prefix]} and {directory}"
            )
        directories[prefix] = directory


def _check_index(label: str, value: str) -> None:
    if "/" in value or value.startswith(".") or "\0" in value:
        raise ConfigurationError(f"{label} must be the name of a file, such as index.html, not {value!r}")


def _check_hashed(label: str, value: tuple[str, ...]) -> None:
    for text in value:
        try:
            re.compile(HASHED_NAMES.get(text, text))
        except (re.error, TypeError) as error:
            raise ConfigurationError(f"{label}: {text!r} is no regular expression: {error}") from None


class StaticSettings(SettingGroup, heading="Static files"):
    """Files that the server answers by itself, before the application is asked."""

    static: tuple[str, ...] = setting(
        (),
        "serve the files of a directory below a path, before the application and without its authentication: "
        "PREFIX=DIRECTORY, such as /static=/srv/static; may be repeated",
        flags=("--static",),
        kind="texts",
        check=_check_mounts,
        why="[How to serve static files](../how-to/static-files.md) has the order of who answers.",
    )
    static_index = setting(
        "",
        "name of the file that stands for its directory, such as index.html",
        flags=("--static-index",),
        check=_check_index,
        why="An application often has pages of its own at such paths.",
    )
    static_not_found = setting(
        False,
        "answer 404 where there is no file; without it the application is asked",
        flags=("--static-404",),
        kind="flag",
    )
    static_follow_symlinks = setting(
        False,
        "follow symbolic links that lead out of the directory too",
        flags=("--static-follow-symlinks",),
        kind="flag",
        why="Links within the directory are always followed. One that leads out may show what nobody meant to publish.",
    )
    static_immutable: tuple[str, ...] = setting(
        (),
        "let caches keep files with a hash in their names for a year: django, vite, webpack, or a regular expression "
        "that finds such a path; may be repeated",
        flags=("--static-immutable",),
        kind="texts",
        check=_check_hashed,
        why="Nothing but the project's tools knows which names never stand for anything else.",
    )
    static_max_age: int | None = setting(
        None,
        "let caches keep all other files for so long; without it no Cache-Control is sent",
        flags=("--static-max-age",),
        unit="seconds",
        minimum=0,
        maximum=None,
        zero="to ask each time",
        kind="int",
        why="nginx sends none either.",
    )
    static_max_ranges = setting(
        16,
        "most ranges of a request; one that asks for more, or for more bytes than the file has, gets the whole file",
        minimum=1,
        why="Readers of PDF files ask for a few. RFC 9110 section 14.2 lets a server ignore what looks like an attack.",
    )
    static_cache_bytes = setting(
        16 * 1024 * 1024,
        "most bytes of small files that are kept in memory",
        unit="bytes",
        minimum=0,
        why="The admin of Django has 3 MiB.",
    )
    static_cache_file_bytes = setting(
        256 * 1024,
        "largest file that is kept in memory",
        unit="bytes",
        minimum=0,
        why="From memory a file of 100 KB takes a tenth of what it takes from the disk, by way of the threads.",
    )
    static_cache_seconds = setting(
        1.0,
        "how long a file in memory is sent without a look at the disk",
        unit="seconds",
        minimum=0,
        zero="a look for each request",
        why="A file that many ask for is looked up once a second. With --reload it is looked up for each request.",
    )
    static_threads = setting(
        4,
        "threads that look up and read files",
        minimum=1,
        why="A disk that is slow then keeps the event loop waiting for nothing.",
    )
