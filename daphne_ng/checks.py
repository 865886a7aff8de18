"""Django system checks that tell whether ``runserver`` will be ours.

Django takes a management command from the *first* app in ``INSTALLED_APPS`` that has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage

from daphne_ng.compat import is_installed

__all__ = ["check_daphne_installed", "check_installed_apps"]

_STATICFILES = "django.contrib.staticfiles"


def check_installed_apps(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report what keeps ``runserver`` from being daphne-ng's (``daphne_ng.E001``, ``W002``, ``E003``)."""
    messages: list[CheckMessage] = []
    configs = list(apps.get_app_configs())
    # Whoever says daphne has perhaps silenced daphne.E001.
    label = "daphne" if is_installed() else "daphne_ng"
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
        elif config.name != "daphne" and _has_another_runserver(Path(config.path)):
            messages.append(
                checks.Warning(
                    f"{config.name} is listed before daphne_ng in INSTALLED_APPS and has a runserver command, "
                    "which is the one that runs.",
                    hint="If that command is not meant to replace daphne-ng's, list daphne_ng first.",
                    id=f"{label}.W002",
                )
            )
    return messages


# One that names daphne is made from Daphne's, or from ours. Read, not imported: this runs before most commands.
def _has_another_runserver(app: Path) -> bool:
    try:
        source = (app / "management" / "commands" / "runserver.py").read_bytes()
    except OSError:
        return False
    return b"daphne" not in source


check_daphne_installed = check_installed_apps
"""Daphne's name for it."""
