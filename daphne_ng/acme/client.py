"""One session with a certificate authority (RFC 8555). Blocks; runs in the keeper's thread.

The ``acme`` library signs, counts nonces, and turns problem documents into exceptions. What is said and in which
order stands here, because the library's own loops sleep and cannot be woken, and because it knows no
TLS-ALPN-01. Nothing that the authority sends is trusted to have the right shape: whatever is raised over it becomes a
`Failure`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import requests
from acme import errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from josepy.b64 import b64encode
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256, RS256
from josepy.jwk import JWK, JWKEC, JWKRSA
from requests.adapters import HTTPAdapter

import daphne_ng
from daphne_ng.acme.challenges import Prover
from daphne_ng.acme.failure import Cancelled, Failure, one_line
from daphne_ng.acme.storage import AccountKey

__all__ = ["Session"]

NETWORK_SECONDS = 30
"""Seconds for a connection, and for each part of an answer."""
ANSWER_MAX_BYTES = 1 << 20
ANSWER_MAX_SECONDS = 60.0
"""How long an answer may be, and how long it may take. The longest is a certificate with its chain: a few kilobytes."""
VALIDATION_SECONDS = 120.0
ISSUE_SECONDS = 120.0
"""How long the authority may take to look at the proof, and to make the certificate. Both take seconds."""
FIRST_POLL_SECONDS, POLL_MAX_SECONDS = 1.0, 10.0
NONCE_ATTEMPTS = 20
"""RFC 8555, 6.5: with badNonce, "the client SHOULD retry". The library does so once."""

_TYPES: dict[Any, str] = {str: "a text", dict: "an object", list: "a list"}


class Session:
    """A session, for any number of orders one after another.

    Args:
        directory: URL of the ACME directory.
        key: The account's.
        email: Contact of the account, or empty.
        ca_certs: PEM file with the authority of the server's certificate, or empty for the public ones.
        pause: Waits for some seconds; raises `Cancelled` if the server stops.
        clock: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        directory: str,
        key: AccountKey,
        *,
        email: str = "",
        ca_certs: str = "",
        pause: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = directory
        self._email = email
        self._pause = pause
        self._clock = clock
        self._jwk: JWK
        if isinstance(key, rsa.RSAPrivateKey):
            self._jwk, algorithm = JWKRSA(key=key), RS256
        else:
            self._jwk, algorithm = JWKEC(key=key), ES256
        agent = f"daphne-ng/{daphne_ng.__version__} acme-python"
        self._net = _Network(self._jwk, alg=algorithm, user_agent=agent, timeout=NETWORK_SECONDS)
        if ca_certs:
            self._net.verify_ssl = ca_certs  # type: ignore[assignment]  # handed to requests, which takes a path too
        self._client: _Client | None = None

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(Exception):
            self._net.session.close()

    def open(self) -> str:
        """Fetch the directory and the account, which is made if there is none.

        Returns:
            URL of the terms of service of a new account; empty if there are none, or for an account that was there.

        Raises:
            Failure: It did not work, which is so for every name.
            Cancelled: The server stops.
        """
        with self._failures(everyone=True):
            directory = ClientV2.get_directory(self._url, self._net)
            for resource in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(directory[resource], str):
                    raise Failure(f"{self._url} is no ACME directory", everyone=True)
            self._client = client = _Client(directory, self._net)
            if client.external_account_required():
                raise Failure("the authority wants an external account, which is not supported", everyone=True)
            message: dict[str, Any] = {"termsOfServiceAgreed": True}
            if self._email:
                message["contact"] = [f"mailto:{self._email}"]
            response = client.send(directory["newAccount"], message)
            uri = response.headers.get("Location", "")
            if not uri:
                raise Failure("the authority did not say which account is ours", everyone=True)
            # From here on messages name the account instead of bringing its key (RFC 8555, 6.2).
            self._net.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
            terms = getattr(directory["meta"], "terms_of_service", None)
            return one_line(terms) if terms and response.status_code == 201 else ""

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey, prover: Prover) -> bytes:
        """Return a certificate of `name` and its chain, as PEM. To be called after `open`.

        Raises:
            Failure: There is none.
            Cancelled: The server stops.
        """
        client = self._client
        assert client is not None  # opened
        with self._failures():
            order_url, order = client.post_json(
                client.directory["newOrder"], {"identifiers": [{"type": "dns", "value": name}]}
            )
            for url in _field(order, "authorizations", list):
                self._authorize(client, str(url), name, prover)
            order = self._wait_for(client, order_url, ("ready", "valid"), ("pending",), VALIDATION_SECONDS)
            if order["status"] == "ready":
                request = _signing_request(name, key).public_bytes(Encoding.DER)
                client.post_json(_field(order, "finalize", str), {"csr": b64encode(request).decode("ascii")})
                order = self._wait_for(client, order_url, ("valid",), ("ready", "processing"), ISSUE_SECONDS)
            chain: bytes = client.fetch(_field(order, "certificate", str)).content
            return chain

    def suggested_renewal(self, certificate: bytes) -> float | None:
        """Return when the authority would have a certificate renewed (RFC 9773), if it says so.

        Args:
            certificate: As PEM.

        Returns:
            Seconds since the epoch.
        """
        client = self._client
        assert client is not None  # opened
        if "renewalInfo" not in client.directory.to_partial_json():
            return None
        try:
            when, _ask_again = client.renewal_time(certificate)
            return when.timestamp() if when is not None else None
        except Exception:  # of no consequence: our own rule holds
            return None

    # -- one authorization -----------------------------------------------------------------------------------

    def _authorize(self, client: _Client, url: str, name: str, prover: Prover) -> None:
        _, authorization = client.fetch_json(url)
        status = _field(authorization, "status", str)
        if status == "valid":
            return  # proved before, and remembered
        if status != "pending":
            raise Failure(f"the authority has an authorization that is {status}")
        offered = [item for item in _field(authorization, "challenges", list) if isinstance(item, dict)]
        challenge = next((item for item in offered if item.get("type") == prover.kind), None)
        if challenge is None:
            kinds = ", ".join(str(item.get("type")) for item in offered)
            raise Failure(f"the authority does not offer {prover.kind} for it, but {kinds or 'nothing'}")
        token = _field(challenge, "token", str)
        # RFC 8555, 8.1: the token, a period, and the thumbprint of the account's key.
        thumbprint = b64encode(self._jwk.thumbprint(hash_function=hashes.SHA256)).decode("ascii")
        prover.prove(name, token, f"{token}.{thumbprint}")
        try:
            client.post_json(_field(challenge, "url", str), {})
            self._wait_for(client, url, ("valid",), ("pending", "processing"), VALIDATION_SECONDS)
        except Cancelled:
            # The proof stays: the authority may be looking at this moment, and other processes answer.
            raise
        except BaseException:
            prover.forget(name, token)
            raise
        prover.forget(name, token)

    # The object is fetched again and again until its status is one of `good`.
    def _wait_for(
        self, client: _Client, url: str, good: tuple[str, ...], waiting: tuple[str, ...], seconds: float
    ) -> dict[str, Any]:
        deadline = self._clock() + seconds
        delay = FIRST_POLL_SECONDS / 4
        while True:
            response, found = client.fetch_json(url)
            status = _field(found, "status", str)
            if status in good:
                return found
            if status not in waiting:
                raise Failure(_complaints(found) or f"the authority says that it is {status}")
            left = deadline - self._clock()
            if left <= 0:
                raise Failure(f"the authority still says that it is {status}, after {seconds:.0f} seconds")
            asked = retry_after(response)
            self._pause(min(max(delay, min(asked, POLL_MAX_SECONDS)), left))
            delay = min(delay * 2, POLL_MAX_SECONDS)

    # Every exception over an answer, or over none, becomes a `Failure`.
    @contextlib.contextmanager
    def _failures(self, everyone: bool = False) -> Iterator[None]:
        try:
            yield
        except (Failure, Cancelled):
            raise
        except messages.Error as error:
            self._refused(error, everyone)
        except requests.Timeout as error:
            raise Failure("the authority does not answer in time", everyone=True) from error
        except requests.JSONDecodeError as error:
            raise Failure("the authority's answer is not understood: it is no JSON", everyone=True) from error
        except requests.RequestException as error:
            raise Failure(f"the authority cannot be reached: {_innermost(error)}", everyone=True) from error
        except errors.ClientError as error:
            response = self._net.last
            if response is not None and not response.ok:
                detail = f"the authority answered {response.status_code} without an explanation"
                raise Failure(detail, retry_after=retry_after(response), everyone=True) from error
            raise Failure(f"the authority's answer is not understood: {error}", everyone=True) from error
        except Exception as error:  # of the wrong shape
            detail = f"the authority's answer is not understood: {type(error).__name__}: {error}"
            raise Failure(detail, everyone=True) from error

    def _refused(self, error: messages.Error, everyone: bool) -> NoReturn:
        response = self._net.last
        status = response.status_code if response is not None else 0
        if not messages.is_acme_error(error):  # a proxy, perhaps
            detail = f"the authority answered {status} {error.detail or 'without an explanation'}"
            raise Failure(detail, retry_after=retry_after(response), everyone=True) from error
        code = str(error.typ).rpartition(":")[2]
        raise Failure(
            f"{code}: {error.detail}" if error.detail else code,
            retry_after=retry_after(response),
            rate_limited=code == "rateLimited",
            # A refusal of one name says nothing about the next, unless the server is broken or busy.
            everyone=everyone or status >= 500 or code in ("serverInternal", "accountDoesNotExist", "badNonce"),
        ) from error


