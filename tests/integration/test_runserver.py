"""``manage.py runserver`` as a developer has it: processes of their own, in a project made for it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.processes.serving import HOST, PROJECTS, SLACK, Running, free_port, wait_for

pytestmark = pytest.mark.once


PROJECT = PROJECTS / "playground_project"

START_SECONDS = 60.0
END_SECONDS = 1.5
"""How long Ctrl-C may take: a developer waits for it."""

_BANNER = re.compile(
    r"^(?P<date>\w+ \d\d, \d{4} - \d\d:\d\d:\d\d)\n"
    r"Django version (?P<django>\S+), using settings 'playground\.settings'\n"
    r"Starting ASGI/daphne-ng version (?P<version>\S+) development server at "
    r"(?P<scheme>\w+)://(?P<host>\S+):(?P<port>\d+)/\nQuit the server with CONTROL-C\.\n",
    re.MULTILINE,
)
_WSGI_BANNER = re.compile(
    r"Starting (?:WSGI )?development server at (?P<scheme>http)://(?P<host>\S+):(?P<port>\d+)/\nQuit the server with CONTROL-C\."
)


class Developing(Running):
    """A development server, and the process that restarts it."""

    def await_banner(self, count: int = 1, pattern: re.Pattern[str] = _BANNER) -> re.Match[str]:
        """Return the last of so many banners."""

        def banner() -> re.Match[str] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log}")
            found = list(pattern.finditer(self.log))
            return found[-1] if len(found) >= count else None

        match = wait_for(banner, f"banner {count} in\n{self.log}", START_SECONDS)
        self.port = int(match["port"])
        return match

    def dial(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        return connect(f"ws://{HOST}:{self.port}{path}", proxy=None, **options)

    def end(self, number: int = signal.SIGTERM, *, whole_group: bool = False) -> float:
        """Send a signal, as a terminal does or to the first process alone; return the seconds until all have ended."""
        began = time.monotonic()
        if whole_group:
            os.killpg(self.pid, number)
        else:
            self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after 30 s:\n{self.log}") from None
        taken = time.monotonic() - began
        with pytest.raises(ProcessLookupError):  # no process of the group is left
            os.killpg(self.pid, 0)
        return taken


def project_in(directory: Path) -> Path:
    """Copy the project, so that its files can be changed."""
    project = directory / "project"
    if not project.exists():
        shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    return project


def variables(settings: Mapping[str, Any] | None, environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of the project, with some settings changed."""
    # Modules are written and read again within a second: no bytecode, whose age would be all that tells them apart.
    plain = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONDEVMODE": ""}
    unwanted = ("DJANGO_COLORS", "FORCE_COLOR", "NO_COLOR", "DJANGO_SETTINGS_MODULE")
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**inherited, **plain, "PLAYGROUND_SETTINGS": json.dumps(settings or {}), **(environment or {})}


