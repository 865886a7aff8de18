"""The Django app: ``INSTALLED_APPS = ["daphne_ng", ...]`` gives a project the ASGI ``runserver``.

Nothing of the server is imported here, since every ``manage.py`` command loads this module, except in the process that
is about to serve: there the reactor comes before anything of the project's imports ``twisted.internet.reactor``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from daphne_ng.checks import check_alias, check_installed_apps

__all__ = ["DaphneConfig"]


class DaphneConfig(AppConfig):
    """Registers the system checks, and does early what the settings ask for.

    ``DAPHNE_NG_INSTALL_AS_DAPHNE = True`` is `daphne_ng.compat.install_as_daphne` without code.
    ``DAPHNE_NG_INSTALL_REACTOR`` says whether this process gets the reactor at once. Without it, ``manage.py
    runserver`` does.
    """

    name = "daphne_ng"
    verbose_name = "daphne-ng"

    alias_failure = ""
    """Why ``daphne`` does not mean daphne-ng though the settings ask for it."""

    def __init__(self, app_name: str, app_module: object) -> None:
        super().__init__(app_name, app_module)
        # Here and not in ready(): apps that come later may import daphne, or the reactor, when their models are loaded.
        if getattr(settings, "DAPHNE_NG_INSTALL_AS_DAPHNE", False):
            self.alias_failure = _install_as_daphne()
        wanted = getattr(settings, "DAPHNE_NG_INSTALL_REACTOR", None)
        if _serves(sys.argv, os.environ) if wanted is None else wanted:
            _install_reactor(sys.argv)

    def ready(self) -> None:
        """Register the checks."""
        register(check_installed_apps)
        register(check_alias)


# What is wrong is told by the checks: an exception would be a traceback for every command of manage.py.
def _install_as_daphne() -> str:
    from daphne_ng.compat import install_as_daphne
    from daphne_ng.errors import ConfigurationError

    if {"daphne", "daphne_ng"} <= {entry.partition(".")[0] for entry in settings.INSTALLED_APPS}:
        return ""  # daphne_ng.E003: with the alias, both would be the same app
    try:
        install_as_daphne()
    except ConfigurationError as error:
        return str(error)
    return ""


# Whether this process is about to serve: with the autoreloader that is the inner one of two. Django itself takes the
# command from this place alone.
def _serves(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    options = arguments[2:]
    return (
        list(arguments[1:2]) == ["runserver"]
        and not {"--noasgi", "--help", "-h", "--version"} & set(options)
        and ("--noreload" in options or environment.get("RUN_MAIN") == "true")
    )


def _install_reactor(arguments: Sequence[str]) -> None:
    from daphne_ng.errors import ConfigurationError
    from daphne_ng.net import reactor as reactors

    try:
        reactors.install(kind=_value(arguments, "--loop"), stock="--stock-reactor" in arguments)
    except ConfigurationError as error:
        # Whether this process is to serve at all is not known; runserver will find the same.
        sys.stderr.write(f"daphne_ng: {error}\n")


# The options are parsed later, and mistakes in them are told then.
def _value(arguments: Sequence[str], flag: str) -> str:
    found = "auto"
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == flag:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
    return found if found in ("uvloop", "asyncio") else "auto"
