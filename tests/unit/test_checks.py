"""`daphne_ng.checks` and `daphne_ng.apps`: whose ``runserver`` it will be, and whose server live tests get."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("django")

import django.apps
from django.conf import settings
from django.core.checks import registry
from django.test.utils import override_settings

import daphne_ng
from daphne_ng import checks, compat
from daphne_ng.apps import DaphneConfig
from daphne_ng.checks import check_alias, check_daphne_installed, check_installed_apps
from daphne_ng.errors import ConfigurationError
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
    other = make_app(tmp_path, "checked_other", "from daphne.management.commands.runserver import Command\n")
    assert ids(plain, heir, "daphne_ng", rival, STATICFILES) == []
    monkeypatch.setattr(checks, "is_installed", lambda: True)
    assert ids(other, "daphne_ng") == []  # daphne means daphne_ng
    monkeypatch.setattr(checks, "is_installed", lambda: False)
    with override_settings(INSTALLED_APPS=[other, "daphne_ng"]):
        (message,) = check_installed_apps(None)
    assert message.id == "daphne_ng.W002"  # it serves with Daphne
    assert "import daphne_ng.management.commands.runserver" in str(message.hint)
    with override_settings(INSTALLED_APPS=[rival, "daphne_ng"]):
        (message,) = check_installed_apps(None)
    assert message.id == "daphne_ng.W002"
    assert message.msg.startswith("checked_rival is listed before daphne_ng")
    assert "list daphne_ng first" in str(message.hint)
    assert not message.is_serious()


def test_daphne_and_daphne_ng_together_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if compat.is_installed():
        pytest.skip("another test has made daphne mean daphne-ng")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "daphne", raising=False)
    make_app(tmp_path, "daphne", "class Command: ...\n")
    assert ids("daphne", "daphne_ng", STATICFILES) == ["daphne_ng.E003"]
    assert ids("daphne_ng", "daphne") == ["daphne_ng.E003"]
    monkeypatch.delitem(sys.modules, "daphne")


# -- whose server live tests get ---------------------------------------------------------------------------------------


Imported = Callable[[str], None]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Imported:
    """Marks a module as imported. Nothing that the checks look at is, to begin with; Channels can be."""
    for name in ("channels.testing.application", "channels.testing", "daphne", "daphne.testing", "daphne_ng.testing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    there = {"channels"}
    monkeypatch.setattr(checks, "_is_there", there.__contains__)
    monkeypatch.setattr(checks, "is_installed", lambda: False)

    def mark(name: str) -> None:
        there.add(name)
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    return mark


def told(**more: Any) -> list[str | None]:
    with override_settings(**more):
        messages = check_alias(None)
    assert all(message.hint and "DAPHNE_NG_INSTALL_AS_DAPHNE" in message.msg + message.hint for message in messages)
    return [message.id for message in messages]


def test_live_tests_that_daphne_serves_are_a_warning(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    imported("channels.testing.application")
    imported("daphne.testing")
    assert told() == ["daphne_ng.W005"]
    monkeypatch.setattr(checks, "is_installed", lambda: True)
    assert told() == told(DEBUG=True) == []


def test_whoever_imports_our_server_of_tests_too_has_chosen(imported: Imported) -> None:
    for name in ("channels.testing.application", "daphne.testing", "daphne_ng.testing"):
        imported(name)
    assert told() == []


def test_live_tests_that_daphne_would_serve_are_a_warning_while_debugging(imported: Imported) -> None:
    assert told(DEBUG=True) == told(DEBUG=False) == []
    imported("daphne")
    assert told(DEBUG=True) == ["daphne_ng.W005"]
    assert told(DEBUG=False) == []


def test_tests_that_cannot_be_imported_without_daphne_are_a_warning(imported: Imported) -> None:
    imported("channels.testing.application")  # and the package is not there: its import has failed
    assert told() == told(DEBUG=True) == ["daphne_ng.W006"]


def test_an_alias_that_comes_too_late_is_an_error_of_the_check_and_of_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ConfigurationError("daphne is imported already, from /x/daphne/__init__.py")

    monkeypatch.setattr(compat, "install_as_daphne", fail)
    with override_settings(INSTALLED_APPS=["daphne_ng"], DAPHNE_NG_INSTALL_AS_DAPHNE=True):
        django.apps.apps.set_installed_apps(["daphne_ng"])
        try:
            (message,) = check_alias(None)
        finally:
            django.apps.apps.unset_installed_apps()
    assert (message.id, message.is_serious()) == ("daphne_ng.E004", True)
    assert message.msg.endswith("has no effect. daphne is imported already, from /x/daphne/__init__.py.")


def test_the_alias_is_left_out_where_it_would_make_two_apps_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(compat, "install_as_daphne", lambda: calls.append("installed"))
    with override_settings(DAPHNE_NG_INSTALL_AS_DAPHNE=True):
        for entries in (["daphne_ng.apps.DaphneConfig", "daphne"], ["daphne.apps.DaphneConfig", "daphne_ng"]):
            monkeypatch.setattr(settings, "INSTALLED_APPS", entries)
            assert DaphneConfig("daphne_ng", daphne_ng).alias_failure == ""
        assert calls == []
        monkeypatch.setattr(settings, "INSTALLED_APPS", ["daphne_ng"])
        assert DaphneConfig("daphne_ng", daphne_ng).alias_failure == ""
    assert calls == ["installed"]


def test_the_app_registers_its_checks() -> None:
    assert {check_installed_apps, check_alias} <= registry.registry.registered_checks
    assert (DaphneConfig.name, DaphneConfig.verbose_name) == ("daphne_ng", "daphne-ng")
