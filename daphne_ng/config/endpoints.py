"""The settings of everything below the protocols: sockets, TLS, proxies, automatic certificates."""

from __future__ import annotations

import re
from dataclasses import dataclass

from daphne_ng.config.processes import ProcessSettings
from daphne_ng.config.setting import setting
from daphne_ng.errors import ConfigurationError, EndpointError

__all__ = ["EndpointSettings", "check_sockets", "socket_mode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings(ProcessSettings):
    """The part of `Config` that says what is listened on, and whom to believe."""

    # -- sockets -----------------------------------------------------------------------------------------
    backlog: int = setting(
        2048,
        "Sockets",
        "connections that the kernel keeps waiting to be accepted, where an endpoint string names no other number",
        flags=("--backlog",),
        minimum=1,
        why="A burst that finds the queue full waits a second for its next try. Linux allows 4096 by default.",
    )
    reuse_port: bool = setting(
        False,
        "Sockets",
        "let several processes listen on one TCP address (SO_REUSEPORT)",
        flags=("--reuse-port",),
        kind="flag",
        why="Off: a second server started by mistake should fail, and queued connections are lost when one ends.",
    )
    tcp_nodelay: bool = setting(
        True,
        "Sockets",
        "send small packets at once (TCP_NODELAY)",
        flags=("--tcp-nodelay", "--no-tcp-nodelay"),
        kind="switch",
        why="A response is written in one piece, so that waiting for more only delays it.",
    )
    tcp_keepalive: bool = setting(
        True,
        "Sockets",
        "have the kernel find out dead peers (SO_KEEPALIVE)",
        flags=("--tcp-keepalive", "--no-tcp-keepalive"),
        kind="switch",
    )
    unix_socket_mode: str = setting(
        "666",
        "Sockets",
        "permissions of the UNIX sockets made by --unix-socket, in octal",
        flags=("--unix-socket-mode",),
        why="Daphne's, which is Twisted's: the directory decides who may connect.",
    )
    unix_socket_owner: str = setting(
        "",
        "Sockets",
        "owner of the UNIX sockets made by --unix-socket, as USER, USER:GROUP or :GROUP",
        flags=("--unix-socket-owner",),
    )

    # -- TLS ---------------------------------------------------------------------------------------------
    ssl_certfile: str = setting(
        "",
        "TLS",
        "PEM file with the certificate and its chain; makes --bind and --port listen with TLS",
        flags=("--ssl-certfile",),
    )
    ssl_keyfile: str = setting(
        "",
        "TLS",
        "PEM file with the private key, if the certificate's does not hold it",
        flags=("--ssl-keyfile",),
    )
    ssl_keyfile_password: str = setting(
        "",
        "TLS",
        "file whose first line is the password of the private key",
        flags=("--ssl-keyfile-password-file",),
        why="A file, because every user of the machine can read the command line.",
    )
    ssl_cert_dir: str = setting(
        "",
        "TLS",
        "directory of NAME.pem files, each with key, certificate and chain, chosen by the name that clients ask for",
        flags=("--ssl-cert-dir",),
    )
    ssl_ca_certs: str = setting(
        "",
        "TLS",
        "PEM file with the authorities that client certificates must come from",
        flags=("--ssl-ca-certs",),
    )
    ssl_cert_reqs: str = setting(
        "none",
        "TLS",
        "client certificates: none, optional, required, or report to let a wrong one pass and tell the application",
        flags=("--ssl-cert-reqs",),
        choices=("none", "optional", "required", "report"),
    )
    ssl_ciphers: str = setting(
        "",
        "TLS",
        "cipher list in OpenSSL's format, for TLS 1.2",
        flags=("--ssl-ciphers",),
        why="Empty for those with forward secrecy and authenticated encryption.",
    )
    ssl_min_version: str = setting(
        "1.2",
        "TLS",
        "oldest version of TLS",
        flags=("--ssl-min-version",),
        choices=("1.2", "1.3"),
        why="RFC 8996 forbids what is older.",
    )
    ssl_reload_interval: float = setting(
        10.0,
        "TLS",
        "how often certificate files are looked at for changes; 0 for SIGHUP only",
        unit="seconds",
        minimum=0,
        why="Three stat() calls; nobody waits longer for a renewed certificate.",
    )

    # -- proxies -----------------------------------------------------------------------------------------
    proxy_address_header: str | None = setting(
        None,
        "Proxies",
        "header that names the client's address; set by --proxy-headers",
    )
    proxy_port_header: str | None = setting(
        None, "Proxies", "header that names the client's port; set by --proxy-headers"
    )
    proxy_proto_header: str | None = setting(
        None, "Proxies", "header that names the client's scheme; set by --proxy-headers"
    )
    forwarded_allow_ips: str = setting(
        "127.0.0.0/8,::1,unix",
        "Proxies",
        "proxies to believe: addresses, networks, unix for UNIX sockets, or * for every peer; separated by commas",
        flags=("--forwarded-allow-ips",),
        why="What anybody may connect to, anybody may send these headers to.",
    )
    proxy_forwarded: bool = setting(
        False,
        "Proxies",
        "take the client's address and scheme from the Forwarded header (RFC 7239) instead of X-Forwarded-*",
        flags=("--proxy-headers-forwarded",),
        kind="flag",
        why="Never both: a proxy that writes one of them passes the other on as the client sent it.",
    )
    proxy_host: bool = setting(
        False,
        "Proxies",
        "replace the Host header by what a trusted proxy says the client asked for (X-Forwarded-Host)",
        flags=("--proxy-headers-replace-host",),
        kind="flag",
        why="Off: few proxies set it, and those that do not pass on the client's.",
    )
    proxy_prefix: bool = setting(
        False,
        "Proxies",
        "take root_path from the X-Forwarded-Prefix header of a trusted proxy",
        flags=("--proxy-headers-prefix",),
        kind="flag",
        why="Off: few proxies set it, and those that do not pass on the client's.",
    )
    root_path_prepend: bool = setting(
        False,
        "Proxies",
        "put root_path in front of every path, for a proxy that strips the prefix",
        flags=("--root-path-prepend",),
        kind="flag",
        why="ASGI has the path hold the root path; a proxy that does not strip needs nothing.",
    )
    proxy_protocol: bool = setting(
        False,
        "Proxies",
        "expect the PROXY protocol, version 1 or 2, at the beginning of every connection, and believe trusted peers",
        flags=("--proxy-protocol",),
        kind="flag",
        why="Its specification forbids to guess whether it is spoken.",
    )
    proxy_protocol_timeout: float = setting(
        5.0,
        "Timeouts",
        "time for the header of the PROXY protocol to arrive",
        unit="seconds",
        minimum=0,
        why="A proxy sends it with the connection's first packet.",
    )

    # -- automatic certificates ----------------------------------------------------------------------------
    acme_directory: str = setting(
        "",
        "Automatic certificates",
        "URL of the ACME directory, instead of the one that le: or lets: stands for",
        flags=("--acme-directory",),
    )
    acme_email: str = setting(
        "",
        "Automatic certificates",
        "address that the certificate authority may write to",
        flags=("--acme-email",),
    )
    acme_challenge: str = setting(
        "tls-alpn-01",
        "Automatic certificates",
        "how to prove that a name is ours: tls-alpn-01 on the port itself, or http-01 on --acme-http-port",
        flags=("--acme-challenge",),
        choices=("tls-alpn-01", "http-01"),
        why="The first needs no second port.",
    )
    acme_http_port: int = setting(
        80,
        "Automatic certificates",
        "port on which http-01 is answered",
        flags=("--acme-http-port",),
        minimum=0,
    )
    acme_ca_certs: str = setting(
        "",
        "Automatic certificates",
        "PEM file with the authority of the ACME server's own certificate, if it is a private one",
        flags=("--acme-ca-certs",),
    )


def socket_mode(text: str) -> int:
    """Return the permissions that three octal digits, or four with a zero in front, stand for.

    Raises:
        EndpointError: The text is something else.
    """
    if not re.fullmatch("0?[0-7]{3}", text, re.ASCII):
        raise EndpointError(f"mode {text!r} should be three octal digits, such as 660")
    return int(text, 8)


def check_tls(settings: EndpointSettings) -> None:
    """Check that the settings of TLS fit together.

    Raises:
        ConfigurationError: Names the setting and what it needs.
    """
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise ConfigurationError("--ssl-keyfile needs --ssl-certfile, the certificate that the key belongs to")
    if settings.ssl_cert_reqs != "none" and not settings.ssl_ca_certs:
        raise ConfigurationError(
            f"--ssl-cert-reqs {settings.ssl_cert_reqs} needs --ssl-ca-certs, the authorities of these certificates"
        )
    if settings.ssl_ca_certs and settings.ssl_cert_reqs == "none":
        raise ConfigurationError(
            "--ssl-ca-certs needs --ssl-cert-reqs: without it no client is asked for a certificate"
        )


def check_sockets(settings: EndpointSettings) -> None:
    """Check the settings of sockets.

    Raises:
        ConfigurationError: Names the setting and the rule.
    """
    try:
        socket_mode(settings.unix_socket_mode)
    except EndpointError as error:
        raise ConfigurationError(f"--unix-socket-mode: {error}") from None
    owner = settings.unix_socket_owner
    if owner and not re.fullmatch(r"[^:\s]+|[^:\s]*:[^:\s]+", owner):
        raise ConfigurationError(f"--unix-socket-owner should read USER, USER:GROUP or :GROUP, not {owner!r}")
