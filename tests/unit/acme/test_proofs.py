"""Proofs in files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from daphne_ng.acme.failure import Failure
from daphne_ng.acme.proofs import PROOF_MAX_BYTES, STALE_SECONDS, Proofs

NAME = "a.example.org"


@pytest.fixture
def proofs(tmp_path: Path) -> Proofs:
    return Proofs(str(tmp_path))


def files(path: Path) -> list[Path]:
    return sorted((path / ".acme-challenges").iterdir())


def test_a_proof_is_there_for_every_process_until_it_is_removed(proofs: Proofs, tmp_path: Path) -> None:
    other = Proofs(str(tmp_path))
    assert other.get("kind", NAME) is None
    for text in ("token.one", "token.two"):
        proofs.put("kind", NAME, text)
        assert other.get("kind", NAME) == text
    assert other.get("another", NAME) is None
    assert other.get("kind", "b.example.org") is None
    proofs.remove("kind", NAME)
    proofs.remove("kind", NAME)
    assert other.get("kind", NAME) is None
    assert files(tmp_path) == []


def test_the_files_are_for_their_owner_only(proofs: Proofs, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        proofs.put("kind", NAME, "text")
    finally:
        os.umask(before)
    [file] = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "label", ["../../client.key", "/etc/passwd", "", ".", "..", "\0", "a/b", "x" * 70_000, "\ud800", "B\u00fccher"]
)
def test_no_label_leads_elsewhere(proofs: Proofs, tmp_path: Path, label: str) -> None:
    (tmp_path / "client.key").write_text("precious")
    assert proofs.get("kind", label) is None
    proofs.put("kind", label, "text")
    assert proofs.get("kind", label) == "text"
    [file] = files(tmp_path)
    assert len(bytes.fromhex(file.name)) == 32
    proofs.remove("kind", label)
    assert (tmp_path / "client.key").read_text() == "precious"


def test_what_is_no_key_authorization_is_not_written(proofs: Proofs, tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        proofs.put("kind", NAME, "t\u00f6ken")
    with pytest.raises(Failure, match="4097 bytes"):
        proofs.put("kind", NAME, "x" * (PROOF_MAX_BYTES + 1))
    assert not (tmp_path / ".acme-challenges").exists()


def test_a_file_that_is_damaged_is_no_proof(proofs: Proofs, tmp_path: Path) -> None:
    proofs.put("kind", NAME, "text")
    [file] = files(tmp_path)
    file.write_bytes(b"\xff")
    assert proofs.get("kind", NAME) is None
    file.unlink()
    file.mkdir()
    assert proofs.get("kind", NAME) is None


def test_a_directory_that_cannot_be_made_is_a_failure_of_all(proofs: Proofs, tmp_path: Path) -> None:
    (tmp_path / ".acme-challenges").write_text("in the way")
    with pytest.raises(Failure, match="cannot be made") as caught:
        proofs.put("kind", NAME, "text")
    assert caught.value.everyone
    assert proofs.get("kind", NAME) is None
    proofs.tidy()


@pytest.mark.parametrize(("age", "stays"), [(STALE_SECONDS - 60, True), (STALE_SECONDS + 60, False), (-1e6, False)])
def test_what_is_old_or_of_the_future_is_removed(proofs: Proofs, tmp_path: Path, age: float, stays: bool) -> None:
    proofs.tidy()  # there is no directory yet
    proofs.put("kind", NAME, "text")
    [file] = files(tmp_path)
    temporary = file.with_name(".half.tmp")  # of a process that was killed while it wrote
    temporary.touch()
    (file.parent / "somebodys").mkdir()
    for path in files(tmp_path):
        os.utime(path, (time.time() - age,) * 2)
    proofs.tidy()
    assert (file.exists(), temporary.exists()) == (stays, stays)
