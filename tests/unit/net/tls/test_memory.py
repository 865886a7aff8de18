"""`daphne_ng.net.tls.memory`: what OpenSSL makes of records, however they are cut and whatever they hold."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL

from daphne_ng.net.tls import memory as tls_memory
from daphne_ng.net.tls.memory import TlsBuffers
from tests.support.tls import certificate

APPLICATION_DATA, HANDSHAKE, ALERT = 23, 22, 21  # RFC 8446 section 5.1
KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"  # section 4.6.3
CLOSE_NOTIFY = b"\x01\x00"

KINDS = pytest.mark.parametrize("kind", ["direct", "public"])
VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def context() -> SSL.Context:
    leaf = certificate("localhost")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))
    context.use_privatekey(load_pem_private_key(leaf.private_key_pem.bytes(), None))
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


class Keys:
    """The client's side of TLS 1.3, record by record: what no library lets a test say."""

    def __init__(self, secret: bytes) -> None:
        self._follow(secret)

    def _follow(self, secret: bytes) -> None:
        self._secret = secret
        self._key, self._iv = AESGCM(self._expand(b"key", 32)), int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    # RFC 8446 section 7.1: HKDF-Expand-Label with an empty context.
    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\x00"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def record(self, content: bytes, kind: int = APPLICATION_DATA) -> bytes:
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._key.encrypt(nonce, content + bytes((kind,)), head)

    def update(self) -> bytes:
        """Return the record that asks for new keys. Whatever follows is under ours."""
        record = self.record(KEY_UPDATE_REQUESTED, HANDSHAKE)
        self._follow(self._expand(b"traffic upd", 48))
        return record


class Pair:
    """A client and a `TlsMemory` whose handshake is complete."""

    def __init__(self, context: SSL.Context, kind: str = "direct", version: int = SSL.TLS1_3_VERSION) -> None:
        ours: Any = tls_memory._DirectMemory if kind == "direct" else tls_memory._PublicMemory
        self.memory = ours(context, TlsBuffers())
        theirs = SSL.Context(SSL.TLS_CLIENT_METHOD)
        theirs.set_max_proto_version(version)
        secrets: dict[bytes, bytes] = {}

        def note(connection: Any, line: bytes) -> None:
            label, _random, secret = line.split()
            secrets[label] = bytes.fromhex(secret.decode())

        theirs.set_keylog_callback(note)
        self.client = SSL.Connection(theirs, None)
        self.client.set_connect_state()
        complete = False
        while not complete:
            try:
                self.client.do_handshake()
            except SSL.WantReadError:
                pass
            complete = self.memory.handshake(self.client.bio_read(1 << 16))
            self.client.bio_write(self.memory.output())
        if version == SSL.TLS1_2_VERSION:
            self.client.do_handshake()
        assert self.memory.decrypt(b"") == b""
        self.keys = Keys(secrets.get(b"CLIENT_TRAFFIC_SECRET_0", bytes(48)))

    def record(self, data: bytes) -> bytes:
        self.client.send(data)
        return self.client.bio_read(1 << 16)

    def close(self) -> bytes:
        self.client.shutdown()
        return self.client.bio_read(1 << 16)


@KINDS
@VERSIONS
def test_records_may_be_cut_anywhere(context: SSL.Context, kind: str, version: int) -> None:
    pair = Pair(context, kind, version)
    for size in (1, 2, 30):
        stream = pair.record(b"first") + pair.record(b"second") + pair.record(b"third")
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(pair.memory.decrypt(piece) for piece in pieces) == b"firstsecondthird"
    for at in range(len(stream) + 1):
        stream = pair.record(b"first") + pair.record(b"second") + pair.record(b"third")
        assert pair.memory.decrypt(stream[:at]) + pair.memory.decrypt(stream[at:]) == b"firstsecondthird"
        assert pair.memory.end is None
        assert pair.memory.output() == b""


@KINDS
@VERSIONS
@pytest.mark.parametrize("together", [True, False])
def test_close_notify_is_seen_behind_data(context: SSL.Context, kind: str, version: int, together: bool) -> None:
    pair = Pair(context, kind, version)
    assert pair.memory.decrypt(pair.record(b"one")) == b"one"
    last, farewell = pair.record(b"two"), pair.close()
    if together:
        assert pair.memory.decrypt(last + farewell) == b"two"
    else:
        assert pair.memory.decrypt(last) == b"two"
        assert pair.memory.end is None
        assert pair.memory.decrypt(farewell) == b""
    assert isinstance(pair.memory.end, SSL.ZeroReturnError)
    assert not pair.memory.only_data


