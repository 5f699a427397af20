"""The commands of ``docs/evaluate.md``, in the order in which they stand there."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases
from evaluation.__main__ import main
from test.support.checkpoints import write_checkpoint
from test.support.phantom import TRUTH
from test.support.phase import write_phase
from test.support.trees import write_tree
from test.test_docs import commands

LINES = commands("evaluate.md")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the page's placeholders stand for."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_checkpoint(folder / "weights")
    write_phase(TRUTH, folder / "PHASE")
    cases = find_cases(write_tree(folder / "STUDIES", "a", "b", "c")).cases
    for number, name in enumerate(("TRUTHS", "MASKS", "OTHERS", "STUDY_MASKS")):
        (folder / name).mkdir()
        for case in cases:
            truth = sitk.ReadImage(str(case.truth))
            values = np.roll(sitk.GetArrayFromImage(truth), number, axis=1)  # each a little worse
            mask = sitk.GetImageFromArray(values)
            mask.CopyInformation(truth)
            sitk.WriteImage(mask, str(folder / name / f"{case.name}.mha"))
    return folder


@pytest.mark.parametrize("line", LINES)
def test_evaluate(
    line: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("H2ASEG_DEVICE", "cpu")
    program, *options = shlex.split(line)
    assert [program, *options[:2]] == [".venv/bin/python", "-m", "evaluation"]
    code = main(options[2:])
    assert code == 0, capsys.readouterr().err


def test_every_command_is_shown() -> None:
    shown = {shlex.split(line)[3] for line in LINES}
    assert shown >= {
        *(
            "score",
            "compare",
            "rank",
            "lesions",
            "pictures",
            "cohort",
            "emphasis",
            "interact",
            "handover",
            "verify",
        )
    }
