"""The settings of listening sockets and of the connections that they accept."""

from __future__ import annotations

import re

from daphne_ng.config.setting import SettingGroup, setting
from daphne_ng.errors import ConfigurationError, EndpointError

__all__ = ["SocketSettings", "socket_mode"]


def socket_mode(text: str) -> int:
    """Return the permissions that three octal digits, or four with a zero in front, stand for.

    Raises:
        EndpointError: The text is something else.
    """
    if not re.fullmatch("0?[0-7]{3}", text, re.ASCII):
        raise EndpointError(f"mode {text!r} should be three octal digits, such as 660")
    return int(text, 8)


def _check_mode(label: str, value: str) -> None:
    try:
        socket_mode(value)
    except EndpointError as error:
        raise ConfigurationError(f"{label}: {error}") from None


def _check_owner(label: str, value: str) -> None:
    if value and not re.fullmatch(r"[^:\s]+|[^:\s]*:[^:\s]+", value):
        raise ConfigurationError(f"{label} should read USER, USER:GROUP or :GROUP, not {value!r}")


class SocketSettings(SettingGroup, heading="Sockets"):
    """Listening sockets, and the connections that they accept."""

    backlog = setting(
        2048,
        "connections that the kernel keeps waiting to be accepted, where an endpoint string names no other number",
        flags=("--backlog",),
        minimum=1,
        why="A burst that finds the queue full waits a second for its next try. Linux allows 4096 by default.",
    )
    reuse_port = setting(
        False,
        "let several processes listen on one TCP address (SO_REUSEPORT)",
        flags=("--reuse-port",),
        kind="flag",
        why="Off: a second server started by mistake should fail, and queued connections are lost when one ends.",
    )
    tcp_nodelay = setting(
        True,
        "send small packets at once (TCP_NODELAY)",
        flags=("--tcp-nodelay", "--no-tcp-nodelay"),
        kind="switch",
        why="A response is written in one piece, so that waiting for more only delays it.",
    )
    tcp_keepalive = setting(
        True,
        "have the kernel find out dead peers (SO_KEEPALIVE)",
        flags=("--tcp-keepalive", "--no-tcp-keepalive"),
        kind="switch",
    )
    unix_socket_mode = setting(
        "666",
        "permissions of the UNIX sockets made by --unix-socket, in octal",
        flags=("--unix-socket-mode",),
        why="Daphne's, which is Twisted's: the directory decides who may connect.",
        check=_check_mode,
    )
    unix_socket_owner = setting(
        "",
        "owner of the UNIX sockets made by --unix-socket, as USER, USER:GROUP or :GROUP",
        flags=("--unix-socket-owner",),
        check=_check_owner,
    )
