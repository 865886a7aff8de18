"""Proxies: who is believed, on real sockets and over every protocol; and prefixes, with nginx and real frameworks."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from websockets.sync.client import connect, unix_connect

from daphne_ng.config import Config
from daphne_ng.server import Server
from tests.integration.test_django import PROJECT, prepare
from tests.support.h2_client import Http2Client, Http2WebSocket
from tests.support.processes.serving import HOST, ROOT, Running, free_port, require_program, serve, wait_for

pytestmark = pytest.mark.once


PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
DOCS = ROOT / "docs"
KINDS = ("HTTP/1.1", "HTTP/2", "WebSocket", "WebSocket over HTTP/2")

FORGED = {
    "x-forwarded-for": "6.6.6.6",
    "x-forwarded-port": "6",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "evil.example",
    "x-forwarded-prefix": "/evil",
    "forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "daphne-root-path": "/evil",
}


def ask(server: Running, kind: str, headers: dict[str, str], source: str = PROXY, path: str = "/a%20b") -> Any:
    """Return what the application sees of a request from this address."""
    at = (source, 0)
    if kind == "HTTP/1.1":
        with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
            return client.get(server.url + path, headers=headers).json()
    if kind == "WebSocket":
        url = f"ws://{HOST}:{server.port}{path}"
        with connect(url, proxy=None, additional_headers=headers, source_address=at) as ws:
            return json.loads(ws.recv(5))
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    with Http2Client(socket.create_connection((HOST, server.port), source_address=at)) as client2:
        if kind == "HTTP/2":
            return json.loads(client2.get(path, *fields).body)
        return json.loads(Http2WebSocket(client2, path, *fields).message())


def secure(kind: str) -> str:
    return "wss" if kind.startswith("WebSocket") else "https"


# -- who is believed ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["x-forwarded", "forwarded", "off"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    options = {
        "x-forwarded": ["--proxy-headers"],
        "forwarded": ["--proxy-headers", "--proxy-headers-forwarded"],
        "off": [],
    }[request.param]
    if options:
        options += ["--proxy-headers-replace-host", "--proxy-headers-prefix"]
    options += ["--root-path", "/mine", "--forwarded-allow-ips", f"{PROXY},10.0.0.0/8"]
    with serve("mounted:application", tmp_path_factory.mktemp("proxies"), *options) as running:
        running.expect("Ignored .* no trusted proxy")
        yield request.param, running


@pytest.mark.parametrize("kind", KINDS)
def test_forged_headers_of_a_stranger_change_nothing(server: tuple[str, Running], kind: str) -> None:
    mode, running = server
    plain = ask(running, kind, {}, STRANGER)
    forged = ask(running, kind, FORGED, STRANGER)
    assert forged["client"][0] == STRANGER
    assert forged["scheme"] == plain["scheme"] == secure(kind).removesuffix("s")
    assert (forged["root_path"], forged["path"]) == ("/mine", "/a b")
    received = dict(forged["headers"])
    assert {name: received.get(name) for name in FORGED} == {**FORGED, "daphne-root-path": None}
    assert received["host"] == dict(plain["headers"])["host"]
    for key in plain.keys() - {"headers", "client"}:
        assert forged[key] == plain[key]
    # The first one in the request is named.
    names = {"x-forwarded": "X-Forwarded-For", "forwarded": "X-Forwarded-Prefix"}
    for name in filter(None, [names.get(mode), "Daphne-Root-Path"]):
        warning = rf"WARNING  Ignored {name} from {STRANGER}:\d+, which is no trusted proxy; .*--forwarded-allow-ips"
        running.wait_for_log(warning)
        assert len([line for line in running.log.splitlines() if f"Ignored {name} " in line]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_of_trusted_proxies_is_followed(server: tuple[str, Running], kind: str) -> None:
    mode, running = server
    headers = {
        "x-forwarded-for": "6.6.6.6, 203.0.113.9, 10.0.0.2",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example, garden.example:8443",
        "x-forwarded-prefix": "/gr%C3%BCn/",
        "forwarded": 'for=6.6.6.6;host=evil.example, for="203.0.113.9:77";proto=https;host=garden.example, for=10.0.0.2',
    }
    seen = ask(running, kind, headers)
    if mode == "off":
        assert (seen["client"][0], seen["scheme"], seen["root_path"]) == (PROXY, secure(kind)[:-1], "/mine")
        return
    port, host = (0, "garden.example:8443") if mode == "x-forwarded" else (77, "garden.example")
    assert (seen["client"], seen["scheme"], seen["root_path"]) == (["203.0.113.9", port], secure(kind), "/grün")
    received = [(name, value) for name, value in seen["headers"] if name in headers or name == "host"]
    assert sorted(received) == sorted([("host", host), *headers.items()])
    running.wait_for_log(rf"^203\.0\.113\.9:{port} - - ")


@pytest.mark.parametrize("kind", KINDS)
def test_the_root_path_of_a_trusted_proxy_is_decoded(server: tuple[str, Running], kind: str) -> None:
    seen = ask(server[1], kind, {"daphne-root-path": "/gr%C3%BCn/"})
    assert (seen["root_path"], seen["path"], seen["raw_path"]) == ("/grün", "/a b", "/a%20b")
    assert "daphne-root-path" not in dict(seen["headers"])


def test_each_request_on_a_connection_of_a_proxy_has_its_own_client(server: tuple[str, Running]) -> None:
    mode, running = server
    if mode == "off":
        pytest.skip("nobody is asked")
    with Http2Client(socket.create_connection((HOST, running.port))) as client:
        seen = []
        for address in ("203.0.113.1", "2001:db8::7"):
            fields = {"x-forwarded-for": address, "forwarded": f'for="{address if "." in address else f"[{address}]"}"'}
            answer = client.get("/", *[(name.encode(), value.encode()) for name, value in fields.items()])
            seen.append(json.loads(answer.body)["client"])
    assert seen == [["203.0.113.1", 0], ["2001:db8::7", 0]]


@pytest.mark.parametrize(("allowed", "believed"), [("unix", True), (None, True), (PROXY, False)])
def test_a_unix_socket_is_believed_if_it_is_named(allowed: str | None, believed: bool, tmp_path: Path) -> None:
    options = ["--proxy-headers", *(["--forwarded-allow-ips", allowed] if allowed else [])]
    with tempfile.TemporaryDirectory() as short:
        path = f"{short}/s"
        with serve("mounted:application", tmp_path, *options, listen=("-u", path)) as running:
            running.expect("Ignored .* from a local client, which is no trusted proxy")
            with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
                page = client.get("http://garden.example/", headers=FORGED).json()
            with unix_connect(path, "ws://garden.example/", additional_headers=FORGED) as ws:
                message = json.loads(ws.recv(5))
            for seen, scheme in ((page, "https"), (message, "wss")):
                expected = (["6.6.6.6", 6], scheme, "/evil") if believed else (None, scheme[:-1], "")
                assert (seen["client"], seen["scheme"], seen["root_path"]) == expected
                assert seen["server"] == [path, None]
                assert dict(seen["headers"])["host"] == "garden.example"


def test_a_peer_of_a_socket_for_both_families_is_shown_as_ipv4(tmp_path: Path) -> None:
    options = ["--proxy-headers", "--forwarded-allow-ips", PROXY]
    with serve("mounted:application", tmp_path, *options, listen=("-b", "::", "-p", "0")) as running:
        running.expect("Ignored .* no trusted proxy")
        assert ask(running, "HTTP/1.1", {}, STRANGER)["client"][0] == STRANGER
        assert ask(running, "HTTP/1.1", FORGED, STRANGER)["client"][0] == STRANGER
        assert ask(running, "HTTP/1.1", FORGED)["client"] == ["6.6.6.6", 6]


def test_the_headers_that_daphnes_flags_name(tmp_path: Path) -> None:
    options = ["--proxy-headers", "--proxy-headers-host", "X-Real-IP", "--proxy-headers-port", "X-Real-Port"]
    with serve("mounted:application", tmp_path, *options) as running:
        headers = {**FORGED, "x-real-ip": "203.0.113.9", "x-real-port": "99"}
        assert ask(running, "HTTP/1.1", headers)["client"] == ["203.0.113.9", 99]
        assert ask(running, "HTTP/1.1", FORGED)["client"][0] == PROXY


def test_daphnes_keywords_from_python() -> None:
    scopes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    server = Server(
        application,
        [f"tcp:0:interface={HOST}"],
        root_path="/a%20b",
        proxy_forwarded_address_header="X-Forwarded-For",
        proxy_forwarded_port_header="X-Forwarded-Port",
        proxy_forwarded_proto_header="X-Forwarded-Proto",
        config=Config(forwarded_allow_ips=PROXY, lifespan="off"),
    )
    with server.run_in_thread():
        url = f"http://{HOST}:{server.listening_addresses[0][1]}/"
        for source in (PROXY, STRANGER):
            with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
                client.get(url, headers={name: value for name, value in FORGED.items() if name != "daphne-root-path"})
    assert [(scope["client"][0], scope["scheme"]) for scope in scopes] == [("6.6.6.6", "https"), (STRANGER, "http")]
    assert {scope["root_path"] for scope in scopes} == {"/a%20b"}


# -- prefixes, behind nginx --------------------------------------------------------------------------------

MOUNT, ENCODED = "/grün", "/gr%C3%BCn"

# How nginx passes a location on, and what the server must be told. With a path behind its name, nginx puts that path in
# the place of the location.
WAYS = {
    "kept, by flag": ("", "", ["--root-path", ENCODED]),
    "kept, by header": ("", f"proxy_set_header Daphne-Root-Path {ENCODED};", []),
    "stripped, by flag": ("/", "", ["--root-path", ENCODED, "--root-path-prepend"]),
    "stripped, by header": ("/", f"proxy_set_header Daphne-Root-Path {ENCODED}/;", ["--root-path-prepend"]),
    "stripped, by prefix": (
        "/",
        f"proxy_set_header X-Forwarded-Prefix {ENCODED};",
        ["--proxy-headers-prefix", "--root-path-prepend"],
    ),
}
SITE = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr; worker_rlimit_nofile 256;
events {{ worker_connections 64; }}
http {{
    access_log off;
    {temporary}
    upstream up {{ server unix:{upstream}; keepalive 4; }}
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    server {{
        listen {host}:{port};
        location "{mount}/" {{
            proxy_pass http://up{path};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Port $remote_port;
            proxy_set_header X-Forwarded-Prefix "";
            proxy_set_header Daphne-Root-Path "";
            {fields}
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(directory: Path, upstream: str, path: str, fields: str) -> Iterator[int]:
    """Run nginx in front of a UNIX socket, and give its port."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {directory / kind};" for kind in kinds)
    cleared = fields.split()[1] if fields else ""
    site = SITE.format(
        directory=directory, temporary=temporary, upstream=upstream, host=HOST, port=port, mount=MOUNT, path=path, fields=fields
    )  # fmt: skip
    site = "\n".join(line for line in site.splitlines() if not (cleared and f'{cleared} "";' in line))
    (directory / "nginx.conf").write_text(site, encoding="utf-8")
    with program(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], port):
        yield port


