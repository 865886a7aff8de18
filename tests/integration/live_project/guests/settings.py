"""Settings; how ``import daphne`` comes to work, and how processes start, is up to the environment."""

import multiprocessing
import os
from pathlib import Path

DATA = Path(os.environ["LIVE_DATA"])

if method := os.environ.get("LIVE_START_METHOD"):
    multiprocessing.set_start_method(method, force=True)

DAPHNE_NG_INSTALL_AS_DAPHNE = os.environ.get("LIVE_INSTALL") == "setting"
SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["localhost"]  # what the test case adds does not reach a process that is spawned
ROOT_URLCONF = "guests.urls"
ASGI_APPLICATION = "guests.asgi.application"
INSTALLED_APPS = ["daphne_ng", "django.contrib.staticfiles", "guests"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [Path(__file__).parent]}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATA / "db.sqlite3"),
        "TEST": {"NAME": str(DATA / "test.sqlite3")},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
USE_TZ = True
