"""Keepers from the settings, and the strings that ask for them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import CannotListenError

from daphne_ng.acme.automatic import PRODUCTION, STAGING, Automatic
from daphne_ng.config import Config
from daphne_ng.endpoints import endpoint_from_string
from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.directory import Challenges
from daphne_ng.serving.wrappers import ServerWrappers


class FakeDirectory:
    def __init__(self, path: str) -> None:
        self.path = path
        self.challenges: Challenges = {}

    def context(self) -> SSL.Context:
        raise NotImplementedError

    def reload(self) -> None:
        raise NotImplementedError


class FakePort:
    def __init__(self, number: int, interface: str) -> None:
        self.port, self.interface = number, interface
        self.stopped = False

    def getHost(self) -> Any:
        return self

    def stopListening(self) -> None:
        self.stopped = True


class FakeReactor:
    """A `ListeningReactor` that opens nothing."""

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        self.refuse = refuse
        self.ports: list[FakePort] = []
        self.changes: list[dict[str, Any]] = []

    def changed(self, **changes: Any) -> FakeReactor:
        self.changes.append(changes)
        return self

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> FakePort:
        if interface in self.refuse:
            raise CannotListenError(interface, port, PermissionError(13, "Permission denied"))
        self.ports.append(FakePort(port, interface))
        return self.ports[-1]


@pytest.fixture
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def automatic(**settings: Any) -> Automatic:
    return Automatic(Config(**settings), FakeDirectory)


def authority_of(made: Automatic) -> list[str]:
    return [keeper._authority for keeper in made._keepers]


def test_le_is_the_real_authority_and_lets_the_staging_server(tmp_path: Path) -> None:
    assert "staging" not in PRODUCTION
    assert "staging" in STAGING
    for staging, url in ((False, PRODUCTION), (True, STAGING)):
        made = automatic()
        made.source(FakeReactor(), str(tmp_path), staging)
        assert authority_of(made) == [url]


def test_the_settings_may_name_another_authority(tmp_path: Path) -> None:
    made = automatic(acme_directory="https://acme.example/dir")
    made.source(FakeReactor(), str(tmp_path), True)
    assert authority_of(made) == ["https://acme.example/dir"]


def test_endpoints_of_one_directory_share_it(tmp_path: Path) -> None:
    made = automatic()
    first = made.source(FakeReactor(), str(tmp_path), True)
    assert made.source(FakeReactor(), str(tmp_path) + "/.", True) is first
    assert len(authority_of(made)) == 1
    with pytest.raises(EndpointError, match="used for both"):
        made.source(FakeReactor(), str(tmp_path), False)


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "certs").mkdir()
    made = automatic()
    assert made.source(FakeReactor(), "~/certs", True).path == str(tmp_path / "certs")  # type: ignore[attr-defined]


def test_what_is_wrong_is_told_before_listening(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="is not a directory"):
        automatic().source(FakeReactor(), str(tmp_path / "none"), True)
    with pytest.raises(EndpointError, match="--acme-directory: http://x should begin with https://"):
        automatic(acme_directory="http://x").source(FakeReactor(), str(tmp_path), True)
    with pytest.raises(EndpointError, match="--acme-ca-certs: /none cannot be read"):
        automatic(acme_ca_certs="/none").source(FakeReactor(), str(tmp_path), True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_told_before_listening(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EndpointError, match="must be readable and writable"):
        automatic().source(FakeReactor(), str(tmp_path), True)


def test_port_80_is_plain_and_opened_once_for_all_directories(tmp_path: Path) -> None:
    made = automatic(acme_challenge="http-01")
    reactor = FakeReactor()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.source(reactor, str(tmp_path / name), True)
    assert [(port.port, port.interface) for port in reactor.ports] == [(80, "::")]
    assert reactor.changes == [{"prelude": None, "tls": None}]
    made.stop()
    assert reactor.ports[0].stopped


def test_port_80_without_ipv6(tmp_path: Path) -> None:
    reactor = FakeReactor(refuse=("::",))
    automatic(acme_challenge="http-01", acme_http_port=8080).source(reactor, str(tmp_path), True)
    assert [(port.port, port.interface) for port in reactor.ports] == [(8080, "")]


def test_a_port_80_that_may_not_be_opened_stops_the_start(tmp_path: Path) -> None:
    made = automatic(acme_challenge="http-01")
    with pytest.raises(EndpointError, match="--acme-http-port: cannot listen on port 80: Permission denied"):
        made.source(FakeReactor(refuse=("::", "")), str(tmp_path), True)


# -- endpoint strings


class Recorder:
    """`EndpointWrappers` that notes what is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def automatic(self, reactor: Any, directory: str, staging: bool) -> str:
        self.asked.append((directory, staging))
        return "source"

    def prelude(self) -> str:
        return "prelude"


@pytest.mark.parametrize(
    ("string", "directory", "staging"),
    [
        ("le:/srv/certs:tcp:0", "/srv/certs", False),
        ("lets:/srv/certs:tcp:0:interface=127.0.0.1", "/srv/certs", True),
        (r"le:C\:\\certs:tcp:0", r"C:\certs", False),
        ("le:/a=b:haproxy:tcp:0", "/a=b", False),
        ("haproxy:le:~/certs:tcp:0", "~/certs", False),
    ],
)
def test_the_strings_of_txacme(string: str, directory: str, staging: bool) -> None:
    recorder, reactor = Recorder(), FakeReactor()
    endpoint_from_string(reactor, string, recorder)  # type: ignore[arg-type]
    assert recorder.asked == [(directory, staging)]
    assert {"tls": "source"} in reactor.changes
    assert ({"prelude": "prelude"} in reactor.changes) == ("haproxy" in string)


@pytest.mark.parametrize("string", ["le:", "le:/srv/certs", "le:/srv/certs:", "lets::tcp:443"])
def test_a_string_without_directory_or_endpoint(string: str) -> None:
    with pytest.raises(EndpointError, match="should read"):
        endpoint_from_string(FakeReactor(), string, Recorder())  # type: ignore[arg-type]


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("daphne_ng.acme.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "josepy", None)
    monkeypatch.setitem(sys.modules, "josepy.b64", None)
    monkeypatch.setitem(sys.modules, "acme", None)
    wrappers = ServerWrappers(Config(), [b"http/1.1"], loop)
    with pytest.raises(EndpointError, match=r"pip install 'daphne-ng\[acme\]'"):
        wrappers.automatic(FakeReactor(), str(tmp_path), True)
