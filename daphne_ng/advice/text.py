"""What a line of anything but Python becomes: commands, requirements, logging configuration.

A command is a word at a place where a command may stand, followed by what Daphne takes: an option or an application.
A word that is only spelt like it is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["WORD", "Advice", "advise", "code_of", "command", "logger", "requirement"]

WORD = re.compile(r"(?<![\w-])daphne(?![\w-])")


@dataclass(frozen=True)
class Advice:
    """What to do about one line.

    Args:
        lines: What it becomes; none if that is for somebody to decide, or if the line goes.
        notes: What there is to say.
        requirement: It is about what is installed.
    """

    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    requirement: bool = False


# -- loggers --------------------------------------------------------------------------------------------------

_LOGGERS = {
    "daphne": "daphne_ng",
    "daphne.server": "daphne_ng.server",
    "daphne.cli": "daphne_ng.cli",
    "daphne.access": "daphne_ng.access",
}
_PROTOCOLS = ("daphne.http_protocol", "daphne.ws_protocol")


def logger(name: str) -> tuple[str | None, str | None]:
    """Return what a logger of Daphne is called here, and a note; the name is None if there is none like it."""
    ours = _LOGGERS.get(name)
    if name == "daphne.access":
        return ours, "Gets the access log with --access-log-logger. Daphne never used a logger for it."
    if ours:
        return ours, None
    if name in _PROTOCOLS:
        return None, (
            "Take this entry out: daphne-ng has no such logger. Refused requests, closed WebSockets and errors of the "
            "application are lines of daphne_ng.server."
        )
    return None, "Take this entry out: neither Daphne nor daphne-ng has a logger of this name."


# -- requirements -----------------------------------------------------------------------------------------------

_SPECIFIER = r"(?:\s*(?:[=<>~!]=?=?|@)\s*[^\s\"';#,\\]+(?:\s*,\s*[=<>~!]=?[^\s\"';#,\\]+)*)?"
_REQUIREMENT = re.compile(
    rf"(?P<name>[A-Za-z][\w.-]*?)\s*(?:\[(?P<extras>[\w\s,.-]*)\])?(?P<version>{_SPECIFIER})(?P<rest>\s*;.*)?"
)
_ONLY_FOR_DAPHNE = "May go: daphne-ng brings Twisted, TLS and HTTP/2 itself. It does no harm either."


def requirement(text: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return what a requirement becomes, and notes; None if it need not change.

    Args:
        text: Such as ``channels[daphne]>=4``, without quotes around it.
    """
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        return None
    name = match["name"].lower().replace("_", "-")
    extras = [extra.strip() for extra in (match["extras"] or "").split(",") if extra.strip()]
    version, rest = match["version"] or "", match["rest"] or ""
    if name == "daphne":
        return (f"daphne-ng{rest}",), ()
    if name == "channels" and "daphne" in extras:
        kept = [extra for extra in extras if extra != "daphne"]
        left = f"[{','.join(kept)}]" if kept else ""
        return (f"{match['name']}{left}{version}{rest}", f"daphne-ng{rest}"), ()
    if name == "twisted" and extras and set(extras) <= {"tls", "http2"}:
        old = _too_old(name, version)
        return (), (_ONLY_FOR_DAPHNE, old) if old else (_ONLY_FOR_DAPHNE,)
    note = _too_old(name, version)
    return ((), (note,)) if note else None


# A pin that was made with Daphne, mostly by `pip freeze`, may be below what daphne-ng needs.
def _too_old(name: str, version: str) -> str | None:
    pinned = re.fullmatch(r"===?(\d+(?:\.\d+)*)", version.replace(" ", ""))
    needed = _floors().get(name)
    if pinned is None or needed is None or _numbers(pinned[1]) >= _numbers(needed):
        return None
    return f"daphne-ng needs {name}>={needed}: raise the pin, or take the line out if only Daphne needed it."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@cache
