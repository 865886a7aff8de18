"""The example projects in headless Chromium, started as their README says: a spreadsheet and a chat."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.processes.deploying import machine
from tests.support.processes.serving import APPS, HOST, Running, free_port, require_program, serve, wait_for
from tests.support.processes.webdriver import KEYS, Browser, chromium

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROGRAM = Path(sys.executable).with_name("daphne-ng")


# -- a project in a directory of its own -------------------------------------------------------------------------


def copied(name: str, directory: Path) -> Path:
    """Copy a project, make its database, and return its directory."""
    project = directory / name
    shutil.copytree(EXAMPLES / name, project, ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3*"))
    subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=project, check=True)
    return project


@contextlib.contextmanager
def served(
    project: Path, *options: str, port: int = 0, beside: Path | None = None, **environment: str
) -> Iterator[Running]:
    """Serve a project from its own directory, or from one beside it that gets the log of one more process."""
    listen = ("-b", HOST, "-p", str(port))
    with serve(
        f"{project.name}.asgi:application",
        beside or project,
        *options,
        imports=project if beside else APPS,
        environment=environment,
        listen=listen,
        program=[str(PROGRAM)],
    ) as running:
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that keeps nothing."""
    pytest.importorskip("channels_redis")
    directory = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [require_program("redis-server"), "--bind", HOST, "--port", str(port)]
    command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
    log_path = directory / "redis.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "Ready to accept connections" in log_path.read_text(), "Redis to start", seconds=15)
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait(15)


@contextlib.contextmanager
def two_processes(name: str, directory: Path, redis: str) -> Iterator[tuple[Running, Running]]:
    """Serve a project and its database twice; Redis is all that connects the two."""
    project, other = copied(name, directory), directory / "other"
    other.mkdir()
    with served(project, REDIS_URL=redis) as one, served(project, beside=other, REDIS_URL=redis) as two:
        for running in (one, two):
            # channels_redis can miss that it is cancelled while a message comes in, and is cancelled again later.
            running.expect("took too long to shut down and was killed. It waits in await_many_dispatch")
        yield one, two


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots stay: the directory that the variable SCREENSHOTS names, or pytest's own."""
    named = os.environ.get("SCREENSHOTS")
    directory = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def take_pictures(browser: Browser, directory: Path, name: str) -> None:
    """Show the page in light and dark, in a window and on a phone; nothing may stick out to the right."""
    for scheme in ("light", "dark"):
        for phone in (False, True):
            browser.emulate(scheme=scheme, phone=phone)
            file = directory / f"{name}-{scheme}{'-phone' if phone else ''}.png"
            browser.screenshot(file)
            assert file.read_bytes().startswith(b"\x89PNG")
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), file.name
    browser.emulate()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        browser.resize(1280, 860)
        yield browser


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """One tab, which has complained about nothing in the end."""
    yield window
    messages = window.console()
    window.open("about:blank")
    assert messages == []


def live(browser: Browser) -> None:
    wait_for(lambda: browser.state("connection") == "live", "the socket to open", seconds=15)


def dial(server: Running, path: str, **more: Any) -> ClientConnection:
    return connect(f"ws://{HOST}:{server.port}{path}", **{"proxy": None, "origin": server.url, **more})


def refused(server: Running, path: str, **more: Any) -> int:
    with pytest.raises(InvalidStatus) as caught:
        with dial(server, path, **more):
            pass
    return caught.value.response.status_code


# -- the spreadsheet ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spreadsheet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(copied("spreadsheet", tmp_path_factory.mktemp("spreadsheet"))) as running:
        yield running


def open_sheet(browser: Browser, server: Running, name: str, sheet: str = "scratch") -> None:
    browser.open(f"{server.url}/sheets/{sheet}/")
    live(browser)
    browser.run("document.getElementById('name').value = ''")
    browser.type("name", name + KEYS["Enter"])


def shows(browser: Browser, cell: str, text: str, seconds: float = 5) -> None:
    wait_for(lambda: browser.text(cell) == text, f"{cell} to show {text!r}", seconds)


