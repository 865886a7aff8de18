"""Files that the server answers for by itself: by every protocol, beside nginx, in a browser, and under attack."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.test_django import ADMIN, APPLICATION, PROJECT, prepare
from tests.support.processes.serving import HOST, Running, free_port, require_program, serve, wait_for
from tests.support.processes.webdriver import KEYS, chromium
from tests.support.tls import write_pem

pytestmark = pytest.mark.system

TIME = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
LARGE = bytes(range(256)) * 8000
TEXT = b"body { color: #123456 }\n" * 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    root = directory / "files"
    (root / "docs").mkdir(parents=True)
    for name, content in {
        "large.bin": LARGE,
        "a.css": TEXT,
        "a.css.gz": gzip.compress(TEXT, mtime=0),
        "docs/index.html": b"<p>index</p>",
        "empty.txt": b"",
        ".env": b"secret",
        "a b&ü.txt": b"name",
    }.items():
        (root / name).write_bytes(content)
        os.utime(root / name, (TIME, TIME))
    (directory / "secret").write_bytes(b"secret")
    (root / "out").symlink_to("../secret")
    return root


@pytest.fixture(scope="module")
def server(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("plain:application", tmp_path_factory.mktemp("static"), "--static", f"/static={site}") as running:
        yield running


def curl(*arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Run curl, and return the status, the fields and the body of the last response."""
    command = [require_program("curl"), "--disable", "--noproxy", "*", "--silent", "--show-error", "--include"]
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) if ": " in line else (line, "") for line in lines)
    return int(status.split(" ")[1]), fields, body


# -- carriers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["http/1.0", "http/1.1", "http/2", "tls", "tls and http/2", "unix"])
def test_files_are_sent_by_every_protocol(carrier: str, site: Path, tmp_path: Path) -> None:
    options = ["--static", f"/static={site}"]
    arguments = {"http/1.0": ["--http1.0"], "http/2": ["--http2-prior-knowledge"]}.get(carrier, ["--http1.1"])
    listen = ["-b", HOST, "-p", "0"]
    scheme = "http"
    if carrier.startswith("tls"):
        write_pem(tmp_path / "site.pem", HOST)
        options += ["--ssl-certfile", str(tmp_path / "site.pem")]
        arguments = ["--insecure", "--http2" if "http/2" in carrier else "--http1.1"]
        scheme = "https"
    elif carrier == "unix":
        listen = ["-u", str(tmp_path / "socket")]
        arguments = ["--unix-socket", str(tmp_path / "socket")]
    with serve("plain:application", tmp_path, *options, listen=listen) as running:
        url = f"{scheme}://{HOST}:{running.port or 80}"
        status, fields, body = curl(*arguments, f"{url}/static/large.bin")
        assert (status, len(body), fields["content-length"]) == (200, len(LARGE), str(len(LARGE)))
        assert body == LARGE
        assert curl(*arguments, "--head", f"{url}/static/large.bin")[1]["content-length"] == str(len(LARGE))
        assert curl(*arguments, "--range", "100000-100002", f"{url}/static/large.bin")[2] == LARGE[100000:100003]
        assert curl(*arguments, "--header", f"If-None-Match: {fields['etag']}", f"{url}/static/large.bin")[0] == 304
        assert curl(*arguments, f"{url}/static/a.css")[2] == TEXT
        assert curl(*arguments, f"{url}/hello")[2] == b"Hello, World!\n"
        running.wait_for_log(rf'"GET /static/large\.bin" 200 {len(LARGE)}$')
        running.wait_for_log(r'"HEAD /static/large\.bin" 200 -$')
        running.wait_for_log(r'"GET /static/large\.bin" 206 3$')
        running.wait_for_log(r'"GET /static/large\.bin" 304 [-0]$')


def test_workers_send_files(site: Path, tmp_path: Path) -> None:
    with serve("plain:application", tmp_path, "--static", f"/static={site}", "--workers", "2") as running:
        for _ in range(3):
            assert curl(f"{running.url}/static/large.bin")[2] == LARGE


@pytest.mark.parametrize("path", ["/app/static/a.css", "/static/a.css"])
def test_a_prefix_is_below_the_root_path(path: str, site: Path, tmp_path: Path) -> None:
    with serve("plain:application", tmp_path, "--static", f"/static={site}", "--root-path", "/app") as running:
        assert curl(f"{running.url}{path}")[2] == TEXT


def test_a_websocket_is_the_applications(site: Path, tmp_path: Path) -> None:
    with serve("sockets:application", tmp_path, "--static", f"/={site}") as running, running.connect() as connection:
        connection.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 101 ")


