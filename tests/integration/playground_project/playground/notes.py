"""A logging handler that keeps what it gets in a file, one JSON object in a line."""

import json
import logging


class Notes(logging.Handler):
    """Notes the parts of a record from which others make what they want."""

    def emit(self, record: logging.LogRecord) -> None:
        """Append to ``notes.json`` in the current directory."""
        note = {"level": record.levelname, "msg": record.msg, "args": list(record.args or ())}
        with open("notes.json", "a") as file:
            file.write(json.dumps(note) + "\n")
