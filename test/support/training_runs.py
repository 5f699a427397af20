"""Short training runs: their command lines, what they leave, and how to compare it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from test.conftest import ROOT
from training.recipe import Augmentation

PATCH = (32, 32, 16)
STILL = Augmentation(
    probability=0, rotation_deg=0, scaling=0, flip=0, gamma=1, brightness=0, noise=0, tumour_free=0
)
NETWORK = "--spacing 4 4 3 --patch 32 32 16 --channels 2 4 8 16 32"
TINY = [*NETWORK.split(), *["--batch", "2", "--steps-per-epoch", "5", "--threads", "1", "--device", "cpu"]]


def options(tree: Path, cache_folder: Path, out: Path, *more: str) -> list[str]:
    """Return the command that fits, without a proof at its end, which takes longer than these runs."""
    return ["fit", "--proof-cases", "0", *_shared(tree, cache_folder, out), *more]


def folds_options(tree: Path, cache_folder: Path, out: Path, *more: str) -> list[str]:
    return ["crossvalidate", *_shared(tree, cache_folder, out), *more]


def _shared(tree: Path, cache_folder: Path, out: Path) -> list[str]:
    return ["--cases", str(tree), "--cache", str(cache_folder), "--out", str(out), *TINY]


def state_of(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / "state.pt", weights_only=True)
    return state


def assert_identical(one: Any, other: Any) -> None:
    """Compare nested states bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_identical(left, right)
    else:
        assert one == other


def normalisations(checkpoint: Path) -> dict[str, str]:
    """Return a checkpoint's normalisations as the command line takes them."""
    stored = json.loads(checkpoint.read_text())
    numbers = ("low", "high", "mean", "std")
    return {
        what: ":".join([stored[what]["kind"], *(f"{stored[what][number]:.17f}" for number in numbers)])
        for what in ("ct", "pet")
    }


def in_two_processes(arguments: list[str]) -> str:
    """Run ``python -m training`` with these arguments by torchrun; return what it printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "training", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
