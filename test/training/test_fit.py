from __future__ import annotations

import itertools
import json
import math
import re
import shutil

import pytest
import torch

from algorithm.files import claimed
from algorithm.weights import describe_again, load_checkpoint
from test.support.processor import BFLOAT16_HERE
from test.support.training_runs import (
    PATCH,
    assert_identical,
    folds_options,
    in_two_processes,
    normalisations,
    options,
    state_of,
)
from test.support.trees import alter, write_tree
from training.__main__ import main
from training.losses import DeepSupervisionLoss
from training.parallel import Processes


@pytest.mark.numerical
def test_fit_learns_and_exports_a_checkpoint_that_loads(tree, cache_folder, tmp_path, capsys):
    more = [
        "--steps",
        "20",
        "--learning-rate",
        "3e-3",
        "--warm-up",
        "5",
        "--dropout",
        "0",
        "--validate-every",
        "2",
        "--proof-cases",
        "1",
    ]
    assert main(options(tree, cache_folder, tmp_path / "run", *more)) == 0
    printed = capsys.readouterr()

    assert printed.err == ""
    lines = printed.out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    losses = [float(line.split("loss ")[1].split()[0]) for line in epochs]
    assert len(epochs) == 4
    assert losses[-1] < 0.8 * losses[0]
    assert [line.count("validation of 1: Dice") for line in epochs] == [0, 1, 0, 1]
    assert "  tumour-free c_study: trains background only" in lines
    assert lines[-2].startswith("low precision: ")
    checkpoint = load_checkpoint(tmp_path / "run" / "last.json")
    assert checkpoint.description.patch == PATCH
    assert checkpoint.description.ct.kind == "z-score-stored"
    assert checkpoint.description.provenance["steps"] == 20
    assert [(data["cases"], data["share"]) for data in checkpoint.description.provenance["data"]] == [(3, 5)]
    assert json.loads((tmp_path / "run" / "split.json").read_text()) == {
        "train": ["a", "b", "c"],
        "validation": ["d"],
        "test": ["e"],
    }
    assert list((tmp_path / "run" / "events").iterdir())


def test_options_are_checked_before_anything_is_preprocessed(tree, tmp_path, capsys):
    for option, value in (("--workers", "0"), ("--save-every", "0"), ("--steps", "0"), ("--proof-cases", "-1")):
        assert main(options(tree, tmp_path / "cache", tmp_path / "run", option, value)) == 2
        assert f"got {value}" in capsys.readouterr().err
        assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--init", "nothing/last.json"], "nothing/last.json"),
        (["--init", "TRAINED", "--spacing", "5", "5", "5"], "was trained with the spacing"),
        (["--split", "nothing.json"], "cannot use nothing.json as a split"),
        (["--split", "fold:7/5"], "the fold must lie between 0 and 4, got 7"),
        (["--precision", "float16"], "--precision float16 needs a GPU"),
    ],
)
def test_what_a_run_needs_is_checked_before_anything_is_preprocessed(
    tree, tmp_path, capsys, trained, more, message
):
    more = [str(trained) if word == "TRAINED" else word for word in more]
    assert main(options(tree, tmp_path / "cache", tmp_path / "run", *more)) in (2, 3)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_batch_that_the_processes_cannot_share_is_refused_at_once(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.session.join_processes", lambda device: Processes(0, 3))
    assert main(options(tree, tmp_path / "cache", tmp_path / "run", "--batch", "4")) == 2
    assert "--batch 4 must be a multiple of the 3 processes" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_new_run_leaves_nothing_of_the_earlier_one_s_validation(tree, cache_folder, tmp_path):
    line = options(tree, cache_folder, tmp_path, "--steps", "1")
    assert main(line) == 0
    earlier = [tmp_path / name for name in ("validation.csv", "test.csv", "best.json", "best.safetensors")]
    assert all(path.is_file() for path in earlier)
    (tmp_path / "state.pt").unlink()
    assert main([*line, "--split", "all"]) == 0
    assert not any(path.exists() for path in earlier)


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_run_does_not_overwrite_what_it_starts_from(tree, cache_folder, trained, tmp_path, capsys, name):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"{name}{suffix}").write_bytes(trained.with_suffix(suffix).read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    start = tmp_path / f"{name}.json"

    assert main(options(tree, cache_folder, tmp_path, "--steps", "1", "--init", str(start))) == 2
    assert f"--init {start} is what this run would write; choose another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_somebody_s_best_is_left(tree, cache_folder, tmp_path):
    (tmp_path / "best.safetensors").write_text("mine")
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1", "--split", "all")) == 0
    assert (tmp_path / "best.safetensors").read_text() == "mine"


def test_validation_without_a_tumour_says_that_there_is_no_best(tree, cache_folder, tmp_path, capsys):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["a", "b"], "validation": ["c"], "test": ["d", "e"]}))
    assert main(options(tree, cache_folder, tmp_path / "run", "--steps", "1", "--split", str(split))) == 0
    printed = capsys.readouterr().out
    assert (
        printed.count("no validation case has a tumour, so there is no Dice to choose a best checkpoint by") == 1
    )
    assert "validation of 1: FPV " in printed
    assert "nan" not in printed
    assert not (tmp_path / "run/best.json").exists()


