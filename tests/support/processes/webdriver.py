"""As much of the WebDriver protocol (W3C, "WebDriver") as driving one page in headless Chromium takes.

chromedriver speaks it as JSON over HTTP; no package beyond httpx is needed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes.serving import require_program, wait_for

__all__ = ["KEYS", "Browser", "chromium"]

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key under which the protocol gives the id of an element (section 12.2)."""

KEYS = {
    "Backspace": "\ue003",
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Control": "\ue009",
    "Escape": "\ue00c",
    "End": "\ue010",
    "Home": "\ue011",
    "Left": "\ue012",
    "Up": "\ue013",
    "Right": "\ue014",
    "Down": "\ue015",
    "Delete": "\ue017",
}
"""Keys that type nothing (section 17.4.2); Control is held until the end of what is typed."""

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,1600",
)


class Browser:
    """One browser window."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = session

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return command(self._client, method, f"/session/{self._session}{path}", body)

    def open(self, url: str) -> None:
        """Go to a page, and return when it has loaded."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript as the body of a function, and return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self._ask("GET", "/title"))

    def text(self, element_id: str) -> str:
        """Return the text of an element as a reader sees it: nothing while it is hidden."""
        return str(self._ask("GET", f"/element/{self._find(element_id)}/text"))

    def state(self, element_id: str) -> str:
        """Return the ``data-state`` of an element."""
        return str(self._ask("GET", f"/element/{self._find(element_id)}/attribute/data-state"))

    def click(self, element_id: str) -> None:
        """Click on an element, which must be visible and not covered."""
        self._ask("POST", f"/element/{self._find(element_id)}/click", {})

    def type(self, element_id: str, text: str) -> None:
        """Type into an element; into a file input, the path of the file."""
        self._ask("POST", f"/element/{self._find(element_id)}/value", {"text": text})

    @property
    def tab(self) -> str:
        """The tab that commands go to."""
        return str(self._ask("GET", "/window"))

    def open_tab(self) -> str:
        """Open an empty tab, make it the one that commands go to, and return it."""
        tab = str(self._ask("POST", "/window/new", {"type": "tab"})["handle"])
        self.switch_to(tab)
        return tab

    def switch_to(self, tab: str) -> None:
        """Make a tab the one that commands go to."""
        self._ask("POST", "/window", {"handle": tab})

    def close_tab(self) -> None:
        """Close the tab that commands go to; then switch to another."""
        self._ask("DELETE", "/window")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in CSS pixels."""
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def press(self, keys: str) -> None:
        """Type to whatever has the focus; the special keys are in `KEYS`."""
        element = self._ask("GET", "/element/active")[_ELEMENT]
        self._ask("POST", f"/element/{element}/value", {"text": keys})

    def emulate(self, *, scheme: str = "light", phone: bool = False) -> None:
        """Show pages in a colour scheme, ``light`` or ``dark``, and as on a phone or not.

        A window cannot be made as narrow as a phone.
        """
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        if phone:
            self._devtools(
                "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True
            )
        else:
            self._devtools("Emulation.clearDeviceMetricsOverride")

    def _devtools(self, method: str, **parameters: Any) -> None:
        self._ask("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def screenshot(self, path: Path) -> None:
        """Write what the window shows to a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def console(self) -> list[str]:
        """Return the warnings and errors of the console since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def close(self) -> None:
        """End the browser."""
        self._ask("DELETE", "")

    def _find(self, element_id: str) -> str:
        return str(self._ask("POST", "/element", {"using": "css selector", "value": f"#{element_id}"})[_ELEMENT])


def command(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send one command.

    Raises:
        AssertionError: The driver answered with an error.
    """
    answer = client.request(method, path, json=body)
    value = answer.json()["value"]
    assert answer.status_code == 200, value
    return value


@contextlib.contextmanager
def chromium(directory: Path, *flags: str) -> Iterator[Browser]:
    """Run a fresh headless Chromium while the ``with`` block does.

    Args:
        directory: Gets its profile and the log of its driver.
        flags: More of its command line.
    """
    # GitHub's runners have Chrome with its driver; Ubuntu has Chromium as a snap alone.
    chrome = shutil.which("chromium") is None and shutil.which("google-chrome") is not None
    binary, driver = require_program("google-chrome" if chrome else "chromium"), require_program("chromedriver")
    home = directory / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    log_path = directory / "chromedriver.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [driver, "--port=0"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the browser can be ended with it, whatever happens
        )
    try:
        started = wait_for(
            lambda: re.search(r"started successfully on port (\d+)", log_path.read_text(errors="replace")),
            "chromedriver to start",
            seconds=30,
        )
        options = {"binary": binary, "args": [*_FLAGS, *flags, f"--user-data-dir={directory / 'profile'}"]}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        with httpx.Client(base_url=f"http://127.0.0.1:{started[1]}", timeout=60, trust_env=False) as client:
            session = command(client, "POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            browser = Browser(client, session["sessionId"])
            try:
                yield browser
            finally:
                browser.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
