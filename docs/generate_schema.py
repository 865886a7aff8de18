"""Write daphne_ng/settings.schema.json from the settings.

Run ``python docs/generate_schema.py`` after a change to `daphne_ng.config`; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path

from daphne_ng.sources.schema import schema

TARGET = Path(__file__).parents[1] / "daphne_ng" / "settings.schema.json"


def render() -> str:
    """Return the whole file."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
