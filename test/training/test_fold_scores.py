"""The scores of a fold are read again only where all that made them is the same."""

from __future__ import annotations

from pathlib import Path

import torch

from algorithm.weights import describe_again, load_checkpoint
from test.support.checkpoints import write_checkpoint
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
