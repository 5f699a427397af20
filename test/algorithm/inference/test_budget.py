from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.inference import budget as budget_module
from algorithm.inference import case_run, passes
from algorithm.inference.budget import Budget, TooSlowError, process_start, seconds_since_start
from algorithm.inference.execution import place
from test.support.checkpoints import random_network
from test.support.predictors import (
    CPU,
    Clock,
    assert_pointwise,
    member_of,
    predictor_of,
)


class TestBudget:
    """Three windows of one second each make a pass, unless said otherwise; two more are spent on timing."""

    size = (64, 32, 16)

    def test_further_passes_stop_in_time(self, clock: Clock) -> None:
        member = member_of(clock.slow(lambda call: 1.0), self.size)
        budget = clock.budget(20)

        prediction = predictor_of(None).predict([member], budget)

        assert_pointwise(prediction, member)
        assert (prediction.passes, prediction.passes_planned, prediction.windows) == (5, 8, 3)
        assert prediction.seconds_per_pass == 3
        assert prediction.stopped_because == "a further pass of 3.0 s would not fit the 3.0 s left"
        assert budget.remaining_s == 3

    def test_the_same_flips_again_give_the_same_bits(self, clock: Clock) -> None:
        network = place(random_network(), CPU, torch.float32)
        member = member_of(clock.slow(lambda call: 1.0, lambda ct, pet: network.finest(ct, pet)), self.size)

        cut_short = predictor_of(None).predict([member], clock.budget(14))
        repeated = predictor_of(cut_short.passes).predict([member], Budget())

        assert cut_short.passes == 3
        np.testing.assert_array_equal(cut_short.probability, repeated.probability)

    def test_all_flips_without_a_limit(self, clock: Clock) -> None:
        prediction = predictor_of(None).predict([member_of(clock.slow(lambda call: 1e6), self.size)], Budget())

        assert prediction.passes == 8

    def test_a_pass_that_becomes_slower_is_cut(self, clock: Clock) -> None:
        size = (128, 32, 16)  # seven windows
        member = member_of(clock.slow(lambda call: 1.0 if call < 2 + 7 else 5.0), size)
        budget = clock.budget(35)

        prediction = predictor_of(None).predict([member], budget)

        assert_pointwise(prediction, member)
        assert prediction.passes == 1
        assert prediction.stopped_because == "pass 2 ran out of time; what was averaged until then is kept"
        assert budget.remaining_s > 0

    def test_a_first_pass_that_becomes_slower_is_given_up(self, clock: Clock) -> None:
        member = member_of(clock.slow(lambda call: 1.0 if call < 2 else 5.0), (128, 32, 16))

        with pytest.raises(TooSlowError, match=r"one pass takes 1\.5 times the time that is left"):
            predictor_of(None).predict([member], clock.budget(32))

    def test_a_first_pass_that_is_nearly_done_may_take_the_grace(self, clock: Clock) -> None:
        size = (128, 32, 16)  # seven windows
        member = member_of(clock.slow(lambda call: 1.0 if call < 2 + 4 else 2.0), size)
        budget = Budget(clock.now + 10, grace_s=4.0)  # 9.7 s are expected, 12 are taken

        prediction = predictor_of(None).predict([member], budget)

        assert_pointwise(prediction, member)
        assert prediction.passes == 1
        assert budget.remaining_s == -2

    def test_one_that_is_not_half_done_is_given_up(self, clock: Clock) -> None:
        size = (192, 32, 16)  # eleven windows
        member = member_of(clock.slow(lambda call: 1.0 if call < 2 + 2 else 3.0), size)
        budget = Budget(clock.now + 14.2, grace_s=10.0)  # after four windows 14 s are to go, 4.2 s are left

        with pytest.raises(TooSlowError):
            predictor_of(None).predict([member], budget)

    def test_half_of_what_is_kept_for_the_rest_is_the_grace(self, clock: Clock) -> None:
        assert Budget.of_limit(100.0, 8.0, clock.now) == Budget(clock.now + 92.0, grace_s=4.0)

    @pytest.mark.parametrize(("left", "windows", "share"), [(30, 5, None), (24, 4, "25%"), (18, 3, "0%")])
    def test_windows_overlap_less_before_giving_up(
        self, left: float, windows: int, share: str | None, clock: Clock
    ) -> None:
        member = member_of(clock.slow(lambda call: 5.0), (96, 32, 16))

        prediction = predictor_of(None).predict([member], clock.budget(2 * 5 + left))

        assert_pointwise(prediction, member)
        assert prediction.windows == windows
        expected = (f"windows overlap by {share} only, so that one pass fits the time limit",) if share else ()
        assert prediction.notes == expected

    def test_too_slow(self, clock: Clock) -> None:
        member = member_of(clock.slow(lambda call: 10.0), self.size)

        with pytest.raises(TooSlowError, match=r"one pass takes 2\.2 times the time that is left"):
            predictor_of(None).predict([member], clock.budget(30))

    def test_every_member_runs_once_before_any_flip(self, clock: Clock) -> None:
        answers = [
            lambda ct, pet: torch.cat([torch.zeros_like(ct), torch.zeros_like(ct)], 1),
            lambda ct, pet: torch.cat([torch.full_like(ct, -40), torch.zeros_like(ct)], 1),
        ]
        members = [member_of(clock.slow(lambda call: 1.0, answer), self.size) for answer in answers]

        prediction = predictor_of(None).predict(members, clock.budget(4 + 6 + 2))

        assert (prediction.passes, prediction.passes_planned) == (2, 16)
        np.testing.assert_allclose(prediction.probability, 0.75, atol=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(seconds=st.floats(0.1, 60), per_window=st.floats(0.05, 5), growth=st.floats(0.5, 1.02))
    def test_never_late(self, seconds: float, per_window: float, growth: float) -> None:
        with pytest.MonkeyPatch.context() as patch:
            clock = Clock()
            for module in (case_run, passes, budget_module):
                patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
            network = clock.slow(lambda call: per_window * growth ** (call / 10))
            budget = clock.budget(seconds + 2 * per_window)

            try:
                prediction = predictor_of(None).predict([member_of(network, self.size)], budget)
            except TooSlowError:
                assert per_window * 2 * 1.1 > seconds  # two windows, without overlap, are the least
            else:
                assert prediction.passes >= 1
                assert budget.remaining_s > -1e-6

    def test_limit_counts_from_the_start_of_the_process(self) -> None:
        running = seconds_since_start()

        budget = Budget.of_limit(running + 100, 10, process_start())

        assert running > 0
        assert 85 < budget.remaining_s <= 90
        assert budget.allows(80)
        assert not budget.allows(91)
        assert Budget.of_limit(None, 10, process_start()).allows(math.inf)

    def test_or_from_any_other_moment(self, clock: Clock) -> None:
        assert Budget.of_limit(100, reserve_s=10, started=clock.now - 5).remaining_s == 85
