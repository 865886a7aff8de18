"""Django system checks that tell whether ``runserver`` will be ours, and the server of live tests.

Django takes a management command from the *first* app in ``INSTALLED_APPS`` that has it. Channels takes the server of
live tests from ``daphne.testing``, whatever is in the settings.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from daphne_ng.compat import is_installed

__all__ = ["check_alias", "check_daphne_installed", "check_installed_apps", "live_tests_of"]

_STATICFILES = "django.contrib.staticfiles"


def check_installed_apps(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report what keeps ``runserver`` from being daphne-ng's (``daphne_ng.E001``, ``W002``, ``E003``)."""
    messages: list[CheckMessage] = []
    configs = list(apps.get_app_configs())
    # Whoever says daphne has perhaps silenced daphne.E001.
    label = "daphne" if is_installed() else "daphne_ng"
    # A command that names daphne_ng is made from ours, and so is one that names daphne where that means daphne-ng.
    ours = label.encode()
    names = [config.name for config in configs]
    if "daphne" in names and "daphne_ng" in names:
        messages.append(
            checks.Error(
                "daphne and daphne_ng are both in INSTALLED_APPS.",
                hint="Both bring a runserver command. Remove one of them.",
                id=f"{label}.E003",
            )
        )
    for config in configs:
        if config.name == "daphne_ng":
            break
        if config.name == _STATICFILES:
            messages.append(
                checks.Error(
                    f"daphne_ng must be listed before {_STATICFILES} in INSTALLED_APPS.",
                    hint="Otherwise runserver is Django's, which serves neither ASGI nor WebSockets.",
                    id=f"{label}.E001",
                )
            )
        elif config.name != "daphne" and (rival := _runserver(Path(config.path))) is not None and ours not in rival:
            hint = "If that command is not meant to replace daphne-ng's, list daphne_ng first."
            if b"daphne" in rival:
                hint = "It names Daphne. Have it import daphne_ng.management.commands.runserver instead."
            messages.append(
                checks.Warning(
                    f"{config.name} is listed before daphne_ng in INSTALLED_APPS and has a runserver command, "
                    "which is the one that runs.",
                    hint=hint,
                    id=f"{label}.W002",
                )
            )
    return messages


# The text of an app's command, None without one. Read, not imported: this runs before most commands.
def _runserver(app: Path) -> bytes | None:
    try:
        return (app / "management" / "commands" / "runserver.py").read_bytes()
    except OSError:
        return None


def check_alias(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report what becomes of ``import daphne`` (``daphne_ng.E004``, ``W005``, ``W006``)."""
    config = next((config for config in apps.get_app_configs() if config.name == "daphne_ng"), None)
    failure = getattr(config, "alias_failure", "")
    if failure:
        return [
            checks.Error(
                f"DAPHNE_NG_INSTALL_AS_DAPHNE has no effect. {failure}.",
                hint="Whatever imports it must come later than daphne_ng in INSTALLED_APPS, or import daphne_ng. "
                "Or call daphne_ng.compat.install_as_daphne() at the head of manage.py.",
                id="daphne_ng.E004",
            )
        ]
    if is_installed() or apps.is_installed("daphne"):
        return []
    found = live_tests_of()
    if found == "daphne" or (found is None and settings.DEBUG and _is_there("daphne") and _is_there("channels")):
        return [
            checks.Warning(
                "Daphne is installed, and serves the live tests of channels.testing.",
                hint=f"{_TO_HAVE_OURS} Uninstall Daphne when nothing needs it any more.",
                id="daphne_ng.W005",
            )
        ]
    if found == "":
        return [
            checks.Warning(
                "channels.testing cannot be imported: it imports daphne, which is not installed.",
                hint=_TO_HAVE_OURS,
                id="daphne_ng.W006",
            )
        ]
    return []


_TO_HAVE_OURS = "Set DAPHNE_NG_INSTALL_AS_DAPHNE = True: import daphne then means daphne-ng."


def live_tests_of() -> str | None:
    """Tell whose server the tests that were imported take from ``channels.testing``.

    Returns:
        ``daphne``; empty if its import has failed for want of ``daphne``; None if nobody has imported it, if it gets
        ours, or if somebody has imported `daphne_ng.testing` besides, and so has made a choice.
    """
    modules = sys.modules
    # This module is imported before Daphne is. It stays when the package that imports both has failed.
    if is_installed() or "channels.testing.application" not in modules or "daphne_ng.testing" in modules:
        return None
    return "daphne" if "daphne.testing" in modules else ""


def _is_there(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


check_daphne_installed = check_installed_apps
"""Daphne's name for it."""
