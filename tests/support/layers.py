"""The house as data: its layers, which imports each may have, and the circles that are allowed.

``tests/unit/test_layers.py`` holds the package against it, and ``docs/generate_architecture.py`` draws the head of
``docs/explanation/architecture.md`` from it. A module that moves, or a rule that changes, changes here.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import daphne_ng

ROOT = Path(daphne_ng.__file__).parent
MODULES = {
    ".".join(("daphne_ng", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
"""Every module's dotted name, and its file."""


class Layer(NamedTuple):
    """Modules that may import each other, and everything below."""

    name: str
    patterns: list[str]
    """Dotted names, as `fnmatch` takes them."""
    what: str


GROUND = [
    "daphne_ng",
    "daphne_ng._types",
    "daphne_ng.config",
    "daphne_ng.config.*",
    "daphne_ng.errors",
    "daphne_ng.pieces",
    "daphne_ng.port",
    "daphne_ng.port.*",
    "daphne_ng.wording",
]

# Lowest first. A module imports from its own layer and from those below.
LAYERS = [
    Layer(
        "ground",
        [*GROUND, "daphne_ng.files", "daphne_ng.stopping"],
        "settings, errors, and the port between protocols and applications",
    ),
    Layer(
        "wire", ["daphne_ng.wire", "daphne_ng.wire.*"], "protocols without I/O: bytes in, calls on a sink, bytes out"
    ),
    Layer("asgi", ["daphne_ng.asgi", "daphne_ng.asgi.*"], "the bridge to applications: messages and tasks"),
    Layer("net", ["daphne_ng.net", "daphne_ng.net.*"], "Twisted I/O, thin: sockets, TLS, connections"),
    Layer(
        "parts of the server",
        [
            "daphne_ng.access",
            "daphne_ng.endpoints",
            "daphne_ng.logs",
            "daphne_ng.logs.*",
            "daphne_ng.utils",
            "daphne_ng.static",
            "daphne_ng.static.*",
            "daphne_ng.serving",
            *(
                f"daphne_ng.serving.{name}"
                for name in (
                    "actions",
                    "colours",
                    "draining",
                    "hooks",
                    "loading",
                    "logconfig",
                    "outlet",
                    "process",
                    "running",
                )
            ),
        ],
        "where to listen, what to log, what to serve, and how to stop",
    ),
    Layer(
        "certificates",
        ["daphne_ng.serving.wrappers", "daphne_ng.acme", "daphne_ng.acme.*"],
        "TLS and PROXY protocol for each port, and certificates that are got from an authority",
    ),
    Layer(
        "server",
        ["daphne_ng.server", "daphne_ng.serving.life", "daphne_ng.serving.modes", "daphne_ng.demo", "daphne_ng.demo.*"],
        "start, stop, the ways to run",
    ),
    Layer(
        "processes",
        ["daphne_ng.supervisor", "daphne_ng.supervisor.*"],
        "several processes: starting them, replacing them, what systemd is told",
    ),
    Layer(
        "command line",
        [
            "daphne_ng.cli",
            "daphne_ng.hints",
            "daphne_ng.server_class",
            "daphne_ng.invoking",
            "daphne_ng.__main__",
            "daphne_ng.sources",
            "daphne_ng.sources.*",
        ],
        "options to a `Config`, exit codes, and `run`",
    ),
    Layer(
        "faces",
        [
            "daphne_ng.advice",
            "daphne_ng.advice.*",
            "daphne_ng.apps",
            "daphne_ng.checks",
            "daphne_ng.compat",
            "daphne_ng.management",
            "daphne_ng.pytest_plugin",
            "daphne_ng.management.*",
            "daphne_ng.testing",
            "daphne_ng.testing.*",
        ],
        "for Django, for the tests of other projects, for projects that used Daphne",
    ),
]


class OnlyIn(NamedTuple):
    """A library, or a room, that few modules may import."""

    imported: str
    importers: list[str]
    why: str


ONLY_IN = [
    OnlyIn("httptools", ["daphne_ng.wire.http1.parser"], "one place adds the checks that llhttp leaves out"),
    OnlyIn("autobahn", ["daphne_ng.net.channels.engine"], "it takes 50 ms to import: when a server starts"),
    OnlyIn("_nvx_xormasker", ["daphne_ng.net.channels.engine"], "a part of Autobahn"),
    OnlyIn(
        "h2", ["daphne_ng.wire.http2.*", "daphne_ng.testing.conformance.http2"], "HTTP/2 alone needs it, and its client"
    ),
    OnlyIn("hpack", ["daphne_ng.wire.http2.*"], "HTTP/2 alone needs it"),
    OnlyIn("priority", ["daphne_ng.wire.http2.*"], "HTTP/2 alone needs it"),
    OnlyIn("django", ["daphne_ng.apps", "daphne_ng.checks", "daphne_ng.management.*"], "it need not be installed"),
    OnlyIn("shtab", ["daphne_ng.sources.printing"], "an extra"),
    OnlyIn("uvloop", ["daphne_ng.net.sockets.loops"], "it need not be installed"),
    OnlyIn("acme", ["daphne_ng.acme.client"], "an extra"),
    OnlyIn("josepy", ["daphne_ng.acme.client"], "comes with the extra `acme`"),
    OnlyIn("requests", ["daphne_ng.acme.client"], "comes with the extra `acme`"),
    OnlyIn(
        "daphne_ng.acme",
        ["daphne_ng.acme*", "daphne_ng.serving.wrappers"],
        "it needs an extra: imported when an endpoint asks for it",
    ),
]


