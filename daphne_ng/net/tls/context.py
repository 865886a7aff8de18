"""pyOpenSSL contexts for servers: protocols, ciphers, sessions, client certificates.

Private names of pyOpenSSL that this module relies on, and does without if they are gone: ``SSL._ffi``, ``SSL._lib`` and
``Connection._reverse_mapping`` (refusing a server name with the right alert, and OpenSSL's words for what is wrong with
a certificate).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.certificates import Identity, read_file

__all__ = [
    "ACME_TLS_ALPN",
    "TlsPolicy",
    "build_context",
    "challenge_context",
    "client_certificate_error",
    "reasons",
]

logger = logging.getLogger("daphne_ng.net.tls_context")

ACME_TLS_ALPN = b"acme-tls/1"
"""The protocol of TLS-ALPN-01 (RFC 8737 section 6.2). Nothing is spoken in it: the certificate is the answer."""

# Forward secrecy and authenticated encryption only. None of RFC 9113's appendix A is among them, so that HTTP/2 may use
# them all. TLS 1.3 has its own list, which needs no choice.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!PSK"
_CIPHERS_DHE = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!PSK:!aNULL:!DSS"

_MIN_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_VERIFY = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    "report": SSL.VERIFY_PEER,
}

# Methods that stand for one version alone; with them no other may be set.
_ANY_VERSION = (SSL.TLS_METHOD, SSL.TLS_SERVER_METHOD, SSL.SSLv23_METHOD)


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """The part that all contexts of a server have in common; see the settings of the same names."""

    protocols: Sequence[bytes] = (b"http/1.1",)
    """ALPN names, the best first."""
    ciphers: str = ""
    min_version: str = "1.2"
    cert_reqs: str = "none"
    ca_certs: str = ""


class _NoSharedProtocol(SSL.Error):
    """Raised in the ALPN callback: pyOpenSSL then sends the alert, and raises this where others raise `SSL.Error`."""


def build_context(
    policy: TlsPolicy,
    identity: Identity | None,
    *,
    method: int = SSL.TLS_SERVER_METHOD,
    dh_parameters: str = "",
    answer: Callable[[SSL.Connection], bool] | None = None,
    choose: Callable[[SSL.Connection], bool] | None = None,
    chosen_by: SSL.Context | None = None,
) -> SSL.Context:
    """Make a context. It can be used by any number of connections, and must not be changed then.

    Args:
        policy: What all have in common.
        identity: The certificate; None for a context that only leads to others.
        method: A method of `SSL`.
        dh_parameters: File with parameters for Diffie-Hellman without curves; without it there is none.
        answer: Called for clients that want the answer to an ACME challenge; sets the context for it and returns True
            if there is one.
        choose: Called for every handshake, also without a server name; sets the context for it. False refuses the name.
        chosen_by: The context whose `choose` sets this one. OpenSSL calls it again, through that context, if it asks
            the client for a second ClientHello; so this one keeps that one alive.

    Raises:
        EndpointError: The list of ciphers is wrong, the authorities cannot be read, OpenSSL will not have the
            certificate, or the method excludes what `TlsPolicy.min_version` asks for.
    """
    context = SSL.Context(method)
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    if policy.ciphers:
        # The order of the setting is meant. Our own list is all of one quality, and the client knows which ciphers its
        # processor is good at.
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if method in _ANY_VERSION:
        context.set_min_proto_version(_MIN_VERSIONS[policy.min_version])
    elif method != SSL.TLSv1_2_METHOD or policy.min_version != "1.2":
        # Such a context would serve no client, or clients that the setting is to keep out.
        raise EndpointError(f"sslmethod allows a server no TLS {policy.min_version}, the --ssl-min-version, or later")
    if dh_parameters:
        try:
            context.load_tmp_dh(dh_parameters)
        except SSL.Error as error:
            raise EndpointError(f"there are no DH parameters in {dh_parameters!r}") from error
    # Sessions are in the tickets that clients keep. A cache would hold a few kilobytes for each client that wants none.
    context.set_session_id(b"daphne-ng")
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER | SSL.SESS_CACHE_NO_INTERNAL)
    if policy.cert_reqs != "none":
        _ask_for_certificates(context, policy)
        if policy.cert_reqs == "report":
            # A resumed session has forgotten what was wrong with its certificate.
            options |= SSL.OP_NO_TICKET
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if identity is not None:
        _install_identity(context, identity)
    context.set_options(options)
    context.set_alpn_select_callback(_selector(policy.protocols, answer))
    if choose is not None:
        _on_server_name(context, choose)
    context.set_app_data(chosen_by)
    try:
        # The ciphers are set last: pyOpenSSL before 26 makes a connection to try them, and then allows no change.
        context.set_cipher_list((policy.ciphers or (_CIPHERS_DHE if dh_parameters else _CIPHERS)).encode("ascii"))
    except (SSL.Error, UnicodeEncodeError) as error:
        raise EndpointError(f"--ssl-ciphers: OpenSSL knows no cipher of {policy.ciphers!r}") from error
    return context


def challenge_context(certificate: Any, key: Any) -> SSL.Context:
    """Make the context that answers one TLS-ALPN-01 challenge, and is good for nothing else.

    Args:
        certificate: The self-signed certificate with the ``acmeIdentifier`` extension.
        key: Its private key. Both are objects of the ``cryptography`` package.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_alpn_select_callback(_selector((ACME_TLS_ALPN,), None))
    context.set_cipher_list(_CIPHERS.encode("ascii"))
    return context


