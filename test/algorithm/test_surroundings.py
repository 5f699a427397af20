"""Processes as odd as users start them: without streams, on a full disk, as a user nobody knows, in a corner."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from algorithm import surroundings
from algorithm.__main__ import main
from algorithm.errors import ResourceError
from algorithm.images import read_mask
from algorithm.inference import memory
from test.conftest import ROOT
from test.support.mistake import MASK
from test.support.world import World, build_world

NOBODY_KNOWS = 54321


@pytest.fixture
def world(tmp_path: Path) -> World:
    build_world(tmp_path)
    return World(tmp_path)


def process(
    words: list[str], *, program: str = "algorithm", shell: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'{shell or "exec"} "$@"', "bash", sys.executable, "-m", program, *words]
    if shell.startswith((">", "2>", "<")):
        command[2] = f'exec "$@" {shell}'
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, **options)


def without(*names: str, **more: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **more}


@pytest.mark.parametrize("streams", [">/dev/full", ">&- 2>&- <&-", "2>/dev/full"])
def test_the_mask_is_written_whatever_becomes_of_the_streams(world: World, streams: str) -> None:
    done = process(world.run("--report", world.out / "r.json"), shell=streams)
    assert (done.returncode, done.stderr) == (0, "")
    assert world.left() == {MASK, "data-centric-model.json", "r.json"}


def test_a_result_that_cannot_be_printed_is_a_failure(world: World) -> None:
    done = process(world.score("--json", world.out / "m.json"), program="evaluation", shell=">/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: cannot write to standard output: No space left on device; the files asked for are written\n"
    )
    assert world.left() == {"m.json"}


def test_too_little_address_space_is_a_sentence(world: World) -> None:
    done = process(world.run(), shell="ulimit -v 500000; exec")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: this process may use 488 MiB of address space (ulimit -v), and more than"
    )
    assert world.left() == set()


def test_files_that_may_not_grow_are_a_sentence(world: World) -> None:
    done = process(world.run(), shell="ulimit -f 0; exec")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert world.left() == set()


_AS_NOBODY = (  # who may look into folders all the same: the interpreter need not be for everybody
    *("setpriv", f"--reuid={NOBODY_KNOWS}", f"--regid={NOBODY_KNOWS}", "--clear-groups"),
    *("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"),
)


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root with setpriv can become somebody else"
)
@pytest.mark.parametrize(
    ("program", "words"),
    [("algorithm", []), ("training", ["fit"]), ("evaluation", ["pictures"]), ("evaluation", ["verify"])],
)
def test_a_user_that_nobody_knows(program: str, words: list[str]) -> None:
    """As ``docker run --user 54321``: no name, no home."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        build_world(world.top)
        for path in (world.top, *world.top.rglob("*")):
            path.chmod(0o777)
        done = subprocess.run(
            [*_AS_NOBODY, sys.executable, "-m", program, *(words or world.run())],
            cwd=ROOT,
            env=without("HOME", "USER", "LOGNAME", "MPLCONFIGDIR", HOME="/"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        left = world.left()
    if not words:
        assert (done.returncode, done.stderr) == (0, "")
        assert left == {MASK, "data-centric-model.json"}
    else:  # which options are missing is found out after all imports that they need
        assert done.returncode == 2, done.stderr
        assert "the following arguments are required" in done.stderr
        assert done.stderr.count("\n") == 1


class TestSettling:
    @pytest.fixture(autouse=True)
    def unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody(uid: int) -> None:
            raise KeyError(uid)

        monkeypatch.setattr(pwd, "getpwuid", nobody)
        for name in ("HOME", "USER", "LOGNAME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)

    def test_gives_a_name_and_a_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path))
        surroundings.settle_in()
        assert os.environ["USER"] == f"user{os.getuid()}"
        home = Path(os.environ["HOME"])
        assert home.parent == tmp_path
        assert home.stat().st_mode & 0o777 == 0o700
        assert Path(os.environ["MPLCONFIGDIR"]).parent == home

    def test_does_not_take_somebody_elses_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path))
        (tmp_path / f"h2aseg-{os.getuid()}").symlink_to(tmp_path)
        surroundings.settle_in()
        home = Path(os.environ["HOME"])
        assert home.parent == tmp_path
        assert home.name != f"h2aseg-{os.getuid()}"

    def test_leaves_what_is_set(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("USER", "me")
        monkeypatch.setenv("HOME", str(tmp_path))
        surroundings.settle_in()
        assert (os.environ["USER"], os.environ["HOME"]) == ("me", str(tmp_path))
        assert "MPLCONFIGDIR" not in os.environ

    def test_does_without_a_place_to_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere() -> str:
            raise FileNotFoundError("no usable temporary directory")

        monkeypatch.setattr(surroundings.tempfile, "gettempdir", nowhere)
        surroundings.settle_in()
        assert "HOME" not in os.environ


def test_the_limit_of_address_space_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, resident = (int(each) for each in Path("/proc/self/statm").read_text().split()[:2])
    limit = taken * resource.getpagesize() + 2**28
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    allowed = memory.host_limit_bytes()
    assert allowed is not None
    assert allowed <= resident * resource.getpagesize() + 2**28 + 2**26
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**20, 2**20))
    with pytest.raises(ResourceError, match="may use 1 MiB of address space"):
        surroundings.check_address_space()


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, as small as the test asks."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("small_disk", "whole"),
    [
        ("size=4k", set()),
        ("size=64m,nr_inodes=3", set()),
        ("size=64m,nr_inodes=5", {MASK}),
        ("size=64m,nr_inodes=6", {MASK, "data-centric-model.json"}),
    ],
    indirect=["small_disk"],
)
def test_a_full_disk_or_inode_table(small_disk: Path, whole: set[str], world: World, capfd) -> None:
    out = small_disk / "o"
    assert main(world.run("--output", out, "--report", out / "r.json")) == 2
    error = capfd.readouterr().err
    assert "No space left on device" in error or "free some space" in error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == whole
    for name in found & {MASK}:
        read_mask(out / name)
