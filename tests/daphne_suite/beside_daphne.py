"""The real Daphne is there too; run by run.py, which puts it on the path."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from functools import partial
from typing import Any

import pytest
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.dummy", "NAME": "none"}},
    INSTALLED_APPS=["daphne_ng", "django.contrib.staticfiles"],
    ASGI_APPLICATION=f"{__name__}.application",
    STATIC_URL="/static/",
)

import django

django.setup()

import daphne
from channels.testing import ChannelsLiveServerTestCase

from daphne_ng.checks import check_installed_apps
from daphne_ng.compat import install_as_daphne, is_installed
from daphne_ng.errors import ConfigurationError
from daphne_ng.testing import DaphneProcess


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Tell who serves."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    body = json.dumps(sorted(name for name in ("daphne.server", "daphne_ng.server") if name in sys.modules)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def get_application() -> Any:
    return application


def test_a_daphne_that_was_imported_is_not_replaced() -> None:
    assert not is_installed()
    assert daphne.__name__ == "daphne"
    with pytest.raises(ConfigurationError, match="daphne is imported already, from .*daphne/__init__.py"):
        install_as_daphne()


SETTING = """
import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.dummy", "NAME": "none"}},
    INSTALLED_APPS=["daphne_ng", "django.contrib.staticfiles"],
    STATIC_URL="/static/",
    DEBUG=True,
    DAPHNE_NG_INSTALL_AS_DAPHNE=%r,
)
django.setup()
from daphne_ng.checks import check_alias

print([message.id for message in check_alias(None)])
from channels.testing import ChannelsLiveServerTestCase

print(ChannelsLiveServerTestCase.ProtocolServerProcess.__module__)
"""


@pytest.mark.parametrize(
    ("wanted", "printed"), [(True, "[]\ndaphne_ng.testing\n"), (False, "['daphne_ng.W005']\ndaphne.testing\n")]
)
def test_the_setting_hides_a_daphne_that_is_only_installed(wanted: bool, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETTING % wanted], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_a_live_server_test_can_choose_ours() -> None:
    assert ChannelsLiveServerTestCase.ProtocolServerProcess is not DaphneProcess

    class Live(ChannelsLiveServerTestCase):
        ProtocolServerProcess = DaphneProcess

    process = Live.ProtocolServerProcess("localhost", partial(get_application), setup=None)
    process.start()
    try:
        assert process.ready.wait(10)
        with urllib.request.urlopen(f"http://localhost:{process.port.value}/", timeout=10) as answer:
            assert answer.headers["server"] == "daphne"
            assert "daphne_ng.server" in json.load(answer)
    finally:
        process.terminate()
        process.join()


def test_both_in_installed_apps_are_an_error() -> None:
    from django.test.utils import override_settings

    with override_settings(INSTALLED_APPS=["daphne", "daphne_ng", "django.contrib.staticfiles"]):
        assert [message.id for message in check_installed_apps(None)] == ["daphne_ng.E003"]
