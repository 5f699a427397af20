"""What the tests of the benchmark share: a tiny checkpoint, and measuring in this process instead of children."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.weights import save_checkpoint
from benchmark import (
    agreement,
    case,
    device_memory,
    floors,
    focused,
    forward,
    machine,
    metrics_speed,
    monai_segmentation,
    process,
    segmentation,
    tuned,
)
from benchmark.__main__ import main
from benchmark.subjects import _REFERENCE

PATCH = (32, 32, 16)
SIZE, SPACING = [48, 36, 16], [14.0, 14.0, 12.0]
TORSO = functools.cache(case.make_torso)
MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        agreement, case, device_memory, floors, focused, forward, machine, metrics_speed, monai_segmentation,
        segmentation, tuned,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of few channels and the smallest patch, on a coarse grid."""
    architecture = Architecture(channels=(4, 4, 8, 8, 16))
    torch.manual_seed(0)
    description = _REFERENCE.__class__(
        name="tiny", architecture=architecture, patch=PATCH, spacing=(14.0, 14.0, 12.0), ct=_REFERENCE.ct,
        pet=_REFERENCE.pet,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("weights")
    return save_checkpoint(folder, "tiny", H2ASeg(architecture).state_dict(), description, torch.float32)


@pytest.fixture
def quick(monkeypatch):
    """No processes, nothing counted, small peaks, and the allocator of the tests left alone."""

    class Here:
        def __init__(self, task, **arguments):
            module, function = task.split(":")
            self.work = getattr(MODULES[module], function)(**json.loads(json.dumps(arguments)))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait_until_ready(self):
            return self

        def measure(self):
            return json.loads(json.dumps(self.work()))

    def once(task, **arguments):
        return Here(task, **arguments).measure()

    monkeypatch.setattr(process, "Child", Here)
    monkeypatch.setattr(process, "measure_once", once)
    for module in (agreement, device_memory, focused, forward, segmentation, machine, tuned):
        monkeypatch.setattr(module, "reuse_freed_memory", lambda: True)
    monkeypatch.setattr(case, "make_torso", TORSO)
    monkeypatch.setattr(floors, "count_work", lambda checkpoint, patch: floors.Work(10**9, 10**6))
    monkeypatch.setattr(machine, "_MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(machine, "_COPY_BYTES", {"cpu": 2**20})


def rows_of(text):
    """The rows of the last section's table, as dictionaries."""
    lines = [line for line in text.rpartition("\n## ")[2].splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def run_parts(names, tiny, tmp_path, *options):
    out = tmp_path / "RESULTS.md"
    words = [
        *names,
        "--weights",
        tiny,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--repetitions",
        1,
        "--out",
        out,
    ]
    words += ["--size", *SIZE, "--spacing", *SPACING, *options]
    assert main([str(word) for word in words]) == 0
    return out.read_text()


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """A machine that has no patients."""
    monkeypatch.setenv("H2ASEG_DATA", str(tmp_path / "nothing"))
