"""Clients that send frames of their own accord for what they receive: none of it is a flood.

Those here come with Debian or from PyPI. Newer ones are recorded (``tests/golden/http2``), and run by night
(``tests/nightly``).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.serving import HOST, Running, require_program, serve

pytestmark = pytest.mark.once


grpc = pytest.importorskip("grpc", reason="grpcio has no wheel for this interpreter")

BODY_BYTES = 20_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {"PYTHONDEVMODE": ""}
    with serve(
        "talkative:application",
        tmp_path_factory.mktemp("talkative"),
        "--access-log",
        "/dev/null",
        environment=environment,
    ) as it:
        yield it


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"{HOST}:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@pytest.mark.parametrize("rate", [0, 2500, 5000])
def test_a_stream_of_ten_thousand_messages_from_the_server(channel: grpc.Channel, rate: int) -> None:
    stream = channel.unary_stream("/test.Echo/Stream")(b"%d %d" % (10_000, rate), timeout=120)
    assert sum(1 for message in stream if message == b"m" * 100) == 10_000


@pytest.mark.parametrize("rate", [0, 2500])
def test_streams_of_ten_thousand_messages_both_ways(channel: grpc.Channel, rate: int) -> None:
    def questions() -> Iterator[bytes]:
        begun = time.monotonic()
        for number in range(10_000):
            yield b"q" * 100
            if rate and number % 25 == 0:
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))

    stream = channel.stream_stream("/test.Echo/Bidi")(questions(), timeout=120)
    assert sum(1 for message in stream if message == b"q" * 100) == 10_000


def test_streams_that_are_cancelled_one_after_the_other(channel: grpc.Channel) -> None:
    for _ in range(400):
        stream = channel.unary_stream("/test.Echo/Stream")(b"1000 50", timeout=120)
        assert next(stream) == b"m" * 100
        stream.cancel()
    assert sum(1 for _ in channel.unary_stream("/test.Echo/Stream")(b"10 0", timeout=120)) == 10


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a client, and return what it says; its exit code must be 0."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.system
def test_curl_limits_its_rate(server: Running) -> None:
    curl = require_program("curl")
    form = "%{http_version} %{size_download}"
    options = ("--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", form, "--limit-rate", "10M")
    assert run(curl, "--http2-prior-knowledge", *options, f"{server.url}/bytes/{BODY_BYTES}") == f"2 {BODY_BYTES}"


@pytest.mark.system
@pytest.mark.parametrize("window", [(), ("-w", "10", "-W", "12")], ids=["usual windows", "small windows"])
def test_nghttp(server: Running, window: tuple[str, ...]) -> None:
    """With a tree of priorities, and with windows of one KiB and of four."""
    size = BODY_BYTES if not window else 2_000_000
    output = run(require_program("nghttp"), "--null-out", "--stat", *window, f"{server.url}/bytes/{size}")
    assert "  200 " in output


NODE = """
const http2 = require("node:http2");
const session = http2.connect(process.argv[1]);
session.on("error", (error) => { console.log(error); process.exit(1); });
const request = session.request({ ":path": process.argv[2] });
let bytes = 0, pings = 0;
// A keep-alive that measures: the next PING when DATA comes and the one before has been answered.
let asking = false;
request.on("data", (part) => {
  bytes += part.length;
  if (!asking) {
    asking = true;
    session.ping(() => { asking = false; pings += 1; });
  }
});
request.on("end", () => { console.log(bytes, pings > 0); session.close(); });
request.end();
"""


@pytest.mark.system
def test_node(server: Running) -> None:
    node = require_program("node")
    assert run(node, "-e", NODE, server.url, f"/bytes/{BODY_BYTES}") == f"{BODY_BYTES} true\n"


PAGE_COOKIES, PAGE_IMAGES = 170, 300


@pytest.mark.system
def test_a_page_of_many_images_and_cookies_in_chromium(pem: Path, tmp_path: Path) -> None:
    """Each cookie is a field of its own, and the priorities of images change as they are laid out."""
    chromium = require_program("chromium")
    listen = ("-e", f"ssl:0:interface={HOST}:privateKey={pem}:certKey={pem}")
    with serve("talkative:application", tmp_path, "--access-log", "/dev/null", listen=listen) as server:
        server.expect("Passing pyOpenSSL", "DeprecationWarning")
        browser = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
        )
        where = (f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000", "--dump-dom")
        page = run(chromium, *browser, *where, f"https://{HOST}:{server.port}/page/{PAGE_COOKIES}/{PAGE_IMAGES}")
        assert f"<title>{PAGE_IMAGES} images, {PAGE_COOKIES} cookies, HTTP/2</title>" in page, page[:2000]
        assert "Ended an HTTP/2 connection" not in server.log


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.util.concurrent.*;

public class Get {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build();
        var uri = URI.create(arguments[0] + "/bytes/" + arguments[1]);
        var request = HttpRequest.newBuilder(uri).build();
        long bytes = 0;
        try (var body = client.send(request, HttpResponse.BodyHandlers.ofInputStream()).body()) {
            var buffer = new byte[4096];
            for (int count; (count = body.read(buffer)) >= 0; ) bytes += count;
        }
        System.out.println(bytes);
        System.exit(0);
    }
}
"""


@pytest.mark.system
def test_java_over_tls(pem: Path, tmp_path: Path) -> None:
    java, keytool = require_program("java"), require_program("keytool")
    (tmp_path / "Get.java").write_text(JAVA)
    run("openssl", "x509", "-in", str(pem), "-out", "cert.pem", cwd=tmp_path)
    keystore = ("-keystore", "trust.p12", "-storepass", "changeit")
    run(keytool, "-importcert", "-noprompt", "-alias", "server", "-file", "cert.pem", *keystore, cwd=tmp_path)
    listen = ("-e", f"ssl:0:interface={HOST}:privateKey={pem}:certKey={pem}")
    with serve("talkative:application", tmp_path, "--access-log", "/dev/null", listen=listen) as server:
        server.expect("Passing pyOpenSSL", "DeprecationWarning")
        trust = ("-Djavax.net.ssl.trustStore=trust.p12", "-Djavax.net.ssl.trustStorePassword=changeit")
        out = run(java, *trust, "Get.java", f"https://localhost:{server.port}", str(BODY_BYTES), cwd=tmp_path)
    assert out.strip() == str(BODY_BYTES)