@contextlib.contextmanager
def behind_nginx(application: str, directory: Path, way: str, **more: Any) -> Iterator[int]:
    path, fields, options = WAYS[way]
    with tempfile.TemporaryDirectory() as short:
        listen = ("-u", f"{short}/s")
        # The clients of this nginx are on this machine too, and no proxies.
        options = ["--proxy-headers", "--forwarded-allow-ips", "unix", *options]
        with serve(application, directory, *options, listen=listen, **more):
            with nginx(directory, listen[1], path, fields) as port:
                yield port


@contextlib.contextmanager
def program(command: list[str], port: int) -> Iterator[None]:
    """Run a proxy, from the time when it listens."""
    require_program(command[0])
    process = subprocess.Popen(command)

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} did not start"
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return True
        return False

    try:
        wait_for(answers, f"{command[0]} to listen")
        yield
    finally:
        process.terminate()
        process.wait(10)


def page(port: int, path: str, **headers: str) -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=STRANGER)) as client:
        return client.get(f"http://{HOST}:{port}{path}", headers={"host": "garden.example", **headers}).json()


@pytest.mark.system
@pytest.mark.parametrize("way", WAYS)
def test_the_scope_behind_nginx(way: str, tmp_path: Path) -> None:
    with behind_nginx("mounted:application", tmp_path, way) as port:
        forged = {"X-Forwarded-For": "6.6.6.6", "Daphne-Root-Path": "/evil", "X-Forwarded-Prefix": "/evil"}
        seen = page(port, f"{ENCODED}/a%20b/%C3%A9?q=1", **forged)
        with connect(f"ws://{HOST}:{port}{ENCODED}/a%20b", proxy=None, additional_headers=forged) as ws:
            message = json.loads(ws.recv(5))
    assert (seen["root_path"], seen["path"]) == (MOUNT, f"{MOUNT}/a b/é")
    assert seen["raw_path"] == f"{ENCODED}/a%20b/%C3%A9"
    assert (seen["client"][0], seen["scheme"]) == (STRANGER, "https")
    assert seen["client"][1] > 1000
    assert dict(seen["headers"])["host"] == "garden.example"
    assert (message["root_path"], message["path"], message["scheme"]) == (MOUNT, f"{MOUNT}/a b", "wss")


