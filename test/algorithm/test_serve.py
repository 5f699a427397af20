"""The product behind the invoke API, and the calls of an interactive case, on the example with a tiny network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.__main__ import main
from algorithm.commands.jobs import _nothing_stale
from algorithm.console import Terminated
from algorithm.images import read_pet_ct, write_mask
from algorithm.inference.tuning import Tuning
from algorithm.job import Segmenter
from algorithm.outputs import MASK
from algorithm.weights import load_checkpoint
from test.conftest import ROOT
from test.support.ask import ask
from test.support.checkpoints import write_checkpoint
from test.support.jobs import CT, PET, QUICK
from test.support.phantom import CT_NAME, INPUT

AUTOMATED = "images/automated-petct-lesion-segmentation"
INTERACTIVE = "images/tumor-lesion-segmentation"
SETTINGS = ("--device", "cpu", "--precision", "float32", "--flips", "1")


class Server:
    """A server of the product on folders of its own."""

    def __init__(self, folder: Path, *options: str, healthy: bool = True) -> None:
        self.input, self.output = folder / "input", folder / "output"
        self.input.mkdir()
        self.output.mkdir()
        where = ("--input", str(self.input), "--output", str(self.output), "--host", "127.0.0.1", "--port", "0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "algorithm", "serve", *where, *options],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = ""
        while not (told := re.search(r"listening on .*:(\d+)$", line.strip())):
            line = self.process.stdout.readline()
            assert line, "the server ended before it listened"
        self.port = int(told.group(1))
        if healthy:
            self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + 120
        while ask(self.port, "GET", "/health")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def invoke(self, images: Path | None) -> tuple[int, str]:
        """Put one job's input in place, with an empty output, and ask for it."""
        for folder in (self.input, self.output):
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if images is not None:
            shutil.copytree(images, self.input / "images")
        return ask(self.port, "POST", "/invoke")

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.output)): p.read_bytes() for p in self.output.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"), seed=1)


@pytest.fixture
def server(tmp_path: Path, checkpoint: Path) -> Iterator[Server]:
    running = Server(tmp_path, "--weights", str(checkpoint), *SETTINGS, "--tune-s", "0")
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another case: the example, mirrored from front to back and hotter."""
    for name in ("ct", "pet"):
        (path,) = (INPUT / "images" / name).iterdir()
        image = sitk.ReadImage(str(path))
        mirrored = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, ::-1] * (2 if name == "pet" else 1))
        mirrored.CopyInformation(image)
        target = tmp_path / "other" / name / path.name
        target.parent.mkdir(parents=True)
        sitk.WriteImage(mirrored, str(target), useCompression=True)
    return tmp_path / "other"


def exec_job(images: Path, checkpoint: Path, folder: Path, *options: str) -> dict[str, bytes]:
    """Return the files of the same job as a run of its own."""
    shutil.copytree(images, folder / "input" / "images")
    where = ["--input", str(folder / "input"), "--output", str(folder / "output")]
    assert main(["run", *where, "--weights", str(checkpoint), *SETTINGS, *options]) == 0
    output = folder / "output"
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


def test_jobs_leave_nothing_behind_but_their_results(
    server: Server, checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    first, second = (
        exec_job(images, checkpoint, tmp_path / f"exec_{number}")
        for number, images in enumerate((INPUT / "images", other))
    )
    mask = f"{AUTOMATED}/{CT_NAME}.mha"
    assert first[mask] != second[mask], "the cases must differ, or the test tells nothing"
    seen = []
    for images in (INPUT / "images", None, other, INPUT / "images"):
        status, text = server.invoke(images)
        seen.append((status, server.files()))
        if images is None:
            assert text.startswith("no CT image found in ")
    assert seen == [(201, first), (422, {}), (201, second), (201, first)]
    server.process.send_signal(signal.SIGTERM)
    _, stderr = server.process.communicate(timeout=10)
    assert server.process.returncode == 0
    assert stderr.count("\n") == 1


def test_the_choice_of_a_server_can_be_repeated_by_a_run(tmp_path: Path, checkpoint: Path) -> None:
    tuning = tmp_path / "tuning.json"
    running = Server(tmp_path, "--weights", str(checkpoint), *SETTINGS, "--tuning", str(tuning))
    assert json.loads(tuning.read_text())["tuning"]["precision"] == "float32"
    assert running.invoke(INPUT / "images")[0] == 201
    served = running.files()
    running.process.send_signal(signal.SIGTERM)
    said, _ = running.process.communicate(timeout=60)
    assert running.process.returncode == 0
    assert "the way before tuning" in said

    assert exec_job(INPUT / "images", checkpoint, tmp_path / "exec", "--tuning", str(tuning)) == served


def test_sigterm_ends_a_server_while_it_tunes(tmp_path: Path) -> None:
    running = Server(tmp_path, "--device", "cpu", healthy=False)  # the built-in weights: seconds of tuning
    assert running.process.stdout is not None
    line = ""
    while "which way of computing windows is fastest" not in line:
        line = running.process.stdout.readline()
        assert line, "the server ended before it tuned"
    assert ask(running.port, "GET", "/health")[0] == 503
    running.process.send_signal(signal.SIGTERM)
    said, stderr = running.process.communicate(timeout=60)
    assert (running.process.returncode, stderr) == (0, "")
    assert said.endswith("stopped\n")


def test_broken_weights_end_the_server_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "algorithm", "serve", "--port", "0", "--weights", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("Error: ")


def write_job(folder: Path, ct_name: str, points: dict[str, list[list[int]]] | None) -> None:
    """One call of an interactive case: the CT's name changes from call to call."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(INPUT / "images", folder / "images")
    (ct,) = (folder / "images/ct").iterdir()
    ct.rename(ct.with_name(f"{ct_name}.mha"))
    if points is not None:
        (folder / "lesion-clicks.json").write_text(json.dumps(points))