def saved(browser: Browser) -> None:
    wait_for(lambda: browser.text("connection") == "Live", "the edits to be confirmed")


@contextlib.contextmanager
def second_tab(browser: Browser) -> Iterator[tuple[str, str]]:
    """An empty tab beside the first; it is the one that commands go to. Gives both."""
    first = browser.tab
    second = browser.open_tab()
    try:
        yield first, second
    finally:
        browser.switch_to(second)
        browser.close_tab()
        browser.switch_to(first)


def test_edits_formulas_and_cursors_cross_between_two_tabs(
    spreadsheet: Running, browser: Browser, pictures: Path
) -> None:
    open_sheet(browser, spreadsheet, "Laurel", "seed-order")
    shows(browser, "D13", "4.90")
    shows(browser, "D14", "70.00")
    with second_tab(browser) as (first, second):
        open_sheet(browser, spreadsheet, "Rowan", "seed-order")
        browser.click("B9")
        browser.press("5")
        browser.press(KEYS["Enter"])
        shows(browser, "D9", "14.50")
        shows(browser, "D14", "78.70")
        saved(browser)
        assert browser.text("where") == "B10"

        browser.switch_to(first)
        shows(browser, "B9", "5")
        shows(browser, "D14", "78.70")
        assert browser.text("last") == "Rowan set B9 to 5"
        wait_for(lambda: browser.text("people") == "Rowan B10", "the other to be listed, and where it is")
        assert browser.run("return document.getElementById('B10').dataset.who") == "Rowan"
        # Whatever says whose cursor it is stays within its cell.
        assert browser.run(
            "return ['::before', '::after'].every((part) => {"
            "  const box = getComputedStyle(document.getElementById('B10'), part);"
            "  return box.content === 'none' || [box.top, box.right, box.bottom, box.left].every((side) => side === '0px');"
            "})"
        )
        browser.click("C5")
        take_pictures(browser, pictures, "spreadsheet")

        browser.switch_to(second)
        wait_for(lambda: browser.text("people") == "Laurel C5", "the first to be listed")
    wait_for(lambda: browser.text("people") == "", "the other to be gone")


def test_two_tabs_talk_in_two_processes_through_redis(redis: str, browser: Browser, tmp_path: Path) -> None:
    with two_processes("spreadsheet", tmp_path, redis) as (one, two):
        open_sheet(browser, one, "Laurel")
        with second_tab(browser) as (first, second):
            open_sheet(browser, two, "Rowan")
            wait_for(lambda: browser.text("people").startswith("Laurel "), "the newcomer to see who is here")
            browser.click("A1")
            browser.press("=6*7" + KEYS["Enter"])
            browser.switch_to(first)
            shows(browser, "A1", "42")
            wait_for(lambda: browser.text("people").startswith("Rowan "), "the newcomer to be seen")
            browser.click("B1")
            browser.press("=A1/2" + KEYS["Enter"])
            browser.switch_to(second)
            shows(browser, "B1", "21")
        browser.open("about:blank")  # before the server goes


def test_the_last_to_write_wins_and_every_tab_agrees(redis: str, tmp_path: Path) -> None:
    edits = 40

    def write(ws: ClientConnection, who: str) -> list[dict[str, Any]]:
        for number in range(edits):
            ws.send(json.dumps({"type": "edit", "number": number, "cell": "C3", "text": f"{who} {number}"}))
        heard = [json.loads(ws.recv(20)) for _ in range(2 * edits)]
        return sorted(heard, key=lambda edit: edit["revision"])

    with two_processes("spreadsheet", tmp_path, redis) as (one, two):
        with dial(one, "/ws/sheets/scratch/") as here, dial(two, "/ws/sheets/scratch/") as there:
            assert [json.loads(ws.recv(5))["revision"] for ws in (here, there)] == [0, 0]
            with ThreadPoolExecutor() as pool:
                one_heard, two_heard = pool.map(write, (here, there), ("here", "there"))
        assert one_heard == two_heard
        assert [edit["revision"] for edit in one_heard] == list(range(1, 2 * edits + 1))
        with dial(two, "/ws/sheets/scratch/") as ws:
            snapshot = json.loads(ws.recv(5))
    assert (snapshot["revision"], snapshot["cells"]["C3"]) == (2 * edits, one_heard[-1]["text"])


