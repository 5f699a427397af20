"""What users do wrong, by name: exit code, words, and what lies in the output afterwards.

``pytest -s test/test_mistakes.py`` prints the table. The mistakes with images: ``test/support/odd_inputs.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import algorithm.__main__
from algorithm import server
from algorithm.commands import jobs
from algorithm.commands.common import segmenter_of
from algorithm.errors import DeviceError
from algorithm.files import claimed
from algorithm.job import Segmenter
from algorithm.options import add_serve
from algorithm.parser import Parser
from test.support import mistakes_of_algorithm, mistakes_of_evaluation, mistakes_of_making
from test.support.mistake import MASK, PROGRAMS, Mistake
from test.support.world import World, build_world

MISTAKES = [*mistakes_of_algorithm.ROWS, *mistakes_of_evaluation.ROWS, *mistakes_of_making.ROWS]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("world")
    build_world(top)
    return top


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of the world, and the environment as it was afterwards."""
    before = dict(os.environ.items())
    for name in before:
        if name.startswith(("H2ASEG_", "GRAND_CHALLENGE_")):
            del os.environ[name]
    shutil.copytree(built, tmp_path / "world")
    yield World(tmp_path / "world")
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    """Rows of the table, printed in the end."""
    told: list[str] = []
    yield told
    print("\n| Mistake | Program | Exit code | What is said | In the output |\n| --- | --- | --- | --- | --- |")
    print("\n".join(told))


def said_by(mistake: Mistake, world: World, capsys: pytest.CaptureFixture[str]) -> str:
    words = mistake.words(world)
    capsys.readouterr()
    assert PROGRAMS[mistake.program](words) == mistake.code
    out, err = capsys.readouterr()
    if mistake.code == 0:
        assert err == ""
        return " ".join(out.split())
    assert err.startswith("Error: "), err
    assert err.count("\n") == 1, err
    return err.strip().removeprefix("Error: ")


def before_and_after(world: World) -> dict[str, bytes]:
    """Return everything of the world but the results and the cache, by name."""
    files = (path for path in world.top.rglob("*") if path.is_file() and not path.is_relative_to(world.out))
    return {path.relative_to(world.top).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake, world: World, rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = mistake.words(world)
    before = before_and_after(world)
    spoilt = Mistake(mistake.name, mistake.program, lambda _: words, mistake.part, mistake.code, mistake.left)

    said = said_by(spoilt, world, capsys)

    assert mistake.part in said
    assert len(said) < 2100 or mistake.code == 0
    assert world.left() == mistake.left
    after = before_and_after(world)
    assert {name: after.get(name) for name in before} == before  # nothing that was there is lost or changed
    left = ", ".join(sorted(mistake.left)) or "nothing"
    rows.append(f"| {mistake.name} | {mistake.program} | {mistake.code} | {mistake.part} | {left} |")


def test_there_are_enough() -> None:
    names = [mistake.name for mistake in MISTAKES]
    assert len(set(names)) == len(names) >= 150


def test_a_second_run_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (world.run(), world.predict()):
        with claimed(world.out):
            assert algorithm.__main__.main(words) == 2
        assert "another run is writing to" in capsys.readouterr().err
        assert world.left() == set()


def test_a_bug_becomes_an_empty_mask_where_that_is_wanted(world: World, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Segmenter, "segment", fail)

    assert algorithm.__main__.main(world.run()) == 1
    assert world.left() == set()
    capsys.readouterr()
    assert algorithm.__main__.main(world.run("--on-error", "empty-mask", "--report", world / "r.json")) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "because this case failed: ZeroDivisionError: by zero" in out
    assert '"error": "ZeroDivisionError: by zero"' in (world / "r.json").read_text()
    assert world.left() == {MASK, "data-centric-model.json"}


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), 3, "the GPU failed (CUDA error"),
        (DeviceError("there is no GPU 2; this machine has 2"), 3, "there is no GPU 2"),
        (OSError(errno.EIO, "Input/output error", "/input/x.mha"), 2, "cannot use /input/x.mha"),
    ],
)
def test_what_is_no_cases_fault_becomes_no_empty_mask(
    failure, code, said, world: World, monkeypatch, capsys
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Segmenter, "segment", fail)

    assert algorithm.__main__.main(world.run("--on-error", "empty-mask")) == code
    assert said in capsys.readouterr().err
    assert world.left() == set()


def test_a_server_answers_each_call_for_itself(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A case done, the next one broken: nothing of the first is left; then an empty mask is wanted."""
    parser = Parser()
    add_serve(parser)
    words = world.run()[1:]

    def answer(*more: str) -> int:
        args = parser.parse_args([*words, *more])
        return server._done(lambda began: jobs.do_job(args, lambda: segmenter_of(args), began)).status

    assert answer() == 201
    assert world.left() == {MASK, "data-centric-model.json"}
    os.environ["GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB"] = "100"
    assert answer() == 422
    assert world.left() == set()
    assert answer("--on-error", "empty-mask") == 201
    assert world.left() == {MASK, "data-centric-model.json"}
    assert "no tumour was looked for" in capsys.readouterr().out