class _Bounded:
    """The body of an answer, as ``requests`` reads it, that does not go on for ever."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        size, end = 0, time.monotonic() + ANSWER_MAX_SECONDS
        for piece in self._raw.stream(*args, **kwargs):
            size += len(piece)
            if size > ANSWER_MAX_BYTES or time.monotonic() > end:
                self._raw.close()
                raise Failure("the authority's answer does not end", everyone=True)
            yield piece


class _Adapter(HTTPAdapter):
    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(*args, **kwargs)
        response.raw = _Bounded(response.raw)
        return response


class _Network(ClientNetwork):
    """Remembers the last response, is patient about nonces, and reads no more than an answer can be."""

    last: requests.Response | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session.mount("https://", _Adapter())
        self.session.mount("http://", _Adapter())

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.last = None
        self.last = response = super()._send_request(method, url, *args, **kwargs)
        return response

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """See ``ClientNetwork``."""
        for _ in range(NONCE_ATTEMPTS - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)


class _Client(ClientV2):
    """Sends and receives JSON as it is."""

    def send(self, url: str, message: dict[str, Any]) -> requests.Response:
        return self._post(url, _Message(message))

    def fetch(self, url: str) -> requests.Response:
        return self._post_as_get(url)

    # The result is the URL of the object that was made, and the object.
    def post_json(self, url: str, message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        response = self.send(url, message)
        return response.headers.get("Location", ""), _object(response)

    def fetch_json(self, url: str) -> tuple[requests.Response, dict[str, Any]]:
        response = self.fetch(url)
        return response, _object(response)


class _Message(JSONDeSerializable):
    """An object as the payload of a message. True even if it is empty, which the library takes for no payload."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def to_partial_json(self) -> dict[str, Any]:
        return self._fields

    @classmethod
    def from_json(cls, jobj: Any) -> _Message:
        return cls(jobj)


