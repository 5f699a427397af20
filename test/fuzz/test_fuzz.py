"""The stored corpus, finds of the past among it, and a fixed number of changes of it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from test.fuzz.replay import attempt, changed, stored
from test.fuzz.seeds import CORPUS, seeds
from test.fuzz.targets import TARGETS, try_once

CHANGES = {"dicom": 40}
MOST_GROWTH_KIB = 2**20


@pytest.mark.parametrize("name", TARGETS)
def test_stored_and_changed_inputs(name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for label, data in stored(name).items():
        find = attempt(name, data, tmp_path)
        assert find is None, f"{label}: {find}"
    for data in changed(name, CHANGES.get(name, 250)):
        find = attempt(name, data, tmp_path)
        assert find is None, f"{data!r}: {find and find.reason}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str, tmp_path: Path) -> None:
    """Fuzzing begins at what is right: from what is refused at its first byte no path leads in."""
    own = {label: data for target, label, data in seeds() if target == name}
    assert {f"seed_{label}" for label in own} <= {path.name for path in (CORPUS / name).iterdir()}
    for label, data in own.items():
        assert try_once(TARGETS[name], data, tmp_path), label


def test_a_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(data: bytes, folder: Path) -> None:
        raise KeyError("slug")

    monkeypatch.setitem(TARGETS, "inputs", type(TARGETS["inputs"])(careless, TARGETS["inputs"].mutate))
    find = attempt("inputs", b"[]", tmp_path)
    assert find is not None
    assert "KeyError" in find.reason
