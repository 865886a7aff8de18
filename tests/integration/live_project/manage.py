"""Tests of a project that uses Channels' live server, started as ``manage.py test``."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guests.settings")
    if os.environ.get("LIVE_INSTALL") == "code":
        from daphne_ng.compat import install_as_daphne

        install_as_daphne()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