def test_a_start_that_normalises_whole_volumes_is_refused(tree, cache_folder, tmp_path, capsys):
    assert main(options(tree, cache_folder, tmp_path / "first", "--steps", "1", "--split", "all")) == 0
    path = tmp_path / "first/last.json"
    content = json.loads(path.read_text())
    content["pet"] = {"kind": "z-score-volume"}
    path.write_text(json.dumps(content))
    capsys.readouterr()

    more = ("--steps", "1", "--split", "all", "--init", str(path))
    assert main(options(tree, cache_folder, tmp_path / "second", *more)) == 2

    assert "z-score-volume would give each crop other values than its volume" in capsys.readouterr().err


def test_damaged_cases_are_listed_and_the_rest_is_trained_on(tmp_path, capsys):
    root = write_tree(tmp_path / "data", *"abcd", tumour_free=("d",))
    (root / "a/study/SEG.nii.gz").unlink()
    alter(root / "b/study/SUV.nii.gz", lambda values: values * 8000)
    assert main(options(root, tmp_path / "cache", tmp_path / "run", "--steps", "1", "--split", "all")) == 0
    printed = capsys.readouterr()

    lines = [line for line in printed.out.splitlines() if line and "preprocessing" not in line]
    assert lines[0] == f"{root} (autopet): 2 cases of 2 patients, 1 tumour-free, 2 skipped"
    assert lines[1] == "  skipped a_study: no SEG.nii.gz"
    assert lines[2].startswith("  skipped b_study: the PET must be in SUV")
    assert lines[3] == "  tumour-free d_study: trains background only"
    assert any(line.startswith("epoch 1/1  step 1/1  loss ") for line in lines)
    assert printed.err == ""


def test_training_starts_from_a_checkpoint(tree, cache_folder, tmp_path, trained):
    more = ["--init", str(trained), "--steps", "1", "--split", "all", "--ema-decay", "0"]
    tiny_step = ["--learning-rate", "1e-9", "--weight-decay", "0"]
    same = [f"--{what}-normalisation={norm}" for what, norm in normalisations(trained).items()]
    assert main(options(tree, cache_folder, tmp_path / "a", *more, *tiny_step)) == 0
    assert main(options(tree, cache_folder, tmp_path / "b", *more, *tiny_step, *same)) == 0

    before, after = load_checkpoint(trained), load_checkpoint(tmp_path / "a" / "last.json")
    for name, value in before.state.items():
        torch.testing.assert_close(after.state[name], value, atol=1e-3, rtol=1e-3)
    assert after.description.ct == before.description.ct
    assert after.description.provenance["initial"]["sha256"] == before.description.sha256
    assert_identical(after.state, load_checkpoint(tmp_path / "b" / "last.json").state)


