"""The application: Django, and in front of it the static files of the admin."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guestbook.settings")

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

application = ASGIStaticFilesHandler(get_asgi_application())
