from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from algorithm.cases import find_cases
from algorithm.weights import load_checkpoint
from test.support.checkpoints import TINY_PATCH, random_network
from test.support.training_runs import PATCH, STILL, assert_identical, in_two_processes, options, state_of
from test.support.trees import SPACING, write_image, write_tree
from test.training.test_losses import OneOfTwo
from training.__main__ import main
from training.cache import build_cache
from training.organ_maps import ORGANS, ORGANS_FILE, UNKNOWN
from training.organs import NetworkWithOrgans, OrganLoss
from training.sampling import CropSampler, Source

LIVER = 3


@pytest.fixture(scope="module")
def mapped_tree(tmp_path_factory):
    """Two cases, of which the first has an organ map: a slab of liver, on a grid of its own."""
    root = write_tree(tmp_path_factory.mktemp("mapped"), "mapped", "plain")
    study = root / "mapped" / "study"
    organs = sitk.ReadImage(study / "SEG.nii.gz") * 0
    organs[:, 10:20, :] = LIVER
    sitk.WriteImage(organs, study / ORGANS_FILE)
    return root


def test_the_organ_map_lies_on_the_contours_grid(mapped_tree, tmp_path):
    mapped, plain = build_cache(find_cases(mapped_tree).cases, tmp_path, SPACING, progress=False).cases

    assert plain.organs() is None
    found = mapped.organs()
    assert found.shape == mapped.size
    assert set(np.unique(found)) == {0, LIVER}
    rows = np.flatnonzero((found == LIVER).any((0, 2)))
    assert rows[-1] - rows[0] + 1 == 10


def test_a_map_that_changed_makes_another_entry(tmp_path):
    root = write_tree(tmp_path / "data", "one")
    (before,) = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).cases
    write_image(root / "one" / "study" / ORGANS_FILE, np.full((24, 36, 40), LIVER, np.uint8))
    (after,) = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).cases

    assert before.organs() is None
    assert (after.organs() == LIVER).all()


def test_crops_bring_their_organs_or_say_that_they_are_unknown(mapped_tree, description, tmp_path):
    mapped, plain = build_cache(find_cases(mapped_tree).cases, tmp_path, SPACING, progress=False).cases
    crop = CropSampler([Source((mapped,), 1.0)], description, STILL, 0).crop(0)
    assert crop.organs.shape == (1, *PATCH)
    assert set(crop.organs.unique().tolist()) == {0, LIVER}
    assert (CropSampler([Source((plain,), 1.0)], description, STILL, 0).crop(0).organs == UNKNOWN).all()


def test_no_organ_is_taught_where_a_crop_was_cleared(description, tmp_path):
    root = write_tree(tmp_path / "data", "mapped")
    write_image(root / "mapped" / "study" / ORGANS_FILE, np.full((24, 36, 40), LIVER, np.uint8))
    cases = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).cases
    clearing = dataclasses.replace(STILL, tumour_free=1.0)
    cleared, plain = (
        CropSampler([Source(cases, 1.0)], description, how, 0).batch(range(1, 20, 2)) for how in (clearing, STILL)
    )

    emptied = (cleared.ct != plain.ct) | (cleared.pet != plain.pet)
    assert emptied.any()
    assert (plain.organs[emptied] == LIVER).all()
    assert (cleared.organs[emptied] == 0).all()
    assert (cleared.organs == LIVER).any()


@pytest.mark.parametrize("label", [11, 52, -3, 3.7])
def test_a_map_with_other_labels_is_named(tmp_path, label):
    root = write_tree(tmp_path / "data", "mapped")
    path = root / "mapped" / "study" / ORGANS_FILE
    write_image(path, np.full((24, 36, 40), label, np.float32))
    (skipped,) = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).skipped
    assert f"an organ map has labels 0 to 10, got {label:g} in {path}" in skipped.reason


