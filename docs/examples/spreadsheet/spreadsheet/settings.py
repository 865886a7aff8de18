"""Development by default; with DEBUG=0 the secret key and the hosts come from the environment too."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = "for development only" if DEBUG else os.environ["SECRET_KEY"]
# With DEBUG and no host given, Django and the origin check of the WebSocket allow this machine.
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "").split()

ROOT_URLCONF = "spreadsheet.urls"
ASGI_APPLICATION = "spreadsheet.asgi.application"

INSTALLED_APPS = [
    "daphne_ng",
    "django.contrib.staticfiles",
    "channels",
    "sheets",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", BASE_DIR / "db.sqlite3"),
        # Several processes write to it: each transaction takes its turn at the start, and readers do not wait.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=wal;"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# What one process says to a group reaches the others through Redis only.
if redis_url := os.environ.get("REDIS_URL"):
    # The layer asks Redis to wait five seconds for a message, which is as long as redis-py 8 waits for any answer.
    redis_host = {"address": redis_url, "socket_timeout": 15}
    CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis_host]}}
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static"
TIME_ZONE = "UTC"
USE_TZ = True
