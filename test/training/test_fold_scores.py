"""The scores of a fold are read again only where all that made them is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import training.baselines
from algorithm.cases import find_cases
from algorithm.weights import describe_again, load_checkpoint
from test.support.checkpoints import write_checkpoint
from test.support.trees import alter, write_tree
from training.fold_scores import score_fold


def test_a_checkpoint_described_otherwise_is_scored_anew(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "fold_0")
    stored = checkpoint.with_name("scores.json")

    def score() -> int:
        score_fold(0, checkpoint, [], [1], torch.device("cpu"), "float32")
        return stored.stat().st_ino

    first = score()
    assert score() == first
    describe_again(load_checkpoint(checkpoint), provenance={"data": "others"})
    assert score() == first
    describe_again(load_checkpoint(checkpoint), threshold=0.4)  # as `training cleanup --write` does
    assert score() != first


def test_corrected_contours_are_scored_anew(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "fold_0")
    root = write_tree(tmp_path / "set", "a")

    def score() -> dict[str, float]:
        rows = score_fold(0, checkpoint, find_cases(root).cases, [1], torch.device("cpu"), "float32")
        return {row.method: row.scores.truth_ml for row in rows}

    first = score()
    stamp = checkpoint.with_name("scores.json").stat().st_ino
    assert score() == first
    assert checkpoint.with_name("scores.json").stat().st_ino == stamp
    alter(root / "a/study/SEG.nii.gz", lambda values: values * (values.cumsum().reshape(values.shape) % 2))
    assert score()["network"] == pytest.approx(first["network"] / 2, rel=0.05)


def test_other_baselines_are_scored_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_checkpoint(tmp_path / "fold_0")
    stamps = []
    for _ in range(2):
        score_fold(0, checkpoint, [], [1], torch.device("cpu"), "float32")
        stamps.append(checkpoint.with_name("scores.json").stat().st_ino)
        (tmp_path / "baselines.py").write_text("# others")
        monkeypatch.setattr(training.baselines, "__file__", str(tmp_path / "baselines.py"))
    assert stamps[0] != stamps[1]
