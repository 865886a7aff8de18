"""The README and the documentation say what is so: commands parse, examples run, links lead somewhere."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import settings
from daphne_ng.testing.conformance.command import parser as conformance_parser
from tests.support.processes.serving import require_program

pytestmark = pytest.mark.once


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
MIGRATING = [f"migrating/{path.stem}" for path in (DOCS / "migrating").glob("*.md")]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "changes" / "README.md", ROOT / "tests" / "README.md", *DOCS.rglob("*.md")])

START_SECONDS = 15


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- reading Markdown ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block, with the comment on the line before it."""

    language: str
    text: str
    comment: str
    line: int


def blocks_of(path: Path) -> list[Block]:
    blocks, lines = [], path.read_text("utf-8").splitlines()
    index = 0
    while index < len(lines):
        if lines[index].startswith("```"):
            end = index + 1
            while not lines[end].startswith("```"):
                end += 1
            comment = lines[index - 1] if index and lines[index - 1].startswith("<!--") else ""
            text = "".join(line + "\n" for line in lines[index + 1 : end])
            blocks.append(Block(lines[index][3:].strip(), text, comment, index + 1))
            index = end
        index += 1
    return blocks


def prose_of(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors_of(path: Path) -> set[str]:
    anchors = set()
    for title in re.findall(r"^#+ (.*)$", prose_of(path), flags=re.MULTILINE):
        anchors.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return anchors


INCLUDED = [
    pytest.param(page, block, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks_of(page)
    if block.comment.startswith("<!-- file:")
]


@pytest.mark.parametrize(("page", "block"), INCLUDED)
def test_a_block_that_shows_a_file_is_that_file(page: Path, block: Block) -> None:
    file = re.fullmatch(r"<!-- file: (\S+) -->", block.comment)
    assert file is not None
    assert block.text == (ROOT / file[1]).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_documentation_is_always_a_file_that_is_run(page: Path) -> None:
    loose = [block.line for block in blocks_of(page) if block.language == "python" and "file:" not in block.comment]
    assert loose == []


def test_every_example_is_shown_somewhere() -> None:
    shown = {re.sub(r"<!-- file: (\S+) -->", r"\1", param.values[1].comment) for param in INCLUDED}  # type: ignore[union-attr]
    files = [*EXAMPLES.iterdir(), *(EXAMPLES / "deploy").iterdir(), *(EXAMPLES / "first_django").iterdir()]
    assert shown == {name_of(path) for path in files if path.is_file()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.is_file() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = set()
    for target in re.findall(r"\]\(([^)\s#]+)", prose_of(DOCS / "index.md")):
        linked.add((DOCS / target).resolve())
    assert {page for page in DOCS.rglob("*.md") if page != DOCS / "index.md"} <= linked


# -- commands --------------------------------------------------------------------------------------------------


def commands_of(page: Path) -> list[list[str]]:
    blocks = [block for block in blocks_of(page) if block.language != "text"]
    texts = [line for block in blocks for line in block.text.replace("\\\n", " ").splitlines()]
    texts += re.findall(r"`([^`\n]+)`", prose_of(page))
    commands = []
    for text in texts:
        # As in a shell, a unit file or a supervisor file: whatever follows the program's name is its options.
        if not re.search(r"(^|[\s=/])daphne-ng(\s|$)", text) or text.startswith("#"):
            continue
        words = shlex.split(re.sub(r"^\w+=", "", text), comments=True)
        for index, word in enumerate(words):
            if word == "daphne-ng" or word.endswith("/daphne-ng"):
                rest = words[index + 1 :]
                stop = next((n for n, other in enumerate(rest) if other in ("&&", ";", "|", "&", ">")), len(rest))
                commands.append(rest[:stop])
    return commands


COMMANDS = [
    pytest.param(command, id=f"{name_of(page)}: {' '.join(command)}") for page in PAGES for command in commands_of(page)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_parses(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code: object = 0
    try:
        CommandLineInterface().parser.parse_args(command)
    except SystemExit as stop:  # --help and --version stop with 0
        code = stop.code
    assert code == 0, capsys.readouterr().err


def test_the_command_lines_were_found() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("start", "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/daphne-ng\n"),
        (
            "test",
            "python3 -m venv .venv-tox && .venv-tox/bin/pip install --quiet tox && .venv-tox/bin/tox run\n",
        ),
    ],
)
def test_the_readme_has_the_two_commands_word_for_word(marker: str, command: str) -> None:
    found = [block for block in blocks_of(ROOT / "README.md") if block.comment == f"<!-- {marker} command -->"]
    assert [(block.language, block.text) for block in found] == [("sh", command)]


# daphne-ng is on no index yet. A release changes one page.
@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "changes").glob("+*.md")], ids=name_of)
def test_one_page_says_how_to_install(page: Path) -> None:
    if page != DOCS / "how-to" / "install.md":
        assert (
            re.findall(
                r"(?:pip|uv|poetry|pipx)\b[^\n`]*\b(?:install|add)\b[^\n`&;]*\bdaphne-ng", page.read_text("utf-8")
            )
            == []
        )


