"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithm.job import InferenceSettings, Result, Segmenter
from algorithm.weights import find_checkpoints, load_checkpoint
from benchmark.agreement import dice_of
from test.support.phantom import CT_NAME, INPUT, PET_NAME
from test.support.trees import write_tree
from training.__main__ import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
MIB = 2**20


@pytest.fixture
def whole_device() -> Iterator[None]:
    """Give back the device's memory that a test locked away."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def run(device: str, precision: str) -> Result:
    checkpoint = load_checkpoint(find_checkpoints(None)[0])
    ct, pet = INPUT / f"images/ct/{CT_NAME}.mha", INPUT / f"images/pet/{PET_NAME}.mha"
    return Segmenter([checkpoint], device, precision).segment(ct, pet, InferenceSettings(flips=2))


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999), ("float16", 0.99), ("bfloat16", 0.97)])
def test_the_default_weights_find_on_a_gpu_what_they_find_on_a_cpu(precision: str, least: float) -> None:
    on_gpu = run("cuda", precision)
    assert on_gpu.mask.any()
    assert dice_of(on_gpu.mask, run("cpu", "float32").mask) >= least
    assert on_gpu.report.precision == precision
    assert on_gpu.report.peak_device_memory_mib


@pytest.mark.usefixtures("whole_device")
def test_a_small_device_takes_smaller_batches_and_finds_the_same() -> None:
    expected = run("cuda", "float32")
    assert expected.report.peak_device_memory_mib
    total_mib = torch.cuda.get_device_properties(0).total_memory / MIB
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(expected.report.peak_device_memory_mib / 2 / total_mib)

    result = run("cuda", "float32")

    assert any("the device's memory is too small" in note for note in result.report.notes)
    assert dice_of(result.mask, expected.mask) > 0.999


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_training_learns_on_a_gpu(precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "data", *"abc")
    command = ["fit", "--data", str(tree), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    command += ["--spacing", "4", "4", "3", "--patch", "32", "32", "16", "--split", "all", "--threads", "1"]
    command += ["--steps", "20", "--steps-per-epoch", "10", "--warm-up", "2", "--batch", "2"]
    command += ["--device", "cuda", "--precision", precision]
    assert main(command) == 0
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in capsys.readouterr().out.splitlines() if "loss" in line
    ]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
