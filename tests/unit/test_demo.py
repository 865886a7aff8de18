"""The demo application, driven by scripted messages: no sockets, no real time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from html.parser import HTMLParser
from typing import Any, TypeVar

import pytest

from daphne_ng.demo import Clock, Demo, chat, streams
from daphne_ng.demo import uploads as uploads_module
from daphne_ng.demo.page import SCRIPT, address_text
from daphne_ng.demo.uploads import UPLOAD_ENTRIES, UPLOAD_EXPIRES, UPLOAD_LONGEST_PAUSE, UPLOAD_SLOW_RATE, Uploads
from daphne_ng.stopping import StopNotice, context_of_server

T = TypeVar("T")

EVIL = "<script>alert('\"&')</script>"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end; the timeout only turns a hang into a failure."""

    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeTime:
    """A clock whose sleepers wake when a test says so, or at once if ``instant``."""

    def __init__(self, *, instant: bool = False) -> None:
        self.seconds = 1_700_000_000.0
        self.instant = instant
        self.slept: list[float] = []
        self._sleepers: list[asyncio.Future[None]] = []

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, monotonic=lambda: self.seconds, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.instant:
            self.seconds += seconds
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    async def advance(self, seconds: float) -> None:
        self.seconds += seconds
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        await settle()


class Peer:
    """One exchange seen from the server: strict about order, and silent when its script is over."""

    def __init__(self, app: Demo, scope: dict[str, Any], *messages: dict[str, Any]) -> None:
        self.scope = scope
        self.sent: list[dict[str, Any]] = []
        self.send_error: Exception | None = None
        self.on_send: Callable[[], Awaitable[None]] | None = None
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._finished = False
        for message in messages:
            self._inbox.put_nowait(message)
        self.task = asyncio.ensure_future(app(scope, self._inbox.get, self._send))

    async def _send(self, message: Any) -> None:
        assert not self._finished, f"{message} after the end of the exchange"
        if self.send_error:
            raise self.send_error
        if message["type"] == "http.response.body":
            assert self.sent, "a body before the start of the response"
            self._finished = not message.get("more_body", False)
        if message["type"] == "websocket.close":
            self._finished = True
        json.dumps({**message, "body": None, "headers": None})
        self.sent.append(dict(message))
        if self.on_send:
            await self.on_send()

    def give(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self._inbox.put_nowait(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return self._finished

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in re.findall(rb"^data: (.*)$", self.body, re.MULTILINE)]

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    @property
    def said(self) -> list[str]:
        return [frame["text"] for frame in self.frames if frame["type"] == "message"]


def http_scope(
    path: str = "/", method: str = "GET", *headers: tuple[bytes, bytes], query: bytes = b"", **more: Any
) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.7", 40001),
        "server": ("198.51.100.1", 8000),
        **more,
    }


def chat_scope(*headers: tuple[bytes, bytes], path: str = "/chat") -> dict[str, Any]:
    return {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"demo.example:8000"), *headers],
        "client": ("192.0.2.7", 40001),
        "server": ("198.51.100.1", 8000),
        "subprotocols": [],
    }


LAST = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}
CONNECT = {"type": "websocket.connect"}
CLOSED = {"type": "websocket.disconnect", "code": 1001}


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def says(text: str, name: str = "Ash") -> dict[str, Any]:
    return {"type": "websocket.receive", "text": json.dumps({"name": name, "text": text})}


def fetch(scope: dict[str, Any], *messages: dict[str, Any], app: Demo | None = None) -> Peer:
    """Run one exchange to its end."""

    async def main() -> Peer:
        peer = Peer(app or Demo(FakeTime().clock), scope, *(messages or (LAST,)))
        await peer.task
        return peer

    return run(main())