# -- certificates ----------------------------------------------------------------------------------------------


def _install_identity(context: SSL.Context, identity: Identity) -> None:
    try:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        for certificate in identity.chain:
            context.add_extra_chain_cert(certificate)
        context.check_privatekey()
    except SSL.Error as error:
        name = identity.certificate.subject.rfc4514_string()
        raise EndpointError(f"OpenSSL refuses the certificate of {name!r}: {reasons(error)}") from error


def _ask_for_certificates(context: SSL.Context, policy: TlsPolicy) -> None:
    path = policy.ca_certs
    try:
        context.load_verify_locations(path)
        # Browsers offer those of their certificates that one of these has signed.
        context.load_client_ca(path.encode())
    except SSL.Error as error:
        read_file("--ssl-ca-certs", path)
        raise EndpointError(f"--ssl-ca-certs: there is no PEM certificate in {path!r}") from error
    context.set_verify(_VERIFY[policy.cert_reqs], _note_and_pass if policy.cert_reqs == "report" else None)


# The errors of client certificates that were let pass.
_errors: WeakKeyDictionary[SSL.Connection, str] = WeakKeyDictionary()


def _note_and_pass(connection: SSL.Connection, certificate: Any, number: int, depth: int, valid: int) -> bool:
    if not valid:
        # The first error would have ended the handshake.
        _errors.setdefault(connection, _verify_error(number))
    return True


def client_certificate_error(connection: Any) -> str | None:
    """Return what is wrong with the client's certificate, if it was let pass all the same."""
    try:
        return _errors.get(connection)
    except TypeError:  # a proxy of another package around the connection
        return None


def _verify_error(number: int) -> str:
    try:
        text = SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(number)).decode("ascii")  # type: ignore[attr-defined]
    except Exception:
        return f"X.509 verification error {number}"
    return str(text)


def reasons(error: SSL.Error) -> str:
    """Return OpenSSL's own words for what went wrong."""
    if error.args and isinstance(error.args[0], list | tuple):
        found = [entry[-1] for entry in error.args[0] if isinstance(entry, tuple) and entry and entry[-1]]
        return ", ".join(dict.fromkeys(map(str, found)))
    return ", ".join(str(argument) for argument in error.args if argument)


# -- callbacks of the handshake --------------------------------------------------------------------------------


# RFC 7301 section 3.2: "In the event that the server supports no protocols that the client advertises, then the server
# SHALL respond with a fatal 'no_application_protocol' alert." It also keeps what was meant for another service from
# being taken for HTTP. A client that offers none never gets here.
def _selector(
    protocols: Sequence[bytes], answer: Callable[[SSL.Connection], bool] | None
) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    # HTTP/1.0 is the old name that some clients give to HTTP/1.1.
    known = (*protocols, b"http/1.0") if b"http/1.1" in protocols else tuple(protocols)

    def select(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        if answer is not None and ACME_TLS_ALPN in offered and answer(connection):
            return ACME_TLS_ALPN
        for protocol in known:
            if protocol in offered:
                return protocol
        raise _NoSharedProtocol([("SSL routines", "", "no application protocol")])

    return select


def _on_server_name(context: SSL.Context, choose: Callable[[SSL.Connection], bool]) -> None:
    try:
        # pyOpenSSL's own turns an exception into the alert, but prints a traceback too.
        ffi, lib = SSL._ffi, SSL._lib  # type: ignore[attr-defined]
        connections = SSL.Connection._reverse_mapping
        fatal, proceed = lib.SSL_TLSEXT_ERR_ALERT_FATAL, lib.SSL_TLSEXT_ERR_OK

        def called(ssl: Any, alert: Any, argument: Any) -> Any:
            try:
                return proceed if choose(connections[ssl]) else fatal  # with the alert unrecognized_name
            except Exception:
                logger.exception("No certificate could be chosen")
                return fatal

        callback = ffi.callback("int (*)(SSL *, int *, void *)", called)
        lib.SSL_CTX_set_tlsext_servername_callback(context._context, callback)
        context._tlsext_servername_callback = callback
    except AttributeError:
        # A connection that is left without a certificate ends with the alert handshake_failure.
        context.set_tlsext_servername_callback(choose)  # type: ignore[arg-type]
