"""Endpoint strings: making them from the command line's options, and endpoints from them.

A string is what `twisted.internet.endpoints.serverFromString` takes (``tcp:``, ``ssl:``, ``unix:``, ``systemd:`` and
any plugin's), and ``fd:fileno=N``, which is ours: an inherited listening socket, its family asked of the kernel.
Importing this module imports neither Twisted nor a reactor.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from typing import TYPE_CHECKING, Any, Protocol

from daphne_ng.errors import EndpointError

if TYPE_CHECKING:
    from daphne_ng.net.listening import Prelude, TlsSource

__all__ = [
    "EndpointSecurity",
    "build_endpoint_description_strings",
    "describe_listen_error",
    "endpoint_from_string",
    "family_of_listener",
]

_PRIVILEGED_BELOW = 1024


class EndpointSecurity(Protocol):
    """What wrapping endpoint strings are made of; a method raises `EndpointError` if the settings do not allow it."""

    def prelude(self) -> Prelude:
        """Return what reads the PROXY protocol."""

    def tls(self) -> TlsSource:
        """Return the TLS that the server's settings describe."""


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


def endpoint_from_string(reactor: Any, description: str, security: EndpointSecurity | None = None) -> Any:
    """Return the endpoint that a string describes; it does not listen yet.

    Ours are ``fd:``, and those that wrap any other string: ``haproxy:STRING`` (the PROXY protocol comes first) and
    ``tls:STRING`` (TLS as the server's settings have it). They are taken apart before Twisted sees the string,
    so that they may be nested, and no plugin of another package can take them over.

    Args:
        reactor: The reactor that will listen: a `ListeningReactor`, or for strings of Twisted's alone any other.
        description: An endpoint string.
        security: Where wrappers have their parts from.

    Raises:
        EndpointError: The string is wrong, its files cannot be read, or its descriptor is no listening socket.
            The message is one line that names the string.
    """
    try:
        return _endpoint(reactor, description, security)
    except EndpointError as error:
        raise EndpointError(f"endpoint {description!r}: {error}") from error.__cause__


def _endpoint(reactor: Any, description: str, security: EndpointSecurity | None) -> Any:
    prefix, _, rest = description.partition(":")
    if prefix == "fd":
        return _fd_endpoint(reactor, description)
    if prefix in _WRAPPERS and security is not None:
        if not rest:
            raise EndpointError(f"should read {prefix}:STRING, with STRING another endpoint")
        if not hasattr(reactor, "changed"):
            raise EndpointError(f"{prefix}: needs daphne-ng's own reactor, and another is installed")
        if prefix == "haproxy":
            return _endpoint(reactor.changed(prelude=security.prelude()), rest, security)
        return _endpoint(reactor.changed(tls=security.tls()), rest, security)

    from twisted.internet.endpoints import serverFromString

    try:
        parse: Any = serverFromString
        return parse(reactor, description)
    except Exception as error:  # plugins raise what they like
        raise EndpointError(_reason(error)) from error


_WRAPPERS = ("haproxy", "tls")


def _fd_endpoint(reactor: Any, description: str) -> Any:
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint

    fileno = _parse_fd(description)
    adopt: Any = AdoptedStreamServerEndpoint
    return adopt(reactor, fileno, family_of_listener(fileno))


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
        raise EndpointError(f"descriptor {fileno} is not a socket")
    # Given a number only, Python asks the kernel for family and type.
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


# The colon separates arguments, the first equals sign of one makes it a keyword, the backslash quotes.
def _quoted(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)


def _parse_fd(description: str) -> int:
    match = re.fullmatch(r"fd:(?:fileno=)?([0-9]+)", description, re.ASCII)
    if match is None:
        raise EndpointError("should read fd:fileno=N, with N the number of a descriptor")
    return int(match[1])


def _reason(error: Exception) -> str:
    text = _one_line(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    if isinstance(error, TypeError):
        # Python names the function that the string's arguments went to, which is nobody's business.
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
