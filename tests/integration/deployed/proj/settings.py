"""As little of a Django project as the deployments of the documentation need."""

import os

SECRET_KEY = "not secret: only tests run this"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "proj.urls"
INSTALLED_APPS = ["channels"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
TIME_ZONE = "UTC"

if "REDIS_URL" in os.environ:
    from proj.channel_layers import CHANNEL_LAYERS  # the documentation's; the tests put it here
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
