"""What the documentation tells to type works: every command in its blocks is run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from algorithm import __version__
from algorithm.__main__ import main
from algorithm.lesions import MeasuredLesion, Totals
from algorithm.options import add_run
from algorithm.parser import Parser
from test.conftest import ROOT
from test.support.checkpoints import PUBLISHED, random_network, released_state, write_checkpoint
from test.support.phantom import TRUTH
from test.support.phase import write_phase
from test.support.studies import write_study
from test.support.trees import write_tree
from test.test_scripts import Project

_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_SCRIPTS = ("./build.sh", "./export.sh")
_NOT_HERE = ("git clone", "./run.sh", "./test.sh")  # fetching this project, and what runs this test


def commands(document: str) -> list[str]:
    """Return the command lines of a document's blocks."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    lines = (line.strip() for block in _BLOCK.findall(text) for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the documents' placeholders stand for."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(ROOT / "weights", folder / "weights")
    torch.save(released_state(random_network(PUBLISHED)), folder / "FILE.pth")
    write_tree(folder / "STUDIES", "a", "b")
    write_phase(TRUTH, folder / "PHASE")
    return folder


def run_python(options: list[str], workspace: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "H2ASEG_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, *options], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", commands("submit.md"))
def test_submit(line: str, workspace: Path, tmp_path: Path) -> None:
    if line.startswith(_NOT_HERE):
        assert all((ROOT / script).is_file() for script in ("run.sh", "test.sh"))
        return
    words = shlex.split(line)
    settings = dict(word.split("=") for word in itertools.takewhile(lambda word: "=" in word, words))
    program, *options = words[len(settings) :]
    if program in _SCRIPTS:
        project = Project(tmp_path)
        for kind in (".json", ".safetensors"):
            (project.caller / "my_weights").mkdir(exist_ok=True)
            shutil.copy(project.weights.with_suffix(kind), project.caller / "my_weights" / f"FILE{kind}")
        result = project.run(program, *options, **settings)
        assert result.returncode == 0, result.stderr
    elif program == "docker":  # test/container.sh runs the image so
        strict = (ROOT / "test" / "container_common.sh").read_text(encoding="utf-8")
        for flag in ("--network none", "--read-only", "--cap-drop ALL", "--memory 8g"):
            assert flag in line
            assert flag in strict
        for mounted in ('"$PWD/test/input:/input:ro"', '"$PWD/out:/output"'):
            assert f"--volume {mounted}" in line
        image, *rest = options[options.index("$PWD/out:/output") + 1 :]
        assert image == f"h2aseg:{__version__}"
        parser = Parser(prog="run")
        add_run(parser)
        assert parser.parse_args(rest).flips == 1
    else:
        assert program == ".venv/bin/python", f"{line} is no command that this test knows"
        run_python(options, workspace)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic studies in DICOM, and a small network that is quick."""
    folder = tmp_path_factory.mktemp("clinic")
    write_study(folder / "STUDY")
    for name in ("p1", "p2"):
        write_study(folder / "PATIENTS" / name, name)
    write_checkpoint(folder / "weights")
    return folder


@pytest.mark.parametrize("line", commands("clinic.md"))
def test_clinic(
    line: str, clinic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which is quicker."""
    if line.startswith(_NOT_HERE):
        return
    settings = {"H2ASEG_WEIGHTS": "weights/tiny.json", "H2ASEG_FLIPS": "1", "H2ASEG_DEVICE": "cpu"}
    words, remark = shlex.split(line, comments=True), line.partition(" # ")[2]
    if words[0] == ".venv/bin/torchrun":  # as one process; test/algorithm/test_cohort.py runs two
        words = [".venv/bin/python", *words[words.index("-m") :]]
    assert words[:3] == [".venv/bin/python", "-m", "algorithm"], f"{line} is no command that this test knows"
    monkeypatch.chdir(clinic)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(words[3:]) == (2 if remark.startswith("fails here") else 0)
    if "suv" in words:
        out = capsys.readouterr().out
        text = (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")
        (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
        assert printed in out


def test_clinic_explains_all_that_the_report_measures() -> None:
    document = (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")
    table = document.partition("What `report.json` says")[2].partition("Results of an earlier run")[0]
    named = set(re.findall(r"`(\w+)`", table)) - {"totals"}
    fields = {each.name for kind in (MeasuredLesion, Totals) for each in dataclasses.fields(kind)}
    assert named == fields


def test_clinic_messages_are_real() -> None:
    """What the table quotes stands in the code, but for what is filled in."""
    document = (ROOT / "docs" / "clinic.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "algorithm" / "dicom").glob("*.py"))
    code = re.sub(r'"\s+f?"', "", code)  # sentences that go on in the next line
    rows = [
        row for row in document.partition("### What the messages mean")[2].splitlines() if row.startswith("| `")
    ]
    assert len(rows) > 15
    for quoted in re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in rows)):
        for part in re.split(r"\.\.\.|BQML, GML, CM2ML, CNTS or CPS", quoted):
            assert part.strip(" :,") in code, quoted