def _floors() -> dict[str, str]:
    try:
        required = metadata.requires("daphne-ng") or []
    except metadata.PackageNotFoundError:  # run from a directory that was not installed
        return {}
    found = {}
    for line in required:
        if (match := re.match(r"([\w.-]+)>=(\d[\d.]*)", line)) and "extra ==" not in line:
            found[match[1].lower()] = match[2]
    return found


# -- commands -----------------------------------------------------------------------------------------------------

# The path before the program's name: nothing, or one that ends in a directory of programs or in a variable.
_PART = r"[^\s\"'`=,;|&()\[\]]*"
_BEFORE = rf"(?<![\w.@/\\{{}}$-])(?P<path>(?:{_PART}(?:bin|Scripts|[}}%])[/\\]|\{{\{{[^{{}}]*\}}\}}{_PART}[/\\])?)"
_APPLICATION = r"[\w.${}%()<>-]*[\w}>]:(?!//)[\w.${}]+"
# What follows Daphne's name in a command: an option or an application; in a list of words, after quotes and a comma.
_OPTION = r"-{1,2}[A-Za-z]"
_AFTER = rf"(?P<after>(?:\.exe)?[\"']?(?:\s*,\s*|\s+)\\?[\"']?(?:{_OPTION}|{_APPLICATION}))"
_COMMAND = re.compile(rf"{_BEFORE}daphne{_AFTER}")
_PROGRAM = re.compile(rf"(?P<path>(?:{_PART}[/\\])(?:bin|Scripts)[/\\])daphne(?P<after>(?:\.exe)?)(?![\w./\\-])")
_ALONE = re.compile(
    r"(?P<path>(?:^|&&|\|\||[;|&]|\bexec|\bthen|\bdo|\bcommand:|\bentrypoint:|\bwhich|\btype|\bcommand -v|\bkillall"
    r"|\bpidof|\bpgrep -x|\bpkill -x)\s*[\"']?)daphne(?P<after>[\"']?\s*(?:\\?$|[\"']?\$|[`)]|;|\|\||&&|>))"
)
# What takes the name of a service, a container or a file, whatever comes after that.
_NAMED_BY = re.compile(
    r"(?:(?<![\w-])(?:start|stop|restart|reload|status|enable|disable|is-active|is-enabled|mask|logs?|up|down|build|kill|rm|pull|ps"
    r"|service|mkdir|chown|chmod|cd|tail|useradd|groupadd|adduser|id|sudo -u|--name|--user|--group|-[uU])\s+)$"
)
_AS_MODULE = re.compile(r"(?P<path>(?<![\w-])-m[\"']?(?:\s*,\s*|\s+)[\"']?)daphne(?P<after>(?:[.\w]*)(?![\w-]))")
_IN_PYTHON = re.compile(
    r"(?P<path>\bimport\s+(?:\w[\w.]*\s*,\s*)*|\bfrom\s+)daphne(?P<after>(?:\.\w+)*(?=\s+import\b|\s*[;\"',)]|\s*$))"
)
_ATTRIBUTE = re.compile(r"(?<![\w.\"'])daphne(?=\.\w)")
_BUNDLED = re.compile(
    r"(?P<path>--(?:hidden-?import|collect-(?:all|submodules|data|binaries)|include-(?:package|module)"
    r"|include-package-data)[= ][\"']?)daphne(?P<after>(?:\.\w+)*)"
)
_JSON_MODULE = re.compile(r"(?P<path>\"module\"\s*:\s*\")daphne(?P<after>\")")
_INSTALL = re.compile(
    r"\b(?:pip[\d.]*|uv|pipenv|poetry|pdm|pipx|rye|hatch)\b[^&|;`]*?\b(?:install|add|inject)\b(?P<what>[^&|;`]*)"
)
_DISTRIBUTION = re.compile(
    r"\b(?:apt(?:-get)?|dnf|yum|apk|conda|mamba|brew)\b.*\b(?:install|add)\b.*(?<![\w.-])(?:python3-)?daphne(?![\w.-])"
)
_COMPARED = re.compile(r"(?<![\w-])(?:==?|!=)\s*\*?[\"']?\*?daphne\*?[\"']?(?=\s|\]|$)")
_DEBIAN = "A package of a distribution is Daphne: install daphne-ng with pip, as docs/how-to/install.md says."
_NAME_OF_PROGRAM = "The program's name is daphne-ng now."


