"""daphne-ng: an ASGI server on Twisted.

Importing this package imports nothing else and installs no reactor.
"""

__version__ = "0.1.0"
