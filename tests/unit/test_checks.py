"""`daphne_ng.checks` and `daphne_ng.apps`: whose ``runserver`` it will be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("django")

from django.core.checks import registry
from django.test.utils import override_settings

from daphne_ng import compat
from daphne_ng.apps import DaphneConfig
from daphne_ng.checks import check_daphne_installed, check_installed_apps
from tests.support.django import set_up

set_up()

STATICFILES = "django.contrib.staticfiles"


def ids(*apps: str) -> list[str | None]:
    with override_settings(INSTALLED_APPS=list(apps)):
        return [message.id for message in check_installed_apps(None)]


def make_app(directory: Path, name: str, runserver: str | None = None) -> str:
    commands = directory / name / "management" / "commands"
    commands.mkdir(parents=True)
    (directory / name / "__init__.py").touch()
    if runserver is not None:
        (commands / "runserver.py").write_text(runserver)
    return name


def test_daphne_ng_before_staticfiles_is_as_it_should_be() -> None:
    assert ids("daphne_ng", STATICFILES) == []
    assert ids("daphne_ng") == []


def test_staticfiles_before_daphne_ng_is_an_error_that_names_both() -> None:
    with override_settings(INSTALLED_APPS=[STATICFILES, "daphne_ng.apps.DaphneConfig"]):
        (message,) = check_daphne_installed(None)
    assert message.id == "daphne_ng.E001"
    assert message.msg == "daphne_ng must be listed before django.contrib.staticfiles in INSTALLED_APPS."
    assert message.is_serious()


def test_an_app_before_daphne_ng_with_a_runserver_of_its_own_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plain = make_app(tmp_path, "checked_plain")
    rival = make_app(tmp_path, "checked_rival", "class Command: ...\n")
    heir = make_app(tmp_path, "checked_heir", "from daphne_ng.management.commands.runserver import Command\n")
    assert ids(plain, heir, "daphne_ng", rival, STATICFILES) == []
    with override_settings(INSTALLED_APPS=[rival, "daphne_ng"]):
        (message,) = check_installed_apps(None)
    assert message.id == "daphne_ng.W002"
    assert message.msg.startswith("checked_rival is listed before daphne_ng")
    assert not message.is_serious()


def test_daphne_and_daphne_ng_together_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compat.is_installed():
        pytest.skip("another test has made daphne mean daphne-ng")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "daphne", raising=False)
    make_app(tmp_path, "daphne", "class Command: ...\n")
    assert ids("daphne", "daphne_ng", STATICFILES) == ["daphne_ng.E003"]
    assert ids("daphne_ng", "daphne") == ["daphne_ng.E003"]
    monkeypatch.delitem(__import__("sys").modules, "daphne")


def test_the_app_registers_its_check() -> None:
    assert check_installed_apps in registry.registry.registered_checks
    assert (DaphneConfig.name, DaphneConfig.verbose_name) == ("daphne_ng", "daphne-ng")
