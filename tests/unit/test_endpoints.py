"""`daphne_ng.endpoints`: the strings, the endpoints they make, and the sockets behind inherited descriptors."""

import errno
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError

from daphne_ng import endpoints
from daphne_ng.endpoints import build_endpoint_description_strings as build
from daphne_ng.endpoints import (
    describe_listen_error,
    endpoint_from_string,
    family_of_listener,
    split_bind,
    unix_string,
)
from daphne_ng.errors import EndpointError

REACTOR: Any = object()
cannot_listen: Any = CannotListenError


# -- making strings ----------------------------------------------------------------------------------------------


def test_nothing_asked_for_is_no_endpoint() -> None:
    assert build() == []


@pytest.mark.parametrize(
    ("host", "string"),
    [
        ("example.com", "tcp:port=1234:interface=example.com"),
        ("127.0.0.1", "tcp:port=1234:interface=127.0.0.1"),
        ("200a::1", r"tcp:port=1234:interface=200a\:\:1"),
        ("[200a::1]", r"tcp:port=1234:interface=200a\:\:1"),
    ],
)
def test_host_and_port_make_a_tcp_endpoint(host: str, string: str) -> None:
    assert build(host=host, port=1234) == [string]


def test_port_zero_is_a_port() -> None:
    assert build(host="h", port=0) == ["tcp:port=0:interface=h"]


@pytest.mark.parametrize("half", [{"port": 123}, {"port": 0}, {"host": "example.com"}])
def test_host_and_port_go_together(half: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="both host and port"):
        build(**half)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(EndpointError, match=f"between 0 and 65535, not {port}"):
        build(host="h", port=port)


def test_a_path_makes_a_unix_endpoint() -> None:
    assert build(unix_socket="/tmp/daphne.sock") == ["unix:/tmp/daphne.sock"]


def test_a_path_with_special_characters_reaches_twisted_whole() -> None:
    (string,) = build(unix_socket=r"/tmp/a:b=c\d")
    endpoint: Any = endpoint_from_string(REACTOR, string)

    assert isinstance(endpoint, UNIXServerEndpoint)
    assert endpoint._address == r"/tmp/a:b=c\d"


@pytest.mark.parametrize("number", [0, 5])
def test_a_descriptor_makes_an_fd_endpoint(number: int) -> None:
    assert build(file_descriptor=number) == [f"fd:fileno={number}"]


def test_a_negative_descriptor_is_refused() -> None:
    with pytest.raises(EndpointError, match="negative"):
        build(file_descriptor=-1)


def test_options_add_up() -> None:
    assert sorted(build(file_descriptor=123, unix_socket="/tmp/daphne.sock", port=8080, host="10.0.0.1")) == [
        "fd:fileno=123",
        "tcp:port=8080:interface=10.0.0.1",
        "unix:/tmp/daphne.sock",
    ]


# -- endpoints from strings ----------------------------------------------------------------------------------------


def test_a_tcp_string_makes_a_tcp_endpoint_on_the_given_reactor() -> None:
    endpoint: Any = endpoint_from_string(REACTOR, "tcp:port=8000:interface=127.0.0.1")

    assert isinstance(endpoint, TCP4ServerEndpoint)
    assert endpoint._reactor is REACTOR


