"""Request heads of HTTP/2: RFC 9113 section 8, RFC 8441 section 4, and the rules that HTTP/1.1 has here besides."""

from __future__ import annotations

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.wire.http.fields import METHODS, host_memo, valid_hosts
from daphne_ng.wire.http2 import head as h2_head
from daphne_ng.wire.http2.head import Http2Head, MalformedRequest, check_request_fields, check_trailer_fields
from daphne_ng.wire.http2.hpack import OVERSIZED
from tests.support.h2 import all_said

Field = tuple[bytes, bytes]

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"test"), (b":path", b"/")]
CONNECT = [(b":method", b"CONNECT"), (b":authority", b"test:443")]
TUNNEL = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"test"),
    (b":path", b"/chat?a=b"),
]


def check(fields: list[Field], *, ended: bool = True, extended: bool = False, **settings: int) -> Http2Head:
    return check_request_fields(tuple(fields), Config(**settings), ended, extended)


def get(*more: Field, ended: bool = True, extended: bool = False, **pseudo: bytes | None) -> Http2Head:
    """Check a GET with more fields, and with pseudo-header fields changed or (None) left out."""
    changed = {f":{name}".encode(): value for name, value in pseudo.items()}
    fields = [
        (name, value) for name, value in ((name, changed.get(name, value)) for name, value in GET) if value is not None
    ]
    return check([*fields, *more], ended=ended, extended=extended)