def command(code: str) -> str:
    """Return a piece of text in which each command that starts Daphne starts daphne-ng."""

    def program(match: re.Match[str]) -> str:
        if _NAMED_BY.search(code[: match.start()]) and not match["path"]:
            return match[0]
        return f"{match['path']}daphne-ng{match['after']}"

    def module(match: re.Match[str]) -> str:
        return f"{match['path']}daphne_ng{match['after']}"

    changed = _AS_MODULE.sub(module, code)
    for pattern in (_COMMAND, _PROGRAM, _ALONE):
        changed = pattern.sub(program, changed)
        code = changed
    for pattern in (_BUNDLED, _JSON_MODULE):
        changed = pattern.sub(module, changed)
    if re.search(r"(?<![\w-])-c\s*[\"']", changed) and _IN_PYTHON.search(changed):
        changed = _ATTRIBUTE.sub("daphne_ng", _IN_PYTHON.sub(module, changed))
    return _INSTALL.sub(_installed, changed)


def _installed(match: re.Match[str]) -> str:
    words = []
    for word in re.split(r"(\s+)", match["what"]):
        bare = word.strip("\"'")
        quote = word[: len(word) - len(word.lstrip("\"'"))]
        changed = requirement(bare) if "daphne" in bare else None
        words.append(" ".join(f"{quote}{one}{quote}" for one in changed[0]) if changed else word)
    return match[0][: match.start("what") - match.start()] + "".join(words)


# -- files --------------------------------------------------------------------------------------------------------

_REQUIREMENTS = re.compile(
    r"(?i)(?:.*(?:requirements|constraints|\breqs?|\bdeps)[^/]*\.(?:txt|in|pip)|requirements/[^/]*\.(?:txt|in|pip))"
)
_OURS = r"(?:daphne|channels|[Tt]wisted|autobahn|py[Oo]pen[Ss][Ss][Ll])"
_QUOTED = re.compile(rf"""(["'])({_OURS}\s*[\[=<>~!@;][^"']*)\1""")
_LINE = re.compile(
    rf"^(?P<indent>\s*(?:- +)?)(?P<what>{_OURS}\s*(?:\[[\w, .-]*\])?\s*(?:[=<>~!]=|[<>])[^\"'{{}}:#;]*?(?:;[^#]*)?|"
    rf"{_OURS}\[[\w, .-]*\](?:\s*;[^#]*)?)(?P<end>\s*\\?)$"
)
_POETRY_DAPHNE = re.compile(r"^(?P<indent>\s*)[\"']?daphne[\"']?\s*=\s*(?P<value>[\"'{].*)$")
_POETRY_CHANNELS = re.compile(r"^\s*channels\s*=\s*\{.*\bextras\s*=\s*\[(?P<extras>[^\]]*)\]")
_SECTION = re.compile(r"^\s*\[+([^\]]+)\]+")
_DEPENDENCIES = re.compile(r"(?i)(?:.*\bdependencies|packages|dev-packages)$")
_GROUPS = ("dependency-groups", "project.optional-dependencies", "tool.pdm.dev-dependencies")
_LOGGER_KEY = re.compile(r"""^(?P<before>\s*["']?)(?P<name>daphne(?:\.\w+)*)(?P<after>["']?\s*:.*)$""")
_QUALNAME = re.compile(r"^(?P<before>\s*qualname\s*=\s*)(?P<name>daphne(?:\.\w+)*)(?P<after>\s*)$")
_KEY = re.compile(r"""^(\s*)(?:- )?["']?([\w.-]+)["']?\s*:""")
_MYPY = re.compile(r"^\s*\[mypy-daphne[.*]*\]|^\s*module\s*=.*[\"']daphne[.*\w]*[\"']")
_TYPED = "daphne-ng has types of its own: take this out, or name daphne_ng."


