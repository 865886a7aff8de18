"""The Django app: ``INSTALLED_APPS = ["daphne_ng", ...]`` gives a project the ASGI ``runserver``.

Nothing of the server is imported here: every ``manage.py`` command loads this module.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from daphne_ng.checks import check_alias, check_installed_apps

__all__ = ["DaphneConfig"]


class DaphneConfig(AppConfig):
    """Registers the system checks, and answers imports of ``daphne`` if the settings ask for it.

    ``DAPHNE_NG_INSTALL_AS_DAPHNE = True`` in the settings is `daphne_ng.compat.install_as_daphne` without code.
    """

    name = "daphne_ng"
    verbose_name = "daphne-ng"

    alias_failure = ""
    """Why ``daphne`` does not mean daphne-ng though the settings ask for it."""

    def __init__(self, app_name: str, app_module: object) -> None:
        super().__init__(app_name, app_module)
        # Here and not in ready(): apps that come later may import daphne when their models are loaded.
        if getattr(settings, "DAPHNE_NG_INSTALL_AS_DAPHNE", False):
            self.alias_failure = _install_as_daphne()

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
