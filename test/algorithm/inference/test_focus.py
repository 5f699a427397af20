"""Flips where they matter against the full average, which is the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithm.inference.augmentation import flip_order
from algorithm.inference.budget import Budget
from algorithm.inference.case_run import Prediction
from algorithm.inference.focus import Focus
from algorithm.inference.predictor import Predictor
from algorithm.inference.windows import Start, importance_map, plan_windows
from algorithm.network.weighting import Gains
from test.support.checkpoints import TINY_PATCH, random_network
from test.support.predictors import (
    CPU,
    SIZE,
    Clock,
    Member,
    Stub,
    Volume,
    assert_pointwise,
    expected_pointwise,
    member_of,
    pointwise,
)

EVERYTHING = Focus(0.0)
NOTHING = Focus(2.0)


def run(
    members: Member | Sequence[Member],
    focus: Focus | None,
    flips: int | None = 8,
    budget: Budget | None = None,
    **more,
) -> Prediction:
    members = [members] if isinstance(members, Member) else members
    predictor = Predictor([each.network for each in members], CPU, torch.float32)
    return predictor.predict(
        [each.volumes for each in members], budget or Budget(), flips=flips, focus=focus, **more
    )


def lopsided(ct: Tensor, pet: Tensor) -> Tensor:
    """Answer with the CT's logit, more to one side of the window than to the other, so that flips differ."""
    ramp = torch.linspace(-1, 1, ct.shape[2])[None, None, :, None, None]
    return torch.cat([torch.zeros_like(ct), ct + ramp], dim=1)


def with_a_lesion(network: Stub, size: Sequence[int], at: Sequence[slice]) -> Member:
    """A case that is decided but for some voxels."""
    ct = torch.full(tuple(size), -20.0)
    ct[tuple(at)] = 0.5
    return Member(network, ct, torch.zeros(tuple(size)), TINY_PATCH, 0.5)


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.9])
def test_undecided_is_what_is_not_far_below_the_threshold(threshold: float) -> None:
    focus = Focus.about(threshold)

    p = torch.tensor([0.0, focus.low * 0.99, focus.low * 1.01, threshold, 1.0])

    assert focus.undecided(p).tolist() == [False, False, True, True, True]
    odds = [each / (1 - each) for each in (focus.low, threshold)]
    assert odds[1] / odds[0] == pytest.approx(49)


def test_where_all_is_undecided_the_full_average_comes_out() -> None:
    member = member_of(random_network())

    focused, everywhere, single = run(member, EVERYTHING), run(member, None), run(member, None, flips=1)

    assert focused.flip_windows == everywhere.flip_windows == everywhere.windows == focused.windows
    assert (focused.passes, focused.passes_planned) == (8, 8)
    np.testing.assert_allclose(focused.probability, everywhere.probability, atol=2e-6)
    assert np.abs(single.probability - everywhere.probability).max() > 0.01


def test_where_all_is_decided_no_flip_runs() -> None:
    calls = []

    def counted(ct: Tensor, pet: Tensor) -> Tensor:
        calls.append(len(ct))
        return pointwise(ct, pet)

    member = member_of(Stub(counted))

    focused = run(member, NOTHING)
    windows = sum(calls)
    alone = run(member, None, flips=1)

    assert focused.flip_windows == 0 < focused.windows == windows
    np.testing.assert_array_equal(focused.probability, alone.probability)
    assert (focused.passes, focused.passes_planned) == (8, 8)
    assert focused.stopped_because == "no flip was needed, every voxel being decided"


def test_a_covered_voxel_is_the_mean_over_flips_and_others_keep_the_first() -> None:
    lesion = (slice(20, 26), slice(10, 14), slice(30, 36))
    member = with_a_lesion(TakesGains(lopsided), (80, 40, 64), lesion)
    focus = Focus.about(0.5)
    seen: dict[Start, None] = {}
    identity = run(member, None, flips=1)

    prediction = run(member, focus, flips=3, observer=Recorder(seen))

    later = list(seen)[identity.windows :]
    starts = sorted({start for flip, start in later})
    assert 0 < prediction.flip_windows == len(starts) < prediction.windows
    expected, weight = identity.probability.copy(), np.zeros(member.ct.shape, np.float32)
    ramp = np.linspace(-1, 1, TINY_PATCH[0], dtype=np.float32)[:, None, None]
    totals = [np.zeros(member.ct.shape, np.float32) for _ in range(2)]
    for start in starts:
        here = tuple(slice(first, first + side) for first, side in zip(start, TINY_PATCH, strict=True))
        weight[here] += importance_map(TINY_PATCH)
        for total, flip in zip(totals, flip_order(3)[1:], strict=True):
            logit = member.ct.numpy()[here] + (ramp[::-1] if 0 in flip else ramp)
            total[here] += importance_map(TINY_PATCH) / (1 + np.exp(-logit))
    covered = weight > 0
    for total in totals:
        expected[covered] += total[covered] / weight[covered]
    expected[covered] /= 3
    assert covered[lesion].all()
    assert not covered.all()
    np.testing.assert_allclose(prediction.probability, expected, atol=1e-6)


