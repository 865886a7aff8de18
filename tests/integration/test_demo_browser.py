"""The demo in headless Chromium: the page, the clock, uploads with their progress."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.serving import HOST, MIB, Running, serve, wait_for
from tests.integration.webdriver import Browser, chromium

pytestmark = pytest.mark.system

SAMPLE_BYTES = 32_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("daphne_ng.demo:application", tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module")
def window(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(server: Running, window: Browser) -> Browser:
    window.open(f"{server.url}/")
    wait_for(lambda: window.state("clock-status") == "live", "the clock to start", seconds=15)
    return window


def unexpected(messages: list[str]) -> list[str]:
    """Leave out what the console says of the chat's socket, for the server does not speak WebSocket."""
    return [message for message in messages if "WebSocket connection to" not in message]


def uploaded(browser: Browser) -> tuple[int, str]:
    """Wait for the end of an upload, and return the bytes and the digest that the page shows."""
    wait_for(lambda: browser.state("upload-status") != "busy", "the upload to end", seconds=60)
    assert browser.state("upload-status") == "live", browser.text("upload-status")
    return int(re.sub(r"\D", "", browser.text("upload-bytes"))), browser.text("upload-sha256")


def test_the_page_shows_its_connection(server: Running, browser: Browser) -> None:
    assert browser.title == "daphne-ng is running"
    assert browser.text("protocol") == "HTTP/1.1"
    assert browser.text("scheme") == "http"
    assert browser.text("server") == f"{HOST}:{server.port}"
    assert re.fullmatch(rf"{re.escape(HOST)}:\d+", browser.text("client"))
    assert "HeadlessChrome" in browser.text("headers")
    assert browser.text("command").startswith("daphne-ng ")


def test_the_clock_ticks(browser: Browser) -> None:
    first = browser.text("clock")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", first)
    wait_for(lambda: browser.text("clock") != first, "the clock to tick", seconds=5)
    assert re.fullmatch(r"Streaming, (first event|\d+ events so far)", browser.text("clock-status"))


def test_the_sample_of_32_mb_is_uploaded(browser: Browser, tmp_path: Path) -> None:
    browser.click("upload-sample")
    size, digest = uploaded(browser)
    assert size == SAMPLE_BYTES
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert browser.text("upload-received-text") == browser.text("upload-sent-text") == "32.0 MB"
    screenshot = tmp_path / "demo.png"
    browser.screenshot(screenshot)
    assert screenshot.read_bytes().startswith(b"\x89PNG")


def test_a_file_is_uploaded_and_hashed(browser: Browser, block: bytes, tmp_path: Path) -> None:
    file = tmp_path / "noise.bin"
    file.write_bytes(block * 3)
    browser.type("upload-file", str(file))
    browser.click("upload-send")
    assert uploaded(browser) == (3 * MIB, hashlib.sha256(block * 3).hexdigest())


def test_the_progress_of_a_slow_upload_is_reported_while_it_arrives(
    browser: Browser, block: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "noise.bin"
    file.write_bytes(block * 8)
    browser.type("upload-file", str(file))
    browser.click("upload-slow")
    browser.click("upload-send")
    read = "return document.getElementById('upload-received').value"
    wait_for(lambda: 0 < browser.run(read) < 1, "the application to have read a part", seconds=10)
    assert browser.state("upload-status") == "busy"
    assert uploaded(browser)[0] == 8 * MIB
    assert browser.run(read) == 1


def test_an_upload_that_is_cancelled_can_be_followed_by_another(server: Running, browser: Browser) -> None:
    browser.click("upload-slow")
    browser.click("upload-sample")
    read = "return document.getElementById('upload-received').value"
    wait_for(lambda: browser.run(read) > 0, "the upload to begin", seconds=10)
    browser.click("upload-cancel")
    wait_for(lambda: browser.state("upload-status") == "idle", "the upload to end", seconds=5)
    assert browser.text("upload-status") == "Cancelled"
    browser.click("upload-slow")
    browser.click("upload-sample")
    assert uploaded(browser)[0] == SAMPLE_BYTES


def test_the_chat_gives_up_while_the_server_speaks_no_websocket(browser: Browser) -> None:
    wait_for(lambda: browser.state("chat-status") == "idle", "the chat to give up", seconds=15)
    assert browser.text("chat-status") == "WebSocket is not available on this connection"
    assert browser.state("clock-status") == "live"


def test_the_console_shows_no_error(browser: Browser) -> None:
    browser.click("upload-sample")
    uploaded(browser)
    # Of the tests before this one too: the messages add up.
    assert unexpected(browser.console()) == []


def test_a_page_that_does_not_exist_is_lost_in_style(server: Running, browser: Browser) -> None:
    browser.open(f"{server.url}/no/such/<page>")
    assert browser.title == "Not found - daphne-ng"
    assert "/no/such/<page>" in browser.run("return document.body.innerText")
    browser.console()  # the browser logs the 404