class TestTheHead:
    def test_the_least(self) -> None:
        head = check(GET)
        assert (head.method, head.target, head.raw_path, head.path, head.query_string) == ("GET", b"/", b"/", "/", b"")
        assert head.headers == [(b"host", b"test")]
        assert head.http_version == "2"
        assert (head.scheme, head.authority, head.protocol, head.priority) == (b"https", b"test", None, None)
        assert head.content_length == 0
        assert not head.websocket and not head.chunked and not head.expects_continue and not head.accepts_trailers

    def test_path_and_query_are_taken_apart_as_on_http1(self) -> None:
        head = get(path=b"/a%20b%ff//c?d=%20&e?f")
        assert head.target == b"/a%20b%ff//c?d=%20&e?f"
        assert head.raw_path == b"/a%20b%ff//c"
        assert head.path == "/a b\N{REPLACEMENT CHARACTER}//c"
        assert head.query_string == b"d=%20&e?f"

    def test_pseudo_header_fields_come_in_any_order(self) -> None:
        assert check(GET[::-1]).headers == [(b"host", b"test")]

    def test_fields_keep_their_order_behind_the_host(self) -> None:
        more = [(b"b", b"1"), (b"a", b""), (b"b", b"2")]
        assert get(*more).headers == [(b"host", b"test"), *more]

    def test_names_with_an_underscore_are_dropped(self) -> None:
        assert get((b"x_forwarded_for", b"1"), (b"_", b"2")).headers == [(b"host", b"test")]

    def test_asterisk_form(self) -> None:
        head = get(method=b"OPTIONS", path=b"*")
        assert (head.raw_path, head.path, head.query_string) == (b"*", "*", b"")

    @pytest.mark.parametrize(
        "more",
        [[], [(b"te", b"trailers"), (b"priority", b"u=1")], [(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d")]],
    )
    def test_one_that_is_repeated_says_the_same(self, more: list[Field]) -> None:
        for path in (b"/", b"/a%20b?c=d"):
            head = get(*more, path=path)
            assert head.repeatable
            again = head.repeated()
            assert all_said(again) == all_said(head)
            assert again.headers is not head.headers  # the application may change the list

    def test_with_a_body_or_for_the_server_is_not_repeated(self) -> None:
        assert not get((b"content-length", b"0")).repeatable
        assert not get(ended=False).repeatable
        assert not get((b"daphne-root-path", b"/a")).repeatable
        assert not check(TUNNEL, ended=True, extended=True).repeatable

    @pytest.mark.parametrize("name", METHODS)
    def test_methods_are_those_of_http1(self, name: bytes) -> None:
        assert get(method=name).method == name.decode()


class TestHost:
    def test_a_host_without_authority_stays_where_it_is(self) -> None:
        head = get((b"a", b"b"), (b"host", b"test"), authority=None)
        assert head.headers == [(b"a", b"b"), (b"host", b"test")]
        assert head.authority == b"test"

    def test_a_host_that_says_the_same_is_not_repeated(self) -> None:
        assert get((b"host", b"TEST"), (b"a", b"b")).headers == [(b"host", b"test"), (b"a", b"b")]

    @pytest.mark.parametrize("authority", [b"[::1]:8000", b"example.com:443", b"EXAMPLE.com", b"a%20b"])
    def test_authorities(self, authority: bytes) -> None:
        assert get(authority=authority).headers == [(b"host", authority)]

    @pytest.mark.parametrize(
        "authority", [b"user@test", b"test/a", b"te st", b"test:x", b"a?b", b"t\xc3\xa9st", b"a,b\\"]
    )
    def test_malformed_authorities(self, authority: bytes) -> None:
        with pytest.raises(MalformedRequest, match="authority is malformed"):
            get(authority=authority)
        with pytest.raises(MalformedRequest, match="authority is malformed"):
            get((b"host", authority), authority=None)


# Each is a rule of RFC 9113 (section) or RFC 8441.
MALFORMED: list[tuple[str, list[Field]]] = [
    ("8.3 no fields at all", []),
    ("8.3 unknown pseudo-header field", [*GET, (b":test", b"ok")]),
    ("8.3 pseudo-header field of responses", [*GET, (b":status", b"200")]),
    ("8.3 a pseudo-header field behind a regular one", [*GET[:3], (b"a", b"b"), GET[3]]),
    ("8.3 a pseudo-header field behind one that is dropped", [*GET[:3], (b"a_b", b"c"), GET[3]]),
    ("8.3 a pseudo-header field twice", [*GET, GET[3]]),
    ("8.3 a pseudo-header field twice in four", [GET[0], GET[0], GET[1], GET[3]]),
    ("8.3 two methods and a host", [GET[0], (b":method", b"POST"), GET[1], GET[3], (b"host", b"test")]),
    ("8.3 two paths and a host", [GET[0], GET[1], GET[3], (b":path", b"/other"), (b"host", b"test")]),
    ("8.3 two paths", [*GET, (b":path", b"/other")]),
    ("8.3.1 no method", GET[1:]),
    ("8.3.1 no scheme", [GET[0], *GET[2:]]),
    ("8.3.1 no path", GET[:3]),
    ("8.3.1 empty method", [(b":method", b""), *GET[1:]]),
    ("8.3.1 empty scheme", [GET[0], (b":scheme", b""), *GET[2:]]),
    ("8.3.1 empty path", [*GET[:3], (b":path", b"")]),
    ("8.3.1 empty authority", [*GET[:2], (b":authority", b""), GET[3]]),
    ("8.3.1 empty authority, good host", [*GET[:2], (b":authority", b""), GET[3], (b"host", b"test")]),
    ("8.3.1 empty host", [*GET[:2], GET[3], (b"host", b"")]),
    ("8.3.1 neither authority nor host", [*GET[:2], GET[3]]),
    ("8.3.1 host and authority disagree", [*GET, (b"host", b"other")]),
    ("8.3.1 two hosts", [*GET, (b"host", b"test"), (b"host", b"test")]),
    ("8.3.1 method is no token", [(b":method", b"GE T"), *GET[1:]]),
    ("8.3.1 scheme with a blank within", [GET[0], (b":scheme", b"ht tp"), *GET[2:]]),
    ("8.3.1 path without a slash", [*GET[:3], (b":path", b"a")]),
    ("8.3.1 path in absolute form", [*GET[:3], (b":path", b"http://test/")]),
    ("8.3.1 path with a fragment", [*GET[:3], (b":path", b"/a#b")]),
    ("8.3.1 path with a blank", [*GET[:3], (b":path", b"/a HTTP/1.1")]),
    ("8.3.1 path beyond ASCII", [*GET[:3], (b":path", b"/\xc3\xa9")]),
    ("8.3.1 asterisk of a GET", [*GET[:3], (b":path", b"*")]),
    ("8.3.1 asterisk with a query", [(b":method", b"OPTIONS"), *GET[1:3], (b":path", b"*?a")]),
    ("8.5 CONNECT", CONNECT),
    ("8.5 CONNECT with the fields of another request", [(b":method", b"CONNECT"), *GET[1:]]),
    ("RFC 8441 section 3: extended CONNECT that was not offered", TUNNEL),
    ("8.2.1 upper case", [*GET, (b"X-A", b"b")]),
    ("8.2.1 empty name", [*GET, (b"", b"b")]),
    ("8.2.1 colon within a name", [*GET, (b"a:b", b"c")]),
    ("8.2.1 blank in a name", [*GET, (b"a b", b"c")]),
    ("8.2.1 line end in a name", [*GET, (b"a\r\nb", b"c")]),
    ("8.2.1 name beyond ASCII", [*GET, (b"\xe9", b"c")]),
    ("8.2.1 line end in a name that is dropped", [*GET, (b"a_\r\nb", b"c")]),
    ("8.2.1 NUL in a value", [*GET, (b"a", b"b\0c")]),
    ("8.2.1 CR in a value", [*GET, (b"a", b"b\rc")]),
    ("8.2.1 LF in a value", [*GET, (b"a", b"b\nc")]),
    ("8.2.1 LF in a value that is dropped", [*GET, (b"a_b", b"b\nc")]),
    ("8.2.1 LF in a cookie crumb", [*GET, (b"cookie", b"a"), (b"cookie", b"b\nc")]),
    ("8.2.1 LF in a pseudo-header field", [*GET[:3], (b":path", b"/\n")]),
    ("8.2.1 leading blank", [*GET, (b"a", b" b")]),
    ("8.2.1 trailing tab", [*GET, (b"a", b"b\t")]),
    ("8.2.1 nothing but a blank", [*GET, (b"a", b" ")]),
    ("RFC 9110 section 5.5: control character", [*GET, (b"a", b"b\x01c")]),
    ("RFC 9110 section 5.5: DEL", [*GET, (b"a", b"b\x7fc")]),
    ("8.2.2 connection", [*GET, (b"connection", b"close")]),
    ("8.2.2 proxy-connection", [*GET, (b"proxy-connection", b"keep-alive")]),
    ("8.2.2 keep-alive", [*GET, (b"keep-alive", b"1")]),
    ("8.2.2 transfer-encoding", [*GET, (b"transfer-encoding", b"chunked")]),
    ("8.2.2 upgrade", [*GET, (b"upgrade", b"h2c")]),
    ("8.2.2 te", [*GET, (b"te", b"trailers, deflate;q=0.5")]),
    ("8.1.1 content-length", [*GET, (b"content-length", b"x")]),
    ("8.1.1 content-length with a sign", [*GET, (b"content-length", b"+1")]),
    ("8.1.1 content-length, empty", [*GET, (b"content-length", b"")]),
    ("8.1.1 content-length, a list", [*GET, (b"content-length", b"0, 0")]),
    ("8.1.1 content-lengths that disagree", [*GET, (b"content-length", b"0"), (b"content-length", b"1")]),
    ("8.1.1 content-length of a body that does not come", [*GET, (b"content-length", b"1")]),
]  # fmt: skip


@pytest.mark.parametrize("fields", [case[1] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_malformed(fields: list[Field]) -> None:
    with pytest.raises(MalformedRequest) as caught:
        check(fields)
    assert caught.value.code == 1  # PROTOCOL_ERROR


REFUSED: list[tuple[int, list[Field]]] = [
    (501, [(b":method", b"BREW"), *GET[1:]]),
    (501, [(b":method", b"get"), *GET[1:]]),
    (501, [(b":method", b"PRI"), *GET[1:]]),
    (400, [GET[0], (b":scheme", b"ftp"), *GET[2:]]),
    (414, [*GET[:3], (b":path", b"/" + b"a" * 8190)]),
    (417, [*GET, (b"expect", b"200-ok")]),
    (413, [*GET, (b"content-length", b"1" * 19)]),
    (431, [*GET, OVERSIZED]),
    (431, [OVERSIZED]),
]


@pytest.mark.parametrize(("status", "fields"), REFUSED)
def test_refused_with_a_status(status: int, fields: list[Field]) -> None:
    with pytest.raises(WireError) as caught:
        check(fields)
    assert not isinstance(caught.value, MalformedRequest)
    assert caught.value.status == status


def test_the_mark_of_a_list_that_was_cut_cannot_be_sent() -> None:
    with pytest.raises(MalformedRequest):
        check([*GET, tuple([b"", b""])])


def test_the_longest_target() -> None:
    assert len(get(path=b"/" + b"a" * 8189).target) == 8190


class TestBody:
    def test_of_known_length(self) -> None:
        head = get((b"content-length", b"5"), ended=False)
        assert (head.content_length, head.length_known) == (5, True)

    def test_of_unknown_length(self) -> None:
        head = get(ended=False)
        assert (head.content_length, head.length_known) == (-1, False)

    def test_of_no_length(self) -> None:
        for ended in (True, False):
            head = get((b"content-length", b"0"), ended=ended)
            assert (head.content_length, head.length_known) == (0, True)

    def test_the_same_length_twice_is_one(self) -> None:
        head = get((b"content-length", b"5"), (b"a", b"b"), (b"content-length", b"5"), ended=False)
        assert head.headers == [(b"host", b"test"), (b"content-length", b"5"), (b"a", b"b")]

    def test_over_the_limit(self) -> None:
        with pytest.raises(WireError) as caught:
            check([*GET, (b"content-length", b"11")], ended=False, body_max_bytes=10)
        assert caught.value.status == 413
        assert check([*GET, (b"content-length", b"10")], ended=False, body_max_bytes=10).content_length == 10

    def test_expectation(self) -> None:
        assert get((b"expect", b"100-Continue"), ended=False).expects_continue
        assert not get((b"expect", b"100-continue"), ended=True).expects_continue
        assert not get((b"expect", b"100-continue"), (b"content-length", b"0"), ended=False).expects_continue


class TestFieldsThatMeanSomething:
    def test_te(self) -> None:
        head = get((b"te", b"Trailers"))
        assert head.accepts_trailers
        assert (b"te", b"Trailers") in head.headers

    def test_priority(self) -> None:
        assert get((b"priority", b"u=1")).priority == b"u=1"
        head = get((b"priority", b"u=1"), (b"priority", b"i"))
        assert head.priority == b"u=1, i"
        assert head.headers[1:] == [(b"priority", b"u=1"), (b"priority", b"i")]

    def test_daphne_root_path(self) -> None:
        head = get((b"daphne-root-path", b"/a%20b"))
        assert head.root_path == "/a b"
        assert head.headers == [(b"host", b"test")]

    def test_cookie_crumbs_are_joined_where_the_first_stands(self) -> None:
        head = get((b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d"), (b"cookie", b"e=f"))
        assert head.headers == [(b"host", b"test"), (b"cookie", b"a=b; c=d; e=f"), (b"x", b"y")]
        assert get((b"cookie", b"a")).headers == [(b"host", b"test"), (b"cookie", b"a")]


class TestExtendedConnect:
    def test_a_websocket(self) -> None:
        head = check([*TUNNEL, (b"sec-websocket-version", b"13")], ended=False, extended=True)
        assert (head.method, head.protocol, head.websocket) == ("CONNECT", b"websocket", True)
        assert (head.path, head.query_string) == ("/chat", b"a=b")
        assert head.content_length == 0
        assert head.headers == [(b"host", b"test"), (b"sec-websocket-version", b"13")]

    def test_another_protocol(self) -> None:
        with pytest.raises(WireError) as caught:
            check([TUNNEL[0], (b":protocol", b"connect-udp"), *TUNNEL[2:]], extended=True)
        assert caught.value.status == 501

    @pytest.mark.parametrize("missing", [2, 3, 4])
    def test_without_a_pseudo_header_field(self, missing: int) -> None:
        with pytest.raises(MalformedRequest):
            check([*TUNNEL[:missing], *TUNNEL[missing + 1 :]], extended=True)

    def test_a_plain_connect_is_no_extended_one(self) -> None:
        for fields in (CONNECT, [TUNNEL[0], *TUNNEL[2:]]):
            with pytest.raises(MalformedRequest):
                check(fields, extended=True)

    def test_protocol_of_a_get(self) -> None:
        with pytest.raises(MalformedRequest):
            check([*GET, (b":protocol", b"websocket")], extended=True)


class TestTrailers:
    def test_good_ones(self) -> None:
        check_trailer_fields(((b"a", b"b"), (b"grpc_status", b"0")), Config())
        check_trailer_fields((), Config())

    @pytest.mark.parametrize(
        "field", [(b":path", b"/"), (b":status", b"200"), (b"A", b"b"), (b"a", b"b\n"), (b"", b""), (b"upgrade", b"a")]
    )
    def test_malformed(self, field: Field) -> None:
        with pytest.raises(MalformedRequest):
            check_trailer_fields((field,), Config())

    @pytest.mark.parametrize("fields", [((b"a", b"b"),) * 33, ((b"a", b"b" * 8192),), (OVERSIZED,)])
    def test_too_many(self, fields: tuple[Field, ...]) -> None:
        with pytest.raises(WireError) as caught:
            check_trailer_fields(fields, Config())
        assert caught.value.status == 431


def test_what_is_learnt_from_clients_is_bounded() -> None:
    for number in range(3000):
        get((b"x-%d" % number, b"a"), authority=b"host-%d" % number)
    get((b"y" * 1000, b"a"))
    assert len(h2_head._names) <= h2_head._name_memo.most
    assert len(valid_hosts) <= host_memo.most
    assert max(map(len, h2_head._names)) <= 64
