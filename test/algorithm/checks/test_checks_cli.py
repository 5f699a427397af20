"""Bad and odd images through the command line: exit code, one line on stderr, nothing in the output folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from algorithm.__main__ import main
from test.support.checkpoints import write_checkpoint
from test.support.odd_inputs import Odd, all_odd

ALL = all_odd()
NAMED = {
    "name in Latin-1", "null byte in the name", "over-long path", "named pipe", "loop of links",
    ".MHA in capitals", ".nii.gz: not a number", ".nii: vox_offset 0", ".mhd, data short",
    ".hdr with a short .img",
    "CT stored with 1024 added", "PET x380, just under 5000", "swapped, a hot voxel in the PET", "PET all zeros",
    "CT of one slice", "patient 0.2 mm wide", ".mha: singular direction", ".mha: a dimension of 0",
}  # fmt: skip
AS_DICOM = ("folder of DICOM", "single DICOM file")  # the command reads DICOM; the reader of image files does not
# Refused before any reader sees them, since no library could take them.
ON_THE_COMMAND_LINE = {
    "name in Latin-1": "is not valid UTF-8 text; rename",
    "null byte in the name": "holds a null byte; give a path",
}
SAMPLE = [
    odd for number, odd in enumerate(ALL) if odd.name not in AS_DICOM and (odd.name in NAMED or number % 9 == 0)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("H2ASEG_", "GRAND_CHALLENGE_")):
            monkeypatch.delenv(name)


def predict(folder: Path, ct: Path, pet: Path, checkpoint: Path, *options: str) -> int:
    quick = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--weights", str(checkpoint))
    return main(["predict", str(ct), str(pet), str(folder / "result"), *quick, *options])


def test_every_named_one_is_there() -> None:
    assert {odd.name for odd in ALL} >= NAMED


@pytest.mark.parametrize("odd", SAMPLE, ids=lambda odd: odd.name)
def test_odd_image(odd: Odd, tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ct, pet = odd.make(tmp_path)

    code = predict(tmp_path, ct, pet, checkpoint)

    out, err = capfd.readouterr()
    assert code == odd.code
    left = sorted(path.name for path in (tmp_path / "result").rglob("*"))
    if odd.code:
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        assert ON_THE_COMMAND_LINE.get(odd.name, odd.says) in err
        assert left == []
    else:
        assert err == ""
        assert odd.says in out
        assert odd.says in " ".join(json.loads((tmp_path / "result/report.json").read_text())["notes"])
        assert "tumour.nii.gz" in left


def test_switched_off_aloud(tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ct, pet = next(odd for odd in ALL if odd.name == "CT x2").make(tmp_path)

    assert predict(tmp_path, ct, pet, checkpoint, "--no-checks", "hu", "--no-checks", "alignment") == 0

    out, err = capfd.readouterr()
    report = json.loads((tmp_path / "result/report.json").read_text())
    assert err == ""
    for name in ("hu", "alignment"):
        assert f"the check '{name}' was switched off by --no-checks {name}" in out
        assert f"the check '{name}' was switched off by --no-checks {name}" in report["notes"]
    assert 0.7 < report["ct_cover"] <= 1


def test_unknown_check(tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert predict(tmp_path, tmp_path / "ct", tmp_path / "pet", checkpoint, "--no-checks", "everything") == 2
    assert "argument --no-checks: invalid choice: 'everything'" in capfd.readouterr().err


def test_output_folder_in_latin_1(tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Image writers end the process at such a name."""
    ct, pet = next(odd for odd in ALL if odd.name == "link to an image").make(tmp_path)

    assert predict(tmp_path / os.fsdecode("k\xe4se".encode("latin-1")), ct, pet, checkpoint) == 2
    assert "is not valid UTF-8 text; rename" in capfd.readouterr().err