@pytest.mark.system
@pytest.mark.parametrize("way", WAYS)
def test_django_and_channels_route_and_reverse_behind_nginx(way: str, tmp_path: Path) -> None:
    environment = {**prepare(tmp_path), "GUESTBOOK_HOSTS": "garden.example 127.0.0.1"}
    more = {"imports": PROJECT, "environment": environment}
    with behind_nginx("guestbook.asgi:with_channels", tmp_path, way, **more) as port:
        seen = page(port, f"{ENCODED}/echo/ivy%20leaf")
        with httpx.Client() as client:
            redirect = client.get(f"http://{HOST}:{port}{ENCODED}/admin/")
        with connect(f"ws://{HOST}:{port}{ENCODED}/ws/json", proxy=None, origin=f"http://{HOST}:{port}") as ws:
            ws.send('"hello"')
            assert json.loads(ws.recv(5)) == {"heard": "hello"}
    assert (seen["script_name"], seen["path_info"], seen["path"]) == (MOUNT, "/echo/ivy leaf", f"{MOUNT}/echo/ivy leaf")
    assert seen["reverse"] == f"{ENCODED}/echo/there"
    login = urlsplit(redirect.headers["location"])
    assert (login.path, parse_qs(login.query)) == (f"{ENCODED}/admin/login/", {"next": [f"{ENCODED}/admin/"]})


