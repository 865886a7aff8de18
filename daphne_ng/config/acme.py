"""The settings of automatic certificates (ACME, RFC 8555)."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["AcmeSettings"]


class AcmeSettings(SettingGroup, heading="Automatic certificates"):
    """Automatic certificates."""

    acme_directory = setting(
        "",
        "URL of the ACME directory, instead of the one that le: or lets: stands for",
        flags=("--acme-directory",),
    )
    acme_email = setting(
        "",
        "address that the certificate authority may write to",
        flags=("--acme-email",),
    )
    acme_challenge = setting(
        "tls-alpn-01",
        "how to prove that a name is ours: tls-alpn-01 on the port itself, or http-01 on --acme-http-port",
        flags=("--acme-challenge",),
        choices=("tls-alpn-01", "http-01"),
        why="The first needs no second port.",
    )
    acme_http_port = setting(
        80,
        "port on which http-01 is answered",
        flags=("--acme-http-port",),
        minimum=0,
    )
    acme_ca_certs = setting(
        "",
        "PEM file with the authority of the ACME server's own certificate, if it is a private one",
        flags=("--acme-ca-certs",),
    )
