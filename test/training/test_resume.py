from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from algorithm.description import Agreement, Description, Normalisation, Postprocessing, PrecisionProof
from algorithm.errors import OutputError, UsageError
from algorithm.network.architecture import Architecture
from algorithm.weights import describe_again, load_checkpoint
from test.conftest import ROOT
from test.support.training_runs import (
    assert_identical,
    options,
    state_of,
)
from test.support.trees import alter, write_tree
from training.__main__ import main
from training.recipe import Recipe
from training.state import STATE, Progress, fingerprint, read_state, write_state

_KILLED_AFTER_A_STATE = """
import os, signal, sys
from training.__main__ import main
from training.trainer import Trainer

step = Trainer._step

def killed(self, batch):
    if self.progress.step == 3:  # one after the first state
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)

Trainer._step = killed
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.numerical
def test_a_killed_run_goes_on_bit_for_bit(tree, cache_folder, tmp_path):
    more = ["--steps", "6", "--save-every", "2", "--split", "all", "--patch", "64", "32", "16"]
    killed = options(tree, cache_folder, tmp_path / "killed", *more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _KILLED_AFTER_A_STATE, *killed]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    assert state_of(tmp_path / "killed")["progress"]["step"] == 2

    assert main(killed) == 0
    assert main(options(tree, cache_folder, tmp_path / "whole", *more)) == 0
    assert_identical(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))
    one, other = (load_checkpoint(tmp_path / name / "last.json").description for name in ("killed", "whole"))
    assert one.sha256 == other.sha256


def test_a_time_budget_stops_cleanly_and_the_rest_follows(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "4", "--split", "all"]
    assert main(options(tree, cache_folder, tmp_path / "run", *more, "--time-budget", "0")) == 0
    assert "time budget used up at step 1;" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "run" / "last.json").description.provenance["steps"] == 1

    assert main(options(tree, cache_folder, tmp_path / "run", *more)) == 0
    assert main(options(tree, cache_folder, tmp_path / "whole", *more)) == 0
    assert_identical(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))


def test_a_run_goes_on_where_its_data_were_copied_to(tree, cache_folder, tmp_path):
    more = ["--steps", "4", "--split", "all"]
    assert main(options(tree, cache_folder, tmp_path / "run", *more, "--time-budget", "0")) == 0
    moved = tmp_path / "elsewhere" / tree.name
    shutil.copytree(tree, moved, copy_function=shutil.copyfile)  # not its times
    assert main(options(moved, tmp_path / "cache", tmp_path / "run", *more)) == 0
    assert main(options(tree, cache_folder, tmp_path / "whole", *more)) == 0
    assert_identical(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))


@pytest.mark.parametrize("file", ["CTres", "SUV"])
def test_a_run_does_not_go_on_with_other_images(file, tmp_path, capsys):
    root = write_tree(tmp_path / "data", *"ab")
    fixed = ("--ct-normalisation", "clip-scale:-300:300", "--pet-normalisation", "clip-scale:0:15")
    line = options(root, tmp_path / "cache", tmp_path / "run", "--steps", "4", "--split", "all", *fixed)
    assert main([*line, "--time-budget", "0"]) == 0
    alter(root / f"a/study/{file}.nii.gz", lambda values: values * 1.5)
    assert main(line) == 2
    assert "training cases" in capsys.readouterr().err


def test_other_options_do_not_resume(tree, cache_folder, tmp_path, capsys):
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1")) == 0
    assert main(options(tree, cache_folder, tmp_path, "--steps", "2", "--seed", "5")) == 2

    assert "holds a run with other values of seed, steps; repeat its options" in capsys.readouterr().err


def test_a_refused_run_leaves_the_split_and_the_lists_of_the_first(tree, cache_folder, tmp_path, capsys):
    assert main(options(tree, cache_folder, tmp_path / "run", "--steps", "1")) == 0
    before = {path.name: path.read_text() for path in (tmp_path / "run").glob("*.[cj]s*")}
    assert before.keys() == {"split.json", "validation.csv", "test.csv", "last.json", "best.json"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"train": ["d", "e"], "validation": ["b"], "test": ["a"]}))
    assert main(options(tree, cache_folder, tmp_path / "run", "--steps", "1", "--split", str(other))) == 2
    assert "holds a run with other values of ct, pet, training cases" in capsys.readouterr().err
    assert {name: (tmp_path / "run" / name).read_text() for name in before} == before


def test_a_finished_run_keeps_what_was_chosen_and_measured_since(tree, cache_folder, tmp_path):
    line = options(tree, cache_folder, tmp_path, "--steps", "1", "--split", "all")
    assert main(line) == 0
    proof = PrecisionProof(3.0, Agreement(9, 1.0, 1.0), Agreement(9, 0.5, 0.5))
    chosen = {"threshold": 0.3, "overlap": 0.25, "postprocessing": Postprocessing(0.5, 0, 2), "precision": proof}
    describe_again(load_checkpoint(tmp_path / "last.json"), **chosen)
    before = (tmp_path / "last.json").read_text()

    assert main(line) == 0
    assert (tmp_path / "last.json").read_text() == before


def test_a_full_disk_is_said_and_leaves_the_state_before(tmp_path):
    path = tmp_path / STATE
    write_state(path, {}, Progress(), {"network": torch.zeros(1)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="could not be stored completely; free some space"):
            write_state(path, {}, Progress(), {"network": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_tensorboard_keeps_every_epoch_over_a_resume(tree, cache_folder, tmp_path):
    for more in (["--time-budget", "0"], []):
        assert main(options(tree, cache_folder, tmp_path, "--steps", "3", "--steps-per-epoch", "1", *more)) == 0
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [point.step for point in events.Scalars("loss")] == [1, 2, 3]


def test_a_damaged_state_is_explained(tree, cache_folder, tmp_path, capsys):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1")) == 2

    assert f"cannot resume from {tmp_path / 'state.pt'}: it is damaged; remove it" in capsys.readouterr().err


def test_a_validation_that_was_cut_short_is_made_up_for(tree, cache_folder, tmp_path, capsys, monkeypatch):
    line = options(tree, cache_folder, tmp_path, "--steps", "1")
    with monkeypatch.context() as patch:
        patch.setattr("training.trainer.validate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(line) == 130
    assert state_of(tmp_path)["progress"]["step"] == 1
    assert not (tmp_path / "best.json").exists()
    capsys.readouterr()
    assert main(line) == 0
    assert "validation of 1: Dice" in capsys.readouterr().out
    assert (tmp_path / "best.json").is_file()
    assert main(line) == 0
    assert "validation of 1: Dice" not in capsys.readouterr().out


def test_other_validation_cases_begin_anew_with_the_best(tree, cache_folder, tmp_path, capsys):
    splits = [tmp_path / name for name in ("one.json", "other.json")]
    for path, patients in zip(splits, ("d", "e"), strict=True):
        path.write_text(json.dumps({"train": ["a", "b", "c"], "validation": [patients]}))
    run = tmp_path / "run"

    def line(split, *more):
        steps = ("--steps", "2", "--steps-per-epoch", "1", "--validate-every", "1", "--save-every", "1")
        return options(tree, cache_folder, run, *steps, "--split", str(split), *more)

    assert main(line(splits[0], "--time-budget", "0")) == 0
    state = state_of(run)
    state["progress"]["best_dice"] = 1.0
    torch.save(state, run / STATE)
    (run / "best.json").unlink()
    capsys.readouterr()
    assert main(line(splits[1])) == 0
    assert "the best so far no longer counts" in capsys.readouterr().out
    assert (run / "best.json").is_file()

    del state["progress"]["validation"]  # as an older version left it
    torch.save(state, run / STATE)
    assert main(line(splits[1])) == 0
    assert "no longer counts" not in capsys.readouterr().out


def test_a_run_in_another_number_format_says_which_to_give_and_takes_it(tmp_path):
    how = Normalisation("clip-scale", low=0, high=10)
    network = Description("x", Architecture(), (32, 32, 16), (4.0, 4.0, 3.0), how, how)
    auto, given = (Recipe(), Recipe(precision="float32"))
    path, cpu = tmp_path / STATE, torch.device("cpu")
    write_state(path, fingerprint(network, auto, (), None), Progress(), {})
    with pytest.raises(UsageError, match="in float32, here it would be bfloat16; give --precision float32"):
        read_state(path, fingerprint(network, auto, (), torch.bfloat16), cpu)
    assert read_state(path, fingerprint(network, given, (), None), cpu)[0] == Progress()

    older = {"precision": '"auto"'}  # said nothing of what that came to
    write_state(path, older, Progress(), {})
    with pytest.raises(UsageError, match="other values of precision"):
        read_state(path, fingerprint(network, given, (), None), cpu)


def test_a_state_that_is_something_else_is_damaged(tmp_path):
    torch.save(torch.zeros(3), tmp_path / STATE)
    with pytest.raises(UsageError, match="it is damaged"):
        read_state(tmp_path / STATE, {}, torch.device("cpu"))


def test_the_start_is_known_by_its_weights_alone(tmp_path):
    path, cpu = tmp_path / STATE, torch.device("cpu")
    for stored in ({"name": "first", "sha256": "ab", "data": []}, "ab"):
        write_state(path, {"initial checkpoint": json.dumps(stored)}, Progress(), {})
        assert read_state(path, {"initial checkpoint": '"ab"'}, cpu)[0] == Progress()
        with pytest.raises(UsageError, match="other values of initial checkpoint"):
            read_state(path, {"initial checkpoint": '"cd"'}, cpu)