def test_the_sheet_is_used_from_the_keyboard(spreadsheet: Running, browser: Browser) -> None:
    open_sheet(browser, spreadsheet, "Laurel")
    browser.click("F1")
    browser.press("7" + KEYS["Enter"])
    browser.press("8" + KEYS["Tab"])  # commits, and goes to the right
    assert browser.text("where") == "G2"
    browser.press("=sum(f1:f2)" + KEYS["Enter"])
    shows(browser, "G2", "15")
    browser.press(KEYS["Up"])
    browser.press(KEYS["Enter"])
    browser.press("*2" + KEYS["Escape"])  # is forgotten
    shows(browser, "G2", "15")
    browser.press(KEYS["Enter"])
    browser.press("*2" + KEYS["Enter"])  # goes on with what was there
    shows(browser, "G2", "30")
    browser.press(KEYS["Home"])
    assert browser.text("where") == "A3"
    browser.press(KEYS["Control"] + KEYS["Home"])
    assert browser.text("where") == "A1"
    browser.press(KEYS["Up"] + KEYS["Left"])  # stays
    assert browser.text("where") == "A1"
    assert browser.run("return document.activeElement.id") == "A1"
    browser.press(KEYS["Tab"])  # leaves the grid, which is no trap
    assert browser.run("return document.activeElement.closest('#grid')") is None
    browser.click("F2")
    browser.press(KEYS["Delete"])
    shows(browser, "F2", "")
    shows(browser, "G2", "14")
    browser.type("bar", "9" + KEYS["Enter"])
    shows(browser, "F2", "9")
    assert browser.text("where") == "F3"
    saved(browser)
    browser.open(f"{spreadsheet.url}/sheets/scratch/")
    shows(browser, "G2", "32")


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        ("1+2*3", "7"),
        ("(1+2)*3", "9"),
        ("2^3^2", "512"),
        ("-2^2", "4"),
        ("0.1+0.2", "0.3"),
        ("50%*8", "4"),
        ('"a"&1+1', "a2"),
        ("A1+A2", "4.75"),
        ("A1*2", "5.00"),
        ("SUM(A1:A3)", "4.75"),
        ("SUM(A3:A1, 1)", "5.75"),
        ("COUNT(A1:B9)", "2"),
        ("MAX(B1:B9)", "0"),
        ("ROUND(2.345, 2)", "2.35"),
        ("ROUND(A1)", "3"),
        ("ROUND(A1*2, 1)", "5.0"),
        ('IF(A1>2, "much", "little")', "much"),
        ("A3&B9", "beans"),
        ("A3+1", "#VALUE!"),
        ("1/B9", "#DIV/0!"),
        ("10^999", "#NUM!"),
        ("NO(1)", "#NAME?"),
        ("toString(1)", "#NAME?"),
        ("K1", "#REF!"),
        ("A41", "#REF!"),
        ("SUM(A1:ZZ99999999)", "#REF!"),
        ("J9", "#CYCLE!"),
        ("1+", "#ERROR!"),
        ("1 2", "#ERROR!"),
        ("A1:A2", "#ERROR!"),
        ("alert(1);", "#ERROR!"),
        ("(" * 199, "#ERROR!"),
    ],
)
def test_a_formula_gives(spreadsheet: Running, browser: Browser, formula: str, shown: str) -> None:
    if not browser.run("return location.href").startswith(spreadsheet.url):
        browser.open(f"{spreadsheet.url}/sheets/scratch/")
    script = """
        const [cells, limits] = arguments;
        return import("/static/sheets/formulas.js").then(({ evaluate }) =>
            evaluate(new Map(Object.entries(cells)), limits).get("J9").shown);
    """
    cells = {"A1": "2.50", "A2": "2.25", "A3": "beans", "J9": f"={formula}"}
    assert browser.run(script, cells, {"columns": "ABCDEFGHIJ", "rows": 40}) == shown


