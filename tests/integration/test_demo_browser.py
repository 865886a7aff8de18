"""The demo in headless Chromium: the page, the clock, uploads with their progress, the chat between two tabs."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.serving import HOST, MIB, ROOT, Running, require_program, serve, wait_for
from tests.support.processes.webdriver import Browser, chromium

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


@pytest.fixture
def other_tab(server: Running, browser: Browser) -> Iterator[str]:
    """The page in a second tab, while commands go to the first."""
    first = browser.tab
    second = browser.open_tab()
    browser.open(f"{server.url}/")
    wait_for(lambda: browser.state("chat-status") == "live", "the chat to open", seconds=15)
    browser.switch_to(first)
    yield second
    browser.switch_to(first)


def say(browser: Browser, name: str, text: str) -> None:
    browser.run("document.getElementById('chat-name').value = arguments[0]", name)
    browser.type("chat-text", text)
    browser.click("chat-send")


def said(browser: Browser) -> list[list[str]]:
    """Return what the log of the chat shows: who said what."""
    script = """
        const lines = document.querySelectorAll("#chat-log li");
        return Array.from(lines, (line) => [line.children[0].textContent, line.children[1].textContent]);
    """
    lines: list[list[str]] = browser.run(script)
    return lines


def test_two_tabs_talk_to_each_other_and_one_sees_the_other_leave(browser: Browser, other_tab: str) -> None:
    first = browser.tab
    status = "Open over HTTP/1.1, 2 tabs here"
    wait_for(lambda: browser.text("chat-status") == status, "the second tab to be counted")
    say(browser, "Ash", "hello <b>there</b> é")
    wait_for(lambda: said(browser)[-1:] == [["Ash", "hello <b>there</b> é"]], "the first tab to hear itself")

    browser.switch_to(other_tab)
    wait_for(lambda: browser.text("chat-status") == status, "the second tab to be counted there")
    wait_for(lambda: said(browser)[-1:] == [["Ash", "hello <b>there</b> é"]], "the second tab to hear it")
    say(browser, "Bay", "hello yourself")
    wait_for(lambda: said(browser)[-1:] == [["Bay", "hello yourself"]], "the second tab to hear itself")
    assert browser.console() == []
    browser.close_tab()

    browser.switch_to(first)
    wait_for(lambda: said(browser)[-1:] == [["Bay", "hello yourself"]], "the first tab to hear it")
    status = "Open over HTTP/1.1, only this tab so far"
    wait_for(lambda: browser.text("chat-status") == status, "the second tab to be gone")


def test_a_tab_that_comes_later_sees_what_was_said(server: Running, browser: Browser) -> None:
    wait_for(lambda: browser.state("chat-status") == "live", "the chat to open", seconds=15)
    say(browser, "Ash", "first")
    wait_for(lambda: said(browser)[-1:] == [["Ash", "first"]], "the tab to hear itself")
    browser.open(f"{server.url}/")
    wait_for(lambda: browser.state("chat-status") == "live", "the chat to open", seconds=15)
    wait_for(lambda: said(browser)[-1:] == [["Ash", "first"]], "the tab to be told")


def test_the_chat_fits_a_narrow_window(browser: Browser) -> None:
    wait_for(lambda: browser.state("chat-status") == "live", "the chat to open", seconds=15)
    browser.resize(500, 900)
    try:
        say(browser, "Ash", "x" * 300)
        wait_for(lambda: said(browser)[-1:] == [["Ash", "x" * 300]], "the tab to hear itself")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.resize(1280, 1600)


def test_the_chat_opens_again_after_the_server_was_restarted(window: Browser, tmp_path: Path) -> None:
    # The clock's stream would hold the server for longer.
    with serve("daphne_ng.demo:application", tmp_path, "--graceful-timeout", "0.2") as first:
        window.open(f"{first.url}/")
        wait_for(lambda: window.state("chat-status") == "live", "the chat to open", seconds=15)
    wait_for(lambda: window.text("chat-status") == "The socket closed, opening it again", "the tab to see the end")
    listen = ("-b", HOST, "-p", str(first.port))
    with serve("daphne_ng.demo:application", tmp_path, "--graceful-timeout", "0.2", listen=listen):
        wait_for(lambda: window.state("chat-status") == "live", "the chat to open again", seconds=20)
        window.open("about:blank")
    window.console()  # the browser logs what it could not reach meanwhile


def test_the_console_shows_no_error(browser: Browser) -> None:
    browser.click("upload-sample")
    uploaded(browser)
    # Of the tests before this one too: the messages add up.
    assert browser.console() == []


def test_a_page_that_does_not_exist_is_lost_in_style(server: Running, browser: Browser) -> None:
    browser.open(f"{server.url}/no/such/<page>")
    assert browser.title == "Not found - daphne-ng"
    assert "/no/such/<page>" in browser.run("return document.body.innerText")
    browser.console()  # the browser logs the 404


# -- over TLS; HTTP/2 without a proxy is test_http2.py's -------------------------------------------------------


@contextlib.contextmanager
def directly(directory: Path, pem: Path) -> Iterator[int]:
    with serve("daphne_ng.demo:application", directory, "--no-http2", "--ssl-certfile", str(pem)) as server:
        yield server.port


@contextlib.contextmanager
def through_haproxy(directory: Path, pem: Path) -> Iterator[int]:
    program = require_program("haproxy")
    text = (ROOT / "docs" / "examples" / "haproxy-tls.cfg").read_text("utf-8")
    with (
        serve("daphne_ng.demo:application", directory, "--proxy-protocol") as server,
        socket.create_server((HOST, 0)) as front,
    ):
        text = text.replace(":8001 ", f":{server.port} ").replace("/etc/haproxy/both.pem", str(pem))
        (directory / "haproxy.cfg").write_text(text.replace("bind :443", f"bind fd@{front.fileno()}"))
        haproxy = subprocess.Popen([program, "-db", "-f", directory / "haproxy.cfg"], pass_fds=[front.fileno()])
        try:
            yield front.getsockname()[1]
        finally:
            haproxy.kill()
            haproxy.wait()


@pytest.mark.parametrize(("way", "protocol"), [(directly, "HTTP/1.1"), (through_haproxy, "HTTP/2")])
def test_the_page_and_its_socket_over_tls(tmp_path: Path, pem: Path, way: Any, protocol: str) -> None:
    with (
        way(tmp_path, pem) as port,
        chromium(tmp_path, "--ignore-certificate-errors") as browser,
    ):
        browser.open(f"https://localhost:{port}/")
        assert browser.text("protocol") == protocol
        assert browser.text("scheme") == "https"
        wait_for(lambda: browser.text("chat-status").startswith(f"Open over {protocol},"), "the chat", seconds=30)
        say(browser, "Ash", "in secret")
        wait_for(lambda: said(browser)[-1:] == [["Ash", "in secret"]], "the tab to hear itself", seconds=15)
        browser.click("upload-sample")
        assert uploaded(browser)[0] == SAMPLE_BYTES
        assert browser.console() == []
        browser.open("about:blank")