@KINDS
@pytest.mark.parametrize("at", [0, 3, 4, 5, 20, -1])
def test_a_record_that_was_tampered_with_is_an_error(context: SSL.Context, kind: str, at: int) -> None:
    pair = Pair(context, kind)
    assert pair.memory.decrypt(pair.record(b"one")) == b"one"
    record = bytearray(pair.record(b"two") + pair.record(bytes(1000)))
    record[at] ^= 1
    data = pair.memory.decrypt(bytes(record))
    # The last byte belongs to the second record.
    assert data == (b"two" if at == -1 else b"")
    assert isinstance(pair.memory.end, SSL.Error)
    assert not pair.memory.only_data
    assert pair.memory.output() != b"", "the alert"


@VERSIONS
def test_only_data_is_said_of_one_small_record_behind_whole_ones(context: SSL.Context, version: int) -> None:
    pair = Pair(context, version=version)
    decrypt = pair.memory.decrypt

    def says(wire: bytes) -> bool:
        decrypt(wire)
        return bool(pair.memory.only_data)

    assert not says(pair.record(b"the first: the handshake may have left something"))
    assert says(pair.record(b"x"))
    assert says(pair.record(b"y"))
    record = pair.record(b"in two reads")
    assert not says(record[:7])
    assert not says(record[7:])
    assert not says(pair.record(b"x"))
    assert says(pair.record(b"whole again"))
    assert not says(pair.record(b"two") + pair.record(b"records"))
    assert not says(pair.record(b"x"))
    assert says(pair.record(b"x"))
    record, following = pair.record(b"a record"), pair.record(b"and a part")
    assert not says(record + following[:3])
    assert not says(following[3:])
    assert not says(b"")
    assert not says(pair.record(b"x"))
    assert says(pair.record(b"x"))
    pair.memory.oversized = False
    assert not says(pair.record(bytes(5000)))
    assert pair.memory.oversized
    assert not says(pair.record(b"x"))
    assert says(pair.record(b"x"))
    assert not says(pair.close())


@KINDS
@pytest.mark.parametrize("cut", ["before", "behind", "both", "neither"])
def test_a_key_update_is_answered_before_the_next_data(context: SSL.Context, kind: str, cut: str) -> None:
    """RFC 8446 section 4.6.3: "the receiver MUST send a KeyUpdate of its own [...] prior to sending its next Application
    Data record." OpenSSL puts it off until then."""
    pair = Pair(context, kind)
    memory, keys = pair.memory, pair.keys

    def read(wire: bytes) -> bytes:
        data = memory.decrypt(wire)
        if not memory.only_data:
            answers.append(memory.output())
        return bytes(data)

    for _ in range(3):
        answers: list[bytes] = []
        assert [read(keys.record(b"%d" % number)) for number in range(4)] == [b"0", b"1", b"2", b"3"]
        assert b"".join(answers) == b""
        stream = [keys.record(b"a"), keys.update(), keys.record(b"b")]
        if cut == "before":
            stream[1:] = [stream[1] + stream[2]]
        elif cut == "behind":
            stream[:2] = [stream[0] + stream[1]]
        elif cut == "neither":
            stream = [b"".join(stream)]
        assert b"".join(map(read, stream)) == b"ab"
        assert read(keys.record(b"c")) == b"c"
        answers.append(bytes(memory.encrypt(b"answer")))
        sent = b"".join(answers)
        assert len(sent) == 5 + len(KEY_UPDATE_REQUESTED) + 17 + 5 + len(b"answer") + 17
        pair.client.bio_write(sent)
        assert pair.client.recv(100) == b"answer"
        assert memory.end is None


def test_key_updates_may_be_cut_anywhere(context: SSL.Context) -> None:
    pair = Pair(context)
    memory, keys = pair.memory, pair.keys
    for at in range(60):
        stream = keys.record(b"a") + keys.update() + keys.record(b"b")
        assert memory.decrypt(stream[:at]) + memory.decrypt(stream[at:]) == b"ab"
        assert memory.end is None
    pair.client.bio_write(memory.output() + bytes(memory.encrypt(b"answer")))
    assert pair.client.recv(100) == b"answer"


@KINDS
@pytest.mark.parametrize("before", [0, 2])
def test_records_that_hold_nothing_are_no_data(context: SSL.Context, kind: str, before: int) -> None:
    """RFC 8446 section 5.4: "Implementations MUST NOT send Handshake and Alert records that have a zero-length
    TLSInnerPlaintext.content"; records of data may be empty."""
    pair = Pair(context, kind)
    memory, keys = pair.memory, pair.keys
    for _ in range(before):
        assert memory.decrypt(keys.record(b"data")) == b"data"
    assert memory.decrypt(keys.record(b"")) == b""
    assert not memory.only_data
    assert memory.decrypt(keys.record(b"") + keys.record(b"data")) == b"data"
    assert memory.end is None
    assert memory.decrypt(keys.record(CLOSE_NOTIFY, ALERT)) == b""
    assert isinstance(memory.end, SSL.ZeroReturnError)
