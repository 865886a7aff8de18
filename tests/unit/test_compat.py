"""`daphne_ng.compat`: ``import daphne`` without Daphne, and what a project has to change.

Each interpreter can be changed once only, so most of this runs in others.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from daphne_ng import compat

needs_no_daphne = pytest.mark.skipif(
    not compat.is_installed() and importlib.util.find_spec("daphne") is not None, reason="Daphne itself is installed"
)


def run(program: str, *path: Path) -> str:
    """Run a program, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_no_daphne
def test_both_names_are_the_same_modules() -> None:
    printed = run(
        """
        import sys
        from daphne_ng.compat import install_as_daphne, is_installed
        assert not is_installed()
        install_as_daphne()
        install_as_daphne()
        assert is_installed()
        assert len([finder for finder in sys.meta_path if type(finder).__module__ == "daphne_ng.compat"]) == 1

        import daphne, daphne.cli, daphne.endpoints, daphne.utils
        from daphne.access import AccessLogGenerator
        from daphne.testing import DaphneProcess
        import daphne_ng, daphne_ng.access, daphne_ng.cli, daphne_ng.testing, daphne_ng.utils
        assert daphne is daphne_ng and daphne.cli is daphne_ng.cli and daphne.utils is daphne_ng.utils
        assert AccessLogGenerator is daphne_ng.access.AccessLogGenerator
        assert DaphneProcess is daphne_ng.testing.DaphneProcess
        assert daphne.__spec__.name == "daphne_ng" and daphne.cli.__spec__.name == "daphne_ng.cli"
        assert sys.modules["daphne.cli"] is sys.modules["daphne_ng.cli"]
        assert "daphne_ng.server" not in sys.modules and "twisted.internet" not in sys.modules

        from daphne.server import Server
        import daphne.server, daphne_ng.server
        assert Server is daphne_ng.server.Server
        for name in ("daphne.http_protocol", "daphne.nosuch", "daphnes"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                print(error)
        """
    )
    assert printed.splitlines() == [
        f"No module named '{name}'" for name in ("daphne.http_protocol", "daphne.nosuch", "daphnes")
    ]


@needs_no_daphne
def test_an_app_named_daphne_is_ours() -> None:
    pytest.importorskip("django")
    printed = run(
        """
        from daphne_ng.compat import install_as_daphne
        install_as_daphne()
        import django
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["daphne", "django.contrib.staticfiles"], STATIC_URL="/static/")
        django.setup()
        from django.core.management import get_commands, load_command_class
        from django.core.checks import run_checks
        print(get_commands()["runserver"], run_checks())
        from daphne.management.commands.runserver import Command
        import daphne_ng.management.commands.runserver as ours
        print(type(load_command_class("daphne_ng", "runserver")) is Command is ours.Command)
        """
    )
    assert printed == "daphne_ng []\nTrue\n"


@needs_no_daphne
def test_the_loop_of_daphnes_reactor_is_an_attribute_of_its_server_module() -> None:
    printed = run(
        """
        from daphne_ng.compat import install_as_daphne
        install_as_daphne()
        from daphne.server import twisted_loop
        from twisted.internet import reactor
        print(twisted_loop is reactor._asyncioEventloop)
        """
    )
    assert printed == "True\n"


@needs_no_daphne
def test_importing_its_server_installs_the_reactor_as_daphne_does() -> None:
    printed = run(
        """
        import sys
        from daphne_ng.compat import install_as_daphne
        install_as_daphne()
        import daphne.server
        assert "twisted.internet.reactor" in sys.modules
        from twisted.internet import reactor
        async def application(scope, receive, send):
            raise NotImplementedError
        server = daphne.server.Server(application, ["tcp:0:interface=127.0.0.1"], signal_handlers=False)
        reactor.callLater(0, lambda: print(reactor.running))
        server.ready_callable = lambda: reactor.callLater(0, server.stop)
        server.run()
        """
    )
    assert printed == "True\n"


@needs_no_daphne
def test_where_another_reactor_is_installed_importing_the_server_says_so() -> None:
    printed = run(
        """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        from twisted.internet import selectreactor
        selectreactor.install()
        from daphne_ng.compat import install_as_daphne
        install_as_daphne()
        import daphne.server
        """
    )
    assert printed.startswith("WARNING SelectReactor is installed already; ")


def test_the_real_daphne_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "daphne").mkdir()
    (tmp_path / "daphne" / "__init__.py").touch()
    for before in ("", "import daphne"):
        printed = run(
            f"""
            {before}
            from daphne_ng.compat import install_as_daphne, is_installed
            from daphne_ng.errors import ConfigurationError
            try:
                install_as_daphne()
            except ConfigurationError as error:
                print(error)
            assert not is_installed()
            import daphne
            assert not hasattr(daphne, "__version__")
            """,
            tmp_path,
        )
        assert str(tmp_path / "daphne" / "__init__.py") in printed
        assert printed.startswith("install_as_daphne: ")
        assert ("imported already" if before else "Uninstall it, or leave this call out") in printed


@needs_no_daphne
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_gets_the_alias_with_what_it_unpickles(tmp_path: Path, method: str) -> None:
    (tmp_path / "helper_of_project.py").write_text(
        "from daphne.testing import DaphneProcess\n"
        "class OwnProcess(DaphneProcess):\n"
        "    def run(self):\n"
        "        import daphne.utils\n"
        "        self.port.value = 42 if daphne.__name__ == 'daphne_ng' else 0\n"
    )
    (tmp_path / "main.py").write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    from daphne_ng.compat import install_as_daphne\n"
        "    install_as_daphne()\n"
        "    from helper_of_project import OwnProcess\n"
        "    process = OwnProcess('localhost', print)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print(process.exitcode, process.port.value)\n"
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("0 42\n", "")


