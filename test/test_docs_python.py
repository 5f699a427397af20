"""The examples of ``docs/python-api.md``, run in their order in one session, and what they leave."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from test.conftest import ROOT
from test.support.checkpoints import write_checkpoint
from test.support.dicom import Maker
from test.support.jobs import CT, PET
from test.support.phantom import TRUTH

PAGE = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("highdicom", reason="the examples of DICOM need requirements-clinic.txt")
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "weights")
    for name, path in (("ct", CT), ("pet", PET), ("truth", TRUTH)):
        sitk.WriteImage(sitk.ReadImage(str(path)), f"{name}.nii.gz")
    hot = np.full((6, 12, 14), 2000, np.int16)
    hot[2:4, 4:8, 4:8] = 30000  # SUV 5.7 by the maker's dose and weight
    Maker().pet(tmp_path / "study" / "pet", hot)
    Maker().ct(tmp_path / "study" / "ct", np.zeros((6, 12, 14), np.int16))
    session: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/python-api.md", "exec"), session)
    for left in ("masks/case.nii.gz", "suv.nii.gz", "lesions.dcm", "report.html"):
        assert (tmp_path / left).stat().st_size > 0, left
    said = capsys.readouterr().out
    assert " lesions\n" in said
    assert "Dice " in said


def test_the_public_functions_are_shown() -> None:
    shown = "\n".join(EXAMPLES)
    for name in (
        "Segmenter(", "InferenceSettings(", "read_pet_ct(", "write_mask(", "guide(", "read_study(", "convert(",
        "write_segmentation(", "write_page(", "measure(", "score_pairs(",
    ):  # fmt: skip
        assert name in shown, name
