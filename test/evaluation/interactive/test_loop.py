from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.cases import Case, list_cases
from algorithm.errors import GeometryError, MissingInputError, OutputError
from algorithm.job import Segmenter
from algorithm.jsonfile import read_json
from algorithm.scribbles import Scribbles, parse_scribbles
from algorithm.weights import load_checkpoint
from evaluation.__main__ import main as command
from evaluation.interactive.loop import STEPS, Played, clicks_json, kinds_of, play
from evaluation.interactive.network import InProcess
from evaluation.interactive.results import summarise, table, to_content
from evaluation.interactive.scribbles import Scribble
from evaluation.scoring.score import to_json
from test.conftest import ROOT
from test.support.checkpoints import write_checkpoint

SPACING = (4.0, 4.0, 3.0)
SHAPE = (8, 20, 24)


def write(path: Path, array: NDArray[Any]) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path))
    return path


def case_of(folder: Path, truth: NDArray[np.bool_], name: str = "synthetic_box") -> Case:
    empty = np.zeros(truth.shape, np.float32)
    return Case(
        name,
        write(folder / f"{name}_ct.mha", empty),
        write(folder / f"{name}_pet.mha", empty),
        write(folder / f"{name}_truth.mha", truth.astype(np.uint8)),
    )


@pytest.fixture
def box(tmp_path: Path) -> Case:
    truth = np.zeros(SHAPE, dtype=bool)
    truth[2:6, 4:16, 4:20] = True
    return case_of(tmp_path, truth)