def retry_after(response: requests.Response | None) -> float:
    """Return the seconds that a response asks to wait, in either form of Retry-After; 0 for none."""
    value = response.headers.get("Retry-After") if response is not None else None
    if not value:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _object(response: requests.Response) -> dict[str, Any]:
    found = response.json()
    if not isinstance(found, dict):
        raise Failure("the authority's answer is not understood: it is no object", everyone=True)
    return found


def _field(found: dict[str, Any], name: str, kind: type) -> Any:
    value = found.get(name)
    if not isinstance(value, kind):
        raise Failure(f"the authority's answer is not understood: {name} is not {_TYPES[kind]}", everyone=True)
    return value


# The problems that a failed order or authorization lists.
def _complaints(found: dict[str, Any]) -> str:
    problems = [found.get("error")]
    challenges = found.get("challenges")
    if isinstance(challenges, list):
        problems += [challenge.get("error") for challenge in challenges if isinstance(challenge, dict)]
    texts = []
    for problem in problems:
        if isinstance(problem, dict):
            code = str(problem.get("type", "")).rpartition(":")[2]
            texts.append(": ".join(filter(None, (code, str(problem.get("detail", ""))))))
    return "; ".join(texts)


def _signing_request(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    # No common name: RFC 5280 has it at most 64 characters long, and browsers look at the other field.
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256())


# The end of "Max retries exceeded with url ... (Caused by NewConnectionError(... [Errno 111] Connection refused))".
def _innermost(error: BaseException) -> str:
    seen = 0
    reason: Any = error
    while seen < 10:
        inner = getattr(reason, "reason", None) or (reason.args[0] if getattr(reason, "args", None) else None)
        if not isinstance(inner, BaseException):
            break
        reason, seen = inner, seen + 1
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return re.sub(r"^\[Errno -?\d+\] ", "", one_line(reason).rpartition(": ")[2]) or type(reason).__name__
