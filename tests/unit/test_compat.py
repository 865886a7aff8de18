"""`daphne_ng.compat`: ``import daphne`` without Daphne.

Each interpreter can be changed once only, so most of this runs in others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import daphne_ng
from tests.support.build import BUILD


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
    assert printed.startswith(
        "WARNING SelectReactor was installed already, and is not on asyncio, which ASGI needs: it is replaced"
    )


def make_daphne(directory: Path) -> Path:
    (directory / "daphne").mkdir()
    (directory / "daphne" / "server.py").touch()
    (directory / "daphne" / "http_protocol.py").touch()
    (directory / "daphne" / "__init__.py").write_text("real = True\n")
    return directory


def test_a_daphne_that_is_only_installed_is_hidden(tmp_path: Path) -> None:
    printed = run(
        """
        from daphne_ng.compat import install_as_daphne, is_installed
        install_as_daphne()
        assert is_installed()
        import daphne, daphne.server, daphne_ng.server
        print(hasattr(daphne, "real"), daphne.server is daphne_ng.server)
        try:
            import daphne.http_protocol
        except ModuleNotFoundError as error:
            print(error)
        """,
        make_daphne(tmp_path),
    )
    assert printed == "False True\nNo module named 'daphne.http_protocol'\n"


def test_a_daphne_that_was_imported_is_not_replaced(tmp_path: Path) -> None:
    printed = run(
        """
        import daphne
        from daphne_ng.compat import install_as_daphne, is_installed
        from daphne_ng.errors import ConfigurationError
        try:
            install_as_daphne()
        except ConfigurationError as error:
            print(error)
        import daphne.server
        assert not is_installed() and daphne.real
        """,
        make_daphne(tmp_path),
    )
    where = tmp_path / "daphne" / "__init__.py"
    assert printed == f"install_as_daphne: daphne is imported already, from {where}\n"


@pytest.mark.parametrize("module", ["daphne", "daphne.__main__", "daphne.cli"])
def test_its_modules_can_be_run_as_programs(module: str, tmp_path: Path) -> None:
    printed = run(
        f"""
        import runpy, sys
        from daphne_ng.compat import install_as_daphne
        install_as_daphne()
        sys.argv = ["daphne", "--version"]
        found = runpy.run_module({module!r}, run_name={"made" if module == "daphne.cli" else "__main__"!r})
        print(found["__name__"], found["CommandLineInterface"].__module__)
        """,
        make_daphne(tmp_path),
    )
    assert printed == ("made made\n" if module == "daphne.cli" else f"daphne-ng {daphne_ng.__version__} ({BUILD})\n")


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
