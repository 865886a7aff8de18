"""Applications that import twisted.internet.reactor, and the loops that some of them need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.test_runserver import develop, manage, project_in
from tests.support.processes.serving import APPS, HOST, ROOT, serve

pytestmark = pytest.mark.once


OURS = "daphne_ng.net.reactor.DaphneReactor"
STOCK = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), f"{OURS} uvloop running"),
        (("--workers", "2"), f"{OURS} uvloop running"),
        (("--reload", "--loop", "uvloop"), f"{OURS} uvloop running"),
        (("--factory", "--loop", "asyncio"), f"{OURS} asyncio.unix_events running"),
        (("--stock-reactor", "--limit-max-requests", "1000"), f"{STOCK} uvloop running"),
    ],
)
def test_an_application_that_imports_the_reactor_gets_the_one_that_serves(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    pytest.importorskip("uvloop")
    name = "factory" if "--factory" in options else "application"
    with serve(f"reacting:{name}", tmp_path, *options) as server:
        assert httpx.get(server.url, trust_env=False, timeout=30).text == expected


def test_nest_asyncio_works_on_asyncios_own_loop_and_the_error_on_uvloops_names_it(tmp_path: Path) -> None:
    pytest.importorskip("nest_asyncio")
    with serve("nesting:application", tmp_path, "--loop", "asyncio") as server:
        assert httpx.get(server.url, trust_env=False, timeout=30).text == "inner"
    pytest.importorskip("uvloop")
    done = run_command("nesting:application")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("; --loop asyncio serves without uvloop")


def test_where_crochet_runs_the_reactor_the_application_is_served_in_that_thread(tmp_path: Path) -> None:
    pytest.importorskip("crochet")
    with serve("threaded_reactor:application", tmp_path) as server:
        assert httpx.get(server.url, trust_env=False, timeout=30).text == "late"


def run_command(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, after some code of the program's."""
    program = f"{before}\nfrom daphne_ng.cli import CommandLineInterface\nCommandLineInterface.entrypoint()"
    return subprocess.run(
        [sys.executable, "-c", program, "-p", "0", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(APPS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


_FOREIGN_RUNS = """
import threading
from twisted.internet import selectreactor
selectreactor.install()
from twisted.internet import reactor
running = threading.Event()
reactor.callWhenRunning(running.set)
threading.Thread(target=reactor.run, args=[False], daemon=True).start()
running.wait()
"""


def test_a_foreign_reactor_that_runs_is_refused_in_one_line() -> None:
    done = run_command("reacting:application", before=_FOREIGN_RUNS)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("daphne-ng: error: SelectReactor runs in this process, and not on asyncio")


def test_uvloop_that_is_missing_is_one_line_before_anything_is_imported_or_started() -> None:
    for workers in ("1", "2"):
        done = run_command(
            "--workers", workers, "--loop", "uvloop", "no:such", before="import sys; sys.modules['uvloop'] = None"
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line == "daphne-ng: error: --loop uvloop: uvloop is not installed here; --loop asyncio does without"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_twisted(option: str) -> None:
    after = "import atexit, sys\natexit.register(lambda: print('twisted.internet' in sys.modules, file=sys.stderr))"
    done = run_command(option, before=after)
    assert (done.returncode, done.stderr) == (0, "False\n")


# -- Django ---------------------------------------------------------------------------------------------------------

_VIEW = """
from django.http import HttpResponse
from django.urls import path
from twisted.internet import reactor

def which(request):
    return HttpResponse(f"{type(reactor).__name__} {type(reactor._asyncioEventloop).__module__}")

urlpatterns = [path("which", which)]
"""
_MODELS = "from twisted.internet import reactor\n"
_SETTINGS = {"ROOT_URLCONF": "playground.reacting_urls"}


def reacting_project(directory: Path, *, early: str = "") -> Path:
    """Return a project whose models and URLs import the reactor, and its settings too where that is asked for."""
    project = project_in(directory)
    (project / "playground" / "models.py").write_text(_MODELS)
    (project / "playground" / "reacting_urls.py").write_text(_VIEW)
    settings = project / "playground" / "settings.py"
    settings.write_text(early + settings.read_text())
    return project


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--noreload",), "DaphneReactor uvloop"),
        ((), "DaphneReactor uvloop"),
        (("--noreload", "--loop=asyncio"), "DaphneReactor asyncio.unix_events"),
        (("--stock-reactor",), "AsyncioSelectorReactor uvloop"),
    ],
)
def test_runserver_serves_a_project_that_imports_the_reactor(
    tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    pytest.importorskip("uvloop")
    reacting_project(tmp_path)
    with develop(tmp_path, *options, settings=_SETTINGS) as server:
        assert httpx.get(f"http://{HOST}:{server.port}/which", trust_env=False, timeout=30).text == expected
        server.end()
        assert "installed already" not in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("options", [("--noreload",), ()], ids=["alone", "reloading"])
def test_a_reactor_that_the_settings_import_is_replaced_with_one_warning(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    reacting_project(tmp_path, early=_MODELS)
    with develop(tmp_path, *options, settings=_SETTINGS) as server:
        assert httpx.get(f"http://{HOST}:{server.port}/which", trust_env=False, timeout=30).text.startswith("Daphne")
        server.end()
        assert server.log.count("was installed already, and is not on asyncio") == 1
        assert "Traceback" not in server.log


@pytest.mark.parametrize("options", [("--noreload",), ()], ids=["alone", "reloading"])
def test_a_foreign_reactor_that_runs_is_one_line_of_runserver(tmp_path: Path, options: tuple[str, ...]) -> None:
    reacting_project(tmp_path, early=_FOREIGN_RUNS)
    done = manage(tmp_path, "runserver", f"{HOST}:0", *options)
    assert done.returncode == 1
    assert "Error: SelectReactor runs in this process" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted", "installed"),
    [
        (["check"], None, False),
        (["runserver", "--noreload", "--help"], None, False),
        (["runserver", "--noreload"], None, True),
        (["runserver"], None, False),  # the outer process of the autoreloader
        (["runserver", "--noreload"], False, False),
        (["check"], True, True),
    ],
)
def test_the_app_imports_twisted_for_what_serves_alone_or_as_the_setting_says(
    tmp_path: Path, arguments: list[str], wanted: bool | None, installed: bool
) -> None:
    program = f"""
import os, sys
sys.argv[1:] = {arguments!r}
from django.conf import settings
settings.configure(INSTALLED_APPS=["daphne_ng"], DAPHNE_NG_INSTALL_REACTOR={wanted!r})
import django
django.setup()
print("twisted" in sys.modules, "twisted.internet.reactor" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{installed} {installed}\n", "")