def test_a_tab_that_missed_edits_asks_for_the_sheet(spreadsheet: Running, browser: Browser) -> None:
    # More than the channel layer keeps for a tab, which drops the rest.
    names = [f"{column}{row}" for row in range(4, 41) for column in "ABCDEFGHIJ"]
    open_sheet(browser, spreadsheet, "Laurel")
    with dial(spreadsheet, "/ws/sheets/scratch/", max_queue=None) as ws:
        for number, name in enumerate(names):
            ws.send(json.dumps({"type": "edit", "number": number, "cell": name, "text": str(number)}))
        shows(browser, "J40", str(len(names) - 1), seconds=30)
    script = "return arguments[0].map((name) => document.getElementById(name).textContent)"
    everything = [str(number) for number in range(len(names))]
    wait_for(lambda: browser.run(script, names) == everything, "every edit to be there", seconds=20)


def test_edits_made_while_the_server_is_away_are_kept_and_sent(browser: Browser, tmp_path: Path) -> None:
    project = copied("spreadsheet", tmp_path)
    with served(project) as running:
        open_sheet(browser, running, "Laurel")
        browser.click("A1")
        browser.press("before" + KEYS["Enter"])
        saved(browser)
    wait_for(lambda: browser.state("connection") == "wait", "the tab to notice")
    browser.press("meanwhile" + KEYS["Enter"])
    wait_for(lambda: browser.text("connection").endswith("; 1 edit kept"), "the tab to say that it keeps the edit")
    with served(project, port=running.port) as again:
        wait_for(lambda: browser.text("connection") == "Live", "the edit to be sent", seconds=20)
        with dial(again, "/ws/sheets/scratch/") as ws:
            assert json.loads(ws.recv(5))["cells"] == {"A1": "before", "A2": "meanwhile"}
        browser.open("about:blank")
    browser.console()  # the browser logs what it could not reach meanwhile


def test_a_new_sheet_has_a_page_of_its_own(spreadsheet: Running, browser: Browser) -> None:
    for path in ("wild-garlic", "wild-garlic-"):
        open_sheet(browser, spreadsheet, "Laurel")
        browser.run("document.querySelector('.new [name=title]').value = 'Wild garlic'")
        browser.run("document.querySelector('.new').requestSubmit()")
        wait_for(lambda: browser.title == "Wild garlic - spreadsheet", "the sheet to open")
        live(browser)
        assert path in browser.run("return location.pathname")


@pytest.mark.parametrize(
    "message",
    [
        "not JSON",
        "[" * 100_000,
        "[]",
        '{"type": "edit", "number": 1, "cell": "A41", "text": "x"}',
        '{"type": "edit", "number": 1, "cell": "A1", "text": "\\ud800"}',
        json.dumps({"type": "edit", "number": 1, "cell": "A1", "text": "x" * 201}),
        '{"type": "presence", "name": " ", "cell": "A1"}',
    ],
    ids=["text", "nested", "list", "cell", "surrogate", "long", "nameless"],
)
def test_what_no_tab_sends_closes_the_socket(spreadsheet: Running, message: str) -> None:
    with dial(spreadsheet, "/ws/sheets/seed-order/") as ws:
        ws.recv(5)
        ws.send(message)
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert (ws.close_code, ws.close_reason) == (4400, "not understood")


def test_sheets_are_for_pages_of_this_site(spreadsheet: Running) -> None:
    assert refused(spreadsheet, "/ws/sheets/scratch/", origin="https://evil.example") == 403
    assert refused(spreadsheet, "/ws/sheets/scratch/", origin=None) == 403
    assert refused(spreadsheet, "/ws/sheets/none/") == 403
    spreadsheet.expect("Not Found: /sheets/none/")
    with spreadsheet.client() as client:
        assert client.get("/sheets/none/").status_code == 404


# -- the chat ------------------------------------------------------------------------------------------------------

PASSWORD = "forty courgettes"
QUIET_SECONDS = 6
"""Longer than channels_redis waits for a message in one go, and than redis-py 8 does for any answer."""


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(copied("chat", tmp_path_factory.mktemp("chat"))) as running:
        yield running