@pytest.mark.parametrize("page", ["tutorial/first-app", "how-to/django", "how-to/deploy", *MIGRATING])
def test_whoever_begins_at_a_page_is_led_to_the_one_about_installing(page: str) -> None:
    assert "how-to/install.md" in (text := (DOCS / f"{page}.md").read_text("utf-8")) or "(install.md" in text


# -- the reference ---------------------------------------------------------------------------------------------


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_settings_is_up_to_date() -> None:
    generator = load_generator()
    written = generator.TARGET.read_text("utf-8")
    assert written == generator.render(), "run: python docs/generate_reference.py"


def test_every_flag_is_documented() -> None:
    reference = (DOCS / "reference" / "settings.md").read_text("utf-8")
    flags = [flag for action in CommandLineInterface().parser._actions for flag in action.option_strings]
    assert [flag for flag in flags if f"`{flag}`" not in reference] == []


# Options of Django's command, which the page about it is full of.
RUNSERVER = {"--nostatic", "--insecure", "--noreload", "--noasgi", "--no-color", "--skip-checks"}
RUNSERVER |= {"--http_timeout", "--websocket_handshake_timeout"}


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def test_every_flag_that_is_mentioned_exists() -> None:
    ours = flags_of(CommandLineInterface().parser)
    unknown = set()
    for page in PAGES:
        prose = prose_of(page)
        known = ours
        if page.parent.name == "migrating":
            prose = re.sub(r"^\|[^|]*\|", "|", prose, flags=re.MULTILINE)  # the other program's
        if page.name in ("django.md", "from-daphne.md"):
            known = ours | RUNSERVER
        elif page.name == "conformance.md":
            known = ours | flags_of(conformance_parser())
        for code in re.findall(r"`([^`\n]+)`", prose):
            if (flag := re.match(r"--[a-z][\w-]+", code)) and flag[0] not in known:
                unknown.add(flag[0])
    assert unknown == set()