@contextlib.contextmanager
def develop(
    directory: Path,
    *options: str,
    address: str = f"{HOST}:0",
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    command: str = "runserver",
    banner: re.Pattern[str] | None = _BANNER,
) -> Iterator[Developing]:
    """Run the development server while the ``with`` block does. It must be gone at the end."""
    project = project_in(directory)
    log_path = directory / "server.log"
    arguments = [sys.executable, "manage.py", command, *filter(None, [address]), *options]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            arguments,
            cwd=project,
            env=variables(settings, environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Developing(process, project, log_path)
    try:
        if banner is not None:
            running.await_banner(pattern=banner)
        yield running
        if process.poll() is None:
            running.end()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def manage(
    directory: Path,
    *arguments: str,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a management command that comes to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project_in(directory),
        env=variables(settings, environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


# -- a server as it is started every day, without the autoreloader, which has tests of its own ------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developing]:
    settings = {"DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE": 2000, "DAPHNE_WEBSOCKET_MAX_FRAME_SIZE": 1000}
    options = ("--noreload", "--websocket_handshake_timeout", "1", "--http_timeout", "1")
    with develop(tmp_path_factory.mktemp("runserver"), *options, settings=settings) as running:
        yield running
        running.end()
        assert "Traceback" not in running.log
        assert "lifespan shutdown" in running.log


def test_the_banner_says_what_is_served_where(server: Developing) -> None:
    import django

    import daphne_ng

    match = server.await_banner()
    assert server.log.startswith("Performing system checks...\n\nSystem check identified no issues")
    assert (match["django"], match["version"]) == (django.get_version(), daphne_ng.__version__)
    assert (match["scheme"], match["host"]) == ("http", HOST)


def test_requests_are_logged_without_colour_where_there_is_none(server: Developing) -> None:
    with server.client() as client:
        for code, level in ((200, "INFO"), (404, "WARNING"), (418, "WARNING"), (503, "ERROR")):
            # A per cent sign in the path must not be taken for a place to put something.
            assert client.get(f"/status/{code}?100%25s").status_code == code
            client_port = server.wait_for_log(
                rf"^HTTP GET /status/{code}\?100%25s {code} \[\d+\.\d\d, 127\.0\.0\.1:(\d+)\]$"
            )
            (note,) = [note for note in notes(server) if f"/status/{code}?" in note["msg"]]
            assert (note["level"], note["args"]) == (level, [])
            assert note["msg"].endswith(f", 127.0.0.1:{client_port[1]}]")
    assert "\x1b[" not in server.log


def notes(server: Developing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (server.directory / "notes.json").read_text().splitlines()]


def test_websockets_are_logged(server: Developing) -> None:
    with server.dial("/room") as ws:
        ws.send("hello")
        assert ws.recv(5) == "hello"
    with pytest.raises(InvalidStatus):
        server.dial("/room/refused")
    for path, words in {"/room": "HANDSHAKING CONNECT DISCONNECT", "/room/refused": "HANDSHAKING REJECT"}.items():
        for word in words.split():
            server.wait_for_log(rf"^WebSocket {word} {path} \[127\.0\.0\.1:\d+\]$")


def test_the_sizes_of_messages_and_frames_are_those_of_the_settings(server: Developing) -> None:
    for frames, code in ((["x" * 1000], None), (["x" * 1001], 1009), (["x" * 900] * 3, 1009)):
        with server.dial("/room", compression=None) as ws:
            if code is None:
                ws.send(frames)
                assert ws.recv(5) == "".join(frames)
            else:
                with pytest.raises(ConnectionClosed):
                    ws.send(frames)  # which the server may end already
                    ws.recv(5)
                assert ws.close_code == code


def test_a_handshake_that_takes_too_long_is_refused(server: Developing) -> None:
    with pytest.raises(InvalidStatus) as caught:
        server.dial("/room/slow")
    assert caught.value.response.status_code in (403, 503, 504)


def test_a_response_that_takes_too_long_is_503(server: Developing) -> None:
    with server.client() as client:
        assert client.get("/slow").status_code == 503


def test_a_client_that_leaves_before_the_answer_is_one_line(server: Developing) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /slow?left HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)  # of the second that there is for an answer
    server.wait_for_log(r"^HTTP GET /slow\?left 499 \[\d\.\d\d, 127\.0\.0\.1:\d+\]$")
    (note,) = [note for note in notes(server) if "/slow?left" in note["msg"]]
    assert note["level"] == "INFO"


def test_what_a_consumer_does_when_its_client_has_left_may_take_its_time(server: Developing) -> None:
    before = server.log.count("socket 4123")
    with server.dial("/room/tidy") as ws:
        ws.close(4123)
    wait_for(lambda: server.log.count("socket 4123") == before + 1, "the end of the application", 10)
    assert "took too long to shut down" not in server.log


def test_static_files_are_served_while_debugging(server: Developing) -> None:
    with server.client() as client:
        assert client.get("/static/playground/page.css").text == "body { color: teal }\n"
        assert client.get("/static/playground/none.css").status_code == 404


# -- static files, with and without everything ------------------------------------------------------------------------

NO_STATICFILES = {"INSTALLED_APPS": ["daphne_ng", "playground"]}


@pytest.mark.parametrize(
    ("options", "settings", "status"),
    [
        (["--nostatic"], {}, 404),
        ([], {"DEBUG": False}, 404),
        (["--insecure"], {"DEBUG": False}, 200),
        (["--noasgi"], {}, 200),
        (["--noasgi", "--nostatic"], {"ASGI_APPLICATION": None}, 404),
        ([], NO_STATICFILES, 404),
        (["--noasgi"], NO_STATICFILES, 404),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, list) else None,
)
def test_static_files_are_served_as_django_would(
    tmp_path: Path, options: list[str], settings: dict[str, Any], status: int
) -> None:
    wsgi = "--noasgi" in options
    with develop(
        tmp_path, "--noreload", *options, settings=settings, banner=_WSGI_BANNER if wsgi else _BANNER
    ) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            assert client.get("/static/playground/page.css").status_code == status
            assert client.get("/whence").json()["asgi"] is not wsgi


def test_without_an_application_there_is_one_line_that_says_so(tmp_path: Path) -> None:
    for options in ([], ["--noreload"]):
        done = manage(tmp_path, "runserver", f"{HOST}:0", *options, settings={"ASGI_APPLICATION": None})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "CommandError: You have not set ASGI_APPLICATION, which is needed to run the server.\n"


# -- the autoreloader -------------------------------------------------------------------------------------------------


def test_a_changed_file_is_served_and_mistakes_are_survived(tmp_path: Path) -> None:
    with develop(tmp_path, address=f"{HOST}:{free_port()}") as server:
        words = server.directory / "playground" / "words.py"

        def change(text: str, then: Callable[[], object]) -> None:
            words.write_text(text)
            # The watcher looks once a second. What was changed before its first look is no change to it.
            for _ in range(12):
                with contextlib.suppress(AssertionError):
                    wait_for(then, f"what follows {text!r}", 5, interval=0.1)
                    return
                words.touch()
            raise AssertionError(f"nothing follows {text!r} in\n{server.log}")

        def greets(word: str) -> Callable[[], bool]:
            def look() -> bool:
                try:
                    return httpx.get(f"{server.url}/", trust_env=False).text == word
                except httpx.TransportError:
                    return False

            return look

        wait_for(greets("first"), "the first answer", START_SECONDS)
        with server.dial("/room") as ws:
            change('GREETING = "second"\n', greets("second"))
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert ws.close_code == 1012
        assert "words.py changed, reloading." in server.log
        assert "lifespan shutdown" in server.log
        change("GREETING = \n", lambda: "SyntaxError: invalid syntax" in server.log)
        change('GREETING = "third"\n', greets("third"))
        taken = server.end(signal.SIGINT, whole_group=True)
        assert server.process.returncode == 0
        assert taken < END_SECONDS * SLACK


def test_a_startup_that_fails_waits_for_a_change_instead_of_trying_for_ever(tmp_path: Path) -> None:
    with develop(tmp_path, environment={"PLAYGROUND_STARTUP": "fails"}, banner=None) as server:
        server.wait_for_log("not today", START_SECONDS)
        time.sleep(0.5)
        assert server.process.poll() is None
        assert server.log.count("not today") == 1
        server.end()
        assert server.process.returncode == 0
    done = manage(tmp_path, "runserver", f"{HOST}:0", "--noreload", environment={"PLAYGROUND_STARTUP": "fails"})
    assert done.returncode == 1
    assert "not today" in done.stderr
    assert "Traceback" not in done.stderr


# -- the end ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def streaming(server: Developing, path: bytes = b"/events") -> Iterator[socket.socket]:
    with server.connect() as connection:
        connection.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        received = b""
        while b"tick" not in received:
            received += connection.recv(4096)
        yield connection


@pytest.mark.parametrize(
    ("reload", "number", "whole_group"),
    [
        (True, signal.SIGINT, True),
        (True, signal.SIGINT, False),
        (True, signal.SIGTERM, False),
        (False, signal.SIGINT, True),
        (False, signal.SIGTERM, False),
    ],
    ids=["Ctrl-C", "SIGINT to the outer process alone", "SIGTERM", "Ctrl-C, noreload", "SIGTERM, noreload"],
)
def test_it_ends_at_once_whatever_is_open(tmp_path: Path, reload: bool, number: int, whole_group: bool) -> None:
    with develop(tmp_path, *([] if reload else ["--noreload"])) as server, contextlib.ExitStack() as clients:
        noticing = clients.enter_context(streaming(server, b"/until"))
        with server.dial("/room") as ws, streaming(server), server.connect() as idle, server.connect() as waiting:
            waiting.sendall(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n")
            server.wait_for_log("^stuck$")
            taken = server.end(number, whole_group=whole_group)
            print(f"ended in {taken:.2f} s")
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert ws.close_code == 1012
            assert idle.recv(1) == b""
        # It waits for the notice, and so it ends by itself.
        rest = b"".join(iter(lambda: noticing.recv(4096), b""))
        assert rest.endswith(b"data: last\n\n\r\n0\r\n\r\n")
        assert server.process.returncode == 0
        for line in ("lifespan shutdown", "stream ended", "socket 1012"):
            assert line in server.log
        assert "Traceback" not in server.log
        assert taken < END_SECONDS * SLACK + (0.4 if not whole_group else 0)


_LOSES_THE_FIRST = """
import signal, sys, time

came = []

def lose(number, frame):
    came.append(number)
    if len(came) == 2:
        sys.exit(0)

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lose)
print("ready", flush=True)
time.sleep(30)
sys.exit(1)
"""
_OUTER = """
import sys
from daphne_ng.management.commands.runserver import _run_again_and_again
sys.exit(_run_again_and_again([sys.executable, "-c", sys.argv[1]], "INNER"))
"""


def test_a_sigterm_that_the_inner_process_loses_is_sent_again() -> None:
    command = [sys.executable, "-c", _OUTER, _LOSES_THE_FIRST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        began = time.monotonic()
        outer.send_signal(signal.SIGTERM)
        assert outer.communicate(timeout=30) == ("", "")
    assert outer.returncode == 0
    assert time.monotonic() - began < 5.5  # and not killed, which is after six


# -- where it listens -------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_said_as_django_says_it(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        for options in ([], ["--noreload"], ["--noasgi", "--noreload"]):
            done = manage(tmp_path, "runserver", address, *options)
            assert done.returncode == 1
            assert done.stderr.endswith("Error: That port is already in use.\n")
            assert "Traceback" not in done.stderr
            assert "Quit the server" not in done.stdout


def test_an_address_of_another_machine_is_said_as_django_says_it(tmp_path: Path) -> None:
    done = manage(tmp_path, "runserver", "192.0.2.1:0", "--noreload")
    assert (done.returncode, done.stderr) == (1, "Error: That IP address can't be assigned to.\n")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("address", "options", "shown", "dialled"),
    [
        ("0:0", [], "0.0.0.0", HOST),
        ("[::1]:0", [], "[::1]", "[::1]"),
        ("", ["-6"], "[::1]", "[::1]"),
        ("localhost:0", [], "localhost", "localhost"),
    ],
)
def test_addresses_are_those_of_django(
    tmp_path: Path, address: str, options: list[str], shown: str, dialled: str
) -> None:
    if "::1" in shown and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    if not address:
        address = str(free_port("::1"))
    with develop(tmp_path, "--noreload", *options, address=address) as server:
        assert server.await_banner()["host"] == shown
        assert httpx.get(f"http://{dialled}:{server.port}/", trust_env=False).text == "first"


# -- what the command line and the settings say ---------------------------------------------------------------------


def test_colours_are_those_of_a_terminal_and_of_django_colors(tmp_path: Path) -> None:
    def lines(*options: str, **environment: str) -> str:
        """Serve two requests on a terminal, press Ctrl-C there, and return what it shows."""
        ours, theirs = pty.openpty()
        shown = b""
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"{HOST}:0", *options],
            cwd=project_in(tmp_path),
            env=variables({}, {"TERM": "xterm", **environment}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            while not (match := re.search(rb"development server at (http://\S+?)/", shown)):
                shown += os.read(ours, 65536)
            with httpx.Client(base_url=match[1].decode(), trust_env=False) as client:
                client.get("/status/404")
                client.get("/status/302")
            while shown.count(b"HTTP GET") < 2:
                shown += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                while piece := os.read(ours, 65536):
                    shown += piece
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert b"Traceback" not in shown
        return shown.decode()

    shown = lines()
    assert re.search(r"\x1b\[33mHTTP GET /status/404 404 \[.*?\]\x1b\[0m", shown)
    assert re.search(r"\x1b\[32mHTTP GET /status/302 302 \[.*?\]\x1b\[0m", shown)
    assert "\x1b[32;1mHTTP GET /status/404" in lines(DJANGO_COLORS="http_not_found=green,bold")
    assert "\x1b[" not in lines("--no-color")


def test_settings_and_options_reach_the_server(tmp_path: Path) -> None:
    options = ("--noreload", "--proxy-headers", "--proxy-headers-host", "X-Real-IP", "--websocket-max-message-size=5")
    settings = {"FORCE_SCRIPT_NAME": "/mounted", "DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE": 1}
    with develop(tmp_path, *options, settings=settings) as server:
        with server.client(headers={"X-Real-IP": "192.0.2.9", "X-Forwarded-Proto": "https"}) as client:
            answer = client.get("/mounted/whence").json()
        assert (answer["client"], answer["scheme"]) == ("192.0.2.9", "https")
        assert (answer["script"], answer["path"]) == ("/mounted", "/mounted/whence")
        server.wait_for_log(r"^HTTP GET /mounted/whence 200 \[\S+, 192\.0\.2\.9:0\]$")
        with server.dial("/mounted/room", compression=None) as ws:
            ws.send("12345")
            assert ws.recv(5) == "12345"
            ws.send("123456")
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert ws.close_code == 1009


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--proxy-headers-port", "X-P"], "--proxy-headers has to be passed for "),
        (["--websocket-max-frame-size=-1"], "--websocket-max-frame-size must be at least 0, not -1"),
        (["--forwarded-allow-ips", "nobody!"], "nobody!"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    done = manage(tmp_path, "runserver", f"{HOST}:0", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("CommandError: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_certificate_that_cannot_be_read_is_one_line_too(tmp_path: Path) -> None:
    done = manage(tmp_path, "runserver", "--noreload", f"{HOST}:0", "--ssl-certfile", "/nonexistent.pem")
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .*--ssl-certfile: cannot read '/nonexistent\.pem': .*\n", done.stderr)


def test_https_is_served_with_a_certificate(tmp_path: Path, pem: Path) -> None:
    with develop(tmp_path, "--noreload", "--ssl-certfile", str(pem)) as server:
        assert server.await_banner()["scheme"] == "https"
        context = ssl.create_default_context(cafile=str(pem))
        context.check_hostname = False
        with httpx.Client(verify=context, trust_env=False) as client:
            assert client.get(f"https://{HOST}:{server.port}/whence").json()["scheme"] == "https"
        with connect(f"wss://{HOST}:{server.port}/room", proxy=None, ssl=context) as ws:
            ws.send("hello")
            assert ws.recv(5) == "hello"


def test_every_point_that_daphne_lets_a_project_override_can_be(tmp_path: Path) -> None:
    port = free_port()
    environment = {"OWNSERVER_PORT": str(port)}
    with develop(tmp_path, "--noreload", command="ownserver", address="", environment=environment) as server:
        assert server.await_banner()["scheme"] == "gopher"
        assert server.port == port
        with server.client() as client:
            answer = client.get("/own")
            assert (answer.status_code, answer.text) == (299, "own")
            assert client.get("/static/playground/page.css").status_code == 200
        server.wait_for_log("^own log http complete /own$")
        server.wait_for_log(r"^own server \['action_logger', .*'config', .*'websocket_max_message_size'\]$")
        assert "HTTP GET" not in server.log


@pytest.mark.parametrize("options", [("--noreload",), ()], ids=["alone", "reloading"])
def test_a_command_that_makes_the_server_itself_finds_what_daphnes_has(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    options += ("--websocket_handshake_timeout", "1", "--http_timeout", "1", "--websocket-max-message-size", "2000")
    with develop(tmp_path, *options, command="daphnerun", banner=_WSGI_BANNER) as server:
        with pytest.raises(InvalidStatus):
            server.dial("/room/slow")
        with server.client() as client:
            assert client.get("/slow").status_code == 503
            assert client.get("/static/playground/page.css").status_code == 200
        with streaming(server):
            assert server.end(signal.SIGINT, whole_group=True) < END_SECONDS * SLACK
        assert "Traceback" not in server.log


# -- other commands ---------------------------------------------------------------------------------------------------

_COST = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "playground.settings"
import django
django.setup()
django.core.management = __import__("django.core.management").core.management
django.core.management.call_command("check")
print(*sorted(sys.modules))
"""


def test_other_commands_pay_nothing_for_the_app(tmp_path: Path) -> None:
    def modules(*apps: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", _COST],
            cwd=project_in(tmp_path),
            env=variables({"INSTALLED_APPS": [*apps, "django.contrib.staticfiles", "playground"]}, None),
            capture_output=True,
            text=True,
            check=True,
        )
        return set(done.stdout.splitlines()[-1].split())

    added = modules("daphne_ng") - modules()
    assert len(added) < 10  # one or the other of Python's own
    # The package itself is there without the app, since the project's URLs import the notice before the end.
    assert {name for name in added if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "daphne_ng.apps",
        "daphne_ng.checks",
        "daphne_ng.compat",
        "daphne_ng.errors",
    }
