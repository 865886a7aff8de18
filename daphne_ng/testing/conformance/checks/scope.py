"""The scope of HTTP requests and WebSockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daphne_ng.testing.conformance.case import OK, Case
from daphne_ng.testing.conformance.core import (
    EVERY,
    HTTP1,
    HTTP2,
    MAY,
    MUST,
    SHOULD,
    TCP,
    TLS,
    UNIX,
    WEBSOCKET2,
    WEBSOCKETS,
    Failed,
    Skipped,
)
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.servers import HOST

_SCOPE = "HTTP: Connection Scope"
_WEBSOCKET = "WebSocket: Connection Scope"
_STATE = "Lifespan: Lifespan State"


def _equal(what: str, got: Any, wanted: Any) -> None:
    if got != wanted or type(got) is not type(wanted):
        raise Failed(f"{what} is {got!r}, not {wanted!r}")


def _values(scope: dict[str, Any], name: bytes) -> list[bytes]:
    return [value for key, value in _headers(scope) if key.lower() == name]


def _headers(scope: dict[str, Any]) -> Sequence[Any]:
    headers = scope.get("headers")
    if isinstance(headers, tuple) and headers[:1] == ("not plain",):
        headers = headers[2]
    if not isinstance(headers, (list, tuple)):
        raise Failed(f"headers is {headers!r}")
    return headers


@that(
    "scope.spec-version",
    MAY,
    _SCOPE,
    '`asgi["spec_version"]` … Version of the ASGI HTTP spec this server understands … Optional',
    on=EVERY,
)
def spec_version(case: Case) -> None:
    found = case.scope()["asgi"].get("spec_version")
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, str) or not found.startswith("2."):
        raise Failed(f"it is {found!r}")


@that("scope.http-version", MUST, _SCOPE, '`http_version` … One of `"1.0"`, `"1.1"` or `"2"`.', on=EVERY)
def http_version(case: Case) -> None:
    found = case.scope().get("http_version")
    if found is None and case.is_websocket and not case.is_http2:
        return  # "Optional; if missing default is "1.1""
    _equal("http_version", found, "2" if case.is_http2 else "1.1")


@that("scope.http-version-1.0", MUST, _SCOPE, '`http_version` … One of `"1.0"`, `"1.1"` or `"2"`.', on=[HTTP1])
def http_version_old(case: Case) -> None:
    play = case.play(*OK)
    exchange = case.http1()
    exchange.request("GET", play.target, version=b"1.0")
    if case.whole(exchange).status == 505:
        raise Skipped("the server does not speak HTTP/1.0")
    _equal("http_version", play.scope().get("http_version"), "1.0")


@that("scope.method", MUST, _SCOPE, "`method` … The HTTP method name, uppercased.")
def method(case: Case) -> None:
    for name in ("GET", "POST", "DELETE", "OPTIONS"):
        _equal("method", case.scope(method=name).get("method"), name)


@that("scope.method-query", MAY, _SCOPE, "`method` … The HTTP method name: QUERY of RFC 10008.", proposed=True)
def method_query(case: Case) -> None:
    response, play = case.ask(("body",), *OK, method="QUERY", body=b"select")
    if response.status != 200:
        raise Failed(f"status {response.status}")
    _equal("method", play.scope().get("method"), "QUERY")
    _equal("length of the body", play.wait("body")[0]["length"], 6)


@that(
    "scope.scheme",
    MUST,
    _SCOPE,
    '`scheme` … URL scheme portion (likely `"http"` or `"https"`). Optional (but must not be empty)',
)
def scheme(case: Case) -> None:
    _equal("scheme", case.scope().get("scheme", "http"), "https" if case.is_tls else "http")


@that(
    "websocket.scheme",
    MUST,
    _WEBSOCKET,
    '`scheme` … URL scheme portion (likely `"ws"` or `"wss"`). Optional (but must not be empty); default is `"ws"`.',
    on=WEBSOCKETS,
)
def websocket_scheme(case: Case) -> None:
    _equal("scheme", case.scope().get("scheme", "ws"), "wss" if case.is_tls else "ws")


@that(
    "scope.path",
    MUST,
    _SCOPE,
    "`path` … HTTP request target excluding any query string, with percent-encoded sequences and UTF-8 byte sequences "
    "decoded into characters.",
    on=EVERY,
)
def path(case: Case) -> None:
    found = case.scope(more="/caf%C3%A9/a%20b%2Bc+d%25/?not=this").get("path")
    if not isinstance(found, str) or not found.endswith("/café/a b+c+d%/"):
        raise Failed(f"path is {found!r}")


@that(
    "scope.path-slash",
    MUST,
    _SCOPE,
    "`path` … with percent-encoded sequences … decoded into characters: `%2F`, too.",
    on=EVERY,
)
def path_slash(case: Case) -> None:
    found = case.scope(more="/a%2Fb//c").get("path")
    if not isinstance(found, str) or not found.endswith("/a/b//c"):
        raise Failed(f"path is {found!r}")


@that(
    "scope.raw-path",
    MUST,
    _SCOPE,
    "`raw_path` … The original HTTP path component, excluding any query string, unmodified from the bytes that were "
    "received … Optional",
    on=EVERY,
)
def raw_path(case: Case) -> None:
    scope = case.scope(more="/caf%c3%A9/%7euser/a%2fb?not=this")
    found = scope.get("raw_path")
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, bytes) or not found.endswith(b"/caf%c3%A9/%7euser/a%2fb"):
        raise Failed(f"raw_path is {found!r}")


@that("scope.query-string", MUST, _SCOPE, "`query_string` … URL portion after the `?`, percent-encoded.", on=EVERY)
def query_string(case: Case) -> None:
    _equal("query_string", case.scope(more="?a=%c3%A9&b=1+2?&").get("query_string"), b"a=%c3%A9&b=1+2?&")


@that(
    "scope.query-string-empty",
    MUST,
    _SCOPE,
    "`query_string` (byte string): also where there is none.",
)
def query_string_empty(case: Case) -> None:
    _equal("query_string", case.scope().get("query_string"), b"")


@that(
    "scope.root-path",
    MUST,
    _SCOPE,
    '`root_path` … The root path this application is mounted at … Optional; if missing defaults to `""`.',
    on=EVERY,
)
def root_path(case: Case) -> None:
    _equal("root_path", case.scope().get("root_path", ""), "")


@that(
    "scope.headers",
    MUST,
    _SCOPE,
    "`headers` (Iterable[[byte string, byte string]]) … two-item iterables",
    on=EVERY,
)
def headers(case: Case) -> None:
    for pair in _headers(case.scope(headers=[(b"x-one", b"1")])):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(part, bytes) for part in pair):
            raise Failed(f"a header is {pair!r}")


@that(
    "scope.headers-order",
    MUST,
    _SCOPE,
    "Order of header values must be preserved from the original HTTP request",
    on=EVERY,
)
def headers_order(case: Case) -> None:
    sent = [(b"x-many", b"%d" % number) for number in (3, 1, 2)]
    found = _values(case.scope(headers=[sent[0], (b"x-other", b"0"), *sent[1:]]), b"x-many")
    if b",".join(found).replace(b" ", b"") != b"3,1,2":
        raise Failed(f"values {found!r}")


@that(
    "scope.headers-duplicates",
    MUST,
    _SCOPE,
    "Duplicates are possible and must be preserved in the message as received.",
    on=EVERY,
)
def headers_duplicates(case: Case) -> None:
    found = _values(case.scope(headers=[(b"x-many", b"1"), (b"x-many", b"1"), (b"x-many", b"2")]), b"x-many")
    _equal("values", found, [b"1", b"1", b"2"])


@that("scope.headers-lower-case", SHOULD, _SCOPE, "Header names should be lowercased", on=EVERY)
def headers_lower_case(case: Case) -> None:
    name = b"x-mixed-case" if case.is_http2 else b"X-Mixed-Case"
    found = [key for key, _ in _headers(case.scope(headers=[(name, b"1")]))]
    if wrong := [key for key in found if key != key.lower()]:
        raise Failed(f"names {wrong!r}")
    if b"x-mixed-case" not in found:
        raise Failed("the header is not there")


@that(
    "scope.headers-bytes",
    MUST,
    "HTTP: WSGI encoding differences",
    "`headers`: These are byte strings of the exact byte sequences sent by the client",
    on=EVERY,
)
def headers_bytes(case: Case) -> None:
    sent = b"caf\xc3\xa9 \xe9 a,  b; %20"
    _equal("values", _values(case.scope(headers=[(b"x-bytes", sent)]), b"x-bytes"), [sent])


@that(
    "scope.pseudo-headers",
    MUST,
    _SCOPE,
    "Pseudo headers (present in HTTP/2 and HTTP/3) must be removed",
    on=[HTTP2, WEBSOCKET2],
)
def pseudo_headers(case: Case) -> None:
    if wrong := [key for key, _ in _headers(case.scope()) if key.startswith(b":")]:
        raise Failed(f"names {wrong!r}")


@that(
    "scope.authority",
    MUST,
    _SCOPE,
    "if `:authority` is present its value must be added to the start of the iterable with `host` as the header name or "
    "replace any existing host header",
    on=[HTTP2, WEBSOCKET2],
)
def authority(case: Case) -> None:
    scope = case.scope(headers=[(b"x-one", b"1")])
    _equal("host", _values(scope, b"host"), [case.address.authority])
    first = _headers(scope)[0]
    if bytes(first[0]).lower() != b"host":
        raise Failed(f"the first header is {first!r}")


@that("scope.host", MUST, _SCOPE, "Duplicates … must be preserved … as received: Host is there, once.", on=[HTTP1])
def host(case: Case) -> None:
    _equal("host", _values(case.scope(), b"host"), [case.address.authority])


@that(
    "scope.cookies",
    MUST,
    "HTTP",
    "preserve headers exactly as they were provided … `Cookie` headers MAY appear repeatedly, OR be concatenated "
    'using … "; "',
    on=[HTTP2],
)
def cookies(case: Case) -> None:
    found = _values(case.scope(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]), b"cookie")
    if b"; ".join(found) != b"a=1; b=2":
        raise Failed(f"cookie {found!r}")


@that(
    "scope.client",
    MUST,
    _SCOPE,
    "`client` … A two-item iterable of `[host, port]`, where `host` is the remote host's IPv4 or IPv6 address, and "
    "`port` is the remote port as an integer. Optional",
    on=EVERY,
    at=[TCP, TLS],
)
def client(case: Case) -> None:
    found, port = _client(case)
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, (list, tuple)) or list(found) != [HOST, port]:
        raise Failed(f"client is {found!r}, not {[HOST, port]!r}")


def _client(case: Case) -> tuple[Any, int]:
    if case.is_websocket:
        opened, play = case.open_websocket()
        port = opened.socket.getsockname()[1]
        opened.close()
        return play.scope().get("client"), port
    play = case.play(*OK)
    exchange = case.exchange()
    port = exchange.socket.getsockname()[1]
    exchange.request("GET", play.target)
    case.whole(exchange)
    return play.scope().get("client"), port


@that(
    "scope.client-unix",
    MUST,
    _SCOPE,
    "`client` (Iterable[Unicode string, int]) … Optional; if missing defaults to `None`: on a UNIX socket, too.",
    on=[HTTP1, HTTP2, *WEBSOCKETS],
    at=[UNIX],
)
def client_unix(case: Case) -> None:
    found = case.scope().get("client")
    right = (
        isinstance(found, (list, tuple)) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], int)
    )
    if found is not None and not right:
        raise Failed(f"client is {found!r}")


@that(
    "scope.server",
    MUST,
    _SCOPE,
    "`server` … a two-item iterable of `[host, port]`, where `host` is the listening address for this server, and "
    "`port` is the integer listening port … Optional",
    on=EVERY,
    at=[TCP, TLS],
)
def server(case: Case) -> None:
    found = case.scope().get("server")
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, (list, tuple)) or list(found) != [HOST, case.address.port]:
        raise Failed(f"server is {found!r}")


@that(
    "scope.server-unix",
    MUST,
    _SCOPE,
    "`server` … or `[path, None]` where `path` is that of the unix socket. Optional",
    on=EVERY,
    at=[UNIX],
)
def server_unix(case: Case) -> None:
    found = case.scope().get("server")
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, (list, tuple)) or list(found) != [case.address.path, None]:
        raise Failed(f"server is {found!r}")


@that(
    "scope.state",
    MUST,
    _STATE,
    "The server will ensure that a *shallow copy* of the namespace is passed into each subsequent request/response call",
    on=EVERY,
)
def state(case: Case) -> None:
    scope = case.scope()
    if "state" not in scope:
        raise Skipped("the server does not support state")
    found = scope["state"]
    if not isinstance(found, dict) or not found.get("shared", [""])[0] == "startup":
        raise Failed(f"state is {found!r}, not what the lifespan has put there")


@that(
    "scope.state-copy",
    MUST,
    _STATE,
    "a *shallow copy* of the namespace: what one request adds no other one has",
)
def state_copy(case: Case) -> None:
    _, play = case.ask(("state_set", "mine", 1), ("state_note",), *OK)
    if "state" not in play.scope():
        raise Skipped("the server does not support state")
    _equal("state of the request that set it", play.wait("state")[0]["state"].get("mine"), 1)
    for _ in range(3):
        if "mine" in case.scope()["state"]:
            raise Failed("another request has what one has added")


@that(
    "scope.state-shallow",
    MUST,
    _STATE,
    "a *shallow copy* of the namespace: its objects are the same in every request",
)
def state_shallow(case: Case) -> None:
    before = case.ask(*OK)[1].wait("scope")[0]
    if "state" not in before["scope"]:
        raise Skipped("the server does not support state")
    text = case.play().name
    changing = case.ask(("state_append", "shared", text), *OK)[1].wait("scope")[0]["pid"]
    # Each worker has a state of its own.
    for _ in range(40):
        seen = case.ask(*OK)[1].wait("scope")[0]
        if seen["pid"] == changing:
            if text not in seen["scope"]["state"]["shared"]:
                raise Failed("an object that one request has changed is another one in the next")
            return
    raise Skipped("no second request went to the same worker")


@that(
    "scope.streams",
    SHOULD,
    "HTTP",
    "A protocol server should give different scopes to different requests on the same HTTP/2 connection, and correctly "
    "multiplex the responses back to the same stream",
    on=[HTTP2],
)
def streams(case: Case) -> None:
    connection = case.http2()
    plays = []
    exchanges = []
    for number in range(4):
        part = {"type": "http.response.body", "body": b"%d" % number}
        start = {"type": "http.response.start", "status": 200, "headers": []}
        plays.append(case.play(("wait", "go"), ("send", start), ("send", part)))
        exchanges.append(connection.stream())
        exchanges[-1].request("GET", plays[-1].target)
    for play in plays:
        play.scope()
    # Answered in the opposite order.
    for number in reversed(range(4)):
        plays[number].tell("go")
        response = case.whole(exchanges[number])
        _equal(f"body of stream {number}", bytes(response.body), b"%d" % number)
        _equal("path", plays[number].scope()["path"], plays[number].target.decode())


@that(
    "websocket.subprotocols",
    MUST,
    _WEBSOCKET,
    "`subprotocols` (Iterable[Unicode string]) … Subprotocols the client advertised.",
    on=WEBSOCKETS,
)
def subprotocols(case: Case) -> None:
    found = case.scope(headers=[(b"sec-websocket-protocol", b"beta, alpha")]).get("subprotocols")
    if not isinstance(found, (list, tuple)) or list(found) != ["beta", "alpha"]:
        raise Failed(f"subprotocols is {found!r}")


@that(
    "websocket.no-subprotocols",
    MUST,
    _WEBSOCKET,
    "`subprotocols` … Optional; if missing defaults to empty list.",
    on=WEBSOCKETS,
)
def no_subprotocols(case: Case) -> None:
    found = case.scope().get("subprotocols", [])
    if not isinstance(found, (list, tuple)) or list(found):
        raise Failed(f"subprotocols is {found!r}")