def test_every_option_of_runserver_is_documented() -> None:
    pytest.importorskip("django")
    from tests.support.django import set_up

    set_up()
    from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand

    from daphne_ng.management.commands.runserver import Command

    def options(command: Any) -> set[str]:
        parser = command.create_parser("manage.py", "runserver")
        return {flag for action in parser._actions for flag in action.option_strings}

    page = (DOCS / "how-to" / "django.md").read_text("utf-8")
    ours = options(Command())
    aliases = {"--http-timeout", "--websocket-handshake-timeout"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", page))
    assert ours - options(DjangoCommand()) - aliases <= mentioned
    assert RUNSERVER <= ours


def test_the_server_reads_every_setting() -> None:
    package = Path(sys.modules["daphne_ng"].__file__ or "").parent
    # The settings themselves say all of their names.
    sources = [path for path in package.rglob("*.py") if package / "config" not in path.parents]
    code = "\n".join(path.read_text("utf-8") for path in sources)
    read = {name for name, _ in settings() if re.search(rf"config\.{name}\b", code)}
    assert read == {name for name, _ in settings()}


# -- news fragments ----------------------------------------------------------------------------------------------


def test_news_fragments_have_a_name_and_a_sentence() -> None:
    for fragment in (ROOT / "changes").iterdir():
        if fragment.name != "README.md":
            assert re.fullmatch(r"(\d+|\+[a-z0-9-]+)\.(security|removal|feature|bugfix|doc)\.md", fragment.name)
            assert fragment.read_text("utf-8").strip().endswith(".")


# -- running the examples ------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    # Not in development mode: Twisted keeps a file open for the day on which descriptors run out, which Python notes.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": ""}


class Serving:
    """A running ``daphne-ng``, and what it has written."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                line = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line with {pattern!r} in: {''.join(self.lines)}")
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match

    @property
    def output(self) -> str:
        while not self._queue.empty():
            self.lines.append(self._queue.get() or "")
        return "".join(self.lines)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(START_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Serving]:
    process = subprocess.Popen(
        [sys.executable, "-m", "daphne_ng", *arguments],
        cwd=EXAMPLES,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    serving = Serving(process)
    try:
        yield serving
    finally:
        serving.stop()


def fetch(serving: Serving, method: str, path: str, body: bytes | None = None, parts: int | None = None) -> bytes:
    port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
        connection.request(method, path, body)
        with connection.getresponse() as response:
            assert response.status == 200
            return response.read() if parts is None else b"".join(response.readline() for _ in range(parts))


SERVED = {
    "hello.py": (["hello:application"], ("GET", "/you"), b"Hello, you!\n"),
    # Called by itself it listens on port 8000; `run` is in tests/integration/test_run_function.py.
    "embed_run.py": (["embed_run:application"], ("GET", "/"), b"Hello!\n"),
    "upload.py": (
        ["upload:application"],
        ("POST", "/", b"x" * 300_000),
        b"29927e273accc68286005017f7fa6e4f27bddb4db3083ff8b8d4c3667905b7fa\n",
    ),
    "ticker.py": (["ticker:application"], ("GET", "/", None, 2), b"data: 0\n\n"),
    "startup.py": (["--lifespan", "on", "startup:application"], ("GET", "/"), b"Hello from the startup.\n"),
    "logged.py": (["--access-log-logger", "logged:application"], ("GET", "/"), b"Hello, world!\n"),
    "django_streams.py": (
        ["--asgi-threads", "8", "django_streams:application"],
        ("GET", "/download"),
        (EXAMPLES / "django_streams.py").read_bytes(),
    ),
    "django_files.py": (
        ["django_files:application"],
        ("GET", "/download"),
        (EXAMPLES / "django_files.py").read_bytes(),
    ),
    "django_pathsend.py": (
        ["django_pathsend:application"],
        ("GET", "/download"),
        (EXAMPLES / "django_pathsend.py").read_bytes(),
    ),
}
# What is needed besides, the request's further fields, the status, and then: what is said, and what is heard.
WEBSOCKETS: dict[str, tuple[tuple[str, ...], str, int, list[str], list[str]]] = {
    "echo.py": ((), "", 101, ["Hello.", ""], ["Hello.", ""]),
    "chat.py": ((), "", 101, ["Hello."], ["you is here", "you: Hello."]),
    "negotiate.py": (
        (),
        "Sec-WebSocket-Protocol: chat.v0, chat.v1\r\n",
        101,
        [],
        ["We speak chat.v1.", "4000 That was all."],
    ),
    "denial.py": ((), "Authorization: Basic eDp5\r\nOrigin: http://localhost\r\n", 101, [], ["Welcome.", "1000 "]),
    "starlette_echo.py": (("starlette",), "", 101, ["Hello."], ["Hello."]),
    "channels_echo.py": (("channels", "django"), "Origin: http://localhost\r\n", 101, ["Hello."], ["Hello."]),
}
RUN = {
    "embed_asyncio.py": "Hello, asyncio!\n",
    "embed_serve.py": "served, and stopped\n",
    "embed_thread.py": "Hello, thread!\n",
    "embed_twisted.py": "Hello, twisted!\n",
    "own_access_log.py": r"GET /logged 200 \d\.\d{3} s" + "\n",
}


# What waits for the end of the server: what is needed besides, application and path, what comes first and in the end.
ENDING: dict[str, tuple[tuple[str, ...], str, str, bytes, bytes]] = {
    "ticker.py": ((), "ticker:application", "/", b"data: 0\n", b"\n"),
    "ending_fastapi.py": (("fastapi",), "ending_fastapi:app", "/events", b"data: 0\n", b"\n"),
    "ending_fastapi.py, /poll": (
        ("fastapi",),
        "ending_fastapi:app",
        "/poll",
        b"",
        b'{"news":null,"ask":"elsewhere"}',
    ),
    "ending_sse.py": (("sse_starlette",), "ending_sse:application", "/events", b"data: 0\r\n", b"\r\n"),
    "ending_django.py": (
        ("django",),
        "ending_django:application",
        "/poll",
        b"",
        b'{"news": null, "ask": "elsewhere"}',
    ),
    "ending_message.py": ((), "ending_message:application", "/", b"I wait.\n", b"The server is stopping.\n"),
    "django_streams.py": (("django",), "django_streams:application", "/events", b"data: 0\n", b"\n"),
}
# Whoever shows no certificate gets 401; tests/integration/test_tls.py shows some.
ELSEWHERE = {"client_name.py"}


def test_every_example_is_run() -> None:
    ending = {name.partition(",")[0] for name in ENDING}
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SERVED, *WEBSOCKETS, *RUN, *ELSEWHERE, *ending}


@pytest.mark.parametrize("example", SERVED)
def test_an_example_application_is_served(example: str) -> None:
    arguments, request, expected = SERVED[example]
    with served("-p", "0", *arguments) as serving:
        assert fetch(serving, *request) == expected
        assert serving.stop() == 0
    assert "ERROR" not in serving.output


@pytest.mark.parametrize("example", ENDING)
def test_an_example_that_waits_for_the_end_of_the_server_ends_by_itself(example: str) -> None:
    needs, application, path, first, last = ENDING[example]
    for module in needs:
        pytest.importorskip(module)
    with served("-p", "0", application) as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        # Shorter than the time that the server would wait for it otherwise.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
            connection.request("GET", path)
            if first:
                response = connection.getresponse()
                assert response.readline() == first
            serving.process.send_signal(signal.SIGTERM)
            if not first:
                response = connection.getresponse()
            assert response.status == 200
            assert response.read().endswith(last)  # whole: an IncompleteRead otherwise
        assert serving.process.wait(START_SECONDS) == 0  # another signal would have it hurry
    assert "Killed" not in serving.output
    assert "ERROR" not in serving.output


# What logged.py serves, and beside it a WebSocket and a view during which clients leave.
LOGGED = """
import asyncio
import logged
from echo import application as echo

async def application(scope, receive, send):
    if scope["type"] == "websocket" and scope["path"] != "/refused":
        await echo(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/slow":
        while (await receive())["type"] != "http.disconnect":
            pass
    else:
        await logged.application(scope, receive, send)
"""


def test_every_line_of_the_json_access_log_is_json(tmp_path: Path) -> None:
    (tmp_path / "wrapped.py").write_text(LOGGED)
    directories = ("--app-dir", str(tmp_path), "--app-dir", str(EXAMPLES))
    with served("-p", "0", *directories, "--access-log-logger", "wrapped:application") as serving:
        address = "127.0.0.1", int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])

        def say(request: bytes, answered: bool = True) -> None:
            with socket.create_connection(address, START_SECONDS) as client:
                client.sendall(request)
                assert bool(client.recv(65536)) if answered else True

        fields = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for target in (b'/quote"quote', b"/back\\slash", b"/per%cent%22", b"/\xc3\xa4?\xff\xfe", b"/{}{access}", b"/'"):
            say(b"GET " + target + fields)
        say(b"GET /\x00\x1b[31m\n" + fields)
        say(b'"BREW" / HTTP/1.1\r\nHost: localhost\r\n\r\n')
        say(b"nonsense\r\n\r\n")
        say(b"HEAD /" + fields)
        with spoken_to(address, '/chat"%ff') as client:
            client.say("Hello.")
            assert client.hear() == "Hello."
        with spoken_to(address, "/refused") as client:
            assert client.status == 500
        with socket.create_connection(address, START_SECONDS) as client:
            client.sendall(b"GET /slow" + fields)
        serving.wait_for(r'"/slow"')
        assert serving.stop() == 0
    assert "Logging error" not in serving.output
    lines = [line for line in serving.output.splitlines() if line.startswith("{")]
    records = [json.loads(line) for line in lines]
    assert len(re.findall(r'"protocol"', serving.output)) == len(records)
    names = {"time", "protocol", "action", "method", "path", "status", "size", "code", "client", "time_taken"}
    assert all(record.keys() >= names for record in records)
    actions = {(record["protocol"], record["action"]) for record in records}
    assert actions >= {
        ("http", "complete"),
        *(("websocket", f"{verb}ed") for verb in ("connect", "reject", "disconnect")),
    }
    assert {record["path"] for record in records} >= {r"/quote\x22quote", "/slow", "-"}


def test_the_events_of_the_django_example_come_and_end_with_their_client() -> None:
    with served("-p", "0", "django_streams:application") as serving:
        assert fetch(serving, "GET", "/events", parts=4) == b"data: 0\n\ndata: 1\n\n"
        serving.wait_for("The stream has ended.")
        assert serving.stop() == 0
    assert "ERROR" not in serving.output


def test_the_first_django_project_serves_its_page_its_stream_and_its_websocket(tmp_path: Path) -> None:
    pytest.importorskip("django")
    pytest.importorskip("channels")
    command = [sys.executable, "-m", "django", "startproject", "proj", str(tmp_path)]
    subprocess.run(command, check=True, env=environment())
    for file in (EXAMPLES / "first_django").glob("*.py"):
        shutil.copy(file, tmp_path / "proj")
    settings = tmp_path / "proj" / "settings.py"
    text = settings.read_text("utf-8").replace("INSTALLED_APPS = [", 'INSTALLED_APPS = ["daphne_ng", ')
    settings.write_text(f'{text}\nASGI_APPLICATION = "proj.asgi.application"\n', "utf-8")
    subprocess.run([sys.executable, "manage.py", "check"], check=True, cwd=tmp_path, env=environment())
    with served("-p", "0", "--app-dir", str(tmp_path), "proj.asgi:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
            connection.request("GET", "/")
            assert b"new WebSocket" in connection.getresponse().read()
            connection.request("GET", "/ticks/")
            response = connection.getresponse()
            assert b"".join(response.readline() for _ in range(4)) == b"data: 0\n\ndata: 1\n\n"
        with spoken_to(("127.0.0.1", port), "/ws/", "Origin: http://localhost\r\n") as client:
            client.say("Hello.")
            assert client.hear() == "You said: Hello."
        assert serving.stop() == 0
    assert "ERROR" not in serving.output


class WebSocketClient:
    """As much of RFC 6455 as the examples need: short messages, one frame each."""

    def __init__(self, connection: socket.socket, path: str, fields: str = "") -> None:
        self._file = connection.makefile("rwb")
        self._file.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n".encode()
        )
        self._file.flush()
        self.status = int(self._file.readline().split()[1])
        self.fields = [line.decode().strip() for line in iter(self._file.readline, b"\r\n")]

    def say(self, text: str) -> None:
        data = text.encode()
        assert len(data) < 126
        self._file.write(bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data)  # the mask of zeros changes nothing
        self._file.flush()

    def hear(self) -> str:
        """Return the next message, or the code and reason of a Close frame."""
        first = 0x89
        while first == 0x89:  # the server is patient: a ping need not be answered
            first, size = self._file.read(2)
            data = self._file.read(size)
            assert len(data) == size < 126
        if first == 0x88:
            return f"{int.from_bytes(data[:2], 'big')} {data[2:].decode()}"
        assert first == 0x81
        return data.decode()

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def spoken_to(address: Any, path: str, fields: str = "") -> Iterator[WebSocketClient]:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(START_SECONDS)
        connection.connect(address)
        with contextlib.closing(WebSocketClient(connection, path, fields)) as client:
            yield client


@pytest.mark.parametrize("example", WEBSOCKETS)
def test_an_example_of_websockets_is_served(example: str) -> None:
    needs, fields, status, said, heard = WEBSOCKETS[example]
    for module in needs:
        pytest.importorskip(module)
    with served("-p", "0", f"{example.removesuffix('.py')}:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        path = "/you" if example == "chat.py" else "/"
        with spoken_to(("127.0.0.1", port), path, fields) as client:
            assert client.status == status, serving.output
            for text in said:
                client.say(text)
            assert [client.hear() for _ in heard] == heard
        assert serving.stop() == 0
    assert "ERROR" not in serving.output


@pytest.mark.parametrize(
    ("example", "fields", "status"),
    [
        ("negotiate.py", "Sec-WebSocket-Protocol: chat.v0\r\n", 403),
        ("denial.py", "", 401),
        ("denial.py", "Origin: http://elsewhere\r\n", 403),
        ("channels_echo.py", "Origin: http://elsewhere\r\n", 403),
    ],
)
def test_an_example_of_websockets_refuses(example: str, fields: str, status: int) -> None:
    for module in WEBSOCKETS[example][0]:
        pytest.importorskip(module)
    with served("-p", "0", f"{example.removesuffix('.py')}:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        with spoken_to(("127.0.0.1", port), "/", fields) as client:
            assert client.status == status


def test_the_chat_tells_everybody() -> None:
    with served("-p", "0", "chat:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        with spoken_to(("127.0.0.1", port), "/ada") as ada:
            assert ada.hear() == "ada is here"
            with spoken_to(("127.0.0.1", port), "/bob") as bob:
                assert [ada.hear(), bob.hear()] == ["bob is here", "bob is here"]
                bob.say("Hi.")
                assert [ada.hear(), bob.hear()] == ["bob: Hi.", "bob: Hi."]
            assert ada.hear() == "bob has left"
            serving.process.send_signal(signal.SIGTERM)
            assert ada.hear() == "1012 The server is shutting down."
        assert serving.stop() == 0
    assert "ERROR" not in serving.output


@pytest.mark.parametrize("example", RUN)
def test_an_example_program_runs(example: str) -> None:
    command = [sys.executable, example]
    done = subprocess.run(
        command, cwd=EXAMPLES, env=environment(), capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(RUN[example], done.stdout)


def test_the_demo_is_served_without_an_application() -> None:
    with served("-p", "0") as serving:
        assert b"<title>daphne-ng is running</title>" in fetch(serving, "GET", "/")
        assert serving.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--head-timeout", "-1", "hello:application"], 1),
        (["nosuch:application"], 1),
        (["-e", "nosuch:0", "hello:application"], 1),
        (["--nosuch"], 2),
        (["--proxy-headers-host", "X-Real-IP", "hello:application"], 2),
        (["-p", "0", "--lifespan", "on", "hello:application"], 3),
    ],
)
def test_the_exit_codes_are_the_documented_ones(arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daphne_ng", *arguments],
        cwd=EXAMPLES,
        env=environment(),
        capture_output=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == code


# -- statements that are easily outdated ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x/abc?\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: x\r\n" % n for n in range(250)) + b"\r\n", 431),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200),
    ],
)
def test_requests_are_refused_as_the_migration_page_says(hello: int, request_bytes: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", hello), START_SECONDS) as client:
        client.sendall(request_bytes)
        assert client.recv(1024).split(b" ")[1] == b"%d" % status


@pytest.fixture(scope="module")
def hello() -> Iterator[int]:
    with served("-p", "0", "hello:application") as serving:
        yield int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])


@pytest.mark.system
def test_http_2_is_served_and_checked_as_the_page_says(tmp_path: Path) -> None:
    require_program("openssl")
    require_program("curl")
    commands = {
        block.comment.removeprefix("<!-- tested: ").removesuffix(" -->"): block.text
        for block in blocks_of(DOCS / "how-to" / "http2.md")
        if block.comment.startswith("<!-- tested:")
    }
    assert set(commands) == {"certificate", "curl", "h2c"}

    def run(name: str, **ports: int) -> str:
        command = commands[name]
        for documented, port in ports.items():
            command = command.replace(documented.removeprefix("port_"), str(port))
        done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    run("certificate")
    endpoint = f"ssl:0:privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem:interface=127.0.0.1"
    with served("-e", endpoint, "hello:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        assert run("curl", port_8443=port) == "2\n"
    with served("-e", endpoint, "--no-http2", "hello:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        assert run("curl", port_8443=port) == "1.1\n"
    with served("-p", "0", "hello:application") as serving:
        port = int(serving.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        assert run("h2c", port_8000=port) == "2\n"


@pytest.mark.system
def test_the_nginx_configuration_works(tmp_path: Path) -> None:
    require_program("nginx")
    upstream, front = tmp_path / "proj.sock", tmp_path / "front.sock"
    site = (EXAMPLES / "deploy" / "nginx.conf").read_text("utf-8")
    site = site.replace("/run/proj/proj.sock", str(upstream)).replace("listen 80;", f"listen unix:{front};")
    site = site.replace("location / {", "location / {\nproxy_read_timeout 3;")  # the default is 60
    temporary = "\n".join(
        f"{kind}_temp_path {tmp_path / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{temporary}\n{site}\n}}\n",
        encoding="utf-8",
    )
    with served("-u", str(upstream), "--ping-interval", "1", "chat:application") as serving:
        serving.wait_for("Listening on UNIX socket")
        nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
        try:
            for _ in range(2):
                assert request_over_unix(front).endswith(b"Open the console of the browser.\n")
            with spoken_to(str(front), "/nginx") as client:
                assert client.hear() == "nginx is here"
                time.sleep(4)  # pings keep it up for longer than proxy_read_timeout
                client.say("Still here.")
                assert client.hear() == "nginx: Still here."
        finally:
            nginx.terminate()
            nginx.wait(START_SECONDS)


def request_over_unix(path: Path) -> bytes:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_SECONDS)
            try:
                client.connect(str(path))
                client.sendall(b"GET /nginx HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b""))
            except (ConnectionError, FileNotFoundError):  # nginx listens before it is ready, and resets who is early
                assert time.monotonic() < deadline
                time.sleep(0.05)
