from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from algorithm.errors import OutputError
from algorithm.files import claimed, discard_unfinished, relative_path, written_whole
from test.conftest import ROOT


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
    with written_whole(tmp_path / "out" / "a", instead_of=older, staging=tmp_path) as temporary:
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
    with written_whole(tmp_path / "out" / "a", instead_of=[old], staging=tmp_path) as temporary:
        temporary.write_text("new")
    assert seen == [{"b": "new"}, {"a": "new"}]


def test_what_is_unfinished_can_be_discarded_without_unwinding(tmp_path: Path) -> None:
    writing = written_whole(tmp_path / "out" / "a")
    writing.__enter__().write_text("half")
    assert len(names(tmp_path)) == 1
    discard_unfinished()
    assert names(tmp_path) == set()


class TestLitter:
    def test_of_killed_runs_goes_with_the_next_file(self, tmp_path: Path) -> None:
        (tmp_path / ".partial-0123456789ab-a.txt").write_text("half")
        with written_whole(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
        assert names(tmp_path) == {"a.txt"}

    def test_what_another_writer_holds_stays(self, tmp_path: Path) -> None:
        with written_whole(tmp_path / "a.txt") as first:
            first.write_text("first")
            with written_whole(tmp_path / "b.txt") as second:
                second.write_text("second")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "a.txt": "first",
            "b.txt": "second",
        }

    def test_that_is_swept_before_it_is_held_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really_open, really_lock, swept = Path.open, fcntl.flock, []

        def open_after_a_sweep(path: Path, *how: Any, **more: Any) -> Any:
            path.unlink(missing_ok=True)
            return really_open(path, *how, **more)

        def lock_after_a_sweep(stream: IO[bytes], how: int) -> None:
            if not swept:
                swept.append(stream.name)
                Path(stream.name).unlink()
            really_lock(stream, how)

        monkeypatch.setattr(Path, "open", open_after_a_sweep)
        monkeypatch.setattr(fcntl, "flock", lock_after_a_sweep)
        with written_whole(tmp_path / "a.txt") as temporary:
            monkeypatch.undo()
            temporary.write_text("whole")

        assert swept == [str(temporary)]
        assert names(tmp_path) == {"a.txt"}

    def test_of_a_process_that_sigkill_ended(self, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys; from pathlib import Path; from algorithm.files import written_whole\n"
            "with written_whole(Path(sys.argv[1])) as path:\n"
            "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], cwd=ROOT, check=False)
        assert len(names(tmp_path)) == 1
        with claimed(tmp_path):
            assert names(tmp_path) == set()


class TestClaim:
    def test_a_second_run_is_refused(self, tmp_path: Path) -> None:
        refused = pytest.raises(OutputError, match=r"another run is writing to .*out")
        with claimed(tmp_path / "out"), refused, claimed(tmp_path / "out"):
            pass
        with claimed(tmp_path / "out"):
            pass

    def test_a_folder_that_it_made_goes_if_it_stays_empty(self, tmp_path: Path) -> None:
        for name in ("empty", "full"):
            with suppress(ValueError), claimed(tmp_path / name):
                if name == "full":
                    (tmp_path / name / "a").touch()
                raise ValueError
        assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link"])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    with contextlib.ExitStack() as stack:
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        else:
            path.symlink_to(os.devnull)
        with pytest.raises(OutputError, match="and is left as it is"), written_whole(path):
            pass
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    with written_whole(tmp_path / f"{'a' * 248}.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("whole")
    assert len(names(tmp_path)) == 1


def test_the_way_to_a_file_is_right_behind_links(tmp_path: Path) -> None:
    (tmp_path / "disk/deep/run").mkdir(parents=True)
    (tmp_path / "set/study").mkdir(parents=True)
    (tmp_path / "set/study/CT.nii.gz").touch()
    (tmp_path / "run").symlink_to(tmp_path / "disk/deep/run")
    (tmp_path / "set/linked").symlink_to(tmp_path / "set/study")
    there = tmp_path / "set/study/CT.nii.gz"

    assert relative_path(there, tmp_path / "run") == Path("../../../set/study/CT.nii.gz")
    assert relative_path(tmp_path / "set/linked/CT.nii.gz", tmp_path / "set") == Path("linked/CT.nii.gz")
    assert relative_path(tmp_path / "set/linked/../study/CT.nii.gz", tmp_path / "set") == Path("study/CT.nii.gz")
