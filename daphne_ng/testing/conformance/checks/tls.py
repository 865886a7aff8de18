"""The TLS extension."""

from __future__ import annotations

import ssl
from typing import Any

from daphne_ng.testing.conformance.case import OK, Case, long
from daphne_ng.testing.conformance.certificates import CLIENT_NAME
from daphne_ng.testing.conformance.core import EVERY, HTTP1, MAY, MUST, TCP, TLS, UNIX, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that

_WHEN = "TLS: When to use this extension"
_SCOPE = "TLS: TLS Connection Scope"


@that(
    "tls.not-on-plain",
    MUST,
    _WHEN,
    "For non-TLS connections, the ASGI server is forbidden from providing this extension.",
    on=EVERY,
    at=[TCP, UNIX],
)
def not_on_plain(case: Case) -> None:
    if "tls" in (case.scope().get("extensions") or {}):
        raise Failed("it is there")


def _extension(case: Case) -> dict[str, Any]:
    extension = (case.scope().get("extensions") or {}).get("tls")
    if extension is None:
        raise Skipped("the extension is not there")
    if not isinstance(extension, dict):
        raise Failed(f"it is {extension!r}")
    return extension


@that(
    "tls.mandatory-keys",
    MUST,
    _SCOPE,
    "`server_cert` … Mandatory. `tls_version` … Mandatory. `cipher_suite` … Mandatory.",
    on=EVERY,
    at=[TLS],
)
def mandatory(case: Case) -> None:
    extension = _extension(case)
    if missing := [key for key in ("server_cert", "tls_version", "cipher_suite") if key not in extension]:
        raise Failed(f"{', '.join(missing)} missing")


@that(
    "tls.server-cert",
    MUST,
    _SCOPE,
    "`server_cert` (Unicode string or None) -- The PEM-encoded conversion of the x509 certificate sent by the server",
    on=EVERY,
    at=[TLS],
)
def server_cert(case: Case) -> None:
    found = _extension(case).get("server_cert")
    if found is None:
        return
    assert case.address.certificates is not None
    wanted = case.address.certificates.text("cert").strip()
    # Long texts come as their digest, with or without a line end.
    if found not in (long(wanted), long(wanted + "\n"), wanted):
        raise Failed(f"server_cert is {found!r}")


@that(
    "tls.version",
    MUST,
    _SCOPE,
    "`tls_version` (integer or None) … `0x0303` for TLS 1.2 or `0x0304` for TLS 1.3",
    on=EVERY,
    at=[TLS],
)
def tls_version(case: Case) -> None:
    found = _extension(case).get("tls_version")
    if found is not None and (type(found) is not int or found != 0x0304):
        raise Failed(f"tls_version is {found!r}")


@that(
    "tls.cipher-suite",
    MUST,
    _SCOPE,
    "`cipher_suite` (integer or None) … a 16-bit unsigned integer that encodes the pair of 8-bit integers",
    on=[HTTP1],
    at=[TLS],
)
def cipher_suite(case: Case) -> None:
    play = case.play(*OK)
    exchange = case.http1()
    assert isinstance(exchange.socket, ssl.SSLSocket)
    used = exchange.socket.cipher()
    exchange.request("GET", play.target)
    case.whole(exchange)
    extension = (play.scope().get("extensions") or {}).get("tls")
    if extension is None:
        raise Skipped("the extension is not there")
    known = {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_CHACHA20_POLY1305_SHA256": 0x1303}
    found = extension.get("cipher_suite")
    if found is not None and (type(found) is not int or found != known.get(used[0] if used else "", found)):
        raise Failed(f"cipher_suite is {found!r}, the client has {used!r}")


@that(
    "tls.no-client-cert",
    MUST,
    _SCOPE,
    "`client_cert_chain` … If the client did not provide a client certificate then it will be an empty iterable. "
    "`client_cert_name` … then it will be `None`.",
    on=EVERY,
    at=[TLS],
)
def no_client_cert(case: Case) -> None:
    extension = _extension(case)
    chain = extension.get("client_cert_chain", [])
    if not isinstance(chain, (list, tuple)) or list(chain):
        raise Failed(f"client_cert_chain is {chain!r}")
    for key in ("client_cert_name", "client_cert_error"):
        if extension.get(key) is not None:
            raise Failed(f"{key} is {extension[key]!r}")


@that(
    "tls.client-cert",
    MUST,
    _SCOPE,
    "The first certificate is the client certificate. … `client_cert_name` … must be provided and must contain "
    "information that is consistent with `client_cert_chain[0]`",
    on=[HTTP1],
    at=[TLS],
)
def client_cert(case: Case) -> None:
    if case.launcher is None or not case.launcher.asks_for_certificates:
        raise Skipped("the command line has no {ca}: the server asks for no certificates")
    play = case.play(*OK)
    exchange = case.http1(known=True)
    exchange.request("GET", play.target)
    case.whole(exchange)
    extension = (play.scope().get("extensions") or {}).get("tls")
    if extension is None:
        raise Skipped("the extension is not there")
    if not (chain := extension.get("client_cert_chain")):
        raise Skipped("the server does not provide it")
    assert case.address.certificates is not None
    wanted = case.address.certificates.text("client").strip()
    if chain[0] not in (long(wanted), long(wanted + "\n"), wanted):
        raise Failed(f"client_cert_chain is {chain!r}")
    if extension.get("client_cert_name") != CLIENT_NAME:
        raise Failed(f"client_cert_name is {extension.get('client_cert_name')!r}")


@that(
    "tls.spec-version",
    MAY,
    "TLS: asgiref #590",
    "`spec_version` … of this extension",
    on=EVERY,
    at=[TLS],
    proposed=True,
)
def spec_version(case: Case) -> None:
    found = _extension(case).get("spec_version")
    if found is None:
        raise Skipped("not provided")
    if not isinstance(found, str):
        raise Failed(f"spec_version is {found!r}")