def six_calls(folder: Path, checkpoint: Path, *options: str) -> list[bytes]:
    """Return the mask of every call, each with one more scribble, over one output folder."""
    tumour = [[60, 40, z] for z in range(40, 45)]
    background = [[50, 50, z] for z in range(60, 65)]
    masks = []
    for call in range(6):
        points = {"tumor": tumour[: (call + 1) // 2], "background": background[: call // 2]}
        write_job(folder / "input", f"uuid-{call}", points if call else None)
        where = ["--input", str(folder / "input"), "--output", str(folder / "output"), "--edition", "V"]
        assert main(["run", *where, "--weights", str(checkpoint), *SETTINGS, *options]) == 0
        (mask,) = (folder / "output" / INTERACTIVE).iterdir()
        assert mask.name == f"uuid-{call}.mha", "the mask of the call before gives way to the new one"
        masks.append(mask.read_bytes())
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
        assert all(voxels[z, y, x] == 1 for x, y, z in points["tumor"] if call)
        assert all(voxels[z, y, x] == 0 for x, y, z in points["background"] if call)
    return masks


def test_six_calls_replace_the_mask_and_the_cache_changes_none(
    tmp_path: Path, checkpoint: Path, predictions: list[object]
) -> None:
    without = six_calls(tmp_path / "a", checkpoint, "--cache", str(tmp_path / "absent"))
    assert len(predictions) == 6
    (tmp_path / "cache").mkdir()
    kept = six_calls(tmp_path / "b", checkpoint, "--cache", str(tmp_path / "cache"))
    assert len(predictions) == 7, "the network saw the case once"
    assert kept == without
    assert len(set(without)) > 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_cache_is_not_used(
    tmp_path: Path, checkpoint: Path, predictions: list[object], damage: bytes
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    write_job(tmp_path / "input", "uuid", {"tumor": [[60, 40, 40]], "background": []})
    words = ["run", "--input", str(tmp_path / "input"), "--output", str(tmp_path / "output"), "--edition", "V"]
    words += ["--weights", str(checkpoint), *SETTINGS, "--cache", str(cache)]
    assert main(words) == 0
    (mask,) = (tmp_path / "output" / INTERACTIVE).iterdir()
    first = mask.read_bytes()
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert main(words) == 0
    assert len(predictions) == 2
    assert mask.read_bytes() == first


def test_a_job_that_is_stopped_leaves_no_earlier_mask(tmp_path: Path) -> None:
    mask = tmp_path / "mask.mha"
    for stopped in (KeyboardInterrupt(), Terminated()):
        write_mask(np.zeros((2, 2, 2), np.uint8), sitk.Image([2, 2, 2], sitk.sitkFloat32), mask)
        with pytest.raises(type(stopped)), _nothing_stale({mask: MASK}):
            raise stopped
        assert not mask.exists()


def test_what_tuning_chose_does_not_make_another_case(checkpoint: Path) -> None:
    segmenter = Segmenter([load_checkpoint(checkpoint)], "cpu", "float32")
    pair, keys = read_pet_ct(CT, PET), set()
    for tuning in (
        Tuning("float32", 1, channels_last=True, threads=1),
        Tuning("float32", 2, channels_last=False, threads=1),
        Tuning("bfloat16", 1, channels_last=True, threads=1),
    ):
        segmenter.predictor.use(tuning)
        keys.add(segmenter.key(pair, QUICK))
    assert len(keys) == 2


def test_other_settings_other_images_and_another_checkpoint_are_another_case(
    tmp_path: Path, checkpoint: Path, other: Path, predictions: list[object]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    weights = write_checkpoint(tmp_path / "second", seed=2)
    described_otherwise = write_checkpoint(tmp_path / "third", seed=2, overlap=0.5)
    for number, (images, path, options) in enumerate(
        [
            (INPUT / "images", checkpoint, ()),
            (INPUT / "images", checkpoint, ("--overlap", "0.1")),
            (other, checkpoint, ()),
            (other, weights, ()),
            (other, described_otherwise, ()),
        ]
    ):
        exec_job(images, path, tmp_path / str(number), "--edition", "V", "--cache", str(cache), *options)
        assert len(predictions) == number + 1
