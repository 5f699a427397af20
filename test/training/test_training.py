from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from algorithm.description import Description, Normalisation
from algorithm.network.architecture import Architecture
from algorithm.weights import load_checkpoint
from evaluation.__main__ import main as evaluate
from test.conftest import ROOT
from test.support.trees import SPACING, alter, write_tree
from training.__main__ import main
from training.augmentation import Augmentation, DropModalityd
from training.cache import build_cache
from training.datasets import find_cases
from training.losses import DeepSupervisionLoss
from training.sampling import CropSampler, Source, cut, prefetch
from training.settings import Settings
from training.splits import read_split
from training.yardsticks import best_threshold

PATCH = (32, 32, 16)
STILL = Augmentation(probability=0, rotation_deg=0, scaling=0, flip=0, gamma=1, brightness=0, noise=0)
NETWORK = "--spacing 4 4 3 --patch 32 32 16 --channels 2 4 8 16 32"
TINY = [*NETWORK.split(), *["--batch", "2", "--steps-per-epoch", "5", "--threads", "1", "--device", "cpu"]]


@pytest.fixture(autouse=True)
def _same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data"), *"abcde", tumour_free=("c",))


@pytest.fixture(scope="module")
def cache_folder(tree, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build_cache(find_cases(tree).cases, folder, SPACING, progress=False)
    return folder


@pytest.fixture
def cases(tree, cache_folder):
    return build_cache(find_cases(tree).cases, cache_folder, SPACING, progress=False).cases


@pytest.fixture
def description() -> Description:
    return Description(
        name="tiny",
        architecture=Architecture(channels=(2, 4, 8, 16, 32)),
        patch=PATCH,
        spacing=SPACING,
        ct=Normalisation("clip-scale", -1024, 1000),
        pet=Normalisation("clip-scale", 0, 10),
    )


def options(tree: Path, cache_folder: Path, out: Path, *more: str) -> list[str]:
    return ["fit", "--data", str(tree), "--cache", str(cache_folder), "--out", str(out), *TINY, *more]


def state_of(out: Path) -> dict:
    return torch.load(out / "state.pt", weights_only=True)


def assert_identical(one, other) -> None:
    """Compare nested states bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_identical(left, right)
    else:
        assert one == other


@pytest.fixture(scope="module")
def trained(tree, cache_folder, tmp_path_factory) -> Path:
    """Return a checkpoint after five steps."""
    out = tmp_path_factory.mktemp("trained")
    assert main(options(tree, cache_folder, out, "--steps", "5", "--split", "all", "--seed", "4")) == 0
    return out / "last.json"


# Sampling


def test_crops_are_alternately_centred_on_tumour_and_background(cases, description):
    sampler = CropSampler([Source(cases, 1.0)], description, STILL, seed=3)
    batch = sampler.batch(range(20))

    assert batch.ct.shape == batch.pet.shape == batch.seg.shape == (20, 1, *PATCH)
    assert (batch.ct.dtype, batch.pet.dtype, batch.seg.dtype) == (torch.float32, torch.float32, torch.uint8)
    assert (batch.seg[::2].sum((1, 2, 3, 4)) > 0).all()


def test_a_source_without_tumours_gives_background_alone(cases, description):
    free = tuple(case for case in cases if case.tumour_ml == 0)
    marked = tuple(case for case in cases if case.tumour_ml > 0)
    sampler = CropSampler([Source(marked, 1.0), Source(free, 9.0)], description, STILL, seed=0)

    drawn = [sampler.draw_case(number, np.random.default_rng(number)).name for number in range(40)]

    assert set(drawn[::2]) <= {case.name for case in marked}
    assert {case.name for case in free} <= set(drawn[1::2])


def test_a_crop_is_cut_from_the_normalised_volume(cases, description):
    sampler = CropSampler([Source(cases[:1], 1.0)], description, STILL, seed=0)
    ct, pet, seg = (part[0].numpy() for part in sampler.crop(4))
    case = cases[0]
    places = [
        (x, y, z)
        for x in range(case.size[0] - PATCH[0] + 1)
        for y in range(case.size[1] - PATCH[1] + 1)
        for z in range(case.size[2] - PATCH[2] + 1)
        if np.array_equal(cut(case.seg(), (x, y, z), PATCH, 0), seg)
        and np.allclose(cut(case.pet(), (x, y, z), PATCH, 0) / 10, pet, atol=1e-6)
        and np.allclose((cut(case.ct(), (x, y, z), PATCH, 0) + 1024.0) / 2024, ct, atol=1e-6)
    ]
    assert len(places) == 1


def test_a_crop_depends_on_its_number_and_the_seed_alone(cases, description):
    def sampler(seed):
        return CropSampler([Source(cases, 1.0)], description, Augmentation(probability=1, drop_modality=0.5), seed)

    once, again = sampler(1), sampler(1)
    again.crop(99)
    assert_identical(once.crop(7), again.crop(7))
    assert not torch.equal(once.crop(7)[1], once.crop(8)[1])
    assert not torch.equal(once.crop(7)[1], sampler(2).crop(7)[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_background_threads_change_nothing(cases, description, threads):
    sampler = CropSampler([Source(cases, 1.0)], description, Augmentation(), seed=1)
    numbers = [range(2 * step, 2 * step + 2) for step in range(8)]
    cores = torch.get_num_threads()
    ahead = list(prefetch(sampler, numbers, threads))

    assert_identical(ahead, [sampler.batch(each) for each in numbers])
    assert torch.get_num_threads() == cores


def test_sources_are_drawn_by_their_shares(cases, description):
    with_tumour = tuple(case for case in cases if case.tumour_ml > 0)
    marked = dataclasses.replace(with_tumour[1], name="marked")
    sampler = CropSampler([Source(with_tumour[:1], 3.0), Source((marked,), 1.0)], description, STILL, seed=0)
    drawn = [sampler.draw_case(number, np.random.default_rng(number)).name for number in range(400)]

    assert 0.19 < drawn.count("marked") / 400 < 0.31


def test_a_small_volume_lies_whole_inside_its_crops(tmp_path, description):
    root = write_tree(tmp_path / "data", "small", shape=(12, 20, 24))
    (case,) = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).cases
    sampler = CropSampler([Source((case,), 1.0)], description, STILL, seed=0)
    batch = sampler.batch(range(6))

    assert (batch.seg.sum((1, 2, 3, 4)) == int(case.seg().sum())).all()
    assert (batch.ct.flatten(1).amin(1) == 0).all()  # padded with air, not with the middle of the CT's range


def test_cut_fills_what_lies_outside():
    volume = np.arange(24).reshape(2, 3, 4)

    np.testing.assert_array_equal(cut(volume, (-1, 1, 2), (3, 2, 4), -5)[0], np.full((2, 4), -5))
    np.testing.assert_array_equal(cut(volume, (-1, 1, 2), (3, 2, 4), -5)[1], [[6, 7, -5, -5], [10, 11, -5, -5]])
    np.testing.assert_array_equal(cut(volume, (9, 9, 9), (1, 1, 1), 7), [[[7]]])


# Augmentation


def test_turning_a_crop_brings_in_no_empty_corners(cases, description):
    how = dataclasses.replace(STILL, probability=1, rotation_deg=30, scaling=0.2)
    field = how.field(PATCH)

    assert all(outer >= inner and (outer - inner) % 2 == 0 for outer, inner in zip(field, PATCH, strict=True))
    assert math.hypot(*(side / 2 for side in PATCH[:2])) <= field[0] / 2 / 1.2 * math.sqrt(2)
    assert STILL.field(PATCH) == PATCH


def test_rotation_is_in_degrees_and_about_z(cases, description):
    how = dataclasses.replace(STILL, probability=1, rotation_deg=5)
    sampler = CropSampler([Source(cases, 1.0)], description, how, seed=0)
    still = CropSampler([Source(cases, 1.0)], description, STILL, seed=0)
    turned, kept = sampler.batch(range(8)), still.batch(range(8))

    # A body that is a cylinder along z keeps its profile in z; five degrees move few voxels, five radians many.
    assert (turned.seg.sum((2, 3)) - kept.seg.sum((2, 3)).float()).abs().max() <= 12
    assert not torch.equal(turned.pet, kept.pet)


def test_misalignment_moves_the_ct_alone(cases, description):
    how = dataclasses.replace(STILL, probability=1, misalignment_voxels=3)
    moved = CropSampler([Source(cases, 1.0)], description, how, seed=0).batch(range(6))
    still = CropSampler([Source(cases, 1.0)], description, STILL, seed=0).batch(range(6))

    assert torch.equal(moved.pet, still.pet)
    assert torch.equal(moved.seg, still.seg)
    assert not torch.equal(moved.ct, still.ct)


def test_one_modality_at_most_is_dropped():
    drop = DropModalityd(("ct", "pet"), 0.5)
    blank = []
    for seed in range(200):
        drop.set_random_state(seed=seed)
        out = drop({"ct": torch.arange(8.0), "pet": torch.arange(8.0), "seg": torch.arange(8.0)})
        blank.append([key for key in out if bool((out[key] == 0).all())])

    counts = [sum(names == [key] for names in blank) for key in ("ct", "pet")]
    assert all(30 < count < 70 for count in counts)
    assert sum(counts) + blank.count([]) == 200


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"gamma": 0.5}, {"scaling": 1.0}])
def test_augmentation_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


# Learning rate


def test_the_cosine_rises_and_falls_to_zero():
    rates = [Settings(steps=100, warm_up=10, learning_rate=1.0).learning_rate_at(step) for step in range(100)]

    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_the_released_rate_shrinks_by_one_percent_per_epoch():
    settings = Settings(optimiser="released", learning_rate=1e-4, steps_per_epoch=7)

    assert settings.learning_rate_at(6) == 1e-4
    assert settings.learning_rate_at(7 * 200) == pytest.approx(1e-4 * 0.99**200)


# The command


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
    assert "  tumour-free c/study: trains background only" in lines
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


@pytest.mark.numerical
def test_a_killed_run_goes_on_bit_for_bit(tree, cache_folder, tmp_path):
    more = ["--steps", "14", "--save-every", "2", "--split", "all", "--patch", "64", "32", "16"]
    killed = options(tree, cache_folder, tmp_path / "killed", *more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *killed], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    state = tmp_path / "killed" / "state.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < state_of(tmp_path / "killed")["progress"]["step"] < 14

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


def test_options_are_checked_before_anything_is_preprocessed(tree, tmp_path, capsys):
    for option in ("--workers", "--save-every", "--steps"):
        assert main(options(tree, tmp_path / "cache", tmp_path / "run", option, "0")) == 2
        assert "got 0" in capsys.readouterr().err
        assert not (tmp_path / "cache").exists()


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
    assert lines[1] == "  skipped a/study: no SEG.nii.gz"
    assert lines[2].startswith("  skipped b/study: the PET must be in SUV")
    assert lines[3] == "  tumour-free d/study: trains background only"
    assert any(line.startswith("epoch 1/1  step 1/1  loss ") for line in lines)
    assert printed.err == ""


def test_other_options_do_not_resume(tree, cache_folder, tmp_path, capsys):
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1")) == 0
    assert main(options(tree, cache_folder, tmp_path, "--steps", "2", "--seed", "5")) == 2

    assert "holds a run with other values of seed, steps; repeat its options" in capsys.readouterr().err


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


def normalisations(checkpoint: Path) -> dict[str, str]:
    """Return a checkpoint's normalisations as the command line takes them."""
    stored = json.loads(checkpoint.read_text())
    numbers = ("low", "high", "mean", "std")
    return {
        what: ":".join([stored[what]["kind"], *(f"{stored[what][number]:.17f}" for number in numbers)])
        for what in ("ct", "pet")
    }


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


def in_two_processes(arguments: list[str]) -> str:
    """Run ``python -m training`` with these arguments by torchrun; return what it printed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "-m", "training", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_synthetic_validation_cases_are_called_so(tmp_path, capsys):
    tree = write_tree(tmp_path / "data", "a", "b", "synthetic_0")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["a"], "validation": ["b", "synthetic_0"], "test": []}))
    arguments = options(tree, tmp_path / "cache", tmp_path / "run", "--steps", "1", "--split", str(split))
    assert main(arguments) == 0
    assert "validation of 2 (1 synthetic): Dice" in capsys.readouterr().out


def test_two_folders_with_one_patient_are_named(tree, cache_folder, tmp_path, capsys):
    other = write_tree(tmp_path / "other", "b", "z")
    assert main([*options(tree, cache_folder, tmp_path / "run"), "--data", str(other)]) == 2
    assert f"both {tree} and {other} hold a patient b; give each patient once" in capsys.readouterr().err


def test_a_refused_run_leaves_the_split_of_the_first(tree, cache_folder, tmp_path, capsys):
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1")) == 0
    before = (tmp_path / "split.json").read_text()
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1", "--split", "all")) == 2
    assert "holds a run with other values of ct, pet, training cases" in capsys.readouterr().err
    assert (tmp_path / "split.json").read_text() == before


def test_tensorboard_keeps_every_epoch_over_a_resume(tree, cache_folder, tmp_path):
    for more in (["--time-budget", "0"], []):
        assert main(options(tree, cache_folder, tmp_path, "--steps", "3", "--steps-per-epoch", "1", *more)) == 0
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [point.step for point in events.Scalars("loss")] == [1, 2, 3]


@pytest.mark.parametrize(("broken", "code"), [({2}, 0), ({0, 1, 2, 3, 4}, 2)])
@pytest.mark.numerical
def test_gradients_that_are_not_finite_change_nothing(
    tree, cache_folder, tmp_path, capsys, monkeypatch, broken, code
):
    forward, calls = DeepSupervisionLoss.forward, itertools.count()

    def sometimes_broken(self, *arguments):
        return forward(self, *arguments) * (math.nan if next(calls) in broken else 1.0)

    monkeypatch.setattr(DeepSupervisionLoss, "forward", sometimes_broken)
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
def test_two_processes_train_as_one(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "5", "--batch", "4", "--dropout", "0", "--precision", "float32", "--split", "all"]
    together = in_two_processes(options(tree, cache_folder, tmp_path / "two", *more))
    assert main(options(tree, cache_folder, tmp_path / "one", *more)) == 0
    alone = capsys.readouterr().out

    def loss(output: str) -> float:
        return float(output.split("loss ")[1].split()[0])

    assert loss(together) == pytest.approx(loss(alone), abs=2e-4)
    one, two = state_of(tmp_path / "one")["network"], state_of(tmp_path / "two")["network"]
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4


def test_a_damaged_state_is_explained(tree, cache_folder, tmp_path, capsys):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    assert main(options(tree, cache_folder, tmp_path, "--steps", "1")) == 2

    assert f"cannot resume from {tmp_path / 'state.pt'}: it is damaged; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--patch", "30", "32", "16"], 2, "side x of the patch must be a multiple of 16, got 30"),
        (["--share", "1", "2"], 2, "--share takes one positive number per --data, got 2 for 1"),
        (["--save-every", "0"], 2, "--save-every must be at least 1, got 0"),
        (["--batch", "0"], 2, "batch must be above 0, got 0"),
        (
            ["--ct-normalisation", "magic"],
            2,
            "clip-scale:LOW:HIGH or z-score-stored:LOW:HIGH:MEAN:STD, got 'magic'",
        ),
        (["--precision", "float16"], 3, "--precision float16 needs a GPU"),
        (["--split", "fold:7/5"], 2, "the fold must lie between 0 and 4, got 7"),
        (["--misalignment", "-1"], 2, "misalignment_voxels must not be negative, got -1"),
        (["--learning-rate", "0"], 2, "learning_rate must be above 0, got 0.0"),
        (["--learning-rate", "nan"], 2, "learning_rate must be above 0, got nan"),
    ],
)
def test_wrong_options_end_in_one_sentence(tree, cache_folder, tmp_path, capsys, more, code, message):
    assert main(options(tree, cache_folder, tmp_path, *more)) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("Error: ")
    assert message in err


FOLDERS = ("SUV_2.5", "SUV_4", "41_of_SUVmax", "best_threshold_knows_the_truth", "network", "network_8_flips")


def test_crossvalidation_scores_each_patient_once_by_a_network_that_never_saw_them(
    tree, cache_folder, tmp_path, capsys
):
    arguments = options(tree, cache_folder, tmp_path, "--steps", "2", "--folds", "2", "--without", "tamw")
    assert main(["crossvalidate", *arguments[1:]]) == 0
    first = capsys.readouterr().out

    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    methods = [
        "SUV >= 2.5",
        "SUV >= 4",
        "41 % of SUVmax",
        "best threshold (knows the truth)",
        "network",
        "network, 8 flips",
    ]
    assert sorted((row["case"], row["method"]) for row in rows) == sorted(
        (f"{name}/study", method) for name in "abcde" for method in methods
    )
    for row in rows:
        split = read_split(tmp_path / f"fold_{row['fold']}" / "split.json")
        assert row["patient"] in split.test
        assert row["patient"] not in split.train
    by_method = {row["method"]: row for row in rows if row["case"] == "a/study"}
    assert float(by_method["SUV >= 4"]["dice"]) > 0.95  # the ball has SUV 7, the rest of the body 1
    assert float(by_method["SUV >= 4"]["dice"]) <= float(by_method["best threshold (knows the truth)"]["dice"])
    for fold in range(2):
        description = load_checkpoint(tmp_path / f"fold_{fold}" / "last.json").description
        assert (description.architecture.mcsa, description.architecture.tamw) == (True, False)
    folders = {method: tmp_path / "masks" / name for method, name in zip(methods, FOLDERS, strict=True)}
    for folder in folders.values():
        assert sorted(path.name for path in folder.iterdir()) == [f"{name}_study.nii.gz" for name in "abcde"]
    assert "| network, 8 flips |" in (tmp_path / "table.md").read_text()
    assert set(json.loads((tmp_path / "scores.json").read_text())["summary"]) == set(methods)

    for method, folder in folders.items():
        again = tmp_path / "again.csv"
        score = ["score", "--prediction", str(folder), "--truth", str(tree), "--edition", "paper"]
        assert evaluate([*score, "--cases", str(tmp_path / "cases.csv"), "--csv", str(again)]) == 0
        expected = {row["case"].replace("/", "_"): row for row in rows if row["method"] == method}
        scored = list(csv.DictReader(again.read_text().splitlines()))
        assert sorted(row["case"] for row in scored) == sorted(expected)
        for row in scored:
            for name in ("dice", "fpv_ml", "fnv_ml", "hd95_mm"):
                assert float(row[name] or "nan") == pytest.approx(float(expected[row["case"]][name]), nan_ok=True)
    capsys.readouterr()

    stamps = [path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.nii.gz")]
    assert main(["crossvalidate", *arguments[1:]]) == 0
    assert stamps == [path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.nii.gz")]
    assert capsys.readouterr().out.splitlines()[-8:] == first.splitlines()[-8:]


def test_a_start_that_knows_the_patients_is_refused(tree, cache_folder, tmp_path, capsys, trained):
    arguments = options(tree, cache_folder, tmp_path, "--init", str(trained))
    assert main(["crossvalidate", *arguments[1:]]) == 2
    assert f"was trained on a data set called {tree.name}, on which it would be tested" in capsys.readouterr().err


def test_what_a_start_started_from_counts_too(tree, cache_folder, tmp_path, capsys, trained):
    other = write_tree(tmp_path / "other", "z")
    more = ["--steps", "1", "--split", "all", "--init", str(trained)]
    assert main(options(other, tmp_path / "cache", tmp_path / "run", *more)) == 0

    arguments = options(tree, cache_folder, tmp_path / "cv", "--init", str(tmp_path / "run" / "last.json"))
    assert main(["crossvalidate", *arguments[1:]]) == 2
    assert f"was trained on a data set called {tree.name}, on which it would be tested" in capsys.readouterr().err


def test_an_earlier_cross_validation_is_gone_on_from(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "1", "--folds", "2", "--flips", "1"]
    first, second = (options(tree, cache_folder, tmp_path / name, *more)[1:] for name in ("first", "second"))
    assert main(["crossvalidate", *first]) == 0
    assert main(["crossvalidate", *second, "--init", str(tmp_path / "first")]) == 0
    for fold in ("fold_0", "fold_1"):
        before, after = (load_checkpoint(tmp_path / name / fold / "last.json") for name in ("first", "second"))
        assert after.description.provenance["initial"]["sha256"] == before.description.sha256

    third = options(
        tree, cache_folder, tmp_path / "third", *more, "--seed", "3", "--init", str(tmp_path / "first")
    )
    assert main(["crossvalidate", *third[1:]]) == 2
    assert "held back other patients than this run does" in capsys.readouterr().err


def test_two_processes_score_what_one_would(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "2", "--folds", "2", "--flips", "1", "--dropout", "0", "--precision", "float32"]
    together = in_two_processes(
        ["crossvalidate", *options(tree, cache_folder, tmp_path / "two", *more, "--batch", "2")[1:]]
    )
    one = options(tree, cache_folder, tmp_path / "one", *more, "--batch", "2")
    assert main(["crossvalidate", *one[1:]]) == 0
    capsys.readouterr()

    rows, expected = (
        list(csv.DictReader((tmp_path / name / "scores.csv").read_text().splitlines())) for name in ("two", "one")
    )
    assert [(row["case"], row["method"]) for row in rows] == [(row["case"], row["method"]) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert float(row["dice"]) == pytest.approx(float(other["dice"]), abs=1e-2, nan_ok=True)
    assert all(f"  {name}/study: Dice" in together for name in "abcde")


def test_the_best_threshold_is_the_best():
    rng = np.random.default_rng(0)
    suv = rng.integers(0, 12, 60).astype(np.float32)
    truth = (suv + rng.normal(0, 3, 60)) > 7

    def dice(threshold: float) -> float:
        return 2 * (truth & (suv >= threshold)).sum() / (truth.sum() + (suv >= threshold).sum())

    assert dice(best_threshold(suv, truth)) == max(dice(value) for value in suv)
    assert best_threshold(suv, np.zeros(60, bool)) == np.inf


@pytest.mark.parametrize("command", ["fit", "crossvalidate"])
def test_help_teaches(command, capsys):
    assert main([command, "--help"]) == 0
    assert "python -m training" in capsys.readouterr().out