# -- python -m daphne_ng.compat --------------------------------------------------------------------------------------

SAMPLE = {
    "requirements.txt": "channels[daphne]>=4.1\ndaphne==4.1.2  # the server\ntwisted[tls]\n",
    "pyproject.toml": 'dependencies = ["django", "daphne>=4,<5", "daphne-helpers"]\n',
    "setup.py": 'setup(install_requires=["daphne>=4.0"])\n',
    "proj/settings.py": (
        'INSTALLED_APPS = [\n    "daphne",\n    "django.contrib.staticfiles",\n]\n'
        'LOGGING = {"loggers": {"daphne.server": {"level": "DEBUG"}}}\n# daphne must come first\n'
    ),
    "proj/run.py": (
        "import daphne.server as s\nfrom daphne.cli import CommandLineInterface\n"
        "from daphne.http_protocol import WebRequest\nimport daphnetools\n"
        'subprocess.run(["daphne", "-b", "0.0.0.0", "proj.asgi:application"])\n'
    ),
    "Procfile": "web: daphne -p $PORT -b 0.0.0.0 proj.asgi:application\n",
    "Dockerfile": 'RUN pip install daphne==4.1\nCMD ["python", "-m", "daphne", "proj.asgi:application"]\n',
    "proj/start.py": 'os.execv(sys.executable, ["python", "-m", "daphne", "proj.asgi:application"])\n',
    "start.sh": (
        "exec python -m daphne proj.asgi:application\n"
        "python -c 'import daphne'\npython -c 'from daphne.cli import CommandLineInterface'\necho from daphne\n"
    ),
    "proj.service": "ExecStart=/srv/venv/bin/daphne -u /run/proj.sock proj.asgi:application\n",
    "node_modules/x/a.py": "import daphne\n",
    ".git/config.py": "import daphne\n",
    "env/pyvenv.cfg": "",
    "env/lib/a.py": "import daphne\n",
    "logo.svg": "daphne",
    "binary.json": "daphne \udcff",
}

EXPECTED = """\
Dockerfile:1
  - RUN pip install daphne==4.1
  + RUN pip install daphne-ng
Dockerfile:2
  - CMD ["python", "-m", "daphne", "proj.asgi:application"]
  + CMD ["python", "-m", "daphne_ng", "proj.asgi:application"]
Procfile:1
  - web: daphne -p $PORT -b 0.0.0.0 proj.asgi:application
  + web: daphne-ng -p $PORT -b 0.0.0.0 proj.asgi:application
proj.service:1
  - ExecStart=/srv/venv/bin/daphne -u /run/proj.sock proj.asgi:application
  + ExecStart=/srv/venv/bin/daphne-ng -u /run/proj.sock proj.asgi:application
pyproject.toml:1
  - dependencies = ["django", "daphne>=4,<5", "daphne-helpers"]
  + dependencies = ["django", "daphne-ng", "daphne-helpers"]
requirements.txt:1
  - channels[daphne]>=4.1
  + channels and daphne-ng
requirements.txt:2
  - daphne==4.1.2  # the server
  + daphne-ng  # the server
setup.py:1
  - setup(install_requires=["daphne>=4.0"])
  + setup(install_requires=["daphne-ng"])
start.sh:1
  - exec python -m daphne proj.asgi:application
  + exec python -m daphne_ng proj.asgi:application
start.sh:2
  - python -c 'import daphne'
  + python -c 'import daphne_ng'
start.sh:3
  - python -c 'from daphne.cli import CommandLineInterface'
  + python -c 'from daphne_ng.cli import CommandLineInterface'
start.sh:4
  - echo from daphne
  + echo from daphne-ng
proj/run.py:1
  - import daphne.server as s
  + import daphne_ng.server as s
proj/run.py:2
  - from daphne.cli import CommandLineInterface
  + from daphne_ng.cli import CommandLineInterface
proj/run.py:3
  - from daphne.http_protocol import WebRequest
  + the protocol classes are Daphne's own; daphne-ng has none by these names
proj/run.py:5
  - subprocess.run(["daphne", "-b", "0.0.0.0", "proj.asgi:application"])
  + subprocess.run(["daphne-ng", "-b", "0.0.0.0", "proj.asgi:application"])
proj/settings.py:2
  - "daphne",
  + "daphne_ng",
proj/settings.py:5
  - LOGGING = {"loggers": {"daphne.server": {"level": "DEBUG"}}}
  + LOGGING = {"loggers": {"daphne_ng.server": {"level": "DEBUG"}}}
proj/start.py:1
  - os.execv(sys.executable, ["python", "-m", "daphne", "proj.asgi:application"])
  + os.execv(sys.executable, ["python", "-m", "daphne_ng", "proj.asgi:application"])

19 lines to look at. Where code cannot be changed, call daphne_ng.compat.install_as_daphne() first:
`import daphne` then means daphne-ng.
"""


def test_what_a_project_needs_to_change_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in SAMPLE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == EXPECTED


def test_a_project_without_daphne_has_nothing_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.py").write_text('INSTALLED_APPS = ["daphne_ng"]\n')
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing here names Daphne.\n"


def test_it_is_a_program_for_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: daphne proj.asgi:application\n")
    program = [sys.executable, "-m", "daphne_ng.compat"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("Procfile:1\n")
    assert "1 line to look at" in done.stdout
    done = subprocess.run([*program, "nosuch"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "nosuch is not a directory\n")
    done = subprocess.run([*program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "usage: python -m daphne_ng.compat [DIRECTORY]\n")