@pytest.fixture(scope="module")
def other_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Another browser, with cookies of its own."""
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        browser.resize(1280, 860)
        yield browser


@pytest.fixture
def other(other_window: Browser) -> Iterator[Browser]:
    yield other_window
    messages = other_window.console()
    other_window.open("about:blank")
    assert messages == []


def join(browser: Browser, server: Running | str, name: str, room: str = "garden") -> None:
    """Make an account in the page for it, and go to a room."""
    url = server if isinstance(server, str) else server.url
    browser.open(f"{url}/join/")
    for field, text in {"username": name, "password1": PASSWORD, "password2": PASSWORD}.items():
        browser.type(f"id_{field}", text)
    browser.click("go")
    wait_for(lambda: browser.title == "Garden - chat", "the first room to open")
    browser.open(f"{url}/rooms/{room}/")
    live(browser)


def signed_in(server: Running, name: str) -> dict[str, str]:
    """Make an account without a browser, and return the header that goes with its session."""
    with server.client() as client:
        client.get("/join/")
        form = {"username": name, "password1": PASSWORD, "password2": PASSWORD}
        assert client.post("/join/", data={**form, "csrfmiddlewaretoken": client.cookies["csrftoken"]}).is_redirect
        return {"Cookie": f"sessionid={client.cookies['sessionid']}"}


def dial_room(server: Running, headers: dict[str, str], room: str = "shed") -> ClientConnection:
    return dial(server, f"/ws/rooms/{room}/", additional_headers=headers)


def receive(ws: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind."""
    while True:
        message: dict[str, Any] = json.loads(ws.recv(5))
        if message["type"] == kind:
            return message


def say(browser: Browser, text: str) -> None:
    browser.type("text", text + KEYS["Enter"])


def said(browser: Browser) -> list[list[str]]:
    """Return who said what, of what is confirmed."""
    script = """
        return Array.from(document.querySelectorAll("#log .message:not(.pending)"),
            (line) => [line.dataset.author, line.querySelector(".said").textContent]);
    """
    lines: list[list[str]] = browser.run(script)
    return lines


def hears(browser: Browser, author: str, text: str, seconds: float = 5) -> None:
    wait_for(lambda: said(browser)[-1:] == [[author, text]], f"{author} to be heard saying {text!r}", seconds)


def test_two_users_talk_and_see_each_other(chat: Running, browser: Browser, other: Browser, pictures: Path) -> None:
    join(browser, chat, "Hazel")
    take_pictures(browser, pictures, "chat-empty")
    join(other, chat, "Rowan")
    wait_for(lambda: browser.text("people").split() == ["Hazel", "Rowan"], "the other to be listed")
    say(browser, "The broad beans are up. All but the row by the wall.")
    hears(other, "Hazel", "The broad beans are up. All but the row by the wall.")
    say(other, "Slugs. They held a <b>banquet</b> on my chard, too.")
    say(other, "I have put out beer: https://example.org/slugs.")
    hears(browser, "Rowan", "I have put out beer: https://example.org/slugs.")
    other.type("text", "And")
    wait_for(lambda: browser.text("writing") == "Rowan is writing", "the other to be seen writing")
    say(browser, "For the slugs, or for you?")
    hears(other, "Hazel", "For the slugs, or for you?")
    take_pictures(browser, pictures, "chat")
    say(other, " a little of both.")
    hears(browser, "Rowan", "And a little of both.")
    browser.open(f"{chat.url}/rooms/garden/")
    hears(browser, "Rowan", "And a little of both.")
    assert len(said(browser)) == 5


@contextlib.contextmanager
def directly(project: Path, pem: Path) -> Iterator[int]:
    with served(project, "--ssl-certfile", str(pem)) as server:
        yield server.port


@contextlib.contextmanager
def behind_nginx(project: Path, pem: Path) -> Iterator[int]:
    with machine() as here, served(project, "--proxy-headers") as server:
        port = free_port()
        listen = f"listen {HOST}:{port} ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem}"
        site = here.file("nginx.conf", {"unix:/run/proj/proj.sock": f"{HOST}:{server.port}", "listen 80": listen})
        # The project's own files are served by Django here.
        with here.nginx(site.replace("location /static/", "location /srv/"), port=port):
            yield port


