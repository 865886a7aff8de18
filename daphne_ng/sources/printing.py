"""``--print-config`` and ``--print-completion``: the settings with their origins, and what shells are told."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.merging import Sources
from daphne_ng.sources.names import Name, names

__all__ = ["SHELLS", "completion", "printed"]

SHELLS: Final = ("bash", "zsh", "fish")

# Fields of responses whose values are not for everybody who sees a screen.
_SECRET: Final = re.compile(r"auth|cookie|key|pass|secret|token", re.IGNORECASE)
# Written out, it would not follow the other any more.
_FOLLOWS: Final = {"websocket_handshake_timeout": "websocket_connect_timeout"}


def printed(sources: Sources) -> str:
    """Return every setting as TOML that can be read again, each with its origin in a comment."""
    return "".join(f"{line}\n" for line in _lines(sources))


def _lines(sources: Sources) -> Iterator[str]:
    heading = ""
    known = names()
    titles = list(dict.fromkeys(map(_title, known.values())))
    for key, name in sorted(known.items(), key=lambda one: titles.index(_title(one[1]))):
        title = _title(name)
        if title != heading:
            yield f"\n# {title}" if heading else f"# {title}"
            heading = title
        origin = sources.origins.get(name.dest)
        value = _value(sources, name)
        if origin is None and (value is None or name.is_list or key in _FOLLOWS):
            shown = f" = {_toml(name, value)}" if value else ""
            remark = f": as {_FOLLOWS[key]}" if key in _FOLLOWS else "" if shown else ": none"
            yield f"# {key}{shown}  # default{remark}"
        elif _is_secret(name, value):
            yield f"# {key} is left out: it may hold a secret  # {origin}"
        else:
            text = _toml(name, value)
            # A path that is no text in the system's encoding has no spelling in TOML.
            lead = "# cannot be written as TOML: " if re.search("[\ud800-\udfff]", text) else ""
            place = _one_line(origin or "default")
            yield f"{lead}{key} = {text}  # {place}".encode("utf-8", "backslashreplace").decode()


def _title(name: Name) -> str:
    return name.setting.group if name.setting is not None else "Command line"


def _value(sources: Sources, name: Name) -> Any:
    options = sources.options
    if name.every:
        last = getattr(options, name.dest)
        return getattr(options, name.every, None) or ([] if last in (None, "") else [last])
    default = name.setting.default if name.setting is not None else None
    value = getattr(options, name.dest, default)
    return None if value is False and name.kind != "switch" else value


def _is_secret(name: Name, value: Any) -> bool:
    return name.kind == "headers" and any(_SECRET.search(field.decode("latin-1")) for field, _ in value)


def _toml(name: Name, value: Any) -> str:
    if name.kind == "headers":
        value = [f"{field.decode('latin-1')}: {content.decode('latin-1')}" for field, content in value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that completes the options in a shell.

    Raises:
        ConfigurationError: What makes it is not installed, or is too old for that shell.
    """
    try:
        import shtab
    except ImportError:
        raise ConfigurationError("--print-completion needs shtab: pip install 'daphne-ng[completion]'") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise ConfigurationError(f"--print-completion: this shtab knows {', '.join(shtab.SUPPORTED_SHELLS)} only")
    return str(shtab.complete(parser, shell))
