"""The commands of ``docs/train.md``, in the order in which they stand there, on miniatures of the data sets."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import algorithm.__main__
import evaluation.__main__
import synthesis.__main__
import training.__main__
from algorithm.console import PACKAGES
from algorithm.description import read_description
from test.conftest import ROOT
from test.support.data_sets import (
    write_autopet,
    write_autopet_iii,
    write_hecktor_2022,
    write_hecktor_2025,
    write_own,
)
from test.support.training_runs import NETWORK
from test.synthesis.test_synthesis import schematic_map
from test.test_docs import commands
from test.test_scripts import Project

LINES = commands("train.md")
PAGE = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")

_PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "algorithm": algorithm.__main__.main,
    "evaluation": evaluation.__main__.main,
    "synthesis": synthesis.__main__.main,
    "training": training.__main__.main,
}
_TINY = "--steps 2 --steps-per-epoch 2 --batch 2 --workers 1 --threads 1 --device cpu"
_NOT_HERE = ("./run.sh", ".venv/bin/python -m pip")  # what sets this environment up
_ANATOMIES = 13  # one more than are held out

seen: Counter[str] = Counter()
printed: list[str] = []


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniatures under the names that the page gives them."""
    folder = tmp_path_factory.mktemp("train")
    scratch = tmp_path_factory.mktemp("scratch")
    write_autopet(folder / "FDG-PET-CT-Lesions", scratch)
    write_autopet_iii(folder / "PSMA-FDG-PET-CT-Lesions_v2", scratch)
    write_hecktor_2022(folder / "hecktor2022_training", scratch)
    write_hecktor_2025(folder / "hecktor2025_training", scratch)
    write_own(folder / "own", scratch)
    (folder / "weights").mkdir()
    anatomy = scratch / "organs.nii.gz"
    sitk.WriteImage(schematic_map(), anatomy)
    for number in range(_ANATOMIES):
        (folder / "anatomy" / f"fdg_{number:02}").mkdir(parents=True)
        shutil.copy(anatomy, folder / "anatomy" / f"fdg_{number:02}")
    return folder


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv("H2ASEG_DEVICE", "cpu")
    yield
    torch.set_num_threads(threads)


def smaller(program: str, words: list[str], line: str) -> list[str]:
    """Return a command's words for the miniatures; of two values of an option the later one counts."""
    if program == "synthesis":
        return [*words, "--count", "1", "--spacing", "8", "8", "8"]
    if program == "training" and words[0] in ("fit", "crossvalidate"):
        begun = "--time-budget" in words and seen[line] == 1
        proof = ["--proof-cases", "1"] if words[0] == "fit" else []
        return [*words, *NETWORK.split(), *_TINY.split(), *proof, "--time-budget", "0" if begun else "inf"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_train(
    line: str,
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, which is quicker; what torchrun starts runs as one process of it."""
    seen[line] += 1
    words = shlex.split(line)
    monkeypatch.chdir(workspace)
    if line.startswith(_NOT_HERE):
        assert (ROOT / "run.sh").is_file()
        assert all((ROOT / each).is_file() for each in words if each.endswith(".txt"))
    elif words[0] == "cp":
        shutil.copy(words[1], words[2])
    elif words[0] in ("./build.sh", "./export.sh"):
        result = Project(tmp_path).run(*words)
        assert result.returncode == 0, result.stderr
    elif words[0] == ".venv/bin/tensorboard":
        assert importlib.metadata.entry_points(group="console_scripts", name="tensorboard")
        assert words[1:] == ["--logdir", "runs"]
    else:
        if words[0] == ".venv/bin/torchrun":
            assert words[1:4] == ["--nproc-per-node", "4", "-m"]
            assert words[-2:] == ["--batch", "16"]
            words[1:3] = []
        assert words[:2] in ([".venv/bin/python", "-m"], [".venv/bin/torchrun", "-m"]), f"{line} is unknown here"
        program = words[2]
        code = _PROGRAMS[program](smaller(program, words[3:], line))
        out, err = capsys.readouterr()
        assert code == 0, err
        assert err == ""
        printed.append(out)


@pytest.mark.slow
def test_what_the_commands_left(workspace: Path) -> None:
    run = workspace / "runs/autopet"
    names = ("state.pt", "last.json", "last.safetensors", "best.json", "split.json", "validation.csv", "test.csv")
    assert all((run / name).is_file() for name in names)
    events = EventAccumulator(str(run / "events")).Reload()
    tags = set(events.Tags()["scalars"])
    named = re.findall(r"`(\w+)`", PAGE.partition("tensorboard --logdir runs")[2].partition("What is printed")[0])
    assert len(named) >= 6
    assert set(named) <= tags
    assert any(tag.startswith("logits_level_") for tag in tags)
    chosen = read_description(workspace / "weights/h2aseg.json")
    assert chosen.precision.largest_logit is not None
    assert chosen.sha256 == read_description(run / "best.json").sha256
    for place in ("table.md", "scores.csv", "masks", *(f"fold_{fold}" for fold in range(5))):
        assert (workspace / "runs/cv" / place).exists()
    assert list(workspace.glob("bodies_held_out/synthetic_0000/*/organs.nii.gz"))


def column(heading: str, number: int) -> list[str]:
    """Return what stands in backticks in a column of the table that begins with this heading."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [row.split("|")[number] for row in table.splitlines()[2:]]
    return [quoted for cell in cells for quoted in re.findall(r"`([^`]+)`", cell)]


def sources() -> str:
    """Return all code, sentences that go on in the next line joined."""
    code = "".join(path.read_text(encoding="utf-8") for each in PACKAGES for path in (ROOT / each).rglob("*.py"))
    return re.sub(r'"\s+f?"', "", code)


@pytest.mark.slow
def test_the_lines_that_are_explained_are_printed() -> None:
    code, lines = sources(), "\n".join(printed)
    quoted = column("Line", 1)
    assert len(quoted) > 15
    rare = ("no SEG.nii.gz", "each case counts as one", "steps skipped, their gradients not being finite")
    for part in [part for line in quoted for part in re.split("…", line)]:
        found = part in lines or any(each in part or part.strip() in each for each in rare)
        assert found or part.strip(" :,") in code, part
    assert sum(all(part in lines for part in re.split("…", line)) for line in quoted) > 12


def test_the_mistakes_have_the_sentences_that_are_quoted() -> None:
    quoted = column("You did", 2)
    assert len(quoted) >= 14
    code = sources()
    wanted = {"no SEG.nii.gz": "SEG.nii.gz"}  # made of the layout's names
    for sentence in quoted:
        assert wanted.get(sentence, sentence) in code, sentence


def test_every_command_is_shown() -> None:
    shown = {tuple(shlex.split(line)[2:4]) for line in LINES if line.startswith(".venv/bin/python -m")}
    missing = {("training", name) for name in training.__main__.COMMANDS} - shown
    assert missing == {("training", "resampling")}
