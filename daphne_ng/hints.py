"""What the command line says to options that it does not have."""

from __future__ import annotations

import argparse
import difflib
from typing import Any

__all__ = ["ELSEWHERE", "HintingParser"]

# What other servers call it, where no name of ours is like theirs, or one is that means something else. Empty where
# nothing has to be said here to get the same.
ELSEWHERE = {
    "--host": "--bind",
    "--uds": "--unix-socket",
    "--asgi-loop": "--loop",
    "-w": "--workers",
    "-k": "",
    "--worker-class": "",
    "--ws": "",
    "--interface": "",
    "--no-access-log": "-v 0",
    "--timeout": "--worker-timeout",
    "--timeout-keep-alive": "--keep-alive-timeout",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--ws-max-size": "--websocket-max-message-size",
    "--max-requests": "--limit-max-requests",
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
    "--date-header": "",
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
}


class HintingParser(argparse.ArgumentParser):
    """Says what an option that does not exist may be here."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse.ArgumentParser.parse_args`."""
        # Only what looks like an option is named: an unknown one's value may have been taken for the application.
        options, rest = self.parse_known_args(args, namespace)
        unknown = [text for text in rest if text.startswith("-") and text != "-"]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._remedy(unknown[0].partition('=')[0])}")
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)} (there is one application: {options.application!r})")
        return options

    def _remedy(self, flag: str) -> str:
        if flag in ELSEWHERE:
            found = ELSEWHERE[flag]
            return f"; here it is {found}" if found else "; leave it out"
        close = difflib.get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.7)
        return f"; is it {close[0]}?" if close else ""
