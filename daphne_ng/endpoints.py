"""Endpoint strings: making them from the command line's options, and endpoints from them.

A string is what `twisted.internet.endpoints.serverFromString` takes (``tcp:``, ``ssl:`` and any plugin's). Some kinds
are taken apart here, before Twisted sees them:

* ``fd:fileno=N``, an inherited listening socket: Daphne's, with the family asked of the kernel;
* ``systemd:``, Twisted's, with the family asked of the kernel too, and with errors that say what was inherited;
* ``unix:``, Twisted's, and ``owner=`` besides.

Importing this module imports neither Twisted nor a reactor. It keeps what the environment says about inherited sockets,
because `twisted.internet.endpoints` removes that when it is imported.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from daphne_ng.config.sockets import socket_mode
from daphne_ng.errors import EndpointError

if TYPE_CHECKING:
    from daphne_ng.net.sockets.listening import Prelude, TlsSource

__all__ = [
    "EndpointWrappers",
    "build_endpoint_description_strings",
    "describe_listen_error",
    "endpoint_from_string",
    "family_of_listener",
    "listen_for_challenges",
    "split_bind",
    "unix_string",
]


_PRIVILEGED_BELOW = 1024


class EndpointWrappers(Protocol):
    """The parts of wrapping endpoint strings; a method raises `EndpointError` if the settings do not allow it."""

    def prelude(self) -> Prelude:
        """Return the reader of the PROXY protocol's header."""

    def tls(self) -> TlsSource:
        """Return the TLS that the server's settings describe."""

    def directory(self, path: str, label: str) -> TlsSource:
        """Return TLS with the certificates of a directory, by the name that clients ask for.

        Args:
            path: The directory; a tilde is expanded.
            label: What names it, for messages.
        """

    def string(self, description: str, parse: Callable[[], Any], paths: Iterable[str]) -> Any:
        """Return a context factory that follows its files, in place of what Twisted made of an ``ssl:`` string.

        Args:
            description: The string.
            parse: Makes Twisted's, again each time.
            paths: The files that the string names.
        """

    def automatic(self, reactor: Any, directory: str, staging: bool) -> TlsSource:
        """Return TLS with the certificates of a directory, which are asked for when they are missing."""


_FAMILIES = tuple(getattr(socket, name) for name in ("AF_INET", "AF_INET6", "AF_UNIX") if hasattr(socket, name))


def build_endpoint_description_strings(
    host: str | None = None,
    port: int | str | None = None,
    unix_socket: str | None = None,
    file_descriptor: int | str | None = None,
) -> list[str]:
    """Return the endpoint strings for simple options; they add up.

    Args:
        host: Address or name to bind; an IPv6 address with or without brackets.
        port: TCP port; goes with ``host``.
        unix_socket: Path of a UNIX socket to create.
        file_descriptor: Number of an inherited listening socket.

    Raises:
        ValueError: Only one of ``host`` and ``port`` is given.
        EndpointError: The port is out of range, or the descriptor negative.
    """
    strings = []
    if host and port is not None:
        number = int(port)
        if not 0 <= number <= 65535:
            raise EndpointError(f"a port must be between 0 and 65535, not {number}")
        strings.append(f"tcp:port={number}:interface={_quoted(host.strip('[]'))}")
    elif host or port is not None:
        raise ValueError("A TCP endpoint needs both host and port.")
    if unix_socket:
        strings.append(f"unix:{_quoted(unix_socket)}")
    if file_descriptor is not None:
        number = int(file_descriptor)
        if number < 0:
            raise EndpointError(f"a file descriptor must not be negative, and {number} is")
        strings.append(f"fd:fileno={number}")
    return strings


def unix_string(path: str, mode: str = "666", owner: str = "") -> str:
    """Return the endpoint string for a UNIX socket to create.

    Args:
        path: Of the socket.
        mode: Its permissions in octal. Twisted's default is left out.
        owner: ``USER``, ``USER:GROUP`` or ``:GROUP``.
    """
    string = f"unix:{_quoted(path)}"
    if int(mode, 8) != 0o666:
        string += f":mode={mode}"
    if owner:
        string += f":owner={_quoted(owner)}"
    return string