@contextlib.contextmanager
def behind_haproxy(project: Path, pem: Path) -> Iterator[int]:
    with machine() as here, served(project, "--proxy-protocol") as server, socket.create_server((HOST, 0)) as front:
        site = (EXAMPLES / "haproxy-tls.cfg").read_text("utf-8").replace("/etc/haproxy/both.pem", str(pem))
        site = site.replace(":8001 ", f":{server.port} ").replace("bind :443", f"bind fd@{front.fileno()}")
        (here.root / "haproxy.cfg").write_text(site)
        command = [require_program("haproxy"), "-db", "-f", str(here.root / "haproxy.cfg")]
        with here.started("haproxy", command, lambda: True, pass_fds=[front.fileno()]):
            yield front.getsockname()[1]


@pytest.mark.parametrize("way", [directly, behind_nginx, behind_haproxy])
def test_a_user_signs_in_and_talks_over_tls(way: Any, pem: Path, tmp_path: Path) -> None:
    """Django compares the page's origin, with its scheme, to what it knows of the request."""
    project = copied("chat", tmp_path)
    with way(project, pem) as port, chromium(tmp_path, "--ignore-certificate-errors") as browser:
        join(browser, f"https://localhost:{port}", "Hazel")
        say(browser, "Nobody else can read this.")
        hears(browser, "Hazel", "Nobody else can read this.")
        assert browser.console() == []
        browser.open("about:blank")


def test_the_door(chat: Running, browser: Browser, pictures: Path) -> None:
    browser.open(f"{chat.url}/join/")
    take_pictures(browser, pictures, "chat-join")
    join(browser, chat, "Sorrel")
    browser.click("sign-out")
    wait_for(lambda: browser.title == "Sign in - chat", "the door to close")
    browser.open(f"{chat.url}/rooms/shed/")  # anonymous
    assert browser.title == "Sign in - chat"
    browser.type("id_username", "Sorrel")
    browser.type("id_password", "wrong" + KEYS["Enter"])
    wait_for(lambda: browser.run("return document.querySelector('.errorlist')?.checkVisibility()"), "the refusal")
    take_pictures(browser, pictures, "chat-sign-in")
    browser.type("id_password", PASSWORD + KEYS["Enter"])
    wait_for(lambda: browser.title == "Shed - chat", "the room that was asked for")
    live(browser)


def test_signing_out_closes_the_other_tabs_too(chat: Running, browser: Browser) -> None:
    join(browser, chat, "Tansy")
    with second_tab(browser) as (first, second):
        browser.open(f"{chat.url}/rooms/shed/")
        live(browser)
        browser.click("sign-out")
        wait_for(lambda: browser.title == "Sign in - chat", "the door to close")
        browser.switch_to(first)
        wait_for(lambda: browser.title == "Sign in - chat", "the other tab to be sent out", seconds=15)


def test_what_is_said_while_the_server_is_away_is_said_once_it_is_back(browser: Browser, tmp_path: Path) -> None:
    project = copied("chat", tmp_path)
    with served(project) as running:
        join(browser, running, "Hazel")
        say(browser, "before")
        hears(browser, "Hazel", "before")
    wait_for(lambda: browser.state("connection") == "wait", "the tab to notice")
    say(browser, "meanwhile")
    assert said(browser) == [["Hazel", "before"]]
    with served(project, port=running.port):
        wait_for(lambda: browser.state("connection") == "live", "the tab to be back", seconds=20)
        hears(browser, "Hazel", "meanwhile")
        assert said(browser) == [["Hazel", "before"], ["Hazel", "meanwhile"]]
        wait_for(lambda: browser.text("people") == "Hazel", "nobody else to be left over")
        browser.open("about:blank")
    browser.console()  # the browser logs what it could not reach meanwhile