@pytest.mark.parametrize(
    ("string", "reason"),
    [
        ("imap:", "unknown endpoint type: 'imap'"),
        ("", "unknown endpoint type: ''"),
        ("tcp:abc", "'abc' is not a number"),
        ("tcp:80:volume=11", "wrong arguments: got an unexpected keyword argument 'volume'"),
        ("unix", "wrong arguments: missing 1 required positional argument: 'address'"),
        ("ssl:443:certKey=/no/such.pem:privateKey=/no/such.pem", "No such file or directory: '/no/such.pem'"),
        ("unix:", "names no path"),
        ("unix:/s:mode=9", "mode '9' should be three octal digits, such as 660"),
        ("unix:/s:backlog=x", "'x' is not a number"),
        ("unix:/s\\", "ends in a backslash, which quotes the next character"),
        ("systemd:domain=INET:index=9", "no sockets were inherited: LISTEN_FDS is not set"),
        ("systemd:domain=INET", "should name one socket, by index= or by name="),
        ("systemd:domain=INET:index=0:name=web", "should name one socket, by index= or by name="),
        ("systemd:domain=X25:index=0", "domain=X25 should be INET, INET6 or UNIX"),
        ("tcp:80\\", "ends in a backslash, which quotes the next character"),
    ],
)
def test_a_wrong_string_is_one_line_that_names_it(string: str, reason: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoint_from_string(REACTOR, string)

    assert str(caught.value) == f"endpoint {string!r}: {reason}"


@pytest.mark.parametrize(
    ("string", "address", "mode", "backlog", "takes_over"),
    [
        ("unix:/s", "/s", 0o666, 50, True),
        ("unix:address=/s:backlog=9", "/s", 0o666, 9, True),
        ("unix:/s:660:7:0", "/s", 0o660, 7, False),
        ("unix:/s:lockfile=0:mode=0600", "/s", 0o600, 50, False),
        (r"unix:/a\:b\=c\\d\=e", "/a:b=c\\d=e", 0o666, 50, True),
        (r"unix:address=/a=b\:c", "/a=b:c", 0o666, 50, True),
    ],
)
def test_a_unix_string_means_what_it_means_to_twisted(
    string: str, address: str, mode: int, backlog: int, takes_over: bool
) -> None:
    for endpoint in (endpoint_from_string(REACTOR, string), serverFromString(REACTOR, string)):
        found: Any = endpoint
        assert isinstance(found, UNIXServerEndpoint)
        assert (found._address, found._mode, found._backlog, found._wantPID) == (address, mode, backlog, takes_over)


@pytest.mark.parametrize(
    ("arguments", "string"),
    [
        (("/s",), "unix:/s"),
        (("/s", "0666"), "unix:/s"),
        (("/s", "660", "www-data"), "unix:/s:mode=660:owner=www-data"),
        ((r"/a:b=c\d", "666", "0:1"), r"unix:/a\:b\=c\\d:owner=0\:1"),
    ],
)
def test_a_unix_string_holds_the_settings_that_are_not_twisteds(arguments: tuple[str, ...], string: str) -> None:
    assert unix_string(*arguments) == string


class Facade:
    """As much of a `ListeningReactor` as a string with an owner needs."""

    owner: Any = None

    def changed(self, unix_owner: Any) -> "Facade":
        other = Facade()
        other.owner = unix_owner
        return other


@pytest.mark.parametrize(
    ("owner", "ids"), [("4711", (4711, -1)), (r"4711\:4712", (4711, 4712)), (r"\:4712", (-1, 4712)), ("root", (0, -1))]
)
def test_an_owner_becomes_numbers(owner: str, ids: tuple[int, int]) -> None:
    endpoint: Any = endpoint_from_string(Facade(), f"unix:/s:owner={owner}")
    assert endpoint._reactor.owner == ids


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (r"a\:", "an owner should read USER, USER:GROUP or :GROUP, not 'a:'"),
        (r"\:", "an owner should read USER, USER:GROUP or :GROUP, not ':'"),
        ("no-such-user", "there is no user 'no-such-user'"),
        (r"\:no-such-group", "there is no group 'no-such-group'"),
    ],
)
def test_an_owner_that_is_none_is_refused(owner: str, reason: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoint_from_string(Facade(), f"unix:/s:owner={owner}")
    assert str(caught.value).endswith(reason)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("localhost:80", "localhost", 80),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("::1", "::1", None),
        ("[::1]", "[::1]", None),
        ("[::1]:8443", "[::1]", 8443),
        ("::", "::", None),
        ("1::80", "1::80", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]", 1),
    ],
)
def test_a_port_beside_an_address_is_told_from_ipv6(text: str, host: str, port: int | None) -> None:
    assert split_bind(text) == (host, port)


@pytest.mark.parametrize("text", [":80", "[]:80", "a:", "a:http", "[::1]:", "a:-1", "a:8²"])
def test_half_an_address_is_refused(text: str) -> None:
    with pytest.raises(EndpointError, match="^--bind "):
        split_bind(text)