# -- as nginx does it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nginx(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("nginx")
    port = free_port(HOST)
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log stderr; {'user root;' if os.geteuid() == 0 else ''}\n"
        f"events {{}}\nhttp {{ access_log off; default_type application/octet-stream; charset utf-8;\n"
        f"types {{ text/css css; text/plain txt; text/html html; }} charset_types text/css text/plain text/html;\n"
        f"server {{ listen {HOST}:{port}; gzip_static on; gzip_vary on; max_ranges 16;\n"
        f"location /static/ {{ alias {site}/; }} }} }}\n"
    )
    process = subprocess.Popen(
        [require_program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://{HOST}:{port}"
        wait_for(lambda: process.poll() is not None or listens(url), "nginx to listen")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def listens(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code > 0
    except httpx.ConnectError:
        return False


SAME_FIELDS = ("content-type", "content-length", "content-range", "content-encoding", "last-modified")


@pytest.mark.parametrize(
    "arguments",
    [
        "/static/a.css",
        "/static/empty.txt",
        "/static/a%20b&%C3%BC.txt",
        "/static//a.css",
        "/static/docs/../a.css",
        "/static/%61.css",
        "--head /static/large.bin",
        "--range 0-9 /static/large.bin",
        "--range 5- /static/a.css",
        "--range -5 /static/a.css",
        "--range 5-4000000000 /static/a.css",
        "--range 9999999- /static/large.bin",
        "--header Accept-Encoding:gzip /static/a.css",
        "--header Accept-Encoding:gzip;q=0 /static/a.css",
        "--header Accept-Encoding:br /static/a.css",
        "--time-cond 2023-11-14T22:13:20Z /static/a.css",
        "--time-cond 2023-11-13T22:13:20Z /static/a.css",
        "--time-cond -2023-11-13T22:13:20Z /static/a.css",
        "--header If-Match:* /static/a.css",
        '--header If-Match:"x" /static/a.css',
        '--header If-None-Match:"x" /static/a.css',
        '--header If-Range:"x" --range 0-1 /static/a.css',
        "--header Range:items=0-1 /static/a.css",
        "/static/none.css",
    ],
)
def test_curl_sees_what_it_sees_of_nginx(arguments: str, server: Running, nginx: str) -> None:
    *options, path = arguments.split(" ")
    ours, theirs = (curl("--path-as-is", *options, f"{url}{path}") for url in (server.url, nginx))

    assert ours[0] == theirs[0]
    if ours[0] in (200, 206):
        assert ours[2] == theirs[2]
        assert {name: ours[1].get(name) for name in SAME_FIELDS} == {name: theirs[1].get(name) for name in SAME_FIELDS}
    # nginx has Vary for every file that may have a neighbour.
    if "content-encoding" in theirs[1]:
        assert ours[1]["vary"] == theirs[1]["vary"]


@pytest.mark.parametrize("ranges", ["0-0,2-3", "0-99,-100", "5-6,1-2", "0-1,9999999-"])
def test_several_ranges_are_those_of_nginx(ranges: str, server: Running, nginx: str) -> None:
    ours, theirs = (curl("--range", ranges, f"{url}/static/large.bin") for url in (server.url, nginx))

    def parts(answer: tuple[int, dict[str, str], bytes]) -> list[tuple[bytes, bytes]]:
        assert answer[0] == 206
        kind = answer[1]["content-type"]
        if "boundary=" not in kind:
            return [(answer[1]["content-range"].encode(), answer[2])]
        pieces = answer[2].split(b"--" + kind.partition("boundary=")[2].encode())
        return [
            (re.findall(rb"content-range: ([^\r]*)", head, re.IGNORECASE)[0], body)
            for head, _, body in (piece.partition(b"\r\n\r\n") for piece in pieces[1:-1])
        ]

    assert parts(ours) == parts(theirs)


# -- attacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/%2e%2e%2fsecret",
        "/static/%252e%252e%252fsecret",
        "/static/..%5csecret",
        "/static/%c0%ae%c0%ae%c0%afsecret",
        "/static/docs/../../secret",
        "/static/.env",
        "/static/docs/../.env",
        "/static/%2eenv",
        "/static/out",
        "/static/out%00.css",
        "/static/.env%00.css",
        "/static/a.css/",
        "/static/a.css/../../secret",
        "//static/../secret",
    ],
)
def test_nothing_leads_to_what_is_not_published(path: str, server: Running) -> None:
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        status, _, body = curl("--path-as-is", protocol, f"{server.url}{path}")
        assert status == 404
        assert b"secret" not in body


def test_ranges_by_the_thousand_are_the_whole_file_once(server: Running) -> None:
    ranges = ",".join(["0-"] * 1500)
    status, _, body = curl("--range", ranges, f"{server.url}/static/large.bin")
    assert (status, body) == (200, LARGE)


@pytest.mark.parametrize("place", ["directory", "file"])
def test_links_that_are_changed_all_the_time_never_lead_out(place: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for directory, content in ((root / "real", b"inside"), (tmp_path / "elsewhere", b"secret")):
        directory.mkdir(parents=True)
        (directory / "a.txt").write_bytes(content)
    name = root / "name" if place == "directory" else root / "real" / "name"
    targets = ("real", "../elsewhere") if place == "directory" else ("a.txt", "../../elsewhere/a.txt")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in targets:
                fresh = name.with_name("fresh")
                fresh.symlink_to(target)
                fresh.replace(name)

    options = ("--static", f"/static={root}", "--static-404", "--reload")
    with serve("plain:application", tmp_path, *options) as running, running.client() as client:
        swapping = threading.Thread(target=swap)
        swapping.start()
        try:
            path = "/static/name/a.txt" if place == "directory" else "/static/real/name"
            answers = [client.get(path) for _ in range(150)]
        finally:
            stop.set()
            swapping.join()
        assert {answer.content for answer in answers if answer.status_code == 200} == {b"inside"}
        assert {answer.status_code for answer in answers} == {200, 404}


def test_a_file_that_shrinks_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    (root / "large.bin").write_bytes(LARGE * 20)
    with serve("plain:application", tmp_path, "--static", f"/static={root}") as running:
        running.expect("Cannot send the rest of .*large.bin.*: it became [0-9]+ bytes shorter")
        with running.connect(receive_buffer=4096) as connection:
            connection.sendall(b"GET /static/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            received = len(connection.recv(100))
            os.truncate(root / "large.bin", 1_000_000)
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    received += len(part)
        assert received < len(LARGE) * 20
        running.wait_for_log("Cannot send the rest of")
        assert running.log.count("Cannot send the rest of") == 1
        assert curl(f"{running.url}/hello")[0] == 200


# -- the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--static", "/static=none"], r"--static: cannot serve the directory 'none': No such file or directory"),
        (["--static", "/static=file"], r"--static: cannot serve the directory 'file': Not a directory"),
        (["--static", "/s=.", "--static", "/s/=.."], r"--static: the prefix /s is given twice, for \. and \.\."),
        (["--static", "static=."], r"--static: the prefix of 'static=\.' must begin with a slash"),
    ],
)
def test_a_wrong_directory_is_one_line_at_the_start(
    options: list[str], line: str, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "daphne_ng", "-p", "0", "--workers", workers, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(rf"daphne-ng: error: {line}\n", done.stderr)


# -- Django -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def manage(tmp_path: Path) -> Callable[..., dict[str, str]]:
    def collect(**more: str) -> dict[str, str]:
        environment = {**prepare(tmp_path), **more}
        command = [sys.executable, str(PROJECT / "manage.py"), "collectstatic", "--noinput", "-v", "0"]
        subprocess.run(command, check=True, env={**os.environ, **environment})
        return environment

    return collect


def test_the_admin_has_its_files_in_a_browser(manage: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    environment = manage(GUESTBOOK_MANIFEST="1")
    options = ("--static", f"/static={tmp_path / 'static'}", "--static-immutable", "django", "--static-404")
    with serve(APPLICATION, tmp_path, *options, imports=PROJECT, environment=environment) as running:
        running.expect("favicon")
        (profile := tmp_path / "chromium").mkdir()
        with chromium(profile) as browser:
            browser.open(f"{running.url}/admin/login/")
            browser.type("id_username", ADMIN["USERNAME"])
            browser.type("id_password", ADMIN["PASSWORD"])
            browser.press(KEYS["Enter"])
            wait_for(lambda: browser.title.startswith("Site administration"), "the admin")
            sheets = browser.run("return [...document.styleSheets].map(s => [s.href, s.cssRules.length])")
            assert len(sheets) >= 3
            assert all(rules for _, rules in sheets)
            assert all(re.search(r"/static/admin/css/\w+\.[0-9a-f]{12}\.css$", href) for href, _ in sheets)
            assert [line for line in browser.console() if "/static/" in line] == []
        requested = set(re.findall(r'"GET (/static/\S+)" (\d+)', running.log))
        assert len(requested) >= 5
        assert {status for _, status in requested} == {"200"}
        with running.client() as client:
            for path, _ in requested:
                assert client.get(path).headers["cache-control"] == "public, max-age=31536000, immutable"
            assert "cache-control" not in client.get("/static/staticfiles.json").headers
