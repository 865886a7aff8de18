"""What a project's own test with a browser looks like."""

import os
from pathlib import Path

from channels.testing import ChannelsLiveServerTestCase
from guests.models import Guest

from tests.support.processes.serving import wait_for
from tests.support.processes.webdriver import KEYS, chromium


class LiveTests(ChannelsLiveServerTestCase):
    """One page with a WebSocket, over the live server."""

    if os.environ.get("LIVE_INSTALL") == "none":  # with Daphne installed
        from daphne_ng.testing import DaphneProcess as ProtocolServerProcess

    def test_a_name_is_greeted_and_kept(self) -> None:
        """Type a name, read the greeting, and find it in the database of the tests."""
        server = type(self._server_process)
        assert server.__module__ == "daphne_ng.testing", server
        Guest.objects.create(name="Ada")
        with chromium(Path(os.environ["LIVE_DATA"])) as browser:
            browser.open(self.live_server_url)
            assert browser.text("known").strip() == "Ada"
            browser.type("name", "Grace" + KEYS["Enter"])
            wait_for(lambda: browser.text("said") == "Hello, Grace, number 2!", "the greeting", 40)
            assert browser.console() == []
        assert [guest.name for guest in Guest.objects.order_by("pk")] == ["Ada", "Grace"]
