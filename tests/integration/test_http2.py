"""HTTP/2 on a server process, over TLS and cleartext, with clients that others wrote, and with h2's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.settings import SettingCodes
from wsproto.events import CloseConnection

from tests.integration.test_django import APPLICATION as GUESTBOOK
from tests.integration.test_django import PROJECT, csrf_token, prepare
from tests.support.h2_client import Http2Client, Http2WebSocket, connect
from tests.support.processes.serving import HOST, MIB, Running, require_program, serve, wait_for
from tests.support.processes.webdriver import Browser, chromium

PIECE = b"\xda" * 65536


def listen_tls(pem: Path) -> tuple[str, str]:
    return ("-e", f"ssl:0:interface={HOST}:privateKey={pem}:certKey={pem}")


def start(kind: str, application: str, directory: Path, pem: Path, *options: str, **more: Any) -> Any:
    """Serve with TLS or without."""
    return serve(application, directory, *options, **({"listen": listen_tls(pem)} if kind == "tls" else {}), **more)


class Site:
    """A server, and how it is spoken to."""

    def __init__(self, running: Running, kind: str) -> None:
        # In development mode: Twisted hands its endpoints' certificates on as pyOpenSSL's objects.
        running.expect("Passing pyOpenSSL", "DeprecationWarning")
        self.running = running
        self.tls = kind == "tls"
        self.port = running.port
        self.url = f"{'https' if self.tls else 'http'}://localhost:{running.port}"

    def connect(self, **options: Any) -> Http2Client:
        return Http2Client(connect(self.port, tls=self.tls), **options)

    def httpx_options(self) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "verify": False,
            "trust_env": False,
            "http2": True,
            "http1": self.tls,
            "timeout": 30,
        }


@pytest.fixture(scope="module", params=["tls", "clear"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(kind: str, pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with start(kind, "plain:application", tmp_path_factory.mktemp("http2"), pem) as running:
        yield Site(running, kind)


@pytest.fixture(scope="module")
def sockets(kind: str, pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with start(kind, "sockets:application", tmp_path_factory.mktemp("sockets"), pem) as running:
        yield Site(running, kind)


@pytest.fixture
def client(site: Site) -> Iterator[Http2Client]:
    with site.connect() as client:
        yield client


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory, block: bytes) -> Path:
    path = tmp_path_factory.mktemp("upload") / "noise.bin"
    path.write_bytes(block * 2)
    return path


def digest(data: bytes) -> dict[str, int | str]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# -- h2's own client --------------------------------------------------------------------------------------------


def test_the_log_says_that_http_2_is_spoken(site: Site) -> None:
    assert re.search(r"HTTP/2 support enabled$", site.running.log, re.MULTILINE)


def test_requests_on_one_connection_know_their_protocol(client: Http2Client, site: Site) -> None:
    streams = [client.request("/scope", method=b"POST", body=b"leaf") for _ in range(10)]
    for stream in streams:
        response = client.response(stream)
        assert response.status == 200
        seen = json.loads(response.body)
        assert seen["http_version"] == "2"
        assert ["host", "localhost"] in seen["headers"]
        assert seen["client"][0] == HOST
        assert seen["server"] == [HOST, site.port]
        assert seen["received"]["size"] == 4


def test_a_body_larger_than_the_windows_goes_both_ways(client: Http2Client, block: bytes) -> None:
    assert json.loads(client.get("/count", method=b"POST", body=block * 3).body) == digest(block * 3)
    response = client.get("/stream?pieces=40")
    assert response.body == PIECE * 40


def test_streams_that_are_not_read_delay_no_other(site: Site) -> None:
    with site.connect(acknowledge=False) as client:
        stalled = [client.request("/stream?pieces=100") for _ in range(3)]
        # 65 535 bytes of window for the whole connection; give back to it what the streams have taken.
        client.wait(
            lambda: sum(len(client.responses[stream].body) for stream in stalled) >= 65535, "the window to fill"
        )
        client.h2.increment_flow_control_window(1 << 20)
        client.flush()
        client.wait(
            lambda: all(len(client.responses[stream].body) >= 65535 for stream in stalled), "the streams' windows"
        )
        assert client.get("/hello").body == b"Hello, World!\n"
        for stream in stalled:
            client.h2.reset_stream(stream)
        client.flush()
        assert client.get("/hello").body == b"Hello, World!\n"


def test_what_a_client_leaves_unread_is_not_produced(site: Site) -> None:
    with site.connect() as other, site.connect(acknowledge=False) as client:

        def sent() -> int:
            return int(json.loads(other.get("/sent").body)["pieces"])

        before = sent()
        for _ in range(20):
            client.request("/stream?pieces=100")
        # For each stream what fills its buffer, and the piece behind that; the windows hold one more.
        assert settled(sent) - before <= 20 * 2 + 2
    # Windows wide open, and a socket that nobody reads: what the kernel takes comes on top.
    with site.connect() as other, site.connect(settings={SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}) as client:
        client.h2.increment_flow_control_window(1 << 30)
        before = sent()
        for _ in range(20):
            client.request("/stream?pieces=400")
        assert settled(sent) - before <= 20 * 2 + 200


def settled(value: Callable[[], int]) -> int:
    """Wait until a number has not changed for a while, and return it."""
    last = -1
    while (now := value()) != last:
        last = now
        time.sleep(0.3)
    return now


def test_head_and_statuses_without_a_body(client: Http2Client) -> None:
    head = client.get("/hello", method=b"HEAD")
    assert (head.status, head.body, head.field(b"content-length")) == (200, b"", b"14")
    for status in (204, 304):
        response = client.get(f"/status/{status}")
        assert (response.status, response.body) == (status, b"")


def test_trailers(client: Http2Client) -> None:
    response = client.get("/trailers", (b"te", b"trailers"))
    assert (response.body, response.trailers) == (b"summed\n", [(b"x-sum", b"42")])


def test_an_unread_body_does_not_hold_up_the_connection(client: Http2Client, block: bytes) -> None:
    stream = client.request("/unread", method=b"POST", end=False)
    assert client.wait(lambda: client.responses[stream].ended, "the answer")
    assert client.responses[stream].status == 403
    assert client.get("/hello").status == 200


def test_a_reset_request_ends_its_task_and_nothing_else(sockets: Site) -> None:
    with sockets.connect() as client:

        def tasks() -> int:
            return int(json.loads(client.get("/totals").body)["tasks"])

        before = tasks()
        socket = Http2WebSocket(client, "/count?name=reset")
        assert tasks() == before + 1
        client.h2.reset_stream(socket.stream)
        client.flush()
        wait_for(lambda: tasks() == before, "the task to end")
        assert json.loads(client.get("/seen/reset").body) == {"code": 1006, "reason": ""}


def test_http_1_1_is_spoken_on_the_same_port(site: Site) -> None:
    options = {**site.httpx_options(), "http2": False, "http1": True}
    with httpx.Client(**options) as client:
        answer = client.post("/scope", content=b"leaf")
        assert answer.http_version == "HTTP/1.1"
        assert answer.json()["http_version"] == "1.1"


@pytest.mark.parametrize(
    ("alpn", "negotiated"), [(("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1")]
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_negotiated(
    alpn: tuple[str, ...], negotiated: str, version: ssl.TLSVersion, pem: Path, tmp_path: Path
) -> None:
    with start("tls", "plain:application", tmp_path, pem) as running:
        port = Site(running, "tls").port
        with connect(port, tls=True, alpn=alpn, maximum_version=version) as raw:
            assert isinstance(raw, ssl.SSLSocket)
            assert raw.selected_alpn_protocol() == negotiated
            assert raw.version() == version.name.replace("_", ".", 1).replace("v1_", "v1.")
            if negotiated == "h2":
                assert Http2Client(raw).get("/hello").body == b"Hello, World!\n"
            else:
                raw.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_http_2_can_be_switched_off(pem: Path, tmp_path: Path) -> None:
    with start("tls", "plain:application", tmp_path, pem, "--no-http2", "--no-h2c") as running:
        site = Site(running, "tls")
        with connect(site.port, tls=True, alpn=("h2", "http/1.1")) as raw:
            assert isinstance(raw, ssl.SSLSocket)
            assert raw.selected_alpn_protocol() == "http/1.1"
        assert re.search(r"HTTP/2 support not enabled \(.*--no-http2", running.log)


def test_prior_knowledge_can_be_switched_off(tmp_path: Path) -> None:
    with serve("plain:application", tmp_path, "--no-h2c") as running, connect(running.port) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 ")


def test_a_stopping_server_finishes_what_has_begun(kind: str, pem: Path, tmp_path: Path) -> None:
    with start(kind, "starlette_app:application", tmp_path, pem) as running, ThreadPoolExecutor(1) as pool:
        site = Site(running, kind)
        with site.connect() as client:
            stream = client.request("/slow")
            wait_for(lambda: "application starts" in running.log, "the start")
            client.get("/seen/slow")
            ended = pool.submit(lambda: (running.process.send_signal(signal.SIGTERM), running.process.wait(10)))
            assert client.response(stream).body == b"slow, but sure"
            client.wait_closed()
            assert client.goaway is not None
            assert client.goaway[0] == 0
        assert ended.result()[1] == 0


def test_a_connection_beyond_the_limit_is_told_so(kind: str, pem: Path, tmp_path: Path) -> None:
    with start(kind, "plain:application", tmp_path, pem, "--limit-connections", "1") as running:
        site = Site(running, kind)
        with site.connect() as first:
            assert first.get("/hello").status == 200
            if site.tls:
                with site.connect() as second:
                    second.wait_closed()
                    assert second.goaway == (0, 0)
            with connect(site.port, tls=site.tls, alpn=("http/1.1",)) as third:
                assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
            assert first.get("/hello").status == 200


def test_a_stopping_server_closes_websockets(kind: str, pem: Path, tmp_path: Path) -> None:
    with start(kind, "sockets:application", tmp_path, pem) as running:
        site = Site(running, kind)
        with site.connect() as client:
            socket = Http2WebSocket(client, "/echo")
            running.process.send_signal(signal.SIGTERM)
            event = socket.event()
            assert (type(event), event.code) == (CloseConnection, 1012)
            socket.close(1012)
            client.wait_closed()
            assert socket.response.ended
            assert client.goaway is not None
        assert running.process.wait(10) == 0


# -- WebSocket over h2's own client -------------------------------------------------------------------------------


def test_a_websocket_goes_over_a_stream_beside_requests(sockets: Site, block: bytes) -> None:
    with sockets.connect() as client:
        socket = Http2WebSocket(client, "/echo?name=stream", (b"sec-websocket-protocol", b"a, b"))
        assert socket.response.status == 200
        assert socket.response.field(b"sec-websocket-protocol") == b"a"
        assert socket.response.field(b"sec-websocket-accept") is None
        assert socket.response.field(b"x-server") == b"sockets"
        for size in (0, 1, 126, 65536, 300_000, 1_000_000):
            socket.send(block[:size])
            assert socket.message() == block[:size]
        socket.send("Grüße")
        assert client.get("/other").body == b"plain HTTP\n"
        assert socket.message() == "Grüße"
        other = Http2WebSocket(client, "/scope")
        scope = json.loads(other.message())
        assert (scope["http_version"], scope["scheme"]) == ("2", "wss" if sockets.tls else "ws")
        socket.close(4001)
        event = socket.event()
        assert isinstance(event, CloseConnection)
        assert event.code == 4001
        client.wait(lambda: socket.response.ended, "the end of the stream")
        assert json.loads(client.get("/seen/stream").body) == {"code": 4001, "reason": ""}
        other.end()
        client.wait(lambda: other.response.ended, "the end of the other stream")


def test_many_websockets_share_a_connection(sockets: Site) -> None:
    with sockets.connect() as client:

        def running() -> int:
            return int(json.loads(client.get("/totals").body).get("open", 0))

        before = running()
        many = [Http2WebSocket(client, f"/echo?name=many{number}") for number in range(60)]
        assert running() == before + 60
        for number, socket in enumerate(many):
            socket.send(f"{number}" * 1000)
        for number, socket in reversed(list(enumerate(many))):
            assert socket.message() == f"{number}" * 1000
        for socket in many:
            socket.close()
        for socket in many:
            assert socket.event().code == 1000
            socket.end()
        wait_for(lambda: running() == before, "all of them to end")


def test_a_websocket_may_be_denied(sockets: Site) -> None:
    with sockets.connect() as client:
        socket = Http2WebSocket(client, "/deny")
        response = client.response(socket.stream)
        assert (response.status, response.body) == (401, b"who are you?")
        assert response.field(b"www-authenticate") == b"Basic"
        refused = Http2WebSocket(client, "/refuse")
        assert client.response(refused.stream).status == 403


def test_an_application_closes_a_websocket(sockets: Site) -> None:
    with sockets.connect() as client:
        socket = Http2WebSocket(client, "/close?code=4002&reason=enough")
        event = socket.event()
        assert (event.code, event.reason) == (4002, "enough")
        socket.close(4002)
        client.wait(lambda: socket.response.ended, "the end of the stream")


def test_an_application_that_does_not_receive_stops_the_sender_and_nobody_else(sockets: Site, block: bytes) -> None:
    with sockets.connect() as client:
        socket = Http2WebSocket(client, "/deaf?name=deaf")
        message = socket._ws.send(_binary(block[:60_000]))
        sent = 0
        # Its window closes, though that of the connection does not.
        while client.h2.local_flow_control_window(socket.stream) >= len(message) or client.get("/totals").status != 200:
            client.send(socket.stream, message)
            client.get("/totals")
            sent += 1
            assert sent < 100, "nothing stops the sender"
        assert client.get("/go").status == 200
        client.send(socket.stream, message)
        socket.close()
        assert socket.event().code == 1000
        client.wait(lambda: socket.response.ended, "the end of the stream")


def _binary(data: bytes) -> Any:
    from wsproto.events import BytesMessage

    return BytesMessage(data)


# -- httpx ------------------------------------------------------------------------------------------------------


def test_httpx(site: Site, block: bytes) -> None:
    with httpx.Client(**site.httpx_options()) as client:
        answer = client.get("/hello")
        assert (answer.http_version, answer.text) == ("HTTP/2", "Hello, World!\n")
        assert client.post("/count", content=iter([block, block])).json() == digest(block * 2)
        with client.stream("GET", "/stream?pieces=50") as stream:
            assert sum(map(len, stream.iter_raw())) == 50 * 65536
        assert client.get("/no-such-page").status_code == 404


def test_httpx_asks_for_many_things_at_once(site: Site) -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(**site.httpx_options(), limits=limits) as client:
            paths = ["/hello", "/stream?pieces=4", "/scope"] * 60
            answers = await asyncio.gather(*(client.get(path) for path in paths))
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert [len(answer.content) for answer in answers[:2]] == [14, 4 * 65536]
            assert all(answer.status_code == 200 for answer in answers)

    asyncio.run(main())


# -- frameworks -------------------------------------------------------------------------------------------------


def test_django(kind: str, pem: Path, tmp_path: Path) -> None:
    with start(kind, GUESTBOOK, tmp_path, pem, imports=PROJECT, environment=prepare(tmp_path)) as running:
        site = Site(running, kind)
        running.expect("StreamingHttpResponse must consume synchronous iterators")
        with httpx.Client(**site.httpx_options()) as client:
            page = client.get("/")
            assert (page.status_code, page.http_version) == (200, "HTTP/2")
            entry = {"name": "Björn", "text": "over HTTP/2 🌿", "csrfmiddlewaretoken": csrf_token(page)}
            answer = client.post("/", data=entry, headers={"Referer": f"{site.url}/"}, follow_redirects=True)
            assert answer.status_code == 200
            assert "over HTTP/2 🌿" in answer.text
            assert client.get("/static/admin/css/base.css").headers["content-type"].startswith("text/css")


def test_starlette(kind: str, pem: Path, tmp_path: Path) -> None:
    with start(kind, "starlette_app:application", tmp_path, pem, "--application-close-timeout", "1") as running:
        site = Site(running, kind)
        with httpx.Client(**site.httpx_options()) as client:
            assert client.get("/state?name=Ash").json()["visitors"] == ["Ash"]
            assert client.get("/wrapped/stream?count=5").text.count("line") == 5
            assert client.post("/upload", content=b"x" * 300_000).json() == {"size": 300_000}
            assert client.get("/seen/nothing").http_version == "HTTP/2"
        with site.connect() as own:
            assert own.get("/trailers", (b"te", b"trailers")).trailers == [(b"x-sum", b"42")]
            socket = Http2WebSocket(own, "/talk?name=h2")
            socket.send("hello")
            assert socket.message() == "hello"
            socket.close(4000)
            assert socket.event().code == 4000
            denied = Http2WebSocket(own, "/deny")
            assert own.response(denied.stream).status == 451
            watched = own.request("/watch?name=watched")
            own.wait(lambda: own.get("/seen/watched").body.startswith(b'"watching'), "the watch to begin")
            own.h2.reset_stream(watched)
            own.flush()
            own.wait(lambda: own.get("/seen/watched").body == b'"disconnected"', "the disconnect to be seen")


# -- curl, nghttp, h2load -----------------------------------------------------------------------------------------


def run(*command: str, seconds: float = 60) -> str:
    done = subprocess.run(
        [require_program(command[0]), *command[1:]], capture_output=True, text=True, errors="replace", timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curl(site: Site, *arguments: str) -> str:
    speak = ["--http2", "--insecure"] if site.tls else ["--http2-prior-knowledge"]
    return run("curl", "--disable", "--noproxy", "*", "--no-progress-meter", *speak, *arguments)


@pytest.mark.system
def test_curl(site: Site, upload: Path, tmp_path: Path) -> None:
    url = f"{site.url}/hello"
    assert curl(site, "-w", "%{http_version}", url) == "Hello, World!\n2"
    if site.tls:  # curl up to 7.88 fails on every connection that it uses again by prior knowledge (its issue 10634)
        reused = curl(site, "-w", "%{http_version} %{num_connects}\n", url, url)
        assert reused == "Hello, World!\n2 1\nHello, World!\n2 0\n"
    seen = json.loads(curl(site, "-T", str(upload), f"{site.url}/count"))
    assert seen == digest(upload.read_bytes())
    seen = json.loads(curl(site, "--data-binary", f"@{upload}", f"{site.url}/count"))
    assert seen == digest(upload.read_bytes())
    output = tmp_path / "stream"
    curl(site, "-o", str(output), f"{site.url}/stream?pieces=64")
    assert output.read_bytes() == PIECE * 64
    assert curl(site, "--head", url).startswith("HTTP/2 200")
    assert "x-sum: 42" in curl(site, "-i", "-H", "TE: trailers", f"{site.url}/trailers")
    assert curl(site, "-o", "/dev/null", "-w", "%{http_code}", f"{site.url}/status/204") == "204"


@pytest.mark.system
def test_curl_on_a_unix_socket(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short, serve("plain:application", tmp_path, listen=("-u", f"{short}/s")):
        command = ["curl", "--disable", "--no-progress-meter", "--unix-socket", f"{short}/s", "--http2-prior-knowledge"]
        seen = json.loads(run(*command, "http://localhost/scope"))
        assert (seen["http_version"], seen["client"], seen["server"]) == ("2", None, [f"{short}/s", None])


@pytest.mark.system
def test_curl_in_parallel(site: Site) -> None:
    if not site.tls:
        pytest.skip("curl up to 7.88 cannot use a connection again by prior knowledge")
    urls = [f"{site.url}/{path}" for path in ["hello", "stream?pieces=4"] * 30]
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    report = curl(site, "--parallel", "-w", "%{http_version} %{http_code}\n", *outputs, *urls)
    assert report.splitlines() == ["2 200"] * 60


@pytest.mark.system
def test_curl_without_tls_is_not_upgraded(site: Site) -> None:
    if site.tls:
        pytest.skip("there is no Upgrade with TLS")
    seen = run("curl", "--disable", "--noproxy", "*", "--no-progress-meter", "--http2", f"{site.url}/scope")
    assert json.loads(seen)["http_version"] == "1.1"


@pytest.mark.system
def test_nghttp(site: Site, upload: Path) -> None:
    trace = run("nghttp", "--verbose", "--null-out", f"{site.url}/hello", f"{site.url}/stream?pieces=10")
    trace = re.sub(r"\x1b\[[0-9;]*m", "", trace)
    assert len(re.findall(r"recv \(stream_id=\d+\) :status: 200", trace)) == 2
    assert "SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1" in trace
    assert json.loads(run("nghttp", "--data", str(upload), f"{site.url}/count")) == digest(upload.read_bytes())


@pytest.mark.system
@pytest.mark.parametrize(
    ("path", "options", "size"),
    [
        ("/hello", ["-n", "5000", "-c", "10", "-m", "20"], 14),
        ("/stream?pieces=16", ["-n", "200", "-c", "4", "-m", "10"], MIB),
        ("/hello", ["-n", "500", "-c", "50", "-m", "1"], 14),
    ],
)
def test_h2load(site: Site, path: str, options: list[str], size: int) -> None:
    report = run("h2load", *options, f"{site.url}{path}")
    count = int(options[1])
    assert f"{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout" in report
    assert f"{count} 2xx, 0 3xx, 0 4xx, 0 5xx" in report
    data = re.search(r"\((\d+)\) data$", report, re.MULTILINE)
    assert data is not None
    assert int(data[1]) == count * size


@pytest.mark.system
def test_h2load_posts(site: Site, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 100_000)
    report = run("h2load", "-n", "500", "-c", "5", "-m", "10", "-d", str(body), f"{site.url}/count")
    assert "500 2xx, 0 3xx, 0 4xx, 0 5xx" in report


# -- Chromium -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with start("tls", "daphne_ng.demo:application", tmp_path_factory.mktemp("demo"), pem) as running:
        yield Site(running, "tls")


@pytest.fixture
def browser(demo: Site, tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path, "--ignore-certificate-errors") as browser:
        browser.open(f"{demo.url}/")
        yield browser


@pytest.mark.system
def test_chromium_loads_the_page_and_chats_over_http_2(demo: Site, browser: Browser) -> None:
    assert browser.title == "daphne-ng is running"
    assert browser.text("protocol") == "HTTP/2"
    assert browser.text("scheme") == "https"
    wait_for(lambda: browser.state("clock-status") == "live", "the clock to start", seconds=15)
    # What the page shows is the version of the WebSocket's own scope.
    wait_for(lambda: browser.text("chat-status").startswith("Open over HTTP/2,"), "the chat to open", seconds=15)
    browser.run("document.getElementById('chat-name').value = 'Ash'")
    browser.type("chat-text", "over a stream")
    browser.click("chat-send")
    last = "return document.querySelector('#chat-log li:last-child')?.textContent ?? ''"
    wait_for(lambda: "over a stream" in browser.run(last), "the tab to hear itself")
    assert browser.run("return performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    browser.click("upload-sample")
    wait_for(lambda: browser.state("upload-status") == "live", "the upload to end", seconds=60)
    assert browser.console() == []
    # All of it goes over one connection.
    ports = set(re.findall(rf"^{re.escape(HOST)}:(\d+) ", demo.running.log, re.MULTILINE))
    assert len(ports) == 1, demo.running.log
