"""The answers to challenges, in files that every process that shares a directory sees.

The authority connects to a name, and any of the processes that listen there may accept. So a proof is a file in a
directory beside the certificates, and is looked up when it is asked for: no process has to be told.

=======================================  ===========================================================
file                                     holds
=======================================  ===========================================================
``.acme-challenges/SHA256``              a key authorization (RFC 8555, 8.1), in ASCII
=======================================  ===========================================================

The name is the digest of the challenge's type and of the host name or token. So nothing that a client or the authority
has sent becomes part of a path. The directory is for its owner only (0700), as are the files (0600).

Only the process that holds the lock writes. It removes what it has written; what a process left that was killed is
removed by the next when it is old (`Proofs.tidy`). Until then it is answered, since the authority may still look.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time

from daphne_ng.acme.failure import Failure
from daphne_ng.acme.storage import write_file

__all__ = ["Proofs"]

DIRECTORY = ".acme-challenges"
PROOF_MAX_BYTES = 4096
"""Bytes of a key authorization; Let's Encrypt's have 87."""
STALE_SECONDS = 600.0
"""The age from which a proof is of no use to anybody. A session waits 120 s for the authority to look."""


class Proofs:
    """The proofs of one directory.

    Args:
        path: The directory of the certificates, which exists.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.join(path, DIRECTORY)

    def put(self, kind: str, label: str, authorization: str) -> None:
        """Have a challenge answered from now on, by all processes.

        Args:
            kind: The challenge's type.
            label: The host name or the token.
            authorization: What proves it.

        Raises:
            Failure: It cannot be written.
            UnicodeEncodeError: It is not in ASCII.
        """
        content = authorization.encode("ascii")
        if len(content) > PROOF_MAX_BYTES:
            raise Failure(f"the authority's token has {len(content)} bytes")
        try:
            os.makedirs(self._path, 0o700, exist_ok=True)
        except OSError as error:
            raise Failure(f"{self._path} cannot be made: {error.strerror}", everyone=True) from error
        write_file(self._file(kind, label), content)

    def get(self, kind: str, label: str) -> str | None:
        """Return what proves a challenge, or None. Raises nothing, whatever `label` is; opens one file."""
        try:
            with open(self._file(kind, label), "rb") as file:
                return file.read(PROOF_MAX_BYTES).decode("ascii")
        except (OSError, ValueError):
            return None

    def remove(self, kind: str, label: str) -> None:
        """Answer a challenge no more. May be called twice."""
        with contextlib.suppress(OSError):
            os.unlink(self._file(kind, label))

    def tidy(self) -> None:
        """Remove what is old. For the process that holds the lock."""
        now = time.time()
        # The directory is made with the first proof; that it cannot be read is reported elsewhere.
        with contextlib.suppress(OSError), os.scandir(self._path) as entries:
            for entry in entries:
                # A date in the future is as wrong as an old one.
                if abs(now - entry.stat(follow_symlinks=False).st_mtime) > STALE_SECONDS:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def _file(self, kind: str, label: str) -> str:
        digest = hashlib.sha256(f"{kind} {label}".encode("utf-8", "surrogatepass"))
        return os.path.join(self._path, digest.hexdigest())