@pytest.mark.system
@pytest.mark.parametrize("way", WAYS)
def test_starlette_mounts_and_makes_urls_behind_nginx(way: str, tmp_path: Path) -> None:
    with behind_nginx("mounted:starlette", tmp_path, way) as port:
        seen = page(port, f"{ENCODED}/inner/page/ivy")
        url = f"ws://{HOST}:{port}{ENCODED}/inner/talk/ivy"
        with connect(url, proxy=None) as ws:
            message = json.loads(ws.recv(5))
    base = f"garden.example{MOUNT}"
    assert seen == {
        "name": "ivy",
        "url": f"https://{base}/inner/page/ivy",
        "base": f"https://{base}/",
        "page": f"https://{base}/inner/page/other",
        "talk": f"wss://{base}/inner/talk/other",
    }
    assert {key: value.replace(f"{HOST}:{port}", "garden.example") for key, value in message.items()} == {
        **seen,
        "url": f"wss://{base}/inner/talk/ivy",
        "base": f"wss://{base}/",
    }


@pytest.mark.system
def test_the_configuration_of_haproxy_in_the_documentation_works(tmp_path: Path) -> None:
    text = (DOCS / "examples" / "haproxy.cfg").read_text("utf-8")
    port = free_port()
    with tempfile.TemporaryDirectory() as short:
        options = ["--proxy-headers", "--forwarded-allow-ips", "unix"]
        text = text.replace("/run/proj/proj.sock", f"{short}/s").replace("bind :80", f"bind {HOST}:{port}")
        (tmp_path / "haproxy.cfg").write_text(text)
        with serve("mounted:application", tmp_path, *options, listen=("-u", f"{short}/s")):
            with program(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], port):
                seen = page(port, "/a%20b", **FORGED)
                with connect(f"ws://{HOST}:{port}/", proxy=None, additional_headers=FORGED) as ws:
                    message = json.loads(ws.recv(5))
    assert (seen["client"][0], seen["scheme"], seen["root_path"]) == (STRANGER, "http", "")
    assert seen["client"][1] > 1000
    assert (message["client"][0], message["scheme"], message["root_path"]) == (HOST, "ws", "")
    # A line of its own, behind the client's.
    assert [value for name, value in seen["headers"] if name == "x-forwarded-for"] == ["6.6.6.6", STRANGER]


