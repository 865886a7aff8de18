"""Runs the command line many times in one process, which imports it once; for starts that fail.

Reads a list of argument lists as JSON from standard input, and writes a list of ``[exit code, standard error]``.
"""

import json
import os
import sys
import tempfile

import daphne_ng.server  # noqa: F401 (for all of them at once)
from daphne_ng.cli import CommandLineInterface


def run(arguments: list[str]) -> tuple[int, str]:
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            os.dup2(errors.fileno(), 2)
            sys.argv = ["daphne-ng", *arguments]
            code = 70
            try:
                CommandLineInterface.entrypoint()
                code = 0
            except SystemExit as exit:
                code = exit.code if isinstance(exit.code, int) else 1
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read()


results = [run(arguments) for arguments in json.load(sys.stdin)]
json.dump(results, sys.stdout)