def split_bind(host: str) -> tuple[str, int | None]:
    """Split ``HOST:PORT`` or ``[HOST]:PORT``.

    More than one colon without brackets is an IPv6 address without a port.

    Returns:
        The host as given, brackets included, and the port or None.

    Raises:
        EndpointError: There is no host, or the port is none.
    """
    if host.startswith("unix:"):
        raise EndpointError(f"--bind {host}: a UNIX socket is given with --unix-socket")
    if "/" in host:
        raise EndpointError(f"--bind {host}: should read HOST or HOST:PORT")
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):([^:]*)", host)
    if match is None:
        return host, None
    name, port = match.groups()
    if not name.strip("[]"):
        raise EndpointError(f"--bind {host}: there is no address before the port")
    if not re.fullmatch("[0-9]+", port, re.ASCII):
        raise EndpointError(f"--bind {host}: {port!r} is not a port")
    if int(port) > 65535:
        raise EndpointError(f"--bind {host}: a port must be between 0 and 65535")
    return name, int(port)


def endpoint_from_string(reactor: Any, description: str, wrappers: EndpointWrappers | None = None) -> Any:
    """Return the endpoint that a string describes; it does not listen yet.

    Ours are ``fd:``, and those that wrap any other string: ``haproxy:STRING`` (the PROXY protocol comes first),
    ``tls:STRING`` (TLS as the server's settings have it), ``txsni:DIRECTORY:STRING`` (with the certificates of a
    directory, as in txsni), and ``le:DIRECTORY:STRING`` and ``lets:DIRECTORY:STRING``
    (TLS with certificates from Let's Encrypt or its staging server, as in txacme). They are taken apart before Twisted
    sees the string, so that they may be nested, and no plugin of another package can take them over.

    Args:
        reactor: The reactor that will listen: a `ListeningReactor`, which wrappers and ``owner=`` need, or any other.
        description: An endpoint string.
        wrappers: The parts that wrapping strings are made of.

    Raises:
        EndpointError: The string is wrong, its files cannot be read, or its descriptor is no listening socket.
            The message is one line that names the string.
    """
    try:
        return _endpoint(reactor, description, wrappers)
    except EndpointError as error:
        raise EndpointError(f"endpoint {description!r}: {error}") from error.__cause__


def _endpoint(reactor: Any, description: str, wrappers: EndpointWrappers | None) -> Any:
    prefix, _, rest = description.partition(":")
    if prefix in _OURS:
        try:
            if getattr(reactor, "replays", False):
                return _replayed(reactor, description)
            return _OURS[prefix](reactor, description)
        except (TypeError, ValueError) as error:
            raise EndpointError(_reason(error)) from error
    if prefix in _WRAPPERS and wrappers is not None:
        if not rest:
            raise EndpointError(f"should read {prefix}:STRING, with STRING another endpoint")
        changes, wrapped = _WRAPPERS[prefix](reactor, rest, wrappers)
        return _endpoint(reactor.changed(**changes), wrapped, wrappers)
    if prefix == "ssl" and wrappers is not None:
        return _ssl_endpoint(reactor, description, wrappers)
    return _twisted_endpoint(reactor, description)


def _twisted_endpoint(reactor: Any, description: str) -> Any:
    from twisted.internet.endpoints import serverFromString

    try:
        parse: Any = serverFromString
        return parse(reactor, description)
    except Exception as error:  # plugins raise what they like
        raise EndpointError(_reason(error)) from error


_Wrapped = tuple[dict[str, Any], str]
"""The listen options that a wrapper changes, and the string inside it."""


def _in_proxy_protocol(reactor: Any, rest: str, wrappers: EndpointWrappers) -> _Wrapped:
    return {"prelude": wrappers.prelude()}, rest


def _in_tls(reactor: Any, rest: str, wrappers: EndpointWrappers) -> _Wrapped:
    return {"tls": wrappers.tls()}, rest


def _in_tls_of_directory(reactor: Any, rest: str, wrappers: EndpointWrappers) -> _Wrapped:
    directory, rest = _split_directory("txsni", rest)
    return {"tls": wrappers.directory(directory, "txsni")}, rest


def _in_automatic_tls(reactor: Any, rest: str, wrappers: EndpointWrappers) -> _Wrapped:
    directory, rest = _split_directory("le", rest)
    return {"tls": wrappers.automatic(reactor, directory, False)}, rest


def _in_staging_tls(reactor: Any, rest: str, wrappers: EndpointWrappers) -> _Wrapped:
    directory, rest = _split_directory("lets", rest)
    return {"tls": wrappers.automatic(reactor, directory, True)}, rest


