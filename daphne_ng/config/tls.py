"""The settings of TLS: certificates, client certificates, versions and ciphers."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["TlsSettings"]


class TlsSettings(SettingGroup, heading="TLS"):
    """Certificates, client certificates, versions and ciphers."""

    ssl_certfile = setting(
        "",
        "PEM file with the certificate and its chain; makes --bind and --port listen with TLS",
        flags=("--ssl-certfile",),
    )
    ssl_keyfile = setting(
        "",
        "PEM file with the private key, if the certificate's does not hold it",
        flags=("--ssl-keyfile",),
    )
    ssl_keyfile_password = setting(
        "",
        "file whose first line is the password of the private key",
        flags=("--ssl-keyfile-password-file",),
        why="A file, because every user of the machine can read the command line.",
    )
    ssl_cert_dir = setting(
        "",
        "directory of NAME.pem files, each with key, certificate and chain, chosen by the name that clients ask for",
        flags=("--ssl-cert-dir",),
    )
    ssl_ca_certs = setting(
        "",
        "PEM file with the authorities that client certificates must come from",
        flags=("--ssl-ca-certs",),
    )
    ssl_cert_reqs = setting(
        "none",
        "client certificates: none, optional, required, or report to let a wrong one pass and tell the application",
        flags=("--ssl-cert-reqs",),
        choices=("none", "optional", "required", "report"),
    )
    ssl_ciphers = setting(
        "",
        "cipher list in OpenSSL's format, for TLS 1.2",
        flags=("--ssl-ciphers",),
        why="Empty for those with forward secrecy and authenticated encryption.",
    )
    ssl_min_version = setting(
        "1.2",
        "oldest version of TLS",
        flags=("--ssl-min-version",),
        choices=("1.2", "1.3"),
        why="RFC 8996 forbids what is older.",
    )
    ssl_reload_interval = setting(
        10.0,
        "how often certificate files are looked at for changes; 0 for SIGHUP only",
        unit="seconds",
        minimum=0,
        why="Three stat() calls; nobody waits longer for a renewed certificate.",
    )