class Never(NamedTuple):
    """What modules must not import."""

    importers: str
    imported: list[str]


# What is known of a WebSocket but for its handshake, which is a request: each version of HTTP hands one on.
_OPEN_WEBSOCKET = [
    module
    for module in MODULES
    if module.startswith("daphne_ng.wire.websocket.") and module != "daphne_ng.wire.websocket.handshake"
]

NEVER = [
    # No protocol knows another; what they share is in `wire.http`.
    Never("daphne_ng.wire.http1*", ["daphne_ng.wire.http2", *_OPEN_WEBSOCKET]),
    Never("daphne_ng.wire.http2*", ["daphne_ng.wire.http1", *_OPEN_WEBSOCKET]),
    Never("daphne_ng.wire.websocket*", ["daphne_ng.wire.http1", "daphne_ng.wire.http2"]),
    *(
        Never(shared, ["daphne_ng.wire.http1", "daphne_ng.wire.http2", "daphne_ng.wire.websocket"])
        for shared in ("daphne_ng.wire.http", "daphne_ng.wire.http.*")
    ),
    # The protocols and the bridge stand side by side, on the port.
    Never(
        "daphne_ng.wire*",
        [
            "daphne_ng.asgi",
            "twisted",
            "zope",
            "asyncio",
            "logging",
            "time",
            "os",
            "socket",
            "threading",
            "signal",
            "ssl",
        ],
    ),
    Never(
        "daphne_ng.asgi*",
        [
            "daphne_ng.wire",
            "twisted",
            "zope",
            "socket",
            "os",
            "signal",
            "threading",
            "httptools",
            "h2",
            "ssl",
            "OpenSSL",
        ],
    ),
    # The package itself reads one variable of the environment: which modules are imported must be known before any is.
    Never("daphne_ng", ["twisted", "zope", "asyncio", "socket", "time"]),
    *[
        Never(module, ["twisted", "zope", "asyncio", "os", "socket", "time"])
        for module in GROUND
        if module != "daphne_ng"
    ],
    # Applications import it, also where another server serves.
    Never("daphne_ng.stopping", ["daphne_ng", "twisted", "zope", "os", "socket", "time"]),
    Never("daphne_ng.acme.schedule", ["twisted", "zope", "asyncio", "os", "socket", "time", "threading", "logging"]),
    # The processes know no protocol.
    Never("daphne_ng.supervisor*", ["daphne_ng.wire", "daphne_ng.asgi"]),
    # An import of these modules must not bring a reactor.
    Never("daphne_ng.cli", ["twisted", "asyncio"]),
    Never("daphne_ng.demo*", ["twisted"]),
]


class Circle(NamedTuple):
    """An import that closes a circle, and is allowed to."""

    importer: str
    imported: str
    why: str


# The test knows every circle of imports, also those for type checkers alone. Without the imports in this list there is
# none. An entry that closes no circle any more fails the test, so that the list becomes shorter and never longer.
CIRCLES: list[Circle] = []