def code_of(line: str) -> str:
    """Return the line without a comment; empty if it is one."""
    if re.match(r"\s*(?:#|;|//|REM\b|rem\b|::|<!--)", line):
        return ""
    return re.split(r"\s#\s", line, maxsplit=1)[0]


def advise(text: str, path: Path) -> dict[int, Advice]:
    """Return what to do about the lines of a file, by their number from 1."""
    lines = text.splitlines()
    named = path.as_posix()
    requirements = _REQUIREMENTS.search(named) is not None
    conda = re.fullmatch(r"(?i)(?:conda|env|environment).*\.ya?ml", path.name) is not None
    toml = path.suffix == ".toml" or path.name == "Pipfile"
    found = {}
    section = ""
    for number, line in enumerate(lines, 1):
        code = code_of(line).rstrip()
        if toml and (header := _SECTION.match(code)):
            section = header[1]
        advice = (
            _required(code, requirements, conda, path.name == "setup.cfg")
            or (_in_toml(code, section or "packages") if toml else None)
            or _logged(lines, number - 1, code, path)
            or _told(code)
            or _commanded(lines, number - 1, code, path)
        )
        if advice is not None:
            comment = line.rstrip()[len(code) :]
            found[number] = Advice(
                tuple(one.strip() + (comment if not index else "") for index, one in enumerate(advice.lines)),
                advice.notes,
                advice.requirement,
            )
    return found


def _required(code: str, requirements: bool, conda: bool, setup: bool) -> Advice | None:
    if requirements or conda or (setup and re.fullmatch(r"\s+daphne", code)):
        bare = re.fullmatch(r"(\s*(?:- +)?)(.*?)(\s*\\?(?:\s--hash.*)?)", code)
        changed = requirement(_single(bare[2], conda)) if bare else None
        if changed is not None and bare is not None:
            hashed = bool(changed[0]) and ("--hash" in bare[3] or bare[3].endswith("\\"))
            said = (*changed[1], "Its hashes go with it.") if hashed else changed[1]
            return Advice(tuple(f"{bare[1]}{one}" for one in changed[0]), said, requirement=True)
    if match := _LINE.match(code):
        changed = requirement(match["what"])
        if changed is not None:
            lines = tuple(f"{match['indent']}{one}{match['end']}" for one in changed[0])
            return Advice(lines, changed[1], requirement=True)
    notes: list[str] = []

    def quoted(match: re.Match[str]) -> str:
        changed = requirement(match[2])
        if changed is None:
            return match[0]
        notes.extend(changed[1])
        return ", ".join(f"{match[1]}{one}{match[1]}" for one in changed[0]) or match[0]

    changed_code = _QUOTED.sub(quoted, code) if not _INSTALL.search(code) else code
    if changed_code != code or notes:
        return Advice((changed_code,) if changed_code != code else (), tuple(notes), requirement=True)
    return None


# conda pins with one equals sign.
def _single(text: str, conda: bool) -> str:
    return re.sub(r"(?<![=<>~!])=(?!=)", "==", text) if conda else text


