"""``--reload``: new code is served soon after a file was saved, and nobody is turned away meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.serving import HOST, SLACK, Running, serve, wait_for

pytestmark = pytest.mark.once


if sys.platform == "win32":
    pytest.skip("--reload needs a POSIX system", allow_module_level=True)

# A page that says which version it is of, one that is a template, one that goes on.
SOURCE = """
import asyncio, pathlib, sys
VERSION = {version!r}
TEMPLATE = pathlib.Path(__file__).parent.joinpath("page.html")
PAGE = TEMPLATE.read_text() if TEMPLATE.exists() else ""

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    text = PAGE if scope["path"] == "/page" else VERSION
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    while scope["path"] == "/stream":
        await send({{"type": "http.response.body", "body": b".", "more_body": True}})
        await asyncio.sleep(0.1)
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


class Project:
    """A directory with an application in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, version: str, name: str = "main.py") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.format(version=version))

    @contextlib.contextmanager
    def served(self, *options: str, application: str = "main:app", **more: object) -> Iterator[Running]:
        with serve(application, self.root, "--reload", *options, imports=self.root / "imports", **more) as server:  # type: ignore[arg-type]
            server.wait_for_log("Worker 1 .* is ready", 20)
            yield server


@pytest.fixture(params=["watchfiles", "polling"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    # Where Python looks before it looks among what is installed.
    imports = tmp_path / "imports"
    imports.mkdir()
    if request.param == "polling":
        (imports / "watchfiles.py").write_text("raise ImportError('not installed')\n")
    project = Project(tmp_path)
    project.save("1")
    return project


def ask(server: Running, path: str = "/") -> str:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def wait_until(server: Running, text: str, path: str = "/", seconds: float = 20.0) -> None:
    try:
        wait_for(lambda: ask(server, path) == text, repr(text), seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}, with this log:\n{server.log}") from None


class Visitors:
    """Ask all the time; some with a connection for each request, some with one that they keep."""

    def __init__(self, server: Running) -> None:
        self.failures: list[Exception] = []
        self.seen: list[str] = []
        self._server = server
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(keeps,)) for keeps in (False, True, True)]

    def _visit(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=20)
        while not self._end.wait(0.005):
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                self.seen.append(response.read().decode())
                assert response.status == 200
            except Exception as error:
                self.failures.append(error)
                connection.close()
            if not keeps:
                connection.close()
        connection.close()

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_new_code_is_served_and_nobody_is_turned_away(project: Project) -> None:
    with project.served() as server:
        with Visitors(server) as visitors:
            for version in ("2", "3", "4"):
                project.save(version)
                wait_until(server, version)
                time.sleep(1.2)  # until the one before has gone
        assert visitors.failures == []
        assert set(visitors.seen) == {"1", "2", "3", "4"}
        assert len(visitors.seen) > 200
        assert re.search("INFO .* main.py changed$", server.log, re.M)


def test_code_that_does_not_import_leaves_the_old_one_and_its_traceback(project: Project) -> None:
    with project.served() as server, Visitors(server) as visitors:
        server.expect("ERROR .* which was to replace .* ended with code 1", "ERROR .*The workers are not replaced")
        (project.root / "main.py").write_text("def broken():\n    return 1 / 0\n\nbroken()\n")
        server.wait_for_log("the new code does not start", 20)
        assert ask(server) == "1"
        shown = re.search(r"Traceback .*?^daphne-ng: error: .*?$", server.log, re.M | re.S)
        assert shown is not None
        assert 'main.py", line 2, in broken\n    return 1 / 0\n' in shown[0]
        assert shown[0].endswith("importing 'main' failed at main.py:2: ZeroDivisionError: division by zero")

        (project.root / "main.py").write_text("def app(:\n")
        server.wait_for_log("main.py:1: SyntaxError: ", 20)
        assert ask(server) == "1"
        # It is tried again when something changes, and not before.
        time.sleep(1)
        assert server.log.count("daphne-ng: error:") == 2
        project.save("2")
        wait_until(server, "2")
        assert visitors.failures == []


def test_a_file_that_is_removed_or_renamed_is_a_change(project: Project) -> None:
    project.save("1", "real.py")
    (project.root / "main.py").write_text("from real import app\n")
    with project.served() as server:
        server.expect("ERROR .*")
        os.rename(project.root / "real.py", project.root / "renamed.py")
        server.wait_for_log("No module named 'real'", 20)
        assert ask(server) == "1"
        (project.root / "main.py").write_text("from renamed import app, VERSION\nVERSION = 'x'\n")
        server.wait_for_log("All workers are replaced", 20)
        os.unlink(project.root / "renamed.py")
        server.wait_for_log("No module named 'renamed'", 20)
        assert ask(server) == "1"


def test_files_saved_in_rapid_succession_end_with_the_last(project: Project) -> None:
    with project.served() as server, Visitors(server) as visitors:
        for number in range(2, 32):
            project.save(str(number))
            time.sleep(0.05)
        wait_until(server, "31")
        time.sleep(1)
        assert ask(server) == "31"
        assert visitors.failures == []
        assert server.log.count(" starts") < 15
        assert sum(" starts" in line for line in server.log.splitlines()) >= 2


def test_patterns_say_what_else_counts_and_what_does_not(project: Project) -> None:
    (project.root / "page.html").write_text("one")
    with project.served(
        "--reload-include", "*.html", "--reload-exclude", "test_*", "--reload-exclude", "data"
    ) as server:
        assert ask(server, "/page") == "one"
        project.save("unseen", "test_main.py")
        project.save("unseen", "data/set.py")
        (project.root / "notes.txt").write_text("unseen")
        time.sleep(1.5)
        assert " changed" not in server.log
        (project.root / "page.html").write_text("two")
        wait_until(server, "two", "/page")
        project.save("2")
        wait_until(server, "2")


def test_what_is_imported_from_elsewhere_is_watched_too(project: Project) -> None:
    here = project.root / "here"
    here.mkdir()
    project.save("1", "elsewhere/code.py")
    with Project(here).served(application="../elsewhere/code.py:app", environment={"PYTHONPATH": str(project.root / "imports")}) as server:  # fmt: skip
        project.save("2", "elsewhere/code.py")
        wait_until(server, "2")
        assert "../elsewhere/code.py changed" in server.log


@pytest.mark.parametrize("page", ["/", "/stream"])
def test_ctrl_c_takes_less_than_a_second(project: Project, page: str) -> None:
    with project.served() as server:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", page)
            connection.getresponse().read(1)
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(10) == 0
            assert time.monotonic() - began < 1.0 * SLACK


def test_the_first_start_must_succeed(project: Project) -> None:
    (project.root / "main.py").write_text("import not_there\n")
    command = [sys.executable, "-m", "daphne_ng", "--reload", "-p", "0", "main:app"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    line = "daphne-ng: error: application 'main:app': importing 'main' failed at main.py:1: ModuleNotFoundError: "
    assert line in done.stderr


HELD = """
import fcntl
lock = open(__file__ + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def test_an_application_that_holds_what_one_process_can_gets_new_code(project: Project) -> None:
    main = project.root / "main.py"
    main.write_text(HELD + SOURCE.format(version="1"))
    with project.served() as server:
        server.expect("ERROR .*", "WARNING .* The new code may need what the old holds")
        with Visitors(server) as visitors:
            main.write_text(HELD + SOURCE.format(version="2", seconds=60))
            wait_until(server, "2")
            # What it is like is known now.
            main.write_text(HELD + SOURCE.format(version="3", seconds=60))
            wait_until(server, "3")
            assert server.log.count("BlockingIOError: ") == 2  # a traceback and its one line
            # The old one has ended when this is found out; who asks waits for the next change.
            main.write_text("def app(:\n")
            server.wait_for_log("the next change is the next try", 60)
            main.write_text(HELD + SOURCE.format(version="4", seconds=60))
            wait_until(server, "4")
        assert visitors.failures == []
        assert set(visitors.seen) == {"1", "2", "3", "4"}


def test_another_directory_under_the_name_of_a_watched_one_is_found(project: Project) -> None:
    project.save("1", "releases/1/code.py")
    project.save("2", "releases/2/code.py")
    current, following = project.root / "current", project.root / "next"
    os.symlink("releases/1", current)
    options = ("--app-dir", "current", "--reload-dir", "current")
    with project.served(*options, application="code:app") as server:
        server.expect("ERROR .*")
        assert ask(server) == "1"
        os.symlink("releases/2", following)
        os.replace(following, current)
        wait_until(server, "2", seconds=60)
        shutil.rmtree(project.root / "releases/2")
        server.wait_for_log("the new code does not start; the old goes on", 60)
        assert ask(server) == "2"
        project.save("3", "releases/2/code.py")
        wait_until(server, "3", seconds=60)
        project.save("4", "releases/2/code.py")
        wait_until(server, "4", seconds=60)


def test_what_is_in_a_virtual_environment_does_not_count(project: Project) -> None:
    project.save("unseen", "venv/lib/code.py")
    (project.root / "venv" / "pyvenv.cfg").touch()
    with project.served() as server:
        project.save("changed", "venv/lib/code.py")
        project.save("new", "venv/lib/more/code.py")
        time.sleep(1.5)
        assert " changed" not in server.log


@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from Linux /proc")
def test_looking_at_thousands_of_files_costs_little(project: Project) -> None:
    for number in range(5000):
        path = project.root / f"package{number // 500}" / f"part{number // 20}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with project.served() as server:
        time.sleep(1)
        before, began = processor_seconds(server.pid), time.monotonic()
        time.sleep(5)
        used = (processor_seconds(server.pid) - before) / (time.monotonic() - began)
        print(f"Watching 5,000 files takes {used:.2%} of a processor.")
        # Under 1 % on an idle machine; more than that on a busy one is no failure.
        assert used < 0.03
        (project.root / "package3" / "part80" / "module1600.py").write_text("# seen\n")
        server.wait_for_log("module1600.py changed", 10)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_file_that_is_saved_twice_within_a_second_is_served_as_it_was_last(project: Project) -> None:
    now = int(time.time())
    os.utime(project.root / "main.py", (now, now))
    with project.served() as server:
        project.save("2")
        os.utime(project.root / "main.py", (now, now + 0.5))  # the compiled file has whole seconds
        wait_until(server, "2")
