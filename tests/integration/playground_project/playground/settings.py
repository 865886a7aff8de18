"""Settings; a test changes some of them by ``PLAYGROUND_SETTINGS``, a JSON object, and removes one by null."""

import json
import os

SECRET_KEY = "only for tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "playground.urls"
ASGI_APPLICATION = "playground.asgi.application"
INSTALLED_APPS = ["daphne_ng", "django.contrib.staticfiles", "playground"]
DATABASES: dict[str, object] = {}
STATIC_URL = "/static/"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"notes": {"class": "playground.notes.Notes"}},
    "loggers": {"django.channels.server": {"handlers": ["notes"]}},
}

for name, value in json.loads(os.environ.get("PLAYGROUND_SETTINGS", "{}")).items():
    if value is None:
        del globals()[name]
    else:
        globals()[name] = value
