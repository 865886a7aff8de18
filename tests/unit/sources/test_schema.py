"""`daphne_ng.sources.schema`: what editors are told of the file."""

import json
import pathlib
import re

import daphne_ng
from daphne_ng.sources.names import names
from daphne_ng.sources.schema import schema


def test_the_package_has_the_schema_that_the_fields_make() -> None:
    path = pathlib.Path(daphne_ng.__file__).with_name("settings.schema.json")
    assert json.loads(path.read_text(encoding="utf-8")) == schema(), "run docs/generate_schema.py"


def test_every_key_is_described_in_both_spellings() -> None:
    properties = schema()["properties"]
    assert set(properties) == {spelled for key in names() for spelled in (key, key.replace("_", "-"))}
    assert properties["close-timeout"] is properties["close_timeout"]


def test_units_are_described() -> None:
    number, text = schema()["properties"]["close_timeout"]["anyOf"]
    assert number == {"type": "number", "minimum": 0}
    assert re.search(text["pattern"], "5m")
    assert not re.search(text["pattern"], "5MiB")
