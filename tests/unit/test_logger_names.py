"""The names of loggers are an interface: users' logging configurations hold them, wherever the modules move."""

from __future__ import annotations

import re
from pathlib import Path

import daphne_ng

NAMES = {
    "daphne_ng.access",
    "daphne_ng.acme.automatic",
    "daphne_ng.acme.keeper",
    "daphne_ng.cli",
    "daphne_ng.compat",
    "daphne_ng.draining",
    "daphne_ng.net.reactor",
    "daphne_ng.net.tls",
    "daphne_ng.net.tls_context",
    "daphne_ng.net.tls_transport",
    "daphne_ng.owning",
    "daphne_ng.security",
    "daphne_ng.server",
    "daphne_ng.sources",
    "daphne_ng.static",
    "daphne_ng.supervisor.command",
    "daphne_ng.supervisor.reload",
    "daphne_ng.supervisor.sockets",
    "daphne_ng.supervisor.supervisor",
    "daphne_ng.supervisor.worker",
    # Daphne's lines of runserver go there.
    "django.channels.server",
    # What shows lines that no logger of the program's was made for.
    "daphne_ng.logconfig.bystander",
}


def test_loggers_have_fixed_names() -> None:
    found = {
        name
        for path in Path(daphne_ng.__file__).parent.rglob("*.py")
        for name in re.findall(r"\bgetLogger\(([^)]+)\)", path.read_text(encoding="utf-8"))
    }
    # The one asks what is switched on for a record, the other for a library to be quiet.
    assert {name.strip('"') for name in found} - {"record.name", "watchfiles"} == NAMES