# What it reports of a check: "UP", or why not.
def check_of_haproxy(statistics: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(statistics)
        client.sendall(b"show stat\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, *rows = answer.decode().removeprefix("# ").splitlines()
    for row in rows:
        found = dict(zip(head.split(","), row.split(","), strict=False))
        if found.get("svname") == "proj1":
            return f"{found['status']} {found['check_status']} {found['check_code']}"
    return ""


@pytest.mark.system
@pytest.mark.parametrize(
    ("check", "healthy"),
    [(None, True), ("    option httpchk GET /where", False)],
    ids=["as documented", "without a host"],
)
def test_the_health_check_of_haproxy_meets_django_on_a_unix_socket(
    check: str | None, healthy: bool, tmp_path: Path
) -> None:
    text = (DOCS / "examples" / "haproxy.cfg").read_text("utf-8")
    if check is not None:
        text = re.sub(r"    option httpchk\n    http-check send .*", check, text)
    port = free_port()
    with tempfile.TemporaryDirectory() as short:
        text = text.replace("/run/proj/proj.sock", f"{short}/s").replace("bind :80", f"bind {HOST}:{port}")
        text = text.replace("uri / ", "uri /where ")
        text = f"global\n    stats socket {short}/h\n\n{text}"
        (tmp_path / "haproxy.cfg").write_text(text)
        environment = {**prepare(tmp_path), "GUESTBOOK_HOSTS": "example.com"}
        more: dict[str, Any] = {"imports": PROJECT, "environment": environment}
        with serve(
            "guestbook.asgi:application", tmp_path, "--proxy-headers", listen=("-u", f"{short}/s"), **more
        ) as server:
            server.expect("Invalid HTTP_HOST header", "Bad Request")
            with program(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], port):
                done = wait_for(
                    lambda: re.search("L7OK|L7STS", check_of_haproxy(f"{short}/h")) and check_of_haproxy(f"{short}/h"),
                    "a check",
                )
            assert done.split()[-2:] == (["L7OK", "200"] if healthy else ["L7STS", "400"])
            # What the troubleshooting page says.
            assert bool(re.search(r"Invalid HTTP_HOST header: '/\S+:None'", server.log)) != healthy