def test_two_users_talk_in_two_processes_through_redis(
    redis: str, browser: Browser, other: Browser, tmp_path: Path
) -> None:
    with two_processes("chat", tmp_path, redis) as (one, two):
        join(browser, one, "Hazel")
        join(other, two, "Rowan")
        wait_for(lambda: browser.text("people").split() == ["Hazel", "Rowan"], "the newcomer to be listed")
        wait_for(lambda: other.text("people").split() == ["Hazel", "Rowan"], "both to be listed")
        say(browser, "Can you hear me over there?")
        hears(other, "Hazel", "Can you hear me over there?")
        say(other, "Every word.")
        hears(browser, "Rowan", "Every word.")
        opened = one.log.count('"WSCONNECT ')
        time.sleep(QUIET_SECONDS)
        assert one.log.count('"WSCONNECT ') == opened
        other.open("about:blank")
        wait_for(lambda: browser.text("people") == "Hazel", "the other to be gone")
        browser.open("about:blank")  # before the server goes


def test_the_last_fifty_messages_are_shown(chat: Running, browser: Browser) -> None:
    headers = signed_in(chat, "Yarrow")
    with dial_room(chat, headers, "kitchen") as ws:
        for number in range(60):
            ws.send(json.dumps({"type": "say", "text": f"courgette {number}", "key": f"{number}"}))
            assert receive(ws, "message")["text"] == f"courgette {number}"
    join(browser, chat, "Ivy", "kitchen")
    wait_for(lambda: len(said(browser)) == 50, "the history")
    assert [text for _, text in said(browser)] == [f"courgette {number}" for number in range(10, 60)]
    assert browser.run("const log = document.getElementById('log'); return log.scrollTop > 0")
    wait_for(lambda: browser.run("return document.getElementById('jump').hidden"), "the end to be in view")
    browser.run("document.getElementById('log').scrollTop = 0")
    with dial_room(chat, headers, "kitchen") as ws:
        ws.send(json.dumps({"type": "say", "text": "and one more", "key": "more"}))
        wait_for(lambda: browser.text("jump") == "New messages", "the reader to be told rather than moved")
    browser.click("jump")
    assert said(browser)[-1] == ["Yarrow", "and one more"]
    assert browser.run("return document.getElementById('jump').hidden")


def test_what_is_sent_twice_is_said_once(chat: Running) -> None:
    headers = signed_in(chat, "Teasel")
    with dial_room(chat, headers) as ws:
        for _ in range(2):
            ws.send(json.dumps({"type": "say", "text": "once", "key": "same"}))
        assert receive(ws, "message") == receive(ws, "message")
    with dial_room(chat, headers) as ws:
        assert [line["text"] for line in receive(ws, "history")["messages"]] == ["once"]


@pytest.mark.parametrize(
    "message",
    [
        "not JSON",
        '{"type": "say", "text": " ", "key": "1"}',
        '{"type": "say", "text": "x"}',
        '{"type": "say", "text": "\\ud800", "key": "1"}',
        json.dumps({"type": "say", "text": "x" * 2001, "key": "1"}),
    ],
    ids=["text", "nothing", "keyless", "surrogate", "long"],
)
def test_what_no_page_sends_closes_the_socket(chat: Running, message: str) -> None:
    with dial_room(chat, signed_in(chat, f"Nettle{abs(hash(message))}")) as ws:
        ws.send(message)
        with pytest.raises(ConnectionClosed):
            receive(ws, "message")
        assert (ws.close_code, ws.close_reason) == (4400, "not understood")


def test_rooms_are_for_users_and_for_pages_of_this_site(chat: Running) -> None:
    path, headers = "/ws/rooms/shed/", signed_in(chat, "Burdock")
    assert refused(chat, path) == 403  # anonymous
    assert refused(chat, path, additional_headers={"Cookie": "sessionid=made-up"}) == 403
    assert refused(chat, path, additional_headers=headers, origin="https://evil.example") == 403
    assert refused(chat, path, additional_headers=headers, origin=None) == 403
    assert refused(chat, "/ws/rooms/none/", additional_headers=headers) == 403
    with chat.client() as client:
        asked = client.get("/rooms/shed/")
        assert (asked.status_code, asked.headers["location"]) == (302, "/sign-in/?next=/rooms/shed/")
