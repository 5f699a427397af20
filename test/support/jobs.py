"""Jobs on the example case with tiny checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algorithm.job import InferenceSettings, Result, Segmenter
from algorithm.weights import Checkpoint
from test.support.phantom import CT_NAME, INPUT, PET_NAME

CT = INPUT / "images/ct" / f"{CT_NAME}.mha"
PET = INPUT / "images/pet" / f"{PET_NAME}.mha"
QUICK = InferenceSettings(flips=1)


def segment(
    ct: Path, pet: Path, checkpoints: Sequence[Checkpoint], settings: InferenceSettings = QUICK, **more: Any
) -> Result:
    return Segmenter(checkpoints, "cpu", "float32").segment(ct, pet, settings, **more)


def run(
    checkpoints: Checkpoint | Sequence[Checkpoint], settings: InferenceSettings = QUICK, **more: Any
) -> Result:
    checkpoints = [checkpoints] if isinstance(checkpoints, Checkpoint) else checkpoints
    return segment(CT, PET, checkpoints, settings, **more)
