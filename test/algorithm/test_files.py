from __future__ import annotations

from pathlib import Path

import pytest

from algorithm.files import discard_unfinished, written_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def fail_halfway(target: Path) -> None:
    with written_whole(target) as temporary:
        temporary.write_text("half")
        raise ValueError("half")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.txt"
    with pytest.raises(ValueError, match="half"):
        fail_halfway(target)
    assert names(tmp_path) == set()
    with written_whole(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(tmp_path) == {"a.txt"}


def test_a_new_file_takes_the_place_of_older_ones(tmp_path: Path) -> None:
    older = [tmp_path / "out" / name for name in ("b", "c")]
    older[0].parent.mkdir()
    for path in older:
        path.write_text("old")
    with written_whole(tmp_path / "out" / "a", instead_of=older) as temporary:
        temporary.write_text("new")
        assert names(tmp_path / "out") == {"b", "c"}
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_at_every_moment_one_whole_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "out" / "b"
    old.parent.mkdir()
    old.write_text("old")
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        done = replace(self, target)
        seen.append({path.name: path.read_text() for path in old.parent.iterdir()})
        return done

    monkeypatch.setattr(Path, "replace", watched)
    with written_whole(tmp_path / "out" / "a", instead_of=[old]) as temporary:
        temporary.write_text("new")
    assert seen == [{"b": "new"}, {"a": "new"}]


def test_what_is_unfinished_can_be_discarded_without_unwinding(tmp_path: Path) -> None:
    writing = written_whole(tmp_path / "out" / "a")
    writing.__enter__().write_text("half")
    assert len(names(tmp_path)) == 1
    discard_unfinished()
    assert names(tmp_path) == set()
