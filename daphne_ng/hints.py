"""Hints for options that the command line does not have: what other servers call them, or a name that is close."""

from __future__ import annotations

import argparse
import difflib
import re
from pathlib import Path
from typing import Any

__all__ = ["ELSEWHERE", "HintingParser"]

# Options of other servers whose names lead to none of ours, or to one that means something else. The text is the option
# here; empty where the same is had without one.
ELSEWHERE = {
    "--host": "--bind",
    "--uds": "--unix-socket",
    "--asgi-loop": "--loop",
    "-w": "--workers",
    "-k": "",
    "--worker-class": "",
    "--http": "",
    "--ws": "",
    "--interface": "",
    "--no-access-log": "-v 0 --log-level info",
    "--log-config": "logging.config.dictConfig in the application",
    "--use-colors": "",
    "--no-use-colors": "",
    "--reset-contextvars": "",
    "--timeout": "--worker-timeout",
    "--timeout-worker-healthcheck": "--worker-timeout",
    "--keep-alive": "--keep-alive-timeout",
    "--timeout-keep-alive": "--keep-alive-timeout",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--ws-max-size": "--websocket-max-message-size",
    "--ws-max-queue": "",
    "--ws-ping-interval": "--ping-interval",
    "--ws-ping-timeout": "--ping-timeout",
    "--ws-per-message-deflate": "--websocket-compression",
    "--h11-max-incomplete-event-size": "--limit-request-head",
    "--limit-request-field_size": "--limit-request-head",
    "--max-requests": "--limit-max-requests",
    "--max-requests-jitter": "--limit-max-requests-jitter",
    "--threads": "--asgi-threads",
    "--ssl-keyfile-password": "--ssl-keyfile-password-file",
    "--ca-certs": "--ssl-ca-certs",
    "--cert-reqs": "--ssl-cert-reqs",
    "--ciphers": "--ssl-ciphers",
    "--proxy-allow-from": "--forwarded-allow-ips",
    "--asgi-lifespan": "--lifespan",
    "--asgi-disconnect-grace-period": "--application-close-timeout",
    "--certfile": "--ssl-certfile",
    "--keyfile": "--ssl-keyfile",
    "--preload": "",
    "--initgroups": "",
    "--reload-engine": "",
    "--reload-extra-file": "--reload-include",
    "--reload-delay": "",
    "--log-file": "2> FILE, since the log goes to standard error",
    "--error-logfile": "2> FILE, since the log goes to standard error",
    "--access-logfile": "--access-log",
    "--access-logformat": "",
    "--worker-connections": "--limit-concurrency",
    "--server-header": "",
    "--no-server-header": "--no-server-name",
    "--no-proxy-headers": "",
    "--read-timeout": "--body-timeout",
    "--chdir": "--app-dir",
    "--pythonpath": "--app-dir",
    "--working-dir": "--app-dir",
    "--quic-bind": "",
    "--no-ws": "",
    "--noreload": "",
    "--websocket_handshake_timeout": "--websocket_connect_timeout",
    "--websocket-handshake-timeout": "--websocket_connect_timeout",
    "--ssl-version": "--ssl-min-version",
    "--workers-lifetime": "--worker-max-age",
    "--static-path-mount": "--static",
    "--static-path-route": "--static",
    "--static-path-dir-to-file": "--static-index",
    "--static-path-expires": "--static-max-age",
}


_APPLICATION = re.compile(r"[\w./-]+:[\w.]+")


class HintingParser(argparse.ArgumentParser):
    """Says what an option that does not exist may be here."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse.ArgumentParser.parse_args`."""
        # Only options are named: the value of an unknown one may have been taken for the application.
        options, rest = self.parse_known_args(args, namespace)
        unknown = [text for text in rest if text.startswith("-") and text != "-"]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._remedy(unknown[0].partition('=')[0])}")
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)} (there is one application: {options.application!r})")
        log = getattr(options, "access_log", None)
        # For Uvicorn --access-log is a flag that takes nothing.
        if log and options.application is None and _APPLICATION.fullmatch(log) and not Path(log).exists():
            self.error(f"--access-log takes a file, or - for standard output; {log!r} looks like the application")
        return options

    # Where an option is another server's, it is no abbreviation of one of ours: the value means something else.
    def _get_option_tuples(self, option_string: str) -> list[Any]:
        if option_string.partition("=")[0] in ELSEWHERE:
            return []
        # What --help does not show is written out, so that no abbreviation becomes ambiguous by it.
        found = super()._get_option_tuples(option_string)
        return [one for one in found if one[0].help is not argparse.SUPPRESS]

    def _remedy(self, flag: str) -> str:
        if flag in ELSEWHERE:
            found = ELSEWHERE[flag]
            return f"; here it is {found}" if found else "; leave it out"
        shown = [name for name, action in self._option_string_actions.items() if action.help is not argparse.SUPPRESS]
        close = difflib.get_close_matches(flag, shown, n=1, cutoff=0.7)
        return f"; is it {close[0]}?" if close else ""