def _in_toml(code: str, section: str) -> Advice | None:
    if _DEPENDENCIES.match(section):
        if match := _POETRY_DAPHNE.match(code):
            value = match["value"]
            value = re.sub(r"\bversion\s*=\s*([\"'])[^\"']*\1", 'version = "*"', value) if value[0] == "{" else '"*"'
            return Advice((f"{match['indent']}daphne-ng = {value}",), requirement=True)
        if (match := _POETRY_CHANNELS.match(code)) and "daphne" in match["extras"]:
            kept = [one for one in re.findall(r"[\w-]+", match["extras"]) if one != "daphne"]
            if kept:
                inside = ", ".join(f'"{one}"' for one in kept)
                changed = code[: match.start("extras")] + inside + code[match.end("extras") :]
            else:
                changed = re.sub(r"\bextras\s*=\s*\[[^\]]*\]\s*,?\s*", "", code)
                changed = re.sub(r",\s*\}", "}", changed)
                changed = re.sub(r"\{\s*version\s*=\s*([\"'][^\"']*[\"'])\s*\}", r"\1", changed)
            return Advice((changed, 'daphne-ng = "*"'), requirement=True)
    if section.startswith(("project", "dependency-groups", "build-system", "tool.")):
        listed = re.fullmatch(r"\s*(?:[\w-]+\s*=\s*\[.*)?[\"'].*", code)
        key = re.match(r"\s*([\w-]+)\s*=", code)
        wanted = key is None or "dependencies" in key[1] or section in _GROUPS
        if listed and wanted and (changed := re.sub(r"([\"'])daphne\1", r"\1daphne-ng\1", code)) != code:
            return Advice((changed,), requirement=True)
    return None


def _logged(lines: list[str], index: int, code: str, path: Path) -> Advice | None:
    match = _QUALNAME.match(code)
    if match is None and path.suffix in (".json", ".yml", ".yaml", ".toml", ".cfg", ".conf", ".j2"):
        match = _LOGGER_KEY.match(code)
        if match is not None and not _below_loggers(lines, index):
            match = None
    if match is None:
        return None
    ours, note = logger(match["name"])
    changed = (f"{match['before']}{ours}{match['after']}",) if ours else ()
    return Advice(changed, (note,) if note else ())


# Whether the next line above that is indented less is the key `loggers`.
def _below_loggers(lines: list[str], index: int) -> bool:
    depth = len(lines[index]) - len(lines[index].lstrip())
    for line in reversed(lines[:index]):
        match = _KEY.match(line)
        if match and len(match[1]) < depth:
            return match[2] == "loggers"
    return False


def _told(code: str) -> Advice | None:
    if _DISTRIBUTION.search(code) and not re.search(r"\bpip[\d.]*\b", code):
        return Advice(notes=(_DEBIAN,), requirement=True)
    if _MYPY.match(code):
        return Advice(notes=(_TYPED,))
    if _COMPARED.search(code) and "[" in code:
        return Advice(notes=(_NAME_OF_PROGRAM,))
    return None


def _commanded(lines: list[str], index: int, code: str, path: Path) -> Advice | None:
    if "daphne" not in code or code.strip() == "daphne" or re.match(r"\s*(?:Description|Documentation)\s*=", code):
        return None
    changed = command(code)
    if path.suffix == ".py":  # one that cannot be parsed
        changed = _IN_PYTHON.sub(lambda match: f"{match['path']}daphne_ng{match['after']}", changed)
    if changed == code and (match := re.fullmatch(r"(\s*-\s+[\"']?|\s*[\"'])daphne([\"']?,?)", code)):
        # One word on a line of its own: the first of a list whose second is an option or an application.
        following = next((line for line in lines[index + 1 :] if line.strip()), "")
        if re.match(rf"\s*(?:-\s+)?[\"']?(?:{_OPTION}|{_APPLICATION})", following) and "- name:" not in following:
            changed = f"{match[1]}daphne-ng{match[2]}"
        before = next((line for line in reversed(lines[:index]) if line.strip()), "")
        if re.fullmatch(r"\s*(?:-\s+)?[\"']?-m[\"']?,?", before.rstrip()):
            changed = f"{match[1]}daphne_ng{match[2]}"
    if changed == code:
        return None
    return Advice((changed,), requirement=_INSTALL.search(code) is not None)