class Page(HTMLParser):
    """Collects what the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._tag = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._tag:
            self._tag = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._tag] = self.texts.get(self._tag, "") + data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_shows_the_connection_and_the_command() -> None:
    peer = fetch(http_scope("/", "GET", (b"x-flavour", b"bay"), http_version="2", scheme="https"))
    text = peer.body.decode()
    assert peer.status == 200
    assert peer.headers[b"content-type"] == b"text/html; charset=utf-8"
    for shown in ("HTTP/2", "https", "192.0.2.7:40001", "198.51.100.1:8000", "x-flavour", "bay"):
        assert shown in text
    assert "daphne-ng -p 8000 myproject.asgi:application" in text
    assert "0.0.0.0" not in text


def test_every_value_from_the_client_is_escaped() -> None:
    evil = EVIL.encode()
    clean = Page(fetch(http_scope()).body.decode())
    scope = http_scope(
        "/",
        "GET",
        (b"x-evil", evil),
        (evil, b"value"),
        client=(EVIL, 1),
        server=(EVIL, None),
        scheme=EVIL,
        http_version=EVIL,
    )
    text = fetch(scope).body.decode()
    assert EVIL not in text
    assert "&lt;script&gt;alert(&#x27;&quot;&amp;&#x27;)&lt;/script&gt;" in text
    assert Page(text).count("script") == clean.count("script") == 1


@pytest.mark.parametrize("name", [b"Cookie", b"authorization"])
def test_credentials_are_shown_by_length_only(name: bytes) -> None:
    text = fetch(http_scope("/", "GET", (name, b"sessionid=hunter2"))).body.decode()
    assert "hunter2" not in text
    assert "17 bytes, not shown" in text


def test_header_bytes_outside_ascii_and_placeholders_are_harmless() -> None:
    text = fetch(http_scope("/", "GET", (b"x-bytes", b"\xff $script $$ ${style}"))).body.decode()
    assert "\u00ff $script $$ ${style}" in text


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.7", 80), "192.0.2.7:80"),
        (("2001:db8::1", 80), "[2001:db8::1]:80"),
        (("/run/daphne.sock", None), "/run/daphne.sock"),
        (("", 0), "not known"),
        (None, "not known"),
    ],
)
def test_an_address_of_any_shape_has_a_text(address: tuple[str, int | None] | None, text: str) -> None:
    assert address_text(address) == text


def test_the_policy_allows_exactly_the_script_and_the_style_of_the_page() -> None:
    peer = fetch(http_scope())
    policy = peer.headers[b"content-security-policy"].decode()
    page = Page(peer.body.decode())
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_has_no_inline_handlers_and_no_external_resources() -> None:
    page = Page(fetch(http_scope()).body.decode())
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), tag


def test_every_id_the_script_asks_for_is_on_the_page() -> None:
    page = Page(fetch(http_scope()).body.decode())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'byId\("([\w-]+)"\)', SCRIPT)) <= set(ids)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    get, head = fetch(http_scope("/")), fetch(http_scope("/", "HEAD"))
    assert head.status == 200
    assert head.headers == get.headers
    assert int(get.headers[b"content-length"]) == len(get.body)
    assert head.body == b""
    assert head.complete


@pytest.mark.parametrize("path", ["/nothing", f"/{EVIL}", "/upload/a.b/progress", "/clock/", "/\udc80"])
def test_any_other_path_is_404(path: str) -> None:
    peer = fetch(http_scope(path))
    assert peer.status == 404
    assert int(peer.headers[b"content-length"]) == len(peer.body)
    assert EVIL not in peer.body.decode()
    assert b"content-security-policy" in peer.headers


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/", "POST", b"GET, HEAD"),
        ("/clock", "DELETE", b"GET, HEAD"),
        ("/upload", "GET", b"POST, PUT"),
        ("/upload", "HEAD", b"POST, PUT"),
        ("/upload/abc/progress", "PUT", b"GET, HEAD"),
    ],
)
def test_any_other_method_is_405_and_names_those_allowed(path: str, method: str, allow: bytes) -> None:
    peer = fetch(http_scope(path, method))
    assert (peer.status, peer.headers[b"allow"]) == (405, allow)
    assert (peer.body == b"") == (method == "HEAD")


@pytest.mark.parametrize("path", ["/", "/under", "/under/"])
def test_the_page_is_found_under_a_root_path(path: str) -> None:
    assert fetch(http_scope(path, root_path="/under")).status == 200
    assert b'href="/under/"' in fetch(http_scope("/under/nothing", root_path="/under")).body
    assert fetch(http_scope("/underneath", root_path="/under")).status == 404


def test_an_unknown_scope_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="telnet"):
        fetch({"type": "telnet"})


# -- the clock ---------------------------------------------------------------------------------------------


def test_the_clock_ticks_once_a_second() -> None:
    async def main() -> None:
        time = FakeTime()
        peer = Peer(Demo(time.clock), http_scope("/clock"), LAST)
        await settle()
        assert [event["tick"] for event in peer.events] == [1]
        await time.advance(1.0)
        assert peer.events == [
            {"time": "2023-11-14T22:13:20.000+00:00", "tick": 1},
            {"time": "2023-11-14T22:13:21.000+00:00", "tick": 2},
        ]
        assert peer.headers[b"content-type"].startswith(b"text/event-stream")
        assert peer.body.startswith(b"retry: 5000\n\n")
        assert time.slept == [1.0, 1.0]
        peer.give(GONE)
        await peer.task

    run(main())


def test_a_disconnect_ends_the_clock_in_mid_sleep_and_nothing_more_is_sent() -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), http_scope("/clock"), LAST)
        await settle()
        sent = len(peer.sent)
        peer.give(GONE)
        await peer.task
        assert len(peer.sent) == sent
        assert not peer.complete

    run(main())


def test_a_send_that_fails_because_the_client_left_ends_the_clock() -> None:
    async def main() -> None:
        time = FakeTime()
        peer = Peer(Demo(time.clock), http_scope("/clock"), LAST)
        await settle()
        peer.send_error = ConnectionResetError()
        await time.advance(1.0)
        await peer.task

    run(main())


def test_a_send_that_fails_for_another_reason_is_not_swallowed() -> None:
    async def main() -> None:
        time = FakeTime()
        peer = Peer(Demo(time.clock), http_scope("/clock"), LAST)
        await settle()
        peer.send_error = RuntimeError("a bug")
        await time.advance(1.0)
        with pytest.raises(RuntimeError, match="a bug"):
            await peer.task

    run(main())


def test_a_cancelled_clock_leaves_no_task_behind() -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), http_scope("/clock"), LAST)
        await settle()
        peer.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await peer.task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_the_clock_ends_by_itself_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streams.CLOCK_TICKS == 3600
    monkeypatch.setattr(streams, "CLOCK_TICKS", 5)
    peer = fetch(http_scope("/clock"), app=Demo(FakeTime(instant=True).clock))
    assert len(peer.events) == 5
    assert peer.complete


def test_closing_twice_is_closing_once() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        socket = Peer(app, chat_scope(), CONNECT)
        await settle()
        for _ in range(2):
            app.chat.close()
        await socket.task
        assert socket.complete

    run(main())


def test_head_of_the_clock_ends_at_once() -> None:
    peer = fetch(http_scope("/clock", "HEAD"))
    assert (peer.status, peer.body, peer.complete) == (200, b"", True)


# -- the lifespan ------------------------------------------------------------------------------------------


def test_the_notice_ends_streams_and_admits_no_more() -> None:
    async def main() -> None:
        app, notice = Demo(FakeTime().clock), StopNotice()
        serving = context_of_server(notice)
        clock = serving.run(Peer, app, http_scope("/clock"), LAST)
        progress = serving.run(Peer, app, http_scope("/upload/x/progress"), LAST)
        other_server = Peer(app, http_scope("/clock"), LAST)
        await settle()
        assert not clock.complete
        notice.give()
        await asyncio.gather(clock.task, progress.task)
        assert clock.complete
        assert progress.complete

        late = serving.run(Peer, app, http_scope("/clock"), LAST)
        await late.task
        assert (late.complete, late.events) == (True, [])
        assert not other_server.complete

    run(main())


def test_shutdown_ends_sockets_at_once_and_admits_no_more() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        lifespan = Peer(app, {"type": "lifespan"}, {"type": "lifespan.startup"})
        socket = Peer(app, chat_scope(), CONNECT)
        await settle()
        assert lifespan.sent == [{"type": "lifespan.startup.complete"}]

        lifespan.give({"type": "lifespan.shutdown"})
        await asyncio.gather(lifespan.task, socket.task)
        assert lifespan.sent[1:] == [{"type": "lifespan.shutdown.complete"}]
        assert socket.sent[-1] == {"type": "websocket.close", "code": 1001}

        late_socket = Peer(app, chat_scope(), CONNECT)
        await late_socket.task
        assert late_socket.sent == [{"type": "websocket.close"}]

        Peer(app, {"type": "lifespan"}, {"type": "lifespan.startup"})
        again = Peer(app, chat_scope(), CONNECT)
        await settle()
        assert again.sent[0]["type"] == "websocket.accept"

    run(main())


# -- uploads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_is_counted_and_hashed_over_several_chunks(method: str) -> None:
    parts = [b"one", b"", b"three", b"seven" * 1000]
    peer = fetch(http_scope("/upload", method), *map(chunk, parts), LAST)
    body = b"".join(parts)
    assert peer.status == 200
    assert json.loads(peer.body) == {
        "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "chunks": 3, "seconds": 0.0,
    }  # fmt: skip


def test_an_empty_upload_is_an_upload() -> None:
    result = json.loads(fetch(http_scope("/upload", "PUT"), {"type": "http.request"}).body)
    assert (result["bytes"], result["chunks"], result["sha256"]) == (0, 0, hashlib.sha256().hexdigest())


def test_progress_reports_what_has_been_received_while_the_rest_is_still_to_come() -> None:
    async def main() -> None:
        time = FakeTime()
        app = Demo(time.clock)
        progress = Peer(app, http_scope("/upload/abc/progress"), LAST)
        await settle()
        upload = Peer(app, http_scope("/upload", "PUT", (b"content-length", b"10"), query=b"id=abc"), chunk(b"1234"))
        await time.advance(0.1)
        assert not upload.sent
        assert progress.events[-1] == {"state": "receiving", "bytes": 4, "total": 10, "chunks": 1}
        await time.advance(0.1)
        assert len(progress.events) == 2  # nothing changed, nothing said
        upload.give(chunk(b"567890", more=False))
        await upload.task
        await time.advance(0.1)
        await progress.task
        assert progress.events[-1] == {"state": "complete", "bytes": 10, "total": 10, "chunks": 2}
        assert b"event: end\n" in progress.sent[-2]["body"]

    run(main())


def test_a_client_that_leaves_in_mid_upload_aborts_it_without_a_response() -> None:
    async def main() -> None:
        time = FakeTime()
        app = Demo(time.clock)
        progress = Peer(app, http_scope("/upload/abc/progress"), LAST)
        upload = Peer(app, http_scope("/upload", "PUT", query=b"id=abc"), chunk(b"1234"), GONE)
        await upload.task
        assert upload.sent == []
        await time.advance(0.1)
        await progress.task
        assert progress.events[-1] == {"state": "aborted", "bytes": 4, "total": None, "chunks": 1}

    run(main())


def test_an_upload_id_cannot_be_used_twice_at_a_time_but_again_later() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        scope = http_scope("/upload", "PUT", query=b"id=abc")
        first = Peer(app, scope, chunk(b"1234"))
        await settle()
        second = Peer(app, scope, LAST)
        await second.task
        assert second.status == 409
        first.give(LAST)
        await first.task
        third = Peer(app, scope, LAST)
        await third.task
        assert (first.status, third.status) == (200, 200)

    run(main())


@pytest.mark.parametrize("upload_id", [b"a/b", b"%3Cscript%3E", b"x" * 65, "é".encode()])
def test_an_upload_id_is_short_and_plain(upload_id: bytes) -> None:
    assert fetch(http_scope("/upload", "PUT", query=b"id=" + upload_id)).status == 400


def test_a_slow_upload_is_read_no_faster_than_its_rate() -> None:
    time = FakeTime(instant=True)
    quarter = bytes(UPLOAD_SLOW_RATE // 4)
    scope = http_scope("/upload", "PUT", query=b"pace=slow")
    peer = fetch(scope, *[chunk(quarter)] * 4, LAST, app=Demo(time.clock))
    assert time.slept == [pytest.approx(0.25, abs=1e-6)] * 4
    assert json.loads(peer.body)["seconds"] == 1.0


def test_a_client_slower_than_the_slow_rate_is_not_held_back() -> None:
    async def main() -> None:
        time = FakeTime()
        peer = Peer(Demo(time.clock), http_scope("/upload", "PUT", query=b"pace=slow"))
        for _ in range(3):
            await settle()
            time.seconds += 1
            peer.give(chunk(b"x"))
        peer.give(LAST)
        await peer.task
        assert time.slept == []

    run(main())


def test_a_huge_chunk_does_not_hold_a_slow_upload_for_long() -> None:
    time = FakeTime(instant=True)
    fetch(http_scope("/upload", "PUT", query=b"pace=slow"), chunk(bytes(40_000_000)), LAST, app=Demo(time.clock))
    assert time.slept == [UPLOAD_LONGEST_PAUSE]


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1_0", b"9" * 19, "²".encode("latin-1")])
def test_a_content_length_that_is_no_plain_number_is_unknown(length: bytes) -> None:
    app = Demo(FakeTime().clock)
    fetch(http_scope("/upload", "PUT", (b"content-length", length), query=b"id=abc"), LAST, app=app)
    assert app.uploads.watch("abc").expected is None


def test_uploads_are_bounded_in_number_and_the_one_idle_longest_goes_first() -> None:
    uploads = Uploads(lambda: 0.0)
    busy = uploads.begin("busy")
    assert busy
    for number in range(UPLOAD_ENTRIES - 1):
        uploads.watch(str(number))
    uploads.touch("busy", busy)
    uploads.watch("one more")
    assert len(uploads) == UPLOAD_ENTRIES
    assert uploads.watch("busy") is busy


def test_an_upload_that_was_forgotten_still_ends_well() -> None:
    uploads = Uploads(lambda: 0.0)
    upload = uploads.begin("first")
    assert upload
    for number in range(UPLOAD_ENTRIES):
        uploads.watch(str(number))
    uploads.touch("first", upload)
    assert len(uploads) == UPLOAD_ENTRIES
    assert uploads.watch("first") is not upload


def test_an_idle_upload_expires() -> None:
    time = FakeTime()
    uploads = Uploads(time.clock.monotonic)
    first = uploads.watch("first")
    time.seconds += UPLOAD_EXPIRES - 1
    assert uploads.watch("first") is first
    time.seconds += 1
    assert uploads.watch("first") is not first
    assert len(uploads) == 1


def test_nothing_is_remembered_of_an_upload_without_id_or_of_head() -> None:
    app = Demo(FakeTime().clock)
    fetch(http_scope("/upload", "PUT"), LAST, app=app)
    fetch(http_scope("/upload/abc/progress", "HEAD"), app=app)
    assert len(app.uploads) == 0


def test_progress_of_an_upload_that_never_begins_ends() -> None:
    peer = fetch(http_scope("/upload/abc/progress"), app=Demo(FakeTime(instant=True).clock))
    assert [event["state"] for event in peer.events] == ["waiting", "waiting"]
    assert peer.complete


def test_progress_of_an_upload_that_never_ends_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "PROGRESS_LOOKS", 5)

    async def main() -> None:
        app = Demo(FakeTime(instant=True).clock)
        upload = Peer(app, http_scope("/upload", "PUT", query=b"id=abc"), chunk(b"1234"))
        await settle()
        progress = Peer(app, http_scope("/upload/abc/progress"), LAST)
        await progress.task
        assert progress.complete
        assert not upload.sent

    run(main())


# -- chat --------------------------------------------------------------------------------------------------


def test_what_one_socket_says_every_socket_hears() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        first, second = Peer(app, chat_scope(), CONNECT), Peer(app, chat_scope(), CONNECT)
        await settle()
        assert first.sent[0] == second.sent[0] == {"type": "websocket.accept"}
        assert second.frames[0] == {"type": "welcome", "protocol": "HTTP/1.1", "history": []}
        assert first.frames[-1] == {"type": "online", "count": 2}

        first.give(says(" Hello ", name="  Bay \n 7 "))
        await settle()
        message = {"type": "message", "name": "Bay 7", "text": "Hello", "time": 1_700_000_000.0}
        assert first.frames[-1] == second.frames[-1] == message

        first.give(CLOSED)
        await first.task
        await settle()
        assert second.frames[-1] == {"type": "online", "count": 1}
        assert first.sent[-1]["type"] == "websocket.send"  # a close would come after the disconnect

    run(main())


def test_a_new_socket_is_shown_the_last_messages_only() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        first = Peer(app, chat_scope(), CONNECT)
        for number in range(chat.CHAT_HISTORY + 5):
            first.give(says(str(number)))
            await settle()
        second = Peer(app, chat_scope(), CONNECT)
        await settle()
        history = [message["text"] for message in second.frames[0]["history"]]
        assert history == [str(number) for number in range(5, chat.CHAT_HISTORY + 5)]

    run(main())


@pytest.mark.parametrize(
    "frame",
    [
        "not json",
        "[" * chat.CHAT_FRAME_LENGTH,
        "[]",
        "{}",
        '{"name": 1, "text": "x"}',
        '{"name": "x", "text": null}',
        '{"name": "x", "text": "  "}',
        json.dumps({"name": "x", "text": "x" * (chat.CHAT_TEXT_LENGTH + 1)}),
    ],
    ids=range(8),
)
def test_a_malformed_message_is_answered_to_its_sender_alone(frame: str) -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        first, second = Peer(app, chat_scope(), CONNECT), Peer(app, chat_scope(), CONNECT)
        first.give({"type": "websocket.receive", "text": frame}, says("still here"))
        await settle()
        assert [frame["type"] for frame in first.frames][-2:] == ["error", "message"]
        assert "error" not in [frame["type"] for frame in second.frames]

    run(main())


def test_a_binary_message_is_malformed() -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), chat_scope(), CONNECT)
        peer.give({"type": "websocket.receive", "bytes": b"{}", "text": None})
        await settle()
        assert peer.frames[-1]["type"] == "error"

    run(main())


@pytest.mark.parametrize("oversize", [{"text": "x" * 4097}, {"bytes": b"x" * 4097}])
def test_a_message_that_is_far_too_long_closes_the_socket(oversize: dict[str, Any]) -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), chat_scope(), CONNECT, {"type": "websocket.receive", **oversize})
        await peer.task
        assert peer.sent[-1] == {"type": "websocket.close", "code": 1009}

    run(main())


def test_the_longest_text_fits_into_a_frame_however_it_is_escaped() -> None:
    frame = json.dumps({"name": "\u0001" * chat.CHAT_NAME_LENGTH, "text": "\u2028" * chat.CHAT_TEXT_LENGTH})
    assert len(frame) <= chat.CHAT_FRAME_LENGTH
    assert chat.Post.parse('{"name": "", "text": "x"}') == chat.Post("Anonymous", "x")
    post = chat.Post.parse(json.dumps({"name": "n" * 100, "text": "x"}))
    assert post
    assert len(post.name) == chat.CHAT_NAME_LENGTH


def test_a_lone_surrogate_is_passed_on_as_an_escape() -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), chat_scope(), CONNECT, says("\ud800"))
        await settle()
        assert peer.said == ["\ud800"]
        peer.sent[-1]["text"].encode()

    run(main())


def test_a_socket_that_does_not_read_is_closed_and_the_others_go_on() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        stuck, lively = Peer(app, chat_scope(), CONNECT), Peer(app, chat_scope(), CONNECT)
        await settle()
        gate = asyncio.Event()

        async def block() -> None:
            await gate.wait()

        stuck.on_send = block
        for number in range(chat.CHAT_OUTBOX + 2):
            lively.give(says(str(number)))
            await settle()
        gate.set()
        await stuck.task
        assert stuck.sent[-1] == {"type": "websocket.close", "code": 1013}
        assert len(lively.said) == chat.CHAT_OUTBOX + 2

    run(main())


def test_sockets_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat.CHAT_MEMBERS < chat.CHAT_OUTBOX
    monkeypatch.setattr(chat, "CHAT_MEMBERS", 2)

    async def main() -> None:
        app = Demo(FakeTime().clock)
        peers = [Peer(app, chat_scope(), CONNECT) for _ in range(3)]
        await settle()
        assert [peer.sent[0]["type"] for peer in peers] == ["websocket.accept"] * 2 + ["websocket.close"]
        peers[0].give(CLOSED)
        await settle()
        again = Peer(app, chat_scope(), CONNECT)
        await settle()
        assert again.sent[0]["type"] == "websocket.accept"

    run(main())


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        (b"http://demo.example:8000", "websocket.accept"),
        (b"https://DEMO.example:8000", "websocket.accept"),
        (b"http://demo.example", "websocket.close"),
        (b"http://evil.example", "websocket.close"),
        (b"null", "websocket.close"),
    ],
)
def test_a_page_of_another_origin_is_refused(origin: bytes, answer: str) -> None:
    async def main() -> None:
        peer = Peer(Demo(FakeTime().clock), chat_scope((b"origin", origin)), CONNECT)
        await settle()
        assert peer.sent[0]["type"] == answer

    run(main())


def test_a_socket_that_fails_to_be_accepted_does_not_stay_a_member() -> None:
    async def main() -> None:
        app = Demo(FakeTime().clock)
        lost = Peer(app, chat_scope())
        lost.send_error = ConnectionResetError()
        lost.give(CONNECT)
        with pytest.raises(ConnectionResetError):
            await lost.task
        peer = Peer(app, chat_scope(), CONNECT)
        await settle()
        assert peer.frames[-1] == {"type": "online", "count": 1}

    run(main())


def test_a_socket_elsewhere_is_refused() -> None:
    peer = fetch(chat_scope(path="/elsewhere"), CONNECT)
    assert peer.sent == [{"type": "websocket.close"}]