def test_only_crops_with_a_map_count():
    loss, generator = OrganLoss(), torch.Generator().manual_seed(0)
    logits = torch.randn(2, ORGANS + 1, 4, 4, 2, generator=generator, requires_grad=True)
    organs = torch.full((2, 1, 8, 8, 4), UNKNOWN, dtype=torch.uint8)
    nothing = loss(logits, organs)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert float(logits.grad.abs().sum()) == 0
    organs[0] = torch.arange(8)[:, None, None] // 2
    one = loss(logits, organs)
    assert torch.equal(one, loss(logits[:1], organs[:1]))
    right = torch.nn.functional.one_hot(organs[:1, 0, ::2, ::2, ::2].long(), ORGANS + 1).movedim(-1, 1) * 50.0
    # the Dice of organs that are not there stays
    assert float(loss(right, organs[:1])) < 0.8 < float(one.detach())


def test_a_crop_with_a_map_counts_alike_in_one_process_and_in_two():
    logits = torch.randn(2, ORGANS + 1, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    organs = torch.full((2, 1, 8, 8, 4), UNKNOWN, dtype=torch.uint8)
    organs[0] = torch.arange(8)[:, None, None] // 2
    none, one = torch.tensor(0), torch.tensor(1)
    whole = OrganLoss()(logits, organs)
    having = OrganLoss(OneOfTwo(none))(logits[:1], organs[:1])
    lacking = OrganLoss(OneOfTwo(one))(logits[1:], organs[1:])

    assert float(lacking) == 0
    torch.testing.assert_close((having + lacking) / 2, whole)
    torch.testing.assert_close(OrganLoss(OneOfTwo(one))(logits[:1], organs[:1]), whole)


def test_the_head_changes_nothing_of_the_network():
    network = random_network()
    with torch.no_grad():
        images = torch.randn(2, 1, 1, *TINY_PATCH)
        alone = network(*images)
        logits, organs = NetworkWithOrgans(network, organs=True)(*images)
    assert all(torch.equal(one, other) for one, other in zip(alone, logits, strict=True))
    assert organs.shape == (1, ORGANS + 1, *(side // 2 for side in TINY_PATCH))
    assert NetworkWithOrgans(random_network(), organs=False)(*images)[1] is None


@pytest.mark.numerical
def test_organs_train_resume_and_are_dropped_at_export(mapped_tree, tmp_path):
    def run(out, steps, *more):
        return options(mapped_tree, tmp_path / "cache", tmp_path / out, "--steps", steps, "--split", "all", *more)

    assert main(run("whole", "4", "--save-every", "2")) == 0
    assert main(run("part", "4", "--save-every", "2", "--time-budget", "0")) == 0
    assert main(run("part", "4", "--save-every", "2")) == 0
    assert main(run("without", "4", "--organ-weight", "0")) == 0

    whole, part, without = (state_of(tmp_path / out) for out in ("whole", "part", "without"))
    assert any(name.startswith("head.") for name in whole["network"])
    assert not any(name.startswith("head.") for name in without["network"])
    assert_identical(whole["network"], part["network"])
    assert whole["average"].keys() == without["average"].keys()
    load_checkpoint(tmp_path / "whole" / "last.json")  # the published architecture's parameters and no other


@pytest.mark.slow
def test_two_processes_learn_organs_alike(mapped_tree, tmp_path, capsys):
    more = ["--steps", "4", "--steps-per-epoch", "1", "--dropout", "0", "--precision", "float32", "--split", "all"]
    together = in_two_processes(options(mapped_tree, tmp_path / "cache", tmp_path / "two", *more))
    assert main(options(mapped_tree, tmp_path / "cache", tmp_path / "one", *more)) == 0
    losses = [
        [float(part.split()[0]) for part in output.split("loss ")[1:]]
        for output in (together, capsys.readouterr().out)
    ]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)  # in three steps one of the two crops has a map
    one, two = (json.loads((tmp_path / run / "last.json").read_text()) for run in ("one", "two"))
    assert one["provenance"]["settings"] == two["provenance"]["settings"]
    assert math.isfinite(float(state_of(tmp_path / "two")["network"]["head.conv.weight"].abs().sum()))