class Recorder:
    """Wants all windows, or those that begin low enough along z; keeps each with a number of its own."""

    def __init__(self, seen: dict, below: int = 10**6) -> None:
        self.seen = seen
        self.below = below

    def wants(self, start: Start) -> bool:
        return start[2] < self.below

    def see(self, start: Start, probability: Tensor, gains: Sequence[Gains]) -> None:
        self.seen[len(self.seen), start] = None


class TakesGains(Stub):
    """Answers an observer too."""

    def finest(self, ct: Tensor, pet: Tensor, gains: list[Gains] | None = None) -> Tensor:
        return super().finest(ct, pet)


def test_an_observer_chooses_among_the_windows_of_flips_too() -> None:
    member = with_a_lesion(TakesGains(lopsided), (32, 32, 64), (slice(10, 12), slice(10, 12), slice(5, 60)))
    seen: dict = {}

    prediction = run(member, Focus.about(0.5), flips=2, observer=Recorder(seen, below=20))

    assert prediction.flip_windows > 0
    assert all(start[2] < 20 for _, start in seen)
    assert len(seen) == prediction.windows + prediction.flip_windows
    assert not prediction.probability[:, :, 20 + TINY_PATCH[2] :].any()


def test_networks_with_other_patches_have_covers_of_their_own() -> None:
    lesion = (slice(20, 26), slice(10, 14), slice(30, 36))
    members = [with_a_lesion(Stub(pointwise), (80, 40, 64), lesion) for _ in range(2)]
    members[1] = replace(members[1], patch=(16, 16, 8))

    focused, everywhere = run(members, Focus.about(0.5)), run(members, None)

    assert focused.passes == everywhere.passes == 16
    assert 2 < focused.flip_windows < everywhere.flip_windows / 4
    np.testing.assert_allclose(focused.probability, expected_pointwise(members[0]), atol=1e-6)


def test_the_same_bits_every_time() -> None:
    member = member_of(random_network())

    first, second = (run(member, Focus(0.4), flips=3).probability for _ in range(2))

    np.testing.assert_array_equal(first, second)


class TestBudget:
    """Seven windows of one second each make the first pass, two more are spent on timing; a flip takes one."""

    size = (128, 32, 16)
    lesion = (slice(40, 50), slice(10, 14), slice(3, 6))

    def test_a_flip_costs_its_windows(self, clock: Clock) -> None:
        member = with_a_lesion(clock.slow(lambda call: 1.0), self.size, self.lesion)

        prediction = run(member, Focus.about(0.5), None, clock.budget(2 + 7 + 4.05))

        assert_pointwise(prediction, member)
        assert (prediction.windows, prediction.flip_windows) == (7, 1)
        assert (prediction.passes, prediction.passes_planned) == (4, 8)
        assert prediction.stopped_because == "a further pass of 1.0 s would not fit the 1.0 s left"

    def test_no_time_for_a_flip_leaves_the_bits_of_the_first_pass(self, clock: Clock) -> None:
        network = random_network()
        slow = clock.slow(lambda call: 1.0, lambda ct, pet: network.finest(ct, pet))
        member = member_of(slow, self.size)

        cut_short = run(member, EVERYTHING, None, clock.budget(2 + 7 + 2))
        repeated = run(member, EVERYTHING, 1)

        assert cut_short.passes == 1
        np.testing.assert_array_equal(cut_short.probability, repeated.probability)

    def test_what_was_averaged_when_time_ends_is_a_mean(self, clock: Clock) -> None:
        size = (224, 32, 16)
        lesion = (slice(0, 224), slice(10, 14), slice(3, 6))
        first = 2 + 13
        member = with_a_lesion(clock.slow(lambda call: 1.0 if call < first else 3.0), size, lesion)

        prediction = run(member, Focus.about(0.5), None, clock.budget(first + 20))

        assert_pointwise(prediction, member)
        assert prediction.passes == 1
        assert prediction.stopped_because == "pass 2 ran out of time; what was averaged until then is kept"


def test_windows_that_are_not_finite_leave_a_mean() -> None:
    calls: list[int] = []

    def broken(ct: Tensor, pet: Tensor) -> Tensor:
        calls.append(len(ct))
        return pointwise(ct, pet) * (torch.nan if len(calls) % 5 == 0 and len(calls) > first else 1)

    first = 2 + run(member_of(Stub(pointwise)), None, flips=1).windows
    member = member_of(Stub(broken))

    prediction = run(member, EVERYTHING, flips=4)

    assert len(prediction.notes) == 2  # calls 10 and 15, of passes 2 and 4
    assert_pointwise(prediction, member)


def test_a_smaller_overlap_asks_for_less_context() -> None:
    undecided: Volume = np.ones(SIZE, bool)

    assert EVERYTHING.windows(undecided, TINY_PATCH, 0.0) == plan_windows(SIZE, TINY_PATCH, 0.0)
