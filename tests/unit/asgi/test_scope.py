"""`daphne_ng.asgi.scope`: checklist 2, 10, 18-21, 30 and 54, as far as the bridge is concerned."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_ng.asgi.scope import http_scope, prepending, websocket_scope
from tests.support.asgi import connection, request_head


def test_12_to_20_every_key_of_the_http_scope_is_there() -> None:
    fields = [(b"b", b"1"), (b"a", b"2")]
    head = request_head("POST", "/pfad", query_string=b"q=%20", raw_path=b"/pf%61d", headers=fields)
    assert http_scope(head, connection(), "/mount", None) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/pfad",
        "raw_path": b"/pf%61d",
        "query_string": b"q=%20",
        "root_path": "/mount",
        "headers": [(b"b", b"1"), (b"a", b"2")],
        "client": ["192.0.2.1", 5000],
        "server": ["192.0.2.2", 80],
        "extensions": {"http.response.trailers": {}},
    }


def test_10_one_request_cannot_change_the_extensions_of_another() -> None:
    info = connection()
    http_scope(request_head(), info, "", None)["extensions"]["made.up"] = {}
    assert "made.up" not in http_scope(request_head(), info, "", None)["extensions"]


def test_18_the_root_path_of_a_request_counts_from_a_trusted_peer_only() -> None:
    head = request_head(root_path="/claimed")
    assert http_scope(head, connection(trusted=False), "/mount", None)["root_path"] == "/mount"
    assert http_scope(head, connection(trusted=True), "/mount", None)["root_path"] == "/claimed"
    assert http_scope(request_head(), connection(trusted=True), "", None)["root_path"] == ""


def test_20_a_peer_without_an_address_is_none() -> None:
    scope = http_scope(request_head(), connection(client=None, server=["/run/x.sock", None]), "", None)
    assert scope["client"] is None
    assert scope["server"] == ["/run/x.sock", None]


def test_21_the_state_is_copied_shallowly_for_each_request() -> None:
    pool: list[int] = []
    state = {"pool": pool}
    one = http_scope(request_head(), connection(), "", state)["state"]
    two = http_scope(request_head(), connection(), "", state)["state"]
    one["mine"] = 1
    assert "mine" not in two
    assert "mine" not in state
    assert one["pool"] is two["pool"] is pool


def test_21_there_is_no_state_without_a_lifespan() -> None:
    assert "state" not in http_scope(request_head(), connection(), "", None)


def test_54_a_plain_connection_has_no_tls_extension() -> None:
    assert "tls" not in http_scope(request_head(), connection(), "", None)["extensions"]


# -- WebSocket -------------------------------------------------------------------------------------------------


def test_30_every_key_of_the_websocket_scope_is_there() -> None:
    fields = [(b"b", b"1"), (b"a", b"2")]
    head = request_head("GET", "/pfad", query_string=b"q=%20", raw_path=b"/pfad", headers=fields)
    assert websocket_scope(head, connection(), "/mount", None, ("chat", "soap")) == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/pfad",
        "raw_path": b"/pfad",
        "query_string": b"q=%20",
        "root_path": "/mount",
        "headers": [(b"b", b"1"), (b"a", b"2")],
        "client": ["192.0.2.1", 5000],
        "server": ["192.0.2.2", 80],
        "subprotocols": ["chat", "soap"],
        "extensions": {"websocket.http.response": {}, "websocket.http.response.trailers": {}},
    }


def test_30_the_scheme_is_wss_where_http_is_https() -> None:
    assert websocket_scope(request_head(), connection(scheme="https"), "", None, ())["scheme"] == "wss"


def test_a_websocket_has_the_tls_extension_and_those_of_a_response_by_another_name() -> None:
    tls = {"server_cert": None, "tls_version": 0x0304}
    info = connection(scheme="https")
    info.extensions = {"http.response.trailers": {}, "http.response.early_hint": {}, "tls": tls}
    assert http_scope(request_head(), info, "", None)["extensions"] == info.extensions
    assert websocket_scope(request_head(), info, "", None, ())["extensions"] == {
        "websocket.http.response": {},
        "websocket.http.response.trailers": {},
        "websocket.http.response.early_hint": {},
        "tls": tls,
    }


def test_10_one_websocket_cannot_change_what_another_finds() -> None:
    offered = ["chat"]
    scope = websocket_scope(request_head(), connection(), "", None, offered)
    scope["extensions"]["websocket.http.response"]["x"] = scope["extensions"]["made.up"] = {}
    scope["extensions"]["websocket.http.response.trailers"]["x"] = {}
    scope["subprotocols"].append("more")
    assert offered == ["chat"]
    other = websocket_scope(request_head(), connection(), "", None, offered)
    assert other["extensions"] == {"websocket.http.response": {}, "websocket.http.response.trailers": {}}
    assert other["subprotocols"] == ["chat"]


def test_18_the_root_path_of_a_websocket_counts_from_a_trusted_peer_only() -> None:
    head = request_head(root_path="/claimed")
    assert websocket_scope(head, connection(trusted=False), "/mount", None, ())["root_path"] == "/mount"
    assert websocket_scope(head, connection(trusted=True), "/mount", None, ())["root_path"] == "/claimed"


def test_21_the_state_is_copied_shallowly_for_each_websocket() -> None:
    state = {"pool": []}
    one = websocket_scope(request_head(), connection(), "", state, ())["state"]
    assert one == state
    assert one is not state
    assert one["pool"] is state["pool"]
    assert "state" not in websocket_scope(request_head(), connection(), "", None, ())


# -- proxies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path", "whole", "raw_whole"),
    [
        ("/app", "/a b", b"/a%20b", "/app/a b", b"/app/a%20b"),
        ("/app", "/", b"/", "/app/", b"/app/"),
        ("", "/a", b"/a", "/a", b"/a"),
        ("/caf\u00e9 1?#%", "/a", b"/a", "/caf\u00e9 1?#%/a", b"/caf%C3%A9%201%3F%23%25/a"),
        ("/~u/a:b@c", "/a", b"/a", "/~u/a:b@c/a", b"/~u/a:b@c/a"),
        ("/app", "*", b"*", "*", b"*"),
    ],
)
def test_a_root_path_that_was_stripped_is_put_in_front_again(
    root_path: str, path: str, raw_path: bytes, whole: str, raw_whole: bytes
) -> None:
    head = request_head(path=path, raw_path=raw_path)
    scope = prepending(http_scope)(head, connection(), root_path, None)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, whole, raw_whole)
    scope = prepending(websocket_scope)(head, connection(), root_path, None, ("a",))
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, whole, raw_whole)
    assert (scope["type"], scope["subprotocols"]) == ("websocket", ["a"])
    assert (head.path, head.raw_path) == (path, raw_path)


def test_the_root_path_that_a_trusted_peer_names_is_the_one_put_in_front() -> None:
    head = request_head(path="/a", raw_path=b"/a", root_path="/claimed")
    assert prepending(http_scope)(head, connection(trusted=True), "/mount", None)["path"] == "/claimed/a"
    assert prepending(http_scope)(head, connection(trusted=False), "/mount", None)["path"] == "/mount/a"


@pytest.mark.parametrize(
    ("client", "scheme", "expected"),
    [
        (("198.51.100.7", 0), None, (["198.51.100.7", 0], "198.51.100.7:0", "http")),
        (None, "https", (["192.0.2.1", 5000], "192.0.2.1:5000", "https")),
        (("2001:db8::7", 9), "https", (["2001:db8::7", 9], "2001:db8::7:9", "https")),
    ],
)
def test_what_a_proxy_says_concerns_one_request(client: Any, scheme: Any, expected: Any) -> None:
    info = connection(trusted=True)
    claimed = info.claimed(client, scheme)
    assert (claimed.client, claimed.client_text, claimed.scheme) == expected
    assert (claimed.server, claimed.trusted, claimed.extensions) == (info.server, True, info.extensions)
    assert (info.client, info.client_text, info.scheme) == (["192.0.2.1", 5000], "192.0.2.1:5000", "http")
    secure = {"http": "ws", "https": "wss"}[expected[2]]
    assert websocket_scope(request_head(), claimed, "", None, ())["scheme"] == secure


@pytest.mark.parametrize(
    ("offered", "names"),
    [
        (["token", "Token%20a%2Fb"], ["token", "Token a/b"]),
        (["%C3%A4"], ["\u00e4"]),
        (["a%2Cb"], ["a,b"]),
        (["100%"], ["100%"]),
        (["%FF"], ["%FF"]),
        (["%0D%0A", "%00", "%E2%80%AE"], ["%0D%0A", "%00", "%E2%80%AE"]),
        (["a", "%61"], ["a", "%61"]),
    ],
)
def test_subprotocols_are_percent_decoded_one_by_one(offered: list[str], names: list[str]) -> None:
    assert websocket_scope(request_head(), connection(), "", None, offered)["subprotocols"] == names