# The same between rooms: every package is one, and every module beside them is one for itself.
ROOM_CIRCLES = [
    Circle(
        "daphne_ng.testing.conformance",
        "daphne_ng.testing.conformance.checks",
        "`suite.py` runs what is written with `case.py`",
    ),
    Circle("daphne_ng.net.channels", "daphne_ng.net", "`context.py` is what they all share, and makes their exchanges"),
    Circle("daphne_ng.net.sockets", "daphne_ng.net", "`prelude.py` counts in `context.py` what waits"),
    Circle("daphne_ng.net.sockets", "daphne_ng.net.tls", "`ports.py` makes TLS transports, which build on plain ones"),
]


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Return the dotted name of everything that a module imports, wherever the statement stands."""
    names: list[str] = []
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.append(full if full in MODULES else node.module)
    return tuple(names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def layer_of(module: str) -> int | None:
    return next((rank for rank, layer in enumerate(LAYERS) if matches(module, layer.patterns)), None)


def room_of(module: str) -> str:
    """Return the package that a module is in; a module beside the packages is a room of its own."""
    if MODULES[module].name == "__init__.py":
        return module
    package = module.rpartition(".")[0]
    return module if package == "daphne_ng" else package


Graph = Mapping[str, Iterable[str]]


def module_graph() -> dict[str, set[str]]:
    """Return what each module imports of the package.

    The package itself is no part of it: what it offers is imported when somebody asks for it.
    """
    return {
        module: {name for name in imports(module) if name in MODULES and name not in ("daphne_ng", module)}
        for module in MODULES
        if module != "daphne_ng"
    }


def room_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, names in module_graph().items():
        graph.setdefault(room_of(module), set()).update(map(room_of, names))
    return {room: rooms - {room} for room, rooms in graph.items()}


def without(graph: Graph, circles: list[Circle]) -> dict[str, set[str]]:
    cut = {(circle.importer, circle.imported) for circle in circles}
    return {name: {other for other in others if (name, other) not in cut} for name, others in graph.items()}


def way(graph: Graph, start: str, end: str) -> list[str] | None:
    """Return the shortest chain of imports from one name to another, both included."""
    ways = {start: [start]}
    ends = [start]
    while ends:
        found = ends.pop(0)
        for name in sorted(graph.get(found, ())):
            if name == end:
                return [*ways[found], name]
            if name not in ways:
                ways[name] = [*ways[found], name]
                ends.append(name)
    return None


def circle_in(graph: Graph) -> list[str] | None:
    """Return a shortest circle of imports, its first name again at its end."""
    circles = [circle for name in sorted(graph) if (circle := way(graph, name, name))]
    return min(circles, key=len, default=None)


# -- tests of a module's name ------------------------------------------------------------------------------------

# A module `ROOM/NAME.py` is tested in `tests/unit/ROOM/test_NAME.py`, or `test_NAME_*.py`, or below `tests/net`. These
# are not; what stands beside each is a file of tests that fails when it changes, or why nothing can.
TESTED_ELSEWHERE = {
    "daphne_ng.server_class": "tests/unit/test_cli.py",
    "daphne_ng": "tests/unit/test_face.py",
    "daphne_ng.__main__": "tests/integration/test_server_modes.py",
    "daphne_ng._types": "type names alone",
    "daphne_ng.acme.client": "tests/integration/test_acme.py",
    "daphne_ng.acme.failure": "tests/unit/acme/test_schedule.py",
    "daphne_ng.advice.python": "tests/unit/advice/test_project.py",
    "daphne_ng.advice.text": "tests/unit/advice/test_project.py",
    "daphne_ng.apps": "tests/unit/test_checks.py",
    "daphne_ng.asgi.exchange": "tests/unit/asgi/test_http_exchange.py",
    "daphne_ng.config.acme": "tests/unit/config/test_setting.py",
    "daphne_ng.config.application": "tests/unit/config/test_setting.py",
    "daphne_ng.config.http2": "tests/unit/config/test_setting.py",
    "daphne_ng.config.limits": "tests/unit/config/test_setting.py",
    "daphne_ng.config.processes": "tests/unit/config/test_setting.py",
    "daphne_ng.config.proxies": "tests/unit/config/test_setting.py",
    "daphne_ng.config.responses": "tests/unit/config/test_setting.py",
    "daphne_ng.config.sockets": "tests/unit/config/test_setting.py",
    "daphne_ng.config.timeouts": "tests/unit/config/test_setting.py",
    "daphne_ng.config.tls": "tests/unit/config/test_setting.py",
    "daphne_ng.config.websocket": "tests/unit/config/test_setting.py",
    "daphne_ng.demo.chat": "tests/unit/test_demo.py",
    "daphne_ng.demo.exchange": "tests/unit/test_demo.py",
    "daphne_ng.demo.page": "tests/unit/test_demo.py",
    "daphne_ng.demo.streams": "tests/unit/test_demo.py",
    "daphne_ng.demo.uploads": "tests/unit/test_demo.py",
    "daphne_ng.errors": "classes alone, raised where each is tested",
    "daphne_ng.hints": "tests/unit/test_cli.py",
    "daphne_ng.invoking": "tests/unit/test_face.py",
    "daphne_ng.management.commands.runserver": "tests/unit/test_runserver.py",
    "daphne_ng.net.channels.channel": "tests/unit/net/channels/test_connection.py",
    "daphne_ng.net.channels.http1": "tests/unit/net/channels/test_connection.py",
    "daphne_ng.net.channels.websocket": "tests/unit/net/channels/test_tunnel.py",
    "daphne_ng.net.factory": "tests/unit/net/channels/test_connection.py",
    "daphne_ng.net.sockets.listening": "tests/net/sockets/test_prelude.py",
    "daphne_ng.net.sockets.loops": "tests/net/test_reactor.py",
    "daphne_ng.net.sockets.ports": "tests/net/sockets/test_transports.py",
    "daphne_ng.net.sockets.sharing": "tests/integration/test_sharing.py",
    "daphne_ng.net.tls.certificates": "tests/unit/net/tls/test_sources.py",
    "daphne_ng.net.tls.context": "tests/unit/net/tls/test_sources.py",
    "daphne_ng.net.tls.extension": "tests/unit/net/tls/test_sources.py",
    "daphne_ng.port": "the names of its modules alone",
    "daphne_ng.port.head": "tests/unit/wire/http1/test_requests.py",
    "daphne_ng.port.info": "tests/unit/asgi/test_scope.py",
    "daphne_ng.port.interfaces": "tests/contract/test_response_port.py",
    "daphne_ng.pytest_plugin": "tests/unit/testing/test_testing.py",
    "daphne_ng.serving.hooks": "tests/unit/supervisor/test_worker.py",
    "daphne_ng.serving.life": "tests/integration/test_server_modes.py",
    "daphne_ng.serving.modes": "tests/integration/test_server_modes.py",
    "daphne_ng.serving.running": "tests/integration/test_signals.py",
    "daphne_ng.supervisor.notify": "tests/unit/supervisor/test_command.py",
    "daphne_ng.supervisor.process": "tests/unit/supervisor/test_supervisor.py",
    "daphne_ng.supervisor.service": "tests/integration/test_systemd.py",
    "daphne_ng.supervisor.sockets": "tests/integration/test_sharing.py",
    **{
        name: "tests/conformance/test_faults.py"
        for name in MODULES
        if name.startswith("daphne_ng.testing.conformance") and not name.endswith((".command", ".report"))
    },
    "daphne_ng.testing.conformance.command": "tests/conformance/test_command.py",
    "daphne_ng.wire.driver": "an interface alone",
    "daphne_ng.wire.http1.draining": "tests/unit/wire/http1/test_deadlines.py",
    "daphne_ng.wire.http1.driver": "an interface alone",
    "daphne_ng.wire.http1.message": "tests/unit/wire/http1/test_requests.py",
    "daphne_ng.wire.http1.parser": "tests/unit/wire/http1/test_requests.py",
    "daphne_ng.wire.http1.read_flow": "tests/unit/wire/http1/test_limits.py",
    "daphne_ng.wire.http1.response": "tests/unit/wire/http1/test_responses.py",
    "daphne_ng.wire.http1.writer": "tests/unit/wire/http1/test_responses.py",
    "daphne_ng.wire.http2.connection": "tests/unit/wire/http2/test_endings.py",
    "daphne_ng.wire.http2.context": "tests/unit/wire/http2/test_requests.py",
    "daphne_ng.wire.http2.driver": "an interface alone",
    "daphne_ng.wire.http2.engine": "tests/unit/wire/http2/test_requests.py",
    "daphne_ng.wire.http2.frames": "tests/unit/wire/http2/test_attacks.py",
    "daphne_ng.wire.http2.inbound": "tests/unit/wire/http2/test_requests.py",
    "daphne_ng.wire.http2.output": "tests/unit/wire/http2/test_records.py",
    "daphne_ng.wire.http2.preface": "tests/unit/net/channels/test_http2.py",
    "daphne_ng.wire.http2.response": "tests/unit/wire/http2/test_responses.py",
    "daphne_ng.wire.http2.schedule": "tests/unit/wire/http2/test_flow.py",
    "daphne_ng.wire.http2.sending": "tests/unit/wire/http2/test_flow.py",
    "daphne_ng.wire.http2.sieve": "tests/unit/wire/http2/test_attacks.py",
    "daphne_ng.wire.http2.stream": "tests/unit/wire/http2/test_responses.py",
    "daphne_ng.wire.http2.states": "tests/properties/test_h2_properties.py",
    "daphne_ng.wire.http2.windows": "tests/unit/wire/http2/test_flow.py",
    "daphne_ng.wire.websocket.driver": "interfaces alone",
    "daphne_ng.wording": "tests/unit/test_access.py",
}

TESTS = Path(__file__).parents[1]


def own_tests(module: str) -> list[Path]:
    """Return the files of tests that have a module's name."""
    place = MODULES[module].relative_to(ROOT).with_suffix("")
    place = place.parent if place.name == "__init__" else place
    rooms = [TESTS / "unit" / place, TESTS / place] if MODULES[module].stem == "__init__" else []
    rooms += [TESTS / "unit" / place.parent, TESTS / place.parent]
    name = place.name.strip("_") or "daphne_ng"
    return [file for room in rooms for file in [*room.glob(f"test_{name}.py"), *room.glob(f"test_{name}_*.py")]]
