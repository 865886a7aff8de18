"""No path of any spelling leads out of a directory of static files, or to a hidden file in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.config import Config
from daphne_ng.static.lookup import Mount, Representation
from daphne_ng.static.paths import Prefixes, normalised
from daphne_ng.static.ranges import ranges_of

# Names that are there, and all that has ever led out of a directory.
PIECES = st.sampled_from(
    ["static", "public", "a.css", "out", "in", ".hidden", "secret", "etc", "passwd", "..", ".", "...", "~", "%00", "\0"]
    + ["%2e%2e", "%2e", "%252e%252e", "..%00", "%c0%ae%c0%ae", "%e0%80%ae", "%uff0e", "．．", "..;", "C:", "a.css%20"]
)
SEPARATORS = st.sampled_from(["/", "/", "/", "//", "%2f", "%2F", "\\", "%5c", "%255c", "%c0%af", "%252f", "/./", ";/"])
PATHS = st.lists(st.tuples(SEPARATORS, PIECES), max_size=8).map(lambda pairs: "".join(map("".join, pairs)))
INDEXES = st.sampled_from(["", "a.css"])


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        root = directory / "static"
        for place in (directory, root, root / "public", root / ".hidden", directory / "secret"):
            place.mkdir(exist_ok=True)
            for file in ("a.css", "passwd"):
                (place / file).write_bytes(b"open" if place.name in ("static", "public") else b"shut")
        (root / ".htaccess").write_bytes(b"shut")
        (root / "out").symlink_to("../secret")
        (root / "public" / "in").symlink_to("..")
        yield directory


@given(path=PATHS, prefix=st.sampled_from(["", "/static"]), index=INDEXES)
def test_no_path_leads_out(directory: Path, path: str, prefix: str, index: str) -> None:
    found = Prefixes([(prefix, None)]).find(normalised(unquote(path)))
    if found is None:
        return
    mount = Mount(prefix, str(directory / "static"), Config(static_index=index))
    answer = mount.look(found[1], ())
    if isinstance(answer, Representation):
        answer.close()
        assert answer.body == b"open"


@given(path=st.text(alphabet=st.sampled_from("/.a%\\\0ü"), max_size=20))
def test_a_normalised_path_has_nothing_to_normalise(path: str) -> None:
    result = normalised(path)

    assert result.startswith("/")
    assert "//" not in result
    assert not {".", ".."} & set(result.split("/"))
    assert normalised(result) == result


@given(
    value=st.lists(st.sampled_from(["0-0", "1-5", "-3", "9-", "5-4", "99-", "-0", " ", "x", "3-99999999999999999999"]))
    .map(",".join)
    .map(lambda text: f"bytes={text}".encode()),
    size=st.integers(0, 20),
)
def test_ranges_never_come_to_more_than_the_file(value: bytes, size: int) -> None:
    ranges = ranges_of(value, size, 8)

    if ranges is not None:
        assert len(ranges) <= 8
        assert all(0 <= start < end <= size for start, end in ranges)
        assert sum(end - start for start, end in ranges) <= size
