"""Automatic certificates (RFC 8555): what ``le:`` and ``lets:`` endpoints bring along.

One `daphne_ng.acme.keeper.Keeper` per directory of NAME.pem files has a thread of its own, in which everything that
blocks happens: files, the network, and waiting for the next renewal. It touches the rest of the server in two places
only: the reload of the directory, and the log. What the TLS port or the responder on port 80 answer to challenges they
find in files, whichever process has put them there.

`schedule` is pure; `storage` knows the directory, `lock` says whose it is, and `proofs` are in it; `client` speaks the
protocol, and alone imports ``acme`` and ``josepy``, which come with the extra ``acme``; `challenges` and `responder`
prove that a name is ours.
"""