_WRAPPERS: dict[str, Callable[[Any, str, EndpointWrappers], _Wrapped]] = {
    "haproxy": _in_proxy_protocol,
    "tls": _in_tls,
    "txsni": _in_tls_of_directory,
    "le": _in_automatic_tls,
    "lets": _in_staging_tls,
}


def _split_directory(prefix: str, rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"((?:[^:\\]|\\.)+):(.+)", rest, re.DOTALL)
    if match is None:
        raise EndpointError(f"should read {prefix}:DIRECTORY:STRING, with STRING another endpoint")
    return _unquoted(match[1]), match[2]


# Twisted's endpoint makes its context once; ours, which follows the files, takes its place.
def _ssl_endpoint(reactor: Any, description: str, wrappers: EndpointWrappers) -> Any:
    positional, keywords = _arguments(description)
    given = dict(zip(_SSL_ARGUMENTS, positional, strict=False)) | keywords
    for name in _SSL_FILES:
        _check_readable(name, given.get(name))
    endpoint = _twisted_endpoint(reactor, description)
    given.setdefault("privateKey", "server.pem")
    endpoint._sslContextFactory = wrappers.string(
        description,
        lambda: _twisted_endpoint(reactor, description)._sslContextFactory,
        [given[name] for name in _SSL_FILES if name in given],
    )
    return endpoint


_SSL_ARGUMENTS = (
    "port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters"
)  # fmt: skip


