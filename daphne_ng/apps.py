"""The Django app: ``INSTALLED_APPS = ["daphne_ng", ...]`` gives a project the ASGI ``runserver``.

Nothing of the server is imported here: every ``manage.py`` command loads this module.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from daphne_ng.checks import check_installed_apps

__all__ = ["DaphneConfig"]


class DaphneConfig(AppConfig):
    """Registers the system checks, and answers imports of ``daphne`` if the settings ask for it.

    ``DAPHNE_NG_INSTALL_AS_DAPHNE = True`` in the settings is `daphne_ng.compat.install_as_daphne` without code.
    """

    name = "daphne_ng"
    verbose_name = "daphne-ng"

    def __init__(self, app_name: str, app_module: object) -> None:
        super().__init__(app_name, app_module)
        # Here and not in ready(): apps that come later may import daphne when their models are loaded.
        if getattr(settings, "DAPHNE_NG_INSTALL_AS_DAPHNE", False):
            from daphne_ng.compat import install_as_daphne

            install_as_daphne()

    def ready(self) -> None:
        """Register the checks."""
        register(check_installed_apps)
