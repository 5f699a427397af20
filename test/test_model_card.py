"""The model card, and the history beside it, say what their files say."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from algorithm.description import read_description
from evaluation.scoring.metrics import Scores
from training.fold_scores import Row
from training.score_tables import table

ROOT = Path(__file__).resolve().parent.parent
CARD = (ROOT / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
HISTORY = (ROOT / "docs" / "weights-history.md").read_text(encoding="utf-8")
FILES = ROOT / "docs" / "model_card"


def stored_rows(name: str) -> list[Row]:
    with (FILES / name).open(newline="", encoding="utf-8") as stream:
        return [
            Row(
                each.pop("case"),
                each.pop("patient"),
                int(each.pop("fold")),
                each.pop("method"),
                Scores(**{name: float(value or "nan") for name, value in each.items()}),
            )
            for each in csv.DictReader(stream)
        ]


CROSS_VALIDATIONS = [
    "cross_validation.csv",
    "cross_validation_short.csv",
    "cross_validation_deep.csv",
    "ablation.csv",
]


@pytest.mark.parametrize("name", CROSS_VALIDATIONS)
def test_the_tables_are_those_of_every_patient(name: str) -> None:
    rows = stored_rows(name)
    methods = {row.method for row in rows}
    assert len(rows) == 41 * len(methods)
    assert len({row.patient for row in rows}) == 41
    assert table(rows) in CARD + HISTORY


@pytest.mark.parametrize("name", CROSS_VALIDATIONS)
def test_no_patient_was_scored_by_a_network_that_saw_it(name: str) -> None:
    splits = json.loads((FILES / "cross_validation_splits.json").read_text(encoding="utf-8"))
    for row in stored_rows(name):
        split = splits[row.fold]
        assert row.patient in split["test"]
        assert row.patient not in split["train"]
        assert not split["validation"]


@pytest.mark.parametrize("column", ["lesions", "touched", "matched"])
def test_the_card_counts_lesions_as_their_files_do(column: str) -> None:
    paths = sorted(FILES.glob("held_out_synthetic_lesions_flips_*.json"))
    found = [json.loads(path.read_text("utf-8")) for path in paths]
    rows = re.findall(r"^\| (?:\d+ to \d+|above \d+) ml \| (\d+) \| (.+) \|$", CARD, re.MULTILINE)
    assert len(rows) == len(found[0]["sizes"])
    for (lesions, shares), *sizes in zip(rows, *(each["sizes"] for each in found), strict=True):
        if column == "lesions":
            assert [int(lesions)] * len(sizes) == [size["lesions"] for size in sizes]
        else:
            stated = shares.split(" | ")[column == "matched" :: 2]
            assert stated == [f"{size[column] / size['lesions']:.3f}" for size in sizes]


def test_the_card_is_of_the_weights_beside_it() -> None:
    description = read_description(ROOT / "weights" / "h2aseg.json")
    assert description.sha256 in CARD


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_every_file_is_named(name: str) -> None:
    assert name.replace("flips_2", "flips_1") in CARD + HISTORY