def test_what_a_run_that_goes_on_may_not_mean_is_said(tree, cache_folder, tmp_path, capsys, trained):
    start = tmp_path / "start" / "last.json"
    start.parent.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.copy(trained.with_suffix(suffix), start.with_suffix(suffix))
    describe_again(load_checkpoint(start), overlap=0.25, flip_axes=("x",))

    def run(name, *more):
        line = options(tree, cache_folder, tmp_path / name, "--init", str(start), "--steps", "1", *more)
        assert main([*line, "--split", "all"]) == 0
        return capsys.readouterr().out, load_checkpoint(tmp_path / name / "last.json").description.overlap

    said, overlap = run("one", "--seed", "4")  # with which it was trained
    assert "mirrored along x, this run is along x y z; --flip-axes x keeps to its flips" in said
    assert f"drew crops of {tree.name} with --seed 4 too" in said
    assert overlap == 0.25
    said, overlap = run("two", "--seed", "5", "--flip-axes", "x", "--overlap", "0.4")
    assert "the start" not in said
    assert overlap == 0.4


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--spacing", "4", "4", "4"], "spacing"),
        (["--without", "tamw"], "architecture"),
        (["--pet-normalisation", "clip-scale:0:5"], "pet"),
    ],
)
def test_another_kind_of_network_is_no_start(tree, cache_folder, tmp_path, capsys, trained, more, name):
    arguments = options(tree, cache_folder, tmp_path, "--init", str(trained), "--split", "all", *more)
    assert main(arguments) == 2
    assert f"was trained with the {name}" in capsys.readouterr().err


def test_synthetic_validation_cases_are_called_so(tmp_path, capsys):
    tree = write_tree(tmp_path / "data", "a", "b", "synthetic_0")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["a"], "validation": ["b", "synthetic_0"], "test": []}))
    arguments = options(tree, tmp_path / "cache", tmp_path / "run", "--steps", "1", "--split", str(split))
    assert main(arguments) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch"))
    assert re.search(r"validation of 2 \(1 synthetic\): Dice .* ml \(patients\); Dice .* ml \(synthetic\)", line)
    patients = float(line.split("Dice ")[1].split(",")[0])
    provenance = load_checkpoint(tmp_path / "run/best.json").description.provenance
    assert provenance["validation"]["dice"] == pytest.approx(patients, abs=1e-4)


def test_two_folders_with_one_patient_are_named(tree, cache_folder, tmp_path, capsys):
    other = write_tree(tmp_path / "other", "b", "z")
    assert main([*options(tree, cache_folder, tmp_path / "run"), "--cases", str(other)]) == 2
    assert f"both {tree} and {other} hold a patient b; give each patient once" in capsys.readouterr().err


def break_steps(monkeypatch, broken):
    """Make the loss of these steps (from 0) not finite."""
    forward, calls = DeepSupervisionLoss.forward, itertools.count()

    def sometimes_broken(self, *arguments):
        return forward(self, *arguments) * (math.nan if next(calls) in broken else 1.0)

    monkeypatch.setattr(DeepSupervisionLoss, "forward", sometimes_broken)


@pytest.mark.parametrize(("broken", "code"), [({2}, 0), ({0, 1, 2, 3, 4}, 2)])
@pytest.mark.numerical
def test_gradients_that_are_not_finite_change_nothing(
    tree, cache_folder, tmp_path, capsys, monkeypatch, broken, code
):
    break_steps(monkeypatch, broken)
    assert (
        main(options(tree, cache_folder, tmp_path, "--steps", "5", "--save-every", "1", "--split", "all")) == code
    )
    printed = capsys.readouterr()
    if code:
        assert "5 of the 5 steps before step 5 had gradients that are not finite" in printed.err
    else:
        assert "1 steps skipped" in printed.out
    state = state_of(tmp_path)
    assert all(torch.isfinite(value).all() for value in (*state["network"].values(), *state["average"].values()))


@pytest.mark.numerical
def test_one_step_that_is_not_finite_does_not_end_a_run(tree, cache_folder, tmp_path, capsys, monkeypatch):
    break_steps(monkeypatch, {5})
    assert main(options(tree, cache_folder, tmp_path, "--steps", "6", "--split", "all")) == 0
    assert "epoch 2/2  step 6/6  loss nan" in capsys.readouterr().out


@pytest.mark.numerical
def test_steps_that_are_not_finite_are_counted_over_short_epochs(
    tree, cache_folder, tmp_path, capsys, monkeypatch
):
    break_steps(monkeypatch, range(2, 99))
    assert main(options(tree, cache_folder, tmp_path, "--steps", "30", "--split", "all")) == 2
    assert "18 of the 20 steps before step 20 had gradients that are not finite" in capsys.readouterr().err
    assert state_of(tmp_path)["progress"]["step"] == 20


