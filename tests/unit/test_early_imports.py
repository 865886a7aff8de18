"""What the settings, ``manage.py``, ``asgi.py`` or a ``conftest.py`` may import: everything, before Django is set up.

Projects have ``from daphne.management.commands.runserver import Command`` there, to give it another port, and
``import daphne.server``, to have its reactor first. Each module is imported in a process that has imported none before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django")

MODULES = """
access apps checks cli compat config demo endpoints management.commands.runserver pytest_plugin server
serving.loading serving.logconfig serving.process testing utils
""".split()

SETTINGS = """
import importlib, os
SECRET_KEY = "only for tests"
INSTALLED_APPS = os.environ["EARLY_APPS"].split()
STATIC_URL = "/static/"
for name in os.environ["EARLY_IMPORTS"].split():
    module = importlib.import_module(name)
if "runserver" in name:
    module.Command.default_port = "8003"
"""

# Forks, since that is quicker than to start an interpreter for each.
PROGRAM = """
import importlib, io, os, sys, traceback
import django.core.checks, django.core.management.base, django.contrib.staticfiles, django.test

def fresh(function, *arguments):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            print(*arguments)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, arguments

def unconfigured(name):
    importlib.import_module(name)
    assert "twisted.internet.reactor" not in sys.modules or "daphne." in name
    assert "DJANGO_SETTINGS_MODULE" not in os.environ

def in_the_settings(name, static_files):
    os.environ["EARLY_IMPORTS"] = name
    os.environ["EARLY_APPS"] = "daphne_ng django.contrib.staticfiles" if static_files else "daphne_ng"
    os.environ["DJANGO_SETTINGS_MODULE"] = "early_settings"
    django.setup()
    from django.core.management import call_command, load_command_class
    from django.contrib.staticfiles.management.commands import runserver as static
    from django.core.management.commands import runserver as plain
    call_command("check", stdout=io.StringIO())
    command = load_command_class("daphne_ng", "runserver")
    assert isinstance(command, static.Command) and isinstance(command, plain.Command)
    parser = command.create_parser("manage.py", "runserver")
    assert ("--nostatic" in parser.format_help()) is static_files
    assert command.default_port == ("8003" if "runserver" in name else "8000")

if sys.argv[1] == "alias":
    import daphne_ng.compat
    daphne_ng.compat.install_as_daphne()
for name in sys.argv[2:]:
    fresh(unconfigured, name)
    fresh(in_the_settings, name, True)
    if "runserver" in name:
        fresh(in_the_settings, name, False)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("package", ["daphne_ng", "daphne"])
def test_everything_can_be_imported_before_django_is_set_up(package: str, tmp_path: Path) -> None:
    (tmp_path / "early_settings.py").write_text(SETTINGS)
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            "alias" if package == "daphne" else "plain",
            *(f"{package}.{name}" for name in MODULES),
        ],
        env={**inherited, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