def test_parsing_strings_imports_no_reactor() -> None:
    script = (
        "import sys\n"
        "from daphne_ng.endpoints import endpoint_from_string\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'twisted']\n"
        "endpoint_from_string(object(), 'tcp:8000')\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)


# -- inherited descriptors -----------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield listening


def fd_refusal(fileno: int) -> str:
    with pytest.raises(EndpointError) as caught:
        endpoint_from_string(REACTOR, f"fd:fileno={fileno}")
    return str(caught.value).removeprefix(f"endpoint 'fd:fileno={fileno}': ")


@pytest.mark.real("the kernel says what a descriptor is")
@pytest.mark.parametrize("form", ["fd:fileno={}", "fd:{}"])
def test_an_inherited_socket_is_found_by_number(listener: socket.socket, form: str) -> None:
    endpoint: Any = endpoint_from_string(REACTOR, form.format(listener.fileno()))

    assert (endpoint.fileno, endpoint.addressFamily) == (listener.fileno(), socket.AF_INET)


@pytest.mark.real("the kernel says what a descriptor is")
def test_looking_at_a_socket_leaves_it_open(listener: socket.socket) -> None:
    family_of_listener(listener.fileno())

    assert listener.getsockname()[1]


@pytest.mark.real("the kernel says what a descriptor is")
@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_the_family_of_an_ipv6_socket_is_found() -> None:
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 address")
        listening.listen(1)

        assert family_of_listener(listening.fileno()) == socket.AF_INET6


@pytest.mark.real("the kernel says what a descriptor is")
def test_the_family_of_a_unix_socket_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a whole path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        listening.listen(1)

        assert family_of_listener(listening.fileno()) == socket.AF_UNIX


@pytest.mark.real("the kernel says what a descriptor is")
def test_a_descriptor_that_is_not_open_is_refused(listener: socket.socket) -> None:
    number = os.dup(listener.fileno())
    os.close(number)

    assert fd_refusal(number) == f"descriptor {number} is not open"


def test_a_descriptor_beyond_any_number_is_refused() -> None:
    assert fd_refusal(10**30) == f"descriptor {10**30} is not open"


def test_a_descriptor_that_is_no_socket_is_refused() -> None:
    read, write = os.pipe()
    try:
        assert fd_refusal(read) == f"descriptor {read} is not a socket"
    finally:
        os.close(read)
        os.close(write)


def test_a_datagram_socket_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        assert fd_refusal(datagram.fileno()) == f"descriptor {datagram.fileno()} is not a stream socket"


def test_a_socket_that_does_not_listen_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert fd_refusal(one.fileno()) == f"descriptor {one.fileno()} is not listening"
        assert one.fileno() >= 0


@pytest.mark.parametrize("string", ["fd:", "fd", "fd:x", "fd:-1", "fd:fileno=", "fd:fileno=3:domain=INET", "fd:³"])
def test_an_fd_string_that_is_none_is_refused(string: str) -> None:
    with pytest.raises(EndpointError) as caught:
        endpoint_from_string(REACTOR, string)

    assert str(caught.value) == f"endpoint {string!r}: should read fd:fileno=N, with N the number of a descriptor"


# -- what systemd says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "descriptors", "names", "complaint"),
    [
        ({}, (), (), "no sockets were inherited: LISTEN_FDS is not set"),
        ({"LISTEN_FDS": "1"}, (), (), "the inherited sockets are not for this process, PID: LISTEN_PID is not set"),
        (
            {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            (),
            (),
            "the inherited sockets are not for this process, PID: LISTEN_PID names process 1",
        ),
        ({"LISTEN_FDS": "0", "LISTEN_PID": "PID"}, (), (), "no sockets were inherited: LISTEN_FDS is '0'"),
        ({"LISTEN_FDS": "x", "LISTEN_PID": "PID"}, (), (), "no sockets were inherited: LISTEN_FDS is 'x'"),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "PID"}, (3, 4), (), ""),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "PID", "LISTEN_FDNAMES": "a:b"}, (3, 4), ("a", "b"), ""),
    ],
)
def test_the_environment_says_what_was_inherited(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    descriptors: tuple[int, ...],
    names: tuple[str, ...],
    complaint: str,
) -> None:
    own = str(os.getpid())
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PID", own))
    before = dict(os.environ)

    found = endpoints._read_environment()
    assert (found.descriptors, found.names, found.complaint) == (
        descriptors,
        names,
        complaint.replace("PID:", f"{own}:"),
    )
    assert dict(os.environ) == before


# -- why nothing listens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (cannot_listen("", 8000, OSError(errno.EADDRINUSE, "x")), "the address is already in use"),
        (cannot_listen("", 8000, OSError(errno.EACCES, "x")), "permission denied"),
        (
            cannot_listen("", 80, OSError(errno.EACCES, "x")),
            "permission denied (ports below 1024 need a privilege)",
        ),
        (cannot_listen(None, "/s", OSError(errno.ENOENT, "x")), "no such directory"),
        (cannot_listen("h", 80, OSError(errno.EADDRNOTAVAIL, "x")), "this machine has no such address"),
        (
            cannot_listen("h", 80, socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
            "the host name cannot be resolved (Name or service not known)",
        ),
        (cannot_listen(None, "/s", "Cannot acquire lock"), "Cannot acquire lock"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OverflowError("bind(): port must be 0-65535.\n"), "bind(): port must be 0-65535."),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_listen_error_is_one_line(error: Exception, reason: str) -> None:
    assert describe_listen_error(error, "tcp:80") == f"cannot listen on tcp:80: {reason}"


def test_an_endpoint_error_says_it_all_already() -> None:
    assert describe_listen_error(EndpointError("endpoint 'x:': wrong"), "x:") == "endpoint 'x:': wrong"


# -- the files of ssl: ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("string", "reason"),
    [
        ("ssl:443", "privateKey= is missing, and Twisted's default, 'server.pem': No such file or directory"),
        ("ssl:443:privateKey=/no/key.pem", "privateKey=/no/key.pem: No such file or directory"),
        ("ssl:443:/no/key.pem", "privateKey=/no/key.pem: No such file or directory"),
        ("ssl:443:privateKey=/dev/null:certKey=/no/cert.pem", "certKey=/no/cert.pem: No such file or directory"),
        ("ssl:443:privateKey=/dev/null:extraCertChain=/no/c", "extraCertChain=/no/c: No such file or directory"),
    ],
)
def test_an_ssl_string_names_the_argument_whose_file_is_missing(
    string: str, reason: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrappers: Any = object()  # is asked for nothing before the files are there

    with pytest.raises(EndpointError) as caught:
        endpoint_from_string(None, string, wrappers)

    assert str(caught.value) == f"endpoint {string!r}: {reason}"
