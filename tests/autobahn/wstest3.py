"""The fuzzing client of the Autobahn TestSuite on Python 3: ``python wstest3.py SPEC.json``.

The suite (``autobahntestsuite`` 0.8.2, with the autobahn of its days) was written for Python 2. This file
loads its modules under Python 3, without changing them on disk:

* Sources are read as Latin-1, so that each character of a string literal is one octet, as in Python 2.
  The cases go on working on such strings; where they meet the protocol, strings become bytes and back.
* Statements that Python 3 does not know (``print x``, ``has_key``, implicit relative imports) are rewritten
  as the modules are loaded.

It runs in an environment of its own (see requirements.txt here), and imports nothing from the project.

The spec is that of ``wstest``, with two more keys: ``claims`` is a folder that several clients share, in which
each creates a file for the case that it takes next, so that every case runs once; and ``expect``, which makes the
client write the identifiers of the spec's cases to ``cases.json`` in that folder and end.
"""

from __future__ import annotations

import binascii
import importlib.abc
import importlib.machinery
import json
import os
import re
import sys
import types
import warnings

SUITE = "autobahntestsuite"

# Modules that the fuzzing client can do without: the first imports every mode of wstest, the second serves the
# HTML reports, the third is a case that the suite itself does not run.
REPLACED = {
    SUITE: "from ._version import __version__\nversion = __version__\n",
    f"{SUITE}.report": "CSS_COMMON = CSS_DETAIL_REPORT = CSS_MASTER_REPORT = JS_MASTER_REPORT = ''\n",
    f"{SUITE}.case.case9_9_1": "",
}

REWRITES = [
    (re.compile(r"^( *)print$", re.M), r"\1print()"),
    (re.compile(r"^( *)print (.+)$", re.M), r"\1print(\2)"),
    (re.compile(r"([\w.]+(?:\[\w+\])?)\.has_key\(([^()]*)\)"), r"(\2 in \1)"),
    # A class may not list its base before object.
    (re.compile(r"\(object, Case, \)"), "(Case, )"),
    (re.compile(r"\bbinascii\.(?:b2a_hex|hexlify)\("), "_hex("),
    # The suite's one use of the validator outside the protocol.
    (re.compile(r"\bv\.validate\((.+?)\)$", re.M), r"v.validate(_octets(\1))"),
    (re.compile(r"''\.join\(payload\)"), "b''.join(payload)"),
    # The number of fragments that case 10.1.1 expects, the suite's only division.
    (re.compile(r"len\(self\.payload\) / "), "len(self.payload) // "),
]
IMPORT = re.compile(r"^( *)from (\w+) import", re.M)


def octets(text: str | bytes | None) -> bytes | None:
    """The octets that a string of Python 2 stands for."""
    return text.encode("latin-1") if isinstance(text, str) else text


def text(data: str | bytes) -> str:
    """The string of Python 2 for these octets."""
    return data.decode("latin-1") if isinstance(data, bytes) else data


def hexadecimal(data: str | bytes) -> str:
    return binascii.b2a_hex(octets(data)).decode("ascii")


class Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module of the suite from rewritten source, past any cached bytecode."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        source = REPLACED.get(fullname)
        if source is None:
            source = rewritten(self.get_data(path).decode("latin-1").replace("\r\n", "\n"), os.path.dirname(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in regular expressions
            return compile(source, path, "exec", dont_inherit=True)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(_hex=hexadecimal, _octets=octets, xrange=range, unichr=chr)
        super().exec_module(module)


def rewritten(source: str, folder: str) -> str:
    def relative(match: re.Match[str]) -> str:
        name = match[2]
        sibling = os.path.exists(f"{folder}/{name}.py") or os.path.exists(f"{folder}/{name}/__init__.py")
        return f"{match[1]}from {'.' if sibling else ''}{name} import"

    source = IMPORT.sub(relative, source)
    for pattern, replacement in REWRITES:
        source = pattern.sub(replacement, source)
    return source


class Finder(importlib.abc.MetaPathFinder):
    """Gives the suite's modules our loader."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != SUITE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(fullname, spec.loader.path)
        return spec


def adapt_protocol(protocol: type, native: str) -> None:
    """Put bytes where `protocol` meets autobahn, and strings where it meets a case.

    Args:
        protocol: the suite's protocol class.
        native: the module of the cases that are written for bytes already.
    """
    # sendClose takes text, and the other methods end in one of these.
    base = protocol.__mro__
    original = {
        name: next(vars(c)[name] for c in base if name in vars(c))
        for name in ("sendFrame", "sendMessage", "sendMessageFrameData", "sendCloseFrame")
    }

    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = octets(payload)
        if payload_len is not None:  # repeat the payload up to that length; autobahn of that age divides to a float
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        original["sendFrame"](self, opcode, payload, fin, rsv, octets(mask), None, chopsize, sync)

    def sendMessage(self, payload, *args, **kwargs):
        original["sendMessage"](self, octets(payload), *args, **kwargs)

    def sendMessageFrameData(self, payload, sync=False):
        return original["sendMessageFrameData"](self, octets(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        original["sendCloseFrame"](self, code, octets(reasonUtf8), isReply)

    def onMessage(self, payload, isBinary):
        case = self.runCase
        case.onMessage(payload if type(case).__module__ == native else text(payload), isBinary)

    def onPong(self, payload):
        self.runCase.onPong(text(payload))

    for function in (sendFrame, sendMessage, sendMessageFrameData, sendCloseFrame, onMessage, onPong):
        setattr(protocol, function.__name__, function)


def adapt_reports(fuzzing: types.ModuleType) -> None:
    """Log octets as text, and write bytes into JSON."""

    def bin_log(data, maxlen=64):
        ellipsis = " ..."
        return hexadecimal(data[:maxlen]) + ellipsis if len(data) > maxlen - len(ellipsis) else hexadecimal(data)

    def ascii_log(data, maxlen=64, replace=False):
        ellipsis = " ..."
        try:
            shown = octets(data[:maxlen])
            suffix = ellipsis if len(data) > maxlen - len(ellipsis) else ""
            return shown.decode("utf-8", "replace" if replace else "strict") + suffix
        except UnicodeDecodeError:
            return "0x" + bin_log(data, maxlen)

    fuzzing.binLogData = bin_log
    fuzzing.asciiLogData = ascii_log
    fuzzing.json = types.SimpleNamespace(
        loads=json.loads, dumps=lambda *args, **kwargs: json.dumps(*args, default=text, **kwargs)
    )


def adapt_compression() -> None:
    """Use zlib-ng, the same format in half the time: compression is most of what a client does."""
    from autobahn.websocket import compress_deflate
    from zlib_ng import zlib_ng

    compress_deflate.zlib = zlib_ng


def adapt_factory(fuzzing: types.ModuleType, claims: str | None) -> None:
    """Share the cases with other clients through `claims`, and write no HTML."""
    factory = fuzzing.FuzzingClientFactory
    take = factory.nextCase
    create = factory.createReports

    def nextCase(self):
        while take(self):
            if claims is None:
                return True
            try:
                os.close(os.open(os.path.join(claims, self.currentCaseId), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return True
        return False

    factory.nextCase = nextCase
    factory.createReports = lambda self: create(self, produceHtml=False)


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    warnings.simplefilter("ignore")  # of packages from another decade
    sys.meta_path.insert(0, Finder())
    sys.modules["twisted.internet.ssl"] = types.ModuleType("twisted.internet.ssl")  # for wss only; needs OpenSSL

    from autobahntestsuite import case, fuzzing
    from autobahntestsuite.case import case12_x_x
    from autobahntestsuite.case.case import Case
    from twisted.internet import reactor

    # The suite compares pickles, which in Python 3 differ for equal values.
    Case.compare = lambda self, one, other: one == other
    adapt_protocol(fuzzing.FuzzingClientProtocol, case12_x_x.__name__)
    adapt_reports(fuzzing)
    adapt_compression()
    adapt_factory(fuzzing, spec.get("claims"))

    if spec.get("expect"):
        cases = fuzzing.CaseSet(
            fuzzing.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories
        )
        listed = cases.parseSpecCases(spec)
        if unknown := set(listed) - set(cases.CasesById):
            sys.exit(f"no such case: {' '.join(sorted(unknown))}")
        with open(os.path.join(spec["outdir"], "cases.json"), "w", encoding="utf-8") as file:
            json.dump(listed, file)
        return
    factory = fuzzing.FuzzingClientFactory(spec, False)
    if factory.currSpecCase < len(factory.specCases):  # else others were faster
        reactor.run()
    else:
        factory.createReports()


if __name__ == "__main__":
    main(sys.argv[1])
