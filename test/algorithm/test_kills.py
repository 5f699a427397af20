"""A run that is killed, at whatever moment, leaves a whole mask or none, and nothing that the next run keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import SimpleITK as sitk

from algorithm.__main__ import main
from algorithm.images import read_mask
from algorithm.sockets import DATA_CENTRIC_FILE, Edition
from test.conftest import ROOT
from test.support.checkpoints import write_checkpoint
from test.support.phantom import CT_NAME, INPUT

KILLS = 40
MASK = Edition.III.mask_folder / f"{CT_NAME}.mha"


def files_in(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, int]]]:
    """The folder of the outputs, the weights, and what became of the runs."""
    folder = tmp_path_factory.mktemp("kills")
    weights = write_checkpoint(tmp_path_factory.mktemp("weights"))
    done = subprocess.run(
        [sys.executable, "-m", "test.support.killed_runs", str(folder), str(weights), str(KILLS), "20250101"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, weights, json.loads(done.stdout)


def test_a_mask_is_whole_or_not_there(killed: tuple[Path, Path, list[dict[str, int]]]) -> None:
    folder, _, runs = killed
    assert runs[0]["code"] == 0, (folder / "whole.log").read_text()
    wanted = sitk.GetArrayFromImage(read_mask(folder / "whole" / MASK))
    results = {MASK, DATA_CENTRIC_FILE}
    for run in runs[1:]:
        output = folder / str(run["run"])
        said = f"{run}: {output.with_suffix('.log').read_text() if output.with_suffix('.log').exists() else ''}"
        found = set(files_in(output)) if output.exists() else set()
        if run["signal"] == signal.SIGTERM:
            assert run["code"] in (0, 143, -signal.SIGTERM), said
            assert found <= results, f"{said}: {found}"
        else:
            assert run["code"] in (0, -signal.SIGKILL), said
            litter = found - results
            assert all(path.name.startswith(".partial-") and path.parent == Path() for path in litter), said
        if MASK in found:
            assert (sitk.GetArrayFromImage(read_mask(output / MASK)) == wanted).all(), said
    # Without both outcomes the moments would have missed what they are for.
    ends = Counter(run["code"] for run in runs[1:])
    assert ends[-signal.SIGKILL] >= KILLS // 8, ends
    assert ends[143] >= KILLS // 8, ends


def test_the_next_run_clears_what_a_killed_one_left(killed: tuple[Path, Path, list[dict[str, int]]]) -> None:
    folder, weights, _ = killed
    littered = [path for path in folder.glob("killed_*") if path.is_dir() and list(path.glob(".partial-*"))]
    output = littered[0] if littered else folder / "killed_0"
    output.mkdir(exist_ok=True)
    (output / ".partial-0123456789ab-left.mha").write_bytes(b"half a mask")  # a killed run's, whose lock is gone
    options = ["--input", INPUT, "--output", output, "--weights", weights, "--flips", "1", "--device", "cpu"]
    assert main(["run", *map(str, options)]) == 0
    assert set(files_in(output)) == {MASK, DATA_CENTRIC_FILE}
