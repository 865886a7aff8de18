"""`daphne_ng.net.proxies` and what it does to requests, on a fake transport and in virtual time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from daphne_ng.config import Config
from daphne_ng.config.trust import TrustedPeers
from daphne_ng.net.proxies import proxies_from
from tests.support.asgi import LOG, connection, on_loop, request_head, settle
from tests.support.net import Application, FakeTransport, Wire

PROXY = IPv4Address("TCP", "127.0.0.1", 4000)
STRANGER = IPv4Address("TCP", "192.0.2.1", 5000)
DAPHNE: dict[str, Any] = {
    "proxy_address_header": "X-Forwarded-For",
    "proxy_port_header": "X-Forwarded-Port",
    "proxy_proto_header": "X-Forwarded-Proto",
}
FORGED = (
    b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 6\r\nX-Forwarded-Host: evil\r\n"
    b"X-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6;proto=https;host=evil\r\nDaphne-Root-Path: /evil\r\n"
)


async def ask(
    fields: bytes = b"", peer: Any = PROXY, path: bytes = b"/path", times: int = 1, **settings: Any
) -> tuple[dict[str, Any], Wire]:
    """Return the scope of a request with these header fields."""
    application = Application()
    wire = Wire(application, **settings)
    transport = wire.connect(FakeTransport(peer))
    for _ in range(times):
        transport.protocol.dataReceived(b"GET " + path + b" HTTP/1.1\r\nHost: test\r\n" + fields + b"\r\n")
        await settle()
    transport.lost()
    assert len(application.scopes) == times
    return application.scopes[-1], wire


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@on_loop
async def test_a_trusted_proxy_is_believed() -> None:
    scope, _ = await ask(b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Port: 567\r\nX-Forwarded-Proto: https\r\n", **DAPHNE)
    assert (scope["client"], scope["scheme"], scope["server"]) == (["1.2.3.4", 567], "https", ["192.0.2.2", 80])
    assert scope["headers"] == [
        (b"host", b"test"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-port", b"567"),
        (b"x-forwarded-proto", b"https"),
    ]


@on_loop
async def test_each_request_of_a_connection_has_a_client_of_its_own() -> None:
    application = Application()
    wire = Wire(application, **DAPHNE)
    transport = wire.connect(FakeTransport(PROXY))
    clients = []
    wire.runner.record = lambda exchange: clients.append(exchange.info.client_text)
    for field in (b"X-Forwarded-For: 1.1.1.1\r\n", b"", b"X-Forwarded-For: 2.2.2.2\r\n"):
        transport.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n")
        await settle()
    transport.lost()
    assert [scope["client"] for scope in application.scopes] == [["1.1.1.1", 0], ["127.0.0.1", 4000], ["2.2.2.2", 0]]
    assert clients == ["1.1.1.1:0", "127.0.0.1:4000", "2.2.2.2:0"]


@pytest.mark.parametrize(
    "settings",
    [
        DAPHNE,
        DAPHNE | {"proxy_host": True, "proxy_prefix": True},
        {"proxy_forwarded": True, "proxy_host": True},
        DAPHNE | {"forwarded_allow_ips": "10.0.0.1"},
        {},
    ],
    ids=["x-forwarded", "host and prefix", "forwarded", "another proxy", "off"],
)
@on_loop
async def test_a_stranger_changes_nothing(settings: dict[str, Any]) -> None:
    plain, _ = await ask(b"", STRANGER, root_path="/mine", **settings)
    forged, _ = await ask(FORGED, STRANGER, root_path="/mine", **settings)
    received = forged.pop("headers")
    assert plain.pop("headers") == [(b"host", b"test")]
    assert forged == plain
    assert [name for name, _ in received] == [
        b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-host",
        b"x-forwarded-prefix", b"forwarded",
    ]  # fmt: skip


@on_loop
async def test_without_proxy_headers_a_trusted_peer_has_no_say_but_for_the_root_path() -> None:
    scope, _ = await ask(FORGED)
    assert (scope["client"], scope["scheme"], scope["root_path"]) == (["127.0.0.1", 4000], "http", "/evil")


@pytest.mark.parametrize(
    ("peer", "allowed", "trusted"),
    [
        (UNIXAddress(None), "127.0.0.0/8,::1,unix", True),
        (UNIXAddress(None), "127.0.0.1", False),
        (UNIXAddress(None), "*", True),
        (STRANGER, "*", True),
        (STRANGER, "192.0.2.0/24", True),
        (STRANGER, "", False),
        (PROXY, "", False),
        (IPv4Address("TCP", "127.0.0.2", 1), "127.0.0.1", False),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1", True),
        (None, "127.0.0.1,unix", False),
        (None, "*", True),
    ],
)
@on_loop
async def test_who_is_believed(peer: Any, allowed: str, trusted: bool) -> None:
    fields = b"X-Forwarded-For: 1.2.3.4\r\nDaphne-Root-Path: /root\r\n"
    scope, _ = await ask(fields, peer, forwarded_allow_ips=allowed, **DAPHNE)
    assert (scope["client"] == ["1.2.3.4", 0]) is trusted
    assert (scope["root_path"] == "/root") is trusted


@on_loop
async def test_a_mapped_peer_is_shown_as_ipv4() -> None:
    scope, _ = await ask(b"", IPv6Address("TCP", "::ffff:192.0.2.1", 7))
    assert scope["client"] == ["192.0.2.1", 7]


@on_loop
async def test_each_kind_of_header_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    await ask(b"X-Other: 1\r\n", STRANGER, times=2, **DAPHNE)
    assert warnings_of(caplog) == []
    await ask(FORGED, STRANGER, times=3, **DAPHNE)
    stranger = "from 192.0.2.1:5000, which is no trusted proxy; if it is one, name it with --forwarded-allow-ips"
    assert warnings_of(caplog) == [
        f"Ignored X-Forwarded-For {stranger}",
        f"Ignored Daphne-Root-Path {stranger}; --root-path sets it for every request",
    ]
    caplog.clear()
    await ask(FORGED, UNIXAddress(None), times=2, proxy_forwarded=True, forwarded_allow_ips="10.0.0.1")
    assert [text.partition(",")[0] for text in warnings_of(caplog)] == [
        "Ignored Forwarded from a local client",
        "Ignored Daphne-Root-Path from a local client",
    ]


@on_loop
async def test_nobody_is_warned_of_what_is_not_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    await ask(b"X-Forwarded-For: 6.6.6.6\r\n", STRANGER)
    await ask(b"X-Forwarded-For: 6.6.6.6\r\n", STRANGER, proxy_forwarded=True)
    assert warnings_of(caplog) == []


@on_loop
async def test_the_host_is_replaced_where_that_is_asked_for() -> None:
    fields = b"X-Forwarded-Host: example.com\r\nX-Other: 1\r\n"
    scope, _ = await ask(fields, **DAPHNE)
    assert scope["headers"][0] == (b"host", b"test")
    scope, _ = await ask(fields, proxy_host=True, **DAPHNE)
    assert scope["headers"] == [
        (b"host", b"example.com"),
        (b"x-forwarded-host", b"example.com"),
        (b"x-other", b"1"),
    ]
    scope, _ = await ask(b"X-Forwarded-Host: no/host\r\n", proxy_host=True)
    assert scope["headers"][0] == (b"host", b"test")


@on_loop
async def test_a_request_of_http_1_0_gets_the_host_that_it_lacks() -> None:
    application = Application()
    wire = Wire(application, proxy_host=True)
    transport = wire.connect(FakeTransport(PROXY))
    transport.protocol.dataReceived(b"GET / HTTP/1.0\r\nX-Forwarded-Host: a\r\n\r\n")
    await settle()
    assert application.scopes[0]["headers"] == [(b"host", b"a"), (b"x-forwarded-host", b"a")]
    transport.lost()


@on_loop
async def test_the_prefix_is_the_root_path_where_that_is_asked_for() -> None:
    fields = b"X-Forwarded-Prefix: /pr%C3%A9/\r\n"
    assert (await ask(fields, **DAPHNE))[0]["root_path"] == ""
    assert (await ask(fields, proxy_prefix=True, root_path="/mine"))[0]["root_path"] == "/pré"
    assert (await ask(b"X-Forwarded-Prefix: /../x\r\n", proxy_prefix=True, root_path="/mine"))[0][
        "root_path"
    ] == "/mine"
    both = fields + b"Daphne-Root-Path: /other\r\n"
    assert (await ask(both, proxy_prefix=True))[0]["root_path"] == "/pré"


@on_loop
async def test_a_root_path_ends_without_a_slash() -> None:
    assert (await ask(root_path="/mine/"))[0]["root_path"] == "/mine"
    assert (await ask(root_path="/"))[0]["root_path"] == ""
    assert (await ask(b"Daphne-Root-Path: /theirs/\r\n", root_path="/mine"))[0]["root_path"] == "/theirs"
    assert (await ask(b"Daphne-Root-Path:\r\n", root_path="/mine"))[0]["root_path"] == ""


@on_loop
async def test_a_stripped_prefix_is_put_in_front_again() -> None:
    scope, _ = await ask(path=b"/a%20b?q", root_path="/my mount", root_path_prepend=True)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        "/my mount",
        "/my mount/a b",
        b"/my%20mount/a%20b",
    )
    assert scope["query_string"] == b"q"
    scope, _ = await ask(b"X-Forwarded-Prefix: /pre\r\n", proxy_prefix=True, root_path_prepend=True)
    assert (scope["root_path"], scope["path"]) == ("/pre", "/pre/path")


@on_loop
async def test_who_is_refused_for_load_is_the_client_too(caplog: pytest.LogCaptureFixture) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    wire = Wire(never, limit_concurrency=1, **DAPHNE)
    transports = [wire.connect(FakeTransport(PROXY)) for _ in range(2)]
    for transport in transports:
        transport.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
        await settle()
    assert wire.refused == [("1.2.3.4:0", 503, "/")]
    for transport in transports:
        transport.lost()
    await settle()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, None),
        ({"proxy_address_header": ""}, None),
        ({"root_path_prepend": True, "root_path": "/a"}, None),
        ({"proxy_address_header": "X-Real-IP"}, {b"x-real-ip"}),
        ({"proxy_proto_header": "X-Scheme"}, {b"x-scheme"}),
        (DAPHNE, {b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto"}),
        (DAPHNE | {"proxy_forwarded": True, "proxy_host": True}, {b"forwarded"}),
        ({"proxy_host": True, "proxy_prefix": True}, {b"x-forwarded-host", b"x-forwarded-prefix"}),
    ],
)
def test_only_what_is_asked_for_is_looked_at(settings: dict[str, Any], names: Any) -> None:
    proxies = proxies_from(Config(**settings), TrustedPeers("*"), LOG)
    assert (proxies and proxies._fields.names) == names


def test_a_header_that_says_nothing_leaves_the_connection_as_it_is() -> None:
    proxies = proxies_from(Config(**DAPHNE), TrustedPeers("*"), LOG)
    assert proxies is not None
    info = connection(trusted=True)
    head = request_head(headers=[(b"x-forwarded-for", b"unknown")])
    assert proxies.apply_claims(head, info) is info