class PointsOnly:
    """Takes the points and nothing else; can fail at chosen calls."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.failing = failing
        self.calls: list[Scribbles] = []

    def __call__(self, case: Case, scribbles: Path) -> NDArray[np.uint8]:
        self.calls.append(parse_scribbles(read_json(scribbles), "clicks"))
        if len(self.calls) - 1 in self.failing:
            raise OutputError("the disk is full; make room")
        mask = np.zeros(SHAPE, np.uint8)
        for points, label in ((self.calls[-1].tumour, 1), (self.calls[-1].background, 0)):
            mask[points[:, 2], points[:, 1], points[:, 0]] = label
        return mask


def test_each_call_has_one_scribble_more(box: Case) -> None:
    player = PointsOnly()
    played = play(box, player, edition="V", kind="centreline", steps=6, seed=0)

    assert len(played.steps) == len(player.calls) == 6
    assert len(player.calls[0]) == 0
    counts = [len(each) for each in player.calls]
    added = [sum(len(one.points) for one in step.drawn) for step in played.steps]
    assert counts == np.cumsum(added).tolist()
    assert all(each > 0 for each in added[1:])
    assert played.values("dice") == sorted(played.values("dice"))


def test_the_file_has_the_organisers_order() -> None:
    along = np.array([[3, 1, 5], [2, 1, 5], [1, 2, 5], [2, 3, 5]])
    file = json.loads(clicks_json([Scribble("background", along), Scribble("tumor", along[::-1] + 1)]))

    assert [each["name"] for each in file["points"]] == ["tumor"] * 4 + ["background"] * 4
    assert [each["point"] for each in file["points"][4:]] == [[1, 2, 5], [2, 1, 5], [2, 3, 5], [3, 1, 5]]


def test_it_is_seeded_by_case_and_number(box: Case) -> None:
    def points(seed: int) -> list[list[list[int]]]:
        player = PointsOnly()
        play(box, player, edition="V", kind="random", steps=4, seed=seed)
        return [each.tumour.tolist() for each in player.calls]

    assert points(1) == points(1)
    assert points(1) != points(2)


def test_a_failed_call_scores_nothing_and_the_loop_goes_on(box: Case) -> None:
    played = play(box, PointsOnly(failing=[2]), edition="V", kind="centreline", steps=5, seed=0)
    dice, f1 = played.values("dice"), played.values("lesion_f1")

    assert played.steps[2].failure == "the disk is full; make room"
    assert dice[2] == f1[2] == played.values("lesion_sensitivity")[2] == played.values("fpv_ml")[2] == 0.0
    assert played.values("fnv_ml")[2] == played.values("truth_ml")[2] > 0  # of an empty mask
    assert dice[3] > dice[1] > 0
    assert len(played.steps[3].drawn) == 1


def test_a_mask_of_another_size_is_a_failed_call(box: Case) -> None:
    played = play(
        box, lambda case, path: np.zeros((2, 3, 4), np.uint8), edition="V", kind="random", steps=2, seed=0
    )

    assert "(2, 3, 4)" in (played.steps[0].failure or "")


def test_a_case_without_tumour_gets_no_scribbles(tmp_path: Path) -> None:
    case = case_of(tmp_path, np.zeros(SHAPE, dtype=bool))
    right = play(case, PointsOnly(), edition="V", kind="random", steps=6, seed=0)
    wrong = play(case, lambda case, path: np.ones(SHAPE, np.uint8), edition="V", kind="random", steps=6, seed=0)

    assert not any(step.drawn for each in (right, wrong) for step in each.steps)
    assert right.values("dice") == [1.0] * 6
    assert wrong.values("dice") == [0.0] * 6
    assert all(math.isnan(value) for value in right.values("lesion_f1"))
    assert summarise([right])["dice"].area == 5.0
    assert math.isnan(summarise([right])["lesion_f1"].area)
    assert json.loads(to_json(to_content([right], "V")))["curves"]["lesion_f1"]["means"] == [None] * 6


def test_edition_iv_clicks_in_both_errors(box: Case, tmp_path: Path) -> None:
    half = np.zeros(SHAPE, np.uint8)
    half[2:6, 4:16, 12:23] = 1
    played = play(box, lambda case, path: half, edition="IV", kind="mixed", steps=STEPS["IV"], seed=0)

    assert played.kind == "click"
    assert len(played.steps) == 11
    assert [[one.label for one in step.drawn] for step in played.steps] == [[], *[["tumor", "background"]] * 10]
    assert all(len(one.points) == 1 for step in played.steps for one in step.drawn)
    assert set(to_content([played], "IV")["cases"][0]["areas"]) == {"dice", "fpv_ml", "fnv_ml"}


def test_mixed_deals_a_third_to_each_kind() -> None:
    cases = [Case(f"case_{number}", Path(), Path()) for number in range(41)]
    kinds = kinds_of(cases, "mixed", 3)
    counts = sorted(list(kinds.values()).count(kind) for kind in ("centreline", "random", "boundary"))

    assert counts == [13, 14, 14]
    assert kinds == kinds_of(cases[::-1], "mixed", 3)
    assert kinds != kinds_of(cases, "mixed", 4)
    assert set(kinds_of(cases, "random", 3).values()) == {"random"}


def plain_area(values: Sequence[float]) -> float:
    """Trapezoids of width 1, one after the other."""
    total = 0.0
    for left, right in itertools.pairwise(values):
        total += (left + right) / 2
    return total


def test_areas_means_and_falls_equal_a_plain_transcription(box: Case) -> None:
    games: list[Played] = [
        play(box, PointsOnly(failing), edition="V", kind=kind, steps=6, seed=seed)
        for seed, (kind, failing) in enumerate((("centreline", ()), ("random", (3,)), ("boundary", (1, 5))))
    ]
    for metric in ("dice", "lesion_f1"):
        rows = [game.values(metric) for game in games]
        curve = summarise(games)[metric]
        assert curve.area == pytest.approx(sum(plain_area(row) for row in rows) / 3)
        assert curve.means == pytest.approx([sum(column) / 3 for column in zip(*rows, strict=True)])
        steps = [(a, b) for row in rows for a, b in itertools.pairwise(row)]
        assert curve.moves == len(steps) == 15
        assert curve.falls == sum(b < a - 0.005 for a, b in steps)
    assert f"| {summarise(games)['dice'].falls} of 15 |" in table(games)


def test_a_case_without_truth_cannot_be_played(box: Case) -> None:
    with pytest.raises(MissingInputError, match="synthetic_box has no truth"):
        play(Case(box.name, box.ct, box.pet), PointsOnly(), edition="V", kind="random", steps=2, seed=0)


def test_a_truth_off_the_grid_of_its_pet_cannot_be_played(box: Case) -> None:
    assert box.truth is not None
    moved = sitk.ReadImage(str(box.truth))
    moved.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(box.truth))
    with pytest.raises(GeometryError, match="does not lie on the grid of its PET"):
        play(box, PointsOnly(), edition="V", kind="random", steps=2, seed=0)


def test_command_writes_table_json_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    predict = Segmenter._predict_in_time
    monkeypatch.setattr(
        Segmenter, "_predict_in_time", lambda self, *asked: passes.append(1) or predict(self, *asked)
    )
    weights = write_checkpoint(tmp_path / "weights")
    arguments = ["interact", "--cases", str(ROOT / "test" / "cases.csv"), "--weights", str(weights)]
    arguments += ["--cache", str(tmp_path / "cache"), "--steps", "3", "--device", "cpu"]

    assert command([*arguments, "--out", str(tmp_path / "one")]) == 0
    assert len(passes) == 1  # three predictions cost one pass
    assert command([*arguments, "--out", str(tmp_path / "two")]) == 0
    assert len(passes) == 1  # and the cache saves that one
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:1000])
    assert command([*arguments, "--out", str(tmp_path / "three")]) == 0
    assert len(passes) == 2  # what is damaged is computed again
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "| Dice |" in printed.out
    content = json.loads((tmp_path / "one" / "interact.json").read_text())
    assert [len(each["steps"]) for each in content["cases"]] == [3]
    rows = list(csv.DictReader((tmp_path / "one" / "interact.csv").open()))
    assert [row["dice"] for row in rows] == [str(step["dice"]) for step in content["cases"][0]["steps"]]
    assert (tmp_path / "one" / "interact.png").read_bytes()[:4] == b"\x89PNG"
    again = json.loads((tmp_path / "two" / "interact.json").read_text())
    assert [s["dice"] for s in again["cases"][0]["steps"]] == [s["dice"] for s in content["cases"][0]["steps"]]


def test_what_was_kept_is_not_used_where_the_weights_are_described_otherwise(tmp_path: Path) -> None:
    (case,) = list_cases(ROOT / "test" / "cases.csv")
    paths = [write_checkpoint(tmp_path / str(overlap), overlap=overlap) for overlap in (0.25, 0.5)]
    players = [InProcess([load_checkpoint(path)], device="cpu", cache=tmp_path / "cache") for path in paths]
    assert len({each.checkpoints[0].description.sha256 for each in players}) == 1

    for player in (*players, *players):
        player.see(case)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--steps", "1", "--steps must be at least 2"),
        ("--seed", "-1", "--seed must not be negative"),
        ("--flips", "0", "--flips must lie between 1 (no mirroring) and 8, got 0"),
        ("--flips", "99", "--flips must lie between 1 (no mirroring) and 8, got 99"),
    ],
)
def test_mistakes_end_in_a_sentence(
    option: str, value: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = str(ROOT / "test" / "cases.csv")

    assert command(["interact", "--cases", cases, "--out", str(tmp_path / "out"), option, value]) == 2
    assert sentence in capsys.readouterr().err


def test_cases_without_truth_end_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = str(ROOT / "test" / "input")

    assert command(["interact", "--cases", cases, "--out", str(tmp_path / "out")]) == 2
    assert "no truth to draw scribbles from" in capsys.readouterr().err
