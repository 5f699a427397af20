"""The model card says what its files say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from algorithm.description import read_description
from evaluation.metrics import Scores
from training.crossvalidation import Row, table

ROOT = Path(__file__).resolve().parent.parent
CARD = (ROOT / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
FILES = ROOT / "docs" / "model_card"


def stored_rows() -> list[Row]:
    with (FILES / "cross_validation.csv").open(newline="", encoding="utf-8") as stream:
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


def test_the_cross_validation_is_that_of_every_patient() -> None:
    rows = stored_rows()
    methods = {row.method for row in rows}
    assert len(rows) == 41 * len(methods)
    assert len({row.patient for row in rows}) == 41
    assert table(rows) in CARD


def test_no_patient_was_scored_by_a_network_that_saw_it() -> None:
    splits = json.loads((FILES / "cross_validation_splits.json").read_text(encoding="utf-8"))
    for row in stored_rows():
        split = splits[row.fold]
        assert row.patient in split["test"]
        assert row.patient not in split["train"]
        assert not split["validation"]


def test_the_card_is_of_the_weights_beside_it() -> None:
    description = read_description(ROOT / "weights" / "h2aseg.json")
    assert description.sha256 in CARD


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()))
def test_every_file_is_named_in_the_card(name: str) -> None:
    assert name.replace("flips_8", "flips_1") in CARD
