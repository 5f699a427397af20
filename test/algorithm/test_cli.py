from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.__main__ import main
from algorithm.description import Postprocessing
from algorithm.inference import case_run
from algorithm.inference.passes import Pass
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint
from test.conftest import ROOT
from test.support.checkpoints import write_checkpoint
from test.support.phantom import CT_NAME, INPUT, PET_NAME

CT = INPUT / "images/ct" / f"{CT_NAME}.mha"
PET = INPUT / "images/pet" / f"{PET_NAME}.mha"
AUTOMATED = f"images/automated-petct-lesion-segmentation/{CT_NAME}.mha"
INTERACTIVE = f"images/tumor-lesion-segmentation/{CT_NAME}.mha"
QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("H2ASEG_", "GRAND_CHALLENGE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with the test case as ``input`` and an empty ``output``."""
    shutil.copytree(INPUT, tmp_path / "input")
    (tmp_path / "output").mkdir()
    return tmp_path


def in_a_process(
    *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "algorithm", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_job(job: Path, checkpoint: Path, *arguments: object) -> int:
    places = ("--input", job / "input", "--output", job / "output", "--weights", checkpoint)
    return main([str(each) for each in ("run", *places, *QUICK, *arguments)])


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_mask_fits(mask: Path, pet: Path) -> None:
    image, grid = sitk.ReadImage(mask), sitk.ReadImage(pet)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert image.GetSize() == grid.GetSize()
    assert image.GetSpacing() == grid.GetSpacing()
    assert image.GetOrigin() == grid.GetOrigin()
    assert image.GetDirection() == grid.GetDirection()
    assert set(np.unique(sitk.GetArrayFromImage(image))) <= {0, 1}


class TestProcess:
    """As grand-challenge starts it: a process of its own, configured by environment variables."""

    def test_a_job(self, job: Path, checkpoint: Path) -> None:
        environment = {
            "H2ASEG_INPUT": str(job / "input"),
            "H2ASEG_OUTPUT": str(job / "output"),
            "H2ASEG_WEIGHTS": str(checkpoint),
            "H2ASEG_DEVICE": "cpu",
            "H2ASEG_FLIPS": "1",
            "H2ASEG_REPORT": str(job / "report.json"),
            "H2ASEG_PICTURE": str(job / "picture.png"),
        }

        done = in_a_process(environment=environment)

        assert done.stderr == ""
        assert done.returncode == 0
        assert files_in(job / "output") == {AUTOMATED, "data-centric-model.json"}
        assert_mask_fits(job / "output" / AUTOMATED, PET)
        assert (job / "picture.png").read_bytes().startswith(b"\x89PNG")
        report = json.loads((job / "report.json").read_text())
        assert report["edition"] == "III"
        assert report["passes"] == report["passes_planned"] == 1
        assert report["weights"][0]["name"] == "tiny"
        voxel_ml = np.prod(sitk.ReadImage(PET).GetSpacing()) / 1000
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(job / "output" / AUTOMATED)).sum()
        assert report["total_volume_ml"] == pytest.approx(voxels * voxel_ml)
        last = done.stdout.splitlines()[-1]
        assert last.startswith(f"tumour: {report['total_volume_ml']:.2f} ml in {len(report['lesions'])} lesion")

    def test_no_ct(self, job: Path) -> None:
        next((job / "input/images/ct").iterdir()).unlink()

        done = in_a_process("--input", job / "input", "--output", job / "output")

        assert done.stderr == (
            f"Error: no CT image found in {job}/input/images/ct (looked for .mha, .mhd, .tif); "
            "put exactly one there\n"
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert files_in(job / "output") == set()

    def test_help_is_quick_and_needs_no_torch(self) -> None:
        blocked = "import sys; sys.modules['torch'] = None; from algorithm.__main__ import main; main(['--help'])"

        done = subprocess.run(
            [sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, done.stderr
        for command in ("run", "predict", "preflight", "weights"):
            assert command in done.stdout


@pytest.mark.parametrize(
    ("edition", "mask", "others"),
    [
        ("I", AUTOMATED, set()),
        ("II", AUTOMATED, set()),
        ("III", AUTOMATED, {"data-centric-model.json"}),
        ("IV", INTERACTIVE, set()),
        ("V", INTERACTIVE, set()),
    ],
)
def test_layout_of_each_edition(
    edition: str, mask: str, others: set[str], job: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if edition in ("IV", "V"):
        (job / "input/lesion-clicks.json").write_text('{"points": []}')

    assert run_job(job, checkpoint, "--edition", edition) == 0

    assert files_in(job / "output") == {mask, *others}
    assert_mask_fits(job / "output" / mask, PET)
    for name in others:
        assert json.loads((job / "output" / name).read_text()) is False
    out, err = capsys.readouterr()
    assert f"AutoPET {edition}: CT " in out
    assert err == ""


def test_library_command_and_repetition_give_the_same_bytes(job: Path, checkpoint: Path) -> None:
    masks = []
    for _ in range(2):
        assert run_job(job, checkpoint) == 0
        masks.append((job / "output" / AUTOMATED).read_bytes())

    segmenter = Segmenter([load_checkpoint(checkpoint)], "cpu", "float32")
    result = segmenter.segment(CT, PET, InferenceSettings(flips=1))

    assert masks[0] == masks[1]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(job / "output" / AUTOMATED)), result.mask)


class TestPredict:
    def test_mask_report_and_picture(self, tmp_path: Path, checkpoint: Path) -> None:
        out = tmp_path / "results" / "case"

        assert main(["predict", str(CT), str(PET), str(out), "--weights", str(checkpoint), *QUICK]) == 0

        assert files_in(out) == {"tumour.nii.gz", "report.json", "report.html", "picture.png"}
        image, grid = sitk.ReadImage(out / "tumour.nii.gz"), sitk.ReadImage(PET)
        assert image.GetSize() == grid.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), grid.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(image.GetDirection(), grid.GetDirection(), atol=1e-6)
        report = json.loads((out / "report.json").read_text())
        assert (report["edition"], report["ct"], report["pet"]) == (None, str(CT), str(PET))

    def test_a_cpu_says_how_long_it_will_take_and_shows_a_bar(
        self,
        tmp_path: Path,
        checkpoint: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(case_run, "flip_order", lambda *_: ((),))  # of the eight that the limit would allow
        arguments = ["predict", str(CT), str(PET), str(tmp_path), "--weights", str(checkpoint), *QUICK[:-2]]
        assert main([*arguments, "--time-limit", "1000"]) == 0

        streams = capsys.readouterr()
        windows = json.loads((tmp_path / "report.json").read_text())["windows"]
        assert re.search(r"one pass will take about \d+ s on cpu", streams.out)
        assert f"pass 1:   0%|          | 0/{windows} " in streams.out
        assert streams.err == ""

    def test_without_a_limit_no_window_is_computed_to_time_it(
        self, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Pass, "seconds_per_window", lambda _: pytest.fail("a window was timed"))

        assert main(["predict", str(CT), str(PET), str(tmp_path), "--weights", str(checkpoint), *QUICK]) == 0

        streams = capsys.readouterr()
        assert "will take" not in streams.out
        assert "pass 1:   0%|" in streams.out

    def test_report_and_picture_elsewhere(self, tmp_path: Path, checkpoint: Path) -> None:
        elsewhere = ["--report", str(tmp_path / "r.json"), "--picture", str(tmp_path / "p.png")]

        arguments = ["predict", str(CT), str(PET), str(tmp_path / "out"), "--weights", str(checkpoint)]
        assert main([*arguments, *QUICK, *elsewhere]) == 0

        assert files_in(tmp_path) == {"out/tumour.nii.gz", "out/report.html", "r.json", "p.png"}

    @pytest.mark.parametrize("which", [0, 1], ids=["ct", "pet"])
    def test_inputs_are_never_overwritten(
        self, which: int, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pair = [CT, PET]
        pair[which] = tmp_path / "tumour.nii.gz"
        sitk.WriteImage(sitk.ReadImage([CT, PET][which]), pair[which])
        before = pair[which].read_bytes()

        code = main(["predict", *map(str, pair), str(tmp_path), "--weights", str(checkpoint), *QUICK])

        assert code == 2
        assert f"the mask would overwrite its own input {pair[which]}" in capsys.readouterr().err
        assert pair[which].read_bytes() == before
        assert files_in(tmp_path) == {"tumour.nii.gz"}

    @pytest.mark.parametrize("option", ["--report", "--picture"])
    def test_nor_by_report_or_picture(
        self, option: str, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ct = tmp_path / "ct.mha"
        ct.write_bytes(CT.read_bytes())
        arguments = ["predict", str(ct), str(PET), str(tmp_path / "out"), "--weights", str(checkpoint)]

        assert main([*arguments, *QUICK, option, str(ct)]) == 2

        assert f"{option} {ct} would overwrite an input image" in capsys.readouterr().err
        assert ct.read_bytes() == CT.read_bytes()

    @pytest.mark.data
    def test_real_patient(self, real_data: Path, tmp_path: Path, checkpoint: Path) -> None:
        folder = real_data / "sts" / "STS_002" / "pet-ct"
        ct, pet = folder / "CTres.nii.gz", folder / "SUV.nii.gz"

        assert main(["predict", str(ct), str(pet), str(tmp_path), "--weights", str(checkpoint), *QUICK]) == 0

        assert_mask_fits(tmp_path / "tumour.nii.gz", pet)
        assert not json.loads((tmp_path / "report.json").read_text())["ct_resampled"]

    def test_swapped_images(self, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["predict", str(PET), str(CT), str(tmp_path), "--weights", str(checkpoint), *QUICK]) == 2

        assert "check that CT and PET are not swapped" in capsys.readouterr().err
        assert files_in(tmp_path) == set()


class TestPreflight:
    def test_ready(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["preflight", "--weights", str(checkpoint), "--device", "cpu"]) == 0

        out, err = capsys.readouterr()
        assert out.splitlines()[-1] == "ready"
        assert "one window through tiny: " in out
        assert err == ""

    def test_an_ensemble_that_no_run_takes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, threshold in (("one", 0.5), ("two", 0.4)):
            write_checkpoint(tmp_path, name, threshold=threshold)
        assert main(["preflight", "--weights", str(tmp_path), "--device", "cpu"]) == 3
        assert "the checkpoints of an ensemble must have the same threshold" in capsys.readouterr().err

    def test_not_ready(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["preflight", "--weights", str(tmp_path), "--device", "cpu"]) == 3

        out, err = capsys.readouterr()
        assert "ready" not in out
        assert err.startswith("Error: no weights found in ")


def test_verify_names_every_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fold_0", "fold_1"):
        write_checkpoint(tmp_path, name, provenance={"trained on": "nothing"})

    assert main(["weights", "verify", str(tmp_path)]) == 0

    out = capsys.readouterr().out
    assert all(f"weights {name}: " in out for name in ("fold_0", "fold_1"))
    assert out.count("trained on: nothing") == 2


def test_verify_says_what_decides_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = Postprocessing(minimum_lesion_ml=0.3, minimum_suv_max=2.0)
    write_checkpoint(
        tmp_path, "w", threshold=0.45, overlap=0.25, postprocessing=cleaned, provenance={"data": [1], "steps": 7}
    )

    assert main(["weights", "verify", str(tmp_path)]) == 0

    out = capsys.readouterr().out
    assert "windows overlap by 25%, threshold 0.45\n" in out
    assert "flips along x, y, z: 8 passes at most\n" in out
    assert "clean-up: minimum lesion ml 0.3, suv floor 0.0, minimum suv max 2.0\n" in out
    assert "number formats proved in all levels: float32 alone\n" in out
    assert "steps: 7\n" in out
    assert "provenance in w.json has besides: data\n" in out