@pytest.mark.numerical
@pytest.mark.parametrize(
    ("precision", "rounded"),
    [pytest.param("bfloat16", torch.bfloat16, marks=BFLOAT16_HERE), ("float32", torch.float32)],
)
def test_exported_are_the_parameters_that_the_forward_pass_saw(
    tree, cache_folder, tmp_path, capsys, precision, rounded
):
    more = ["--steps", "2", "--precision", precision, "--split", "all"]
    assert main(options(tree, cache_folder, tmp_path, *more)) == 0
    exported = load_checkpoint(tmp_path / "last.json").state
    average = state_of(tmp_path)["average"]
    assert exported.keys() >= average.keys()
    for name, value in average.items():
        assert torch.equal(exported[name].float(), value.to(rounded).to(torch.float16).float()), name
    differ = [name for name, value in average.items() if not torch.equal(value.bfloat16().float(), value.float())]
    assert differ  # or the test could not tell the two apart


@pytest.mark.numerical
def test_two_processes_train_as_one(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "5", "--batch", "4", "--dropout", "0", "--precision", "float32", "--split", "all"]
    together = in_two_processes(options(tree, cache_folder, tmp_path / "two", *more))
    assert main(options(tree, cache_folder, tmp_path / "one", *more)) == 0
    alone = capsys.readouterr().out

    def loss(output: str) -> float:
        return float(output.split("loss ")[1].split()[0])

    assert loss(together) == pytest.approx(loss(alone), abs=2e-4)
    assert together.count("epoch 1/1") == 1  # the second process is silent
    one, two = state_of(tmp_path / "one")["network"], state_of(tmp_path / "two")["network"]
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--patch", "30", "32", "16"], 2, "side x of the patch must be a multiple of 16, got 30"),
        (["--share", "1", "2"], 2, "--share takes one positive number per --cases, got 2 for 1"),
        (["--save-every", "0"], 2, "--save-every must lie between 1 and 1,000,000, got 0"),
        (["--batch", "0"], 2, "batch must be above 0 and finite, got 0"),
        (
            ["--ct-normalisation", "magic"],
            2,
            "clip-scale:LOW:HIGH or z-score-stored:LOW:HIGH:MEAN:STD, got 'magic'",
        ),
        (["--precision", "float16"], 3, "--precision float16 needs a GPU"),
        (["--split", "fold:7/5"], 2, "the fold must lie between 0 and 4, got 7"),
        (["--split", "fold:0/1"], 2, "a fold is one of at least 2, got 'fold:0/1'"),
        (["--misalignment", "-1"], 2, "misalignment must be at least 0 and finite, got -1"),
        (["--learning-rate", "0"], 2, "learning_rate must be above 0 and finite, got 0.0"),
        (["--learning-rate", "nan"], 2, "learning_rate must be above 0 and finite, got nan"),
        (["--learning-rate", "inf"], 2, "learning_rate must be above 0 and finite, got inf"),
        (["--logit-limit", "inf"], 2, "logit_limit must be at least 0 and finite, got inf"),
        (["--seed", str(10**20)], 2, f"seed must be at least 0 and below {2**63}, got {10**20}"),
    ],
)
def test_wrong_options_end_in_one_sentence(tree, cache_folder, tmp_path, capsys, more, code, message):
    assert main(options(tree, cache_folder, tmp_path, *more)) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("Error: ")
    assert message in err


def test_a_wrong_normalisation_is_told_before_anything_is_preprocessed(tree, tmp_path, capsys):
    assert main(options(tree, tmp_path / "cache", tmp_path, "--pet-normalisation", "magic")) == 2
    assert "got 'magic'" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("command", [options, folds_options])
def test_a_second_run_in_the_folder_is_refused(tree, cache_folder, tmp_path, capsys, command):
    with claimed(tmp_path / "run"):
        assert main(command(tree, cache_folder, tmp_path / "run", "--steps", "1")) == 2
    assert f"another run is writing to {tmp_path / 'run'} at this moment" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "crossvalidate"])
def test_help_teaches(command, capsys):
    assert main([command, "--help"]) == 0
    assert "python -m training" in capsys.readouterr().out