# Twisted's own message names the file and not the argument.
def _check_readable(name: str, path: str | None) -> None:
    if path is None and name != "privateKey":
        return
    try:
        with open(path or "server.pem", "rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if path is None:
            raise EndpointError(f"privateKey= is missing, and Twisted's default, 'server.pem': {reason}") from error
        raise EndpointError(f"{name}={path}: {reason}") from error


_SSL_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")


def _fd_endpoint(reactor: Any, description: str) -> Any:
    match = re.fullmatch(r"fd:(?:fileno=)?([0-9]+)", description, re.ASCII)
    if match is None:
        raise EndpointError("should read fd:fileno=N, with N the number of a descriptor")
    return _inherited(reactor, int(match[1]))


def _inherited(reactor: Any, fileno: int) -> Any:
    from daphne_ng.net.sockets.listening import InheritedEndpoint

    return InheritedEndpoint(reactor, fileno, family_of_listener(fileno))


# The process that made the sockets has read what the string means.
def _replayed(reactor: Any, description: str) -> Any:
    from daphne_ng.net.sockets.listening import InheritedEndpoint

    return InheritedEndpoint(reactor, -1, socket.AF_INET)


def _unix_endpoint(reactor: Any, description: str) -> Any:
    def check(
        address: str, mode: str = "666", backlog: str = "50", lockfile: str = "1", owner: str = ""
    ) -> tuple[str, int, int, int, str]:
        return address, socket_mode(mode), int(backlog), int(lockfile), owner

    positional, keywords = _arguments(description)
    address, mode, backlog, lockfile, owner = check(*positional, **keywords)
    if not address:
        raise EndpointError("names no path")
    if owner:
        reactor = reactor.changed(unix_owner=_ids_of(owner))

    from twisted.internet.endpoints import UNIXServerEndpoint

    endpoint: Any = UNIXServerEndpoint
    return endpoint(reactor, address, backlog=backlog, mode=mode, wantPID=bool(lockfile))


# User and group id, -1 for one that is not given. A name comes before a number: it may consist of digits.
def _ids_of(owner: str) -> tuple[int, int]:
    import grp
    import pwd

    user, colon, group = owner.partition(":")
    if not (group if colon else user):
        raise EndpointError(f"an owner should read USER, USER:GROUP or :GROUP, not {owner!r}")
    return (
        _id_of(user, "user", lambda name: pwd.getpwnam(name).pw_uid),
        _id_of(group, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _id_of(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    try:
        return look_up(name)
    except KeyError:
        if re.fullmatch("[0-9]{1,9}", name, re.ASCII):
            return int(name)
        raise EndpointError(f"there is no {kind} {name!r}") from None


@dataclass(frozen=True, slots=True)
class _Inheritance:
    """The sockets that systemd, or a program that acts like it, says it passes; see sd_listen_fds(3)."""

    descriptors: tuple[int, ...]
    names: tuple[str, ...]
    complaint: str = ""
    """Why there are none."""


# Descriptors that are passed begin here (SD_LISTEN_FDS_START).
_FIRST_PASSED = 3


def _read_environment() -> _Inheritance:
    count, process = os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID")
    if count is None:
        return _Inheritance((), (), "no sockets were inherited: LISTEN_FDS is not set")
    if process != str(os.getpid()):
        meant = "LISTEN_PID is not set" if process is None else f"LISTEN_PID names process {process}"
        return _Inheritance((), (), f"the inherited sockets are not for this process, {os.getpid()}: {meant}")
    if not re.fullmatch("[0-9]{1,4}", count, re.ASCII) or not int(count):
        return _Inheritance((), (), f"no sockets were inherited: LISTEN_FDS is {count!r}")
    names = os.environ.get("LISTEN_FDNAMES")
    return _Inheritance(
        tuple(range(_FIRST_PASSED, _FIRST_PASSED + int(count))), tuple(names.split(":")) if names is not None else ()
    )


_AT_IMPORT = _read_environment()


def _inheritance() -> _Inheritance:
    if _AT_IMPORT.descriptors:
        return _AT_IMPORT
    # Twisted may have read the environment first. It keeps its findings in an attribute that is not public.
    from twisted.internet import endpoints

    found = getattr(getattr(endpoints, "_SystemdParser", None), "_sddaemon", None)
    if found is None or not found.inheritedDescriptors():
        return _AT_IMPORT
    names = {number: name for name, number in found.inheritedNamedDescriptors().items()}
    descriptors = found.inheritedDescriptors()
    return _Inheritance(tuple(descriptors), tuple(names.get(number, "") for number in descriptors))


def _systemd_endpoint(reactor: Any, description: str) -> Any:
    def check(
        domain: str = "", index: str | None = None, name: str | None = None
    ) -> tuple[str, str | None, str | None]:
        return domain, index, name

    positional, keywords = _arguments(description)
    domain, index, name = check(*positional, **keywords)
    # The kernel knows the family, so a wrong one in the string does no harm. Wrong ones are frequent: the socket of
    # ListenStream=8000 is IPv6, and serves IPv4 as well.
    if domain not in ("", "INET", "INET6", "UNIX"):
        raise EndpointError(f"domain={domain} should be INET, INET6 or UNIX")
    if (index is None) == (name is None):
        raise EndpointError("should name one socket, by index= or by name=")
    passed = _inheritance()
    if not passed.descriptors:
        raise EndpointError(passed.complaint)
    if name is not None:
        if passed.names.count(name) == 1 and passed.names.index(name) < len(passed.descriptors):
            return _inherited(reactor, passed.descriptors[passed.names.index(name)])
        several = f"{passed.names.count(name)} sockets are named" if name in passed.names else "no socket is named"
        raise EndpointError(f"{several} {name!r}: inherited are {_shown(passed)}")
    assert index is not None  # one of them is given
    if not re.fullmatch("[0-9]{1,9}", index, re.ASCII):
        raise EndpointError(f"index={index} is not a number")
    if int(index) >= len(passed.descriptors):
        raise EndpointError(f"there is no socket {index}: inherited are {_shown(passed)}")
    return _inherited(reactor, passed.descriptors[int(index)])


def _shown(passed: _Inheritance) -> str:
    named = len(passed.names) == len(passed.descriptors)
    return ", ".join(
        f"{index} ({passed.names[index]!r})" if named else str(index) for index in range(len(passed.descriptors))
    )


_OURS: dict[str, Callable[[Any, str], Any]] = {
    "fd": _fd_endpoint,
    "systemd": _systemd_endpoint,
    "unix": _unix_endpoint,
}


# Twisted's function for its rules is not public: the colon separates, the first equals sign of an argument makes it a
# keyword, the backslash quotes.
def _arguments(description: str) -> tuple[list[str], dict[str, str]]:
    positional: list[str] = []
    keywords: dict[str, str] = {}
    if re.search(r"(?<!\\)(?:\\\\)*\\$", description):
        raise EndpointError("ends in a backslash, which quotes the next character")
    for argument in re.findall(r":((?:[^:\\]|\\.)*)", description, re.DOTALL):
        keyword = re.fullmatch(r"((?:[^=\\]|\\.)*)=(.*)", argument, re.DOTALL)
        if keyword is None:
            positional.append(_unquoted(argument))
        else:
            keywords[_unquoted(keyword[1])] = _unquoted(keyword[2])
    return positional, keywords


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def family_of_listener(fileno: int) -> socket.AddressFamily:
    """Return the address family of an inherited listening socket, which stays open and unchanged.

    Raises:
        EndpointError: The descriptor is not open, no socket, no stream, not listening, or of an unknown family.
    """
    try:
        mode = os.fstat(fileno).st_mode
    except (OSError, OverflowError):
        raise EndpointError(f"descriptor {fileno} is not open") from None
    if not stat.S_ISSOCK(mode):
        if fileno == 0:
            # Daphne's documentation shows the option for supervisor, where it works in one kind of section only.
            raise EndpointError(
                "descriptor 0 is not a socket: supervisor passes one as standard input in an [fcgi-program] section "
                "with socket=, not in a [program] section"
            )
        raise EndpointError(f"descriptor {fileno} is not a socket")
    # Python asks the kernel for family and type when it is given a number only.
    borrowed = socket.socket(fileno=fileno)
    try:
        if borrowed.type != socket.SOCK_STREAM:
            raise EndpointError(f"descriptor {fileno} is not a stream socket")
        if borrowed.family not in _FAMILIES:
            raise EndpointError(f"descriptor {fileno} is neither a TCP nor a UNIX socket")
        try:
            listening = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except (AttributeError, OSError):  # a platform that cannot tell
            listening = 1
        if not listening:
            raise EndpointError(f"descriptor {fileno} is not listening")
        return borrowed.family
    finally:
        borrowed.detach()


def listen_for_challenges(reactor: Any, port: int, factory: Any) -> Any:
    """Listen where a certificate authority looks for http-01; return the port.

    By the same call in a supervisor and in its workers, which get what the supervisor has made.

    Args:
        reactor: A `ListeningReactor`. Whatever wraps an endpoint is not spoken there.
        port: TCP port.
        factory: A protocol factory.

    Raises:
        EndpointError: It cannot be listened on.
    """
    from twisted.internet.error import CannotListenError

    plain = reactor.changed(prelude=None, tls=None)
    try:
        try:
            return plain.listenTCP(port, factory, interface="::")  # with IPv4, where the system lets it
        except (CannotListenError, OSError):
            return plain.listenTCP(port, factory)
    except (CannotListenError, OSError, OverflowError) as error:
        cause = getattr(error, "socketError", error)
        reason = getattr(cause, "strerror", None) or cause
        raise EndpointError(f"--acme-http-port: cannot listen on port {port}: {reason}") from error


def describe_listen_error(error: BaseException, description: str) -> str:
    """Return one line that says why nothing can be listened on at ``description``.

    Args:
        error: What ``listen()`` failed with: Twisted's `CannotListenError`, an `OSError`, or anything else.
        description: The endpoint string.
    """
    if isinstance(error, EndpointError):
        return str(error)  # names its string already
    cause = getattr(error, "socketError", error)
    number = getattr(cause, "errno", None)
    if isinstance(cause, socket.gaierror):
        reason = f"the host name cannot be resolved ({cause.strerror})"
    elif number == errno.EADDRINUSE:
        reason = "the address is already in use"
    elif number in (errno.EACCES, errno.EPERM):
        reason = "permission denied"
        port = getattr(error, "port", None)
        if isinstance(port, int) and 0 < port < _PRIVILEGED_BELOW:
            reason += f" (ports below {_PRIVILEGED_BELOW} need a privilege)"
    elif number == errno.EADDRNOTAVAIL:
        reason = "this machine has no such address"
    elif number == errno.ENOENT:
        reason = "no such directory"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = cause.strerror
    else:
        reason = _one_line(cause) or type(cause).__name__
    return f"cannot listen on {description}: {reason}"


# The inverse of `_unquoted`, for a value among `_arguments`.
def _quoted(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)


def _reason(error: Exception) -> str:
    text = _one_line(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    if isinstance(error, TypeError):
        # Python's message names a function of ours, of which a user knows nothing.
        return "wrong arguments: " + re.sub(r"^[\w.<>]+\(\) ", "", text)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        return "ends in a backslash, which quotes the next character"
    if isinstance(error, IndexError | KeyError):
        return f"names something that does not exist ({type(error).__name__}: {text})"
    if number := re.fullmatch(r"invalid literal for int\(\) with base \d+: (.*)", text):
        return f"{number[1]} is not a number"
    if isinstance(error, ValueError) and text:
        return text[:1].lower() + text[1:] if text.startswith("Unknown ") else text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
