"""The opening handshake: RFC 6455 section 4.2.1, RFC 7692 section 7.1, and Autobahn as the engine that it is written for."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock, StringTransport

from daphne_ng.errors import WireError
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.websocket.handshake import accept_fields, accept_key, from_connect, from_upgrade

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

Fields = list[tuple[bytes, bytes]]


def head(*fields: tuple[bytes, bytes], method: str = "GET", key: bool = True, version: bool = True) -> RequestHead:
    made = RequestHead()
    made.method = method
    made.headers = [(b"host", b"test"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    if key:
        made.headers.append((b"sec-websocket-key", KEY))
    if version:
        made.headers.append((b"sec-websocket-version", b"13"))
    made.headers += fields
    return made


def refusal(refused: RequestHead) -> WireError:
    with pytest.raises(WireError) as caught:
        from_upgrade(refused)
    return caught.value


class TestFromUpgrade:
    def test_the_least(self) -> None:
        made = head()
        request = from_upgrade(made)
        assert request.head is made
        assert request.key == KEY
        assert request.subprotocols == []
        assert request.deflate_offers == ""

    @pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
    def test_another_method_is_told_which(self, method: str) -> None:
        error = refusal(head(method=method))
        assert (error.status, error.headers) == (405, ((b"allow", b"GET"),))

    @pytest.mark.parametrize("length", [1, -1, 10**9])
    def test_a_body_is_refused_whatever_the_method(self, length: int) -> None:
        for method in ("GET", "POST"):
            made = head(method=method)
            made.content_length = length
            assert refusal(made).status == 400

    def test_a_chunked_body_is_refused(self) -> None:
        made = head()
        made.chunked = True
        assert refusal(made).status == 400

    @pytest.mark.parametrize("versions", [[], [b"8"], [b"13, 8"], [b"13", b"13"], [b"013"], [b""]])
    def test_another_version_is_told_which(self, versions: list[bytes]) -> None:
        error = refusal(head(*[(b"sec-websocket-version", value) for value in versions], version=False))
        assert error.status == 426
        assert error.headers == ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"))

    @pytest.mark.parametrize(
        "keys",
        [
            [],
            [b""],
            [KEY, KEY],
            [KEY[:-1]],
            [KEY[:-4]],
            [KEY + b"\n"],
            [b"x" + KEY],
            [b"dGhlIHNhbXBsZSBub25jZ-=="],
            [b"dGhlIHNhbXBsZSBub25jZQA="],
            [b" dGhlIHNhbXBsZSBub25jZQ=="],
        ],
    )
    def test_a_bad_key_is_refused(self, keys: list[bytes]) -> None:
        assert refusal(head(*[(b"sec-websocket-key", value) for value in keys], key=False)).status == 400

    @given(st.binary(min_size=16, max_size=16))
    def test_any_nonce_is_a_key(self, nonce: bytes) -> None:
        key = base64.b64encode(nonce)
        assert from_upgrade(head((b"sec-websocket-key", key), key=False)).key == key

    @given(st.binary(max_size=40).filter(lambda nonce: len(nonce) != 16))
    def test_no_other_length_is(self, nonce: bytes) -> None:
        assert refusal(head((b"sec-websocket-key", base64.b64encode(nonce)), key=False)).status == 400


class TestSubprotocols:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([b"chat"], ["chat"]),
            ([b"chat, superchat"], ["chat", "superchat"]),
            ([b"b,a", b"c"], ["b", "a", "c"]),
            ([b"Chat,chat"], ["Chat", "chat"]),
            ([b", chat ,,\t x,", b""], ["chat", "x"]),
            ([b"v1.json.x!#$%&'*+-.^_`|~"], ["v1.json.x!#$%&'*+-.^_`|~"]),
        ],
    )
    def test_in_order(self, values: list[bytes], expected: list[str]) -> None:
        assert from_upgrade(head(*[(b"sec-websocket-protocol", value) for value in values])).subprotocols == expected

    @pytest.mark.parametrize(
        "values",
        [[b"a b"], [b"a,a"], [b"a", b"b,a"], [b"caf\xe9"], [b'"a"'], [b"a/b"], [b"a;b"], [b"a\r\nx: y"], [b"a\x00"]],
    )
    def test_malformed_or_twice_is_refused(self, values: list[bytes]) -> None:
        assert refusal(head(*[(b"sec-websocket-protocol", value) for value in values])).status == 400


def offers(*values: bytes) -> str:
    return from_upgrade(head(*[(b"sec-websocket-extensions", value) for value in values])).deflate_offers


class TestDeflateOffers:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"", ""),
            (b"permessage-deflate", "permessage-deflate"),
            (b"Permessage-DEFLATE ; Client_Max_Window_Bits", "permessage-deflate; client_max_window_bits"),
            # RFC 7692 section 7.1.3
            (
                b"permessage-deflate; client_max_window_bits; server_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits",
            ),
            (
                b"permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
            ),
            (
                b"permessage-deflate; client_no_context_takeover; server_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            # quoted values, RFC 6455 section 9.1
            (b'permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
            (b'permessage-deflate;server_max_window_bits = "1\\0"', "permessage-deflate; server_max_window_bits=10"),
            (b"permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
            (b"permessage-deflate; client_max_window_bits=15", "permessage-deflate; client_max_window_bits=15"),
            # others are not our business, the same again says nothing new
            (b"x-webkit-deflate-frame, permessage-deflate, x; a=b; c", "permessage-deflate"),
            (b"permessage-deflate, ,permessage-deflate,", "permessage-deflate"),
            (b"permessage-bzip2; client_max_compress_level=3", ""),
        ],
    )
    def test_canonical(self, value: bytes, expected: str) -> None:
        assert offers(value) == expected

    @pytest.mark.parametrize(
        "parameters",
        [
            b"server_max_window_bits=8",  # legal, but zlib cannot do it
            b"server_max_window_bits",
            b"server_max_window_bits=7",
            b"server_max_window_bits=16",
            b"server_max_window_bits=010",
            b"server_max_window_bits=9; server_max_window_bits=9",
            b"client_max_window_bits=0",
            b"client_max_window_bits=+9",
            b"client_max_window_bits; client_max_window_bits=10",
            b"client_max_window_bits; Client_Max_Window_Bits",
            b"server_no_context_takeover=1",
            b"client_no_context_takeover=true",
            b"client_no_context_takeover; client_no_context_takeover",
            b"unknown",
            b"unknown=1",
        ],
    )
    def test_what_cannot_be_accepted_is_declined_and_the_next_taken(self, parameters: bytes) -> None:
        bad = b"permessage-deflate; " + parameters
        assert offers(bad) == ""
        assert offers(bad + b", permessage-deflate") == "permessage-deflate"
        assert offers(bad, b"permessage-deflate") == "permessage-deflate"

    @pytest.mark.parametrize(
        "value",
        [
            b";",
            b"; a",
            b"a;",
            b"a; =b",
            b"a; b=",
            b'a; b=""',
            b'a; b="c',
            b'a; b="c d"',
            b'a; b="c,d"',
            b'a; b="c;d"',
            b'a; b="c"d',
            b"a; b=c=d",
            b"a b",
            b"a/b",
            b'"a"',
            b"a; b=caf\xe9",
            b"permessage-deflate; server_max_window_bits=1\r\n0",
            b"permessage-deflate, a; b=(",
        ],
    )
    def test_what_is_no_list_of_extensions_is_refused(self, value: bytes) -> None:
        assert refusal(head((b"sec-websocket-extensions", value))).status == 400

    @pytest.mark.parametrize(
        "value",
        [b"a" + b" " * 30000 + b"@", b"a;" * 15000, b"a" * 30000 + b"@", b"a" + b";b" * 15000 + b'="' + b"\\c" * 9000],
    )
    def test_a_long_one_takes_no_time(self, value: bytes) -> None:
        assert refusal(head((b"sec-websocket-extensions", value))).status == 400

    def test_many_say_no_more_than_a_few(self) -> None:
        assert offers(b"permessage-deflate," * 3000) == "permessage-deflate"


# -- properties ------------------------------------------------------------------------------------------

OWS = st.sampled_from([b"", b"", b" ", b"\t", b"  "])


@st.composite
def canonical_offers(draw: st.DrawFn) -> str:
    offer = "permessage-deflate"
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if draw(st.booleans()):
            offer += "; " + name
    bits: Any = draw(st.none() | st.integers(9, 15))
    if bits is not None:
        offer += f"; server_max_window_bits={bits}"
    bits = draw(st.none() | st.just("") | st.integers(8, 15).map("={}".format))
    return offer if bits is None else offer + "; client_max_window_bits" + bits


@st.composite
def spelled(draw: st.DrawFn, offer: str) -> bytes:
    """The same offer in any other way that the grammar allows."""
    name, *parameters = offer.split("; ")
    text = draw(OWS) + draw(st.sampled_from([name, name.upper()])).encode()
    for parameter in draw(st.permutations(parameters)):
        key, mark, value = parameter.partition("=")
        text += draw(OWS) + b";" + draw(OWS) + draw(st.sampled_from([key, key.title()])).encode()
        if mark:
            forms = [value, f'"{value}"', '"' + "".join("\\" + digit for digit in value) + '"']
            text += draw(OWS) + b"=" + draw(OWS) + draw(st.sampled_from(forms)).encode()
    return text + draw(OWS)


NOISE = st.sampled_from(
    [b"", b" ", b"x", b'x; a="b"', b"permessage-deflate; unknown", b"permessage-deflate;client_max_window_bits=7"]
)


@given(st.data())
def test_every_spelling_of_an_offer_reads_the_same(data: st.DataObject) -> None:
    wanted = data.draw(st.lists(canonical_offers(), unique=True, max_size=4))
    parts: list[bytes] = []
    for offer in wanted:
        parts += [data.draw(NOISE), data.draw(spelled(offer))]
    parts.append(data.draw(NOISE))
    cut = data.draw(st.integers(0, len(parts)))
    lines = [b",".join(part) for part in (parts[:cut], parts[cut:]) if part]
    made = offers(*lines)
    assert made == ", ".join(wanted)
    assert offers(made.encode()) == made


GRAMMAR = st.lists(
    st.sampled_from(
        [
            b"permessage-deflate", b"server_max_window_bits", b"client_max_window_bits", b"client_no_context_takeover", b";", b",", b"=", b'"',
            b"\\", b" ", b"\t", b"8", b"9", b"15", b"016", b"chat", b"\xe9", b"\x00", b"(", b"/", b"\r\n",
        ]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip
VALUE = st.one_of(GRAMMAR, st.binary(max_size=30), st.just(KEY), st.just(b"13"))
NAME = st.sampled_from([b"key", b"version", b"protocol", b"extensions", b"accept", b""]).map(
    lambda name: b"sec-websocket-" + name
)


@given(
    fields=st.lists(st.tuples(NAME, VALUE), max_size=5),
    method=st.sampled_from(["GET", "GET", "GET", "POST"]),
    length=st.sampled_from([0, 0, 0, -1, 5]),
    key=st.booleans(),
    version=st.booleans(),
)
def test_any_head_is_a_request_or_a_wire_error(
    fields: Fields, method: str, length: int, key: bool, version: bool
) -> None:
    made = head(*fields, method=method, key=key, version=version)
    made.content_length = length
    try:
        request = from_upgrade(made)
    except WireError:
        return
    assert method == "GET"
    assert length == 0
    assert offers(request.deflate_offers.encode()) == request.deflate_offers


# -- the answer ------------------------------------------------------------------------------------------


def test_the_key_of_the_example_of_rfc_6455_section_1_3() -> None:
    assert accept_key(KEY) == ACCEPT


@given(st.binary(min_size=16, max_size=16))
def test_every_key_is_answered_as_autobahn_answers_it(nonce: bytes) -> None:
    key = base64.b64encode(nonce)
    factory = WebSocketServerFactory(reactor=MemoryReactorClock())
    factory.protocol = WebSocketServerProtocol
    factory.setProtocolOptions(openHandshakeTimeout=0)
    engine = factory.buildProtocol(None)
    transport = StringTransport()
    engine.makeConnection(transport)
    engine.dataReceived(
        b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    assert b"\r\nSec-WebSocket-Accept: " + accept_key(key) + b"\r\n" in transport.value()


def test_the_answer_proves_that_the_key_was_read_and_the_one_over_http2_has_none() -> None:
    upgrade = from_upgrade(head((b"sec-websocket-protocol", b"chat")))
    assert accept_fields(upgrade, "chat", [(b"x-a", b"1")], None) == [
        (b"sec-websocket-accept", ACCEPT),
        (b"sec-websocket-protocol", b"chat"),
        (b"x-a", b"1"),
    ]
    assert accept_fields(from_connect(head(method="CONNECT", key=False)), None, [], None) == []
