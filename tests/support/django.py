"""Django, set up once for the unit tests that need it, with as little as possible."""

from __future__ import annotations

import django
from django.conf import settings

__all__ = ["set_up"]


def set_up() -> None:
    """Configure Django, unless that has been done. Tests change what they need by `override_settings`."""
    if not settings.configured:
        settings.configure(
            SECRET_KEY="only for tests",
            INSTALLED_APPS=["daphne_ng", "django.contrib.staticfiles"],
            STATIC_URL="/static/",
            USE_TZ=True,
        )
        django.setup()
