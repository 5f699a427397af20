"""Tuning on stand-ins for the network whose time and answers are told, and on a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithm.inference import predictor as predictor_module
from algorithm.inference import tuner
from algorithm.inference.budget import Budget
from algorithm.inference.execution import Execution
from algorithm.inference.predictor import Predictor
from algorithm.inference.tuner import (
    BEFORE,
    FASTER,
    INSTEAD,
    NO_MEMORY,
    SLOWER,
    TOO_FAR,
    Trial,
    Tuned,
    Tuner,
    _Way,
)
from algorithm.inference.tuning import Tuning
from test.support.checkpoints import TINY_PATCH, random_network
from test.support.predictors import CPU, Clock, Stub, member_of, pointwise

SIZE = (32, 32, 24)  # two windows
BOTH = (torch.bfloat16, torch.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, whatever the machine has, and afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only when told to, for tuning too, and four threads, which stand-ins do not use."""
    torch.set_num_threads(4)
    monkeypatch.setattr(tuner, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


Cost = Callable[[Tensor], float]
"""Seconds of a batch (N, 1, H, W, D)."""


class Device:
    """A device that is told how long it takes, by the batch, its type, and the threads there are."""

    def __init__(self, clock: Clock, cost: Cost, answer: Callable[[Tensor, Tensor], Tensor] = pointwise) -> None:
        self.calls = 0

        def compute(ct: Tensor, pet: Tensor) -> Tensor:
            self.calls += 1
            clock.now += cost(ct)
            return answer(ct, pet)

        self.volumes = member_of(Stub(compute), SIZE).volumes
        self.predictor = Predictor([Stub(compute)], CPU, torch.float32)  # type: ignore[list-item]

    def tuned(self, seconds: float, clock: Clock, **options: object) -> Tuned:
        dtypes = options.pop("dtypes", (torch.float32,))
        before = options.pop("before", self.predictor.execution)
        return Tuner(self.predictor, before, [self.volumes], dtypes, clock.budget(seconds), **options).tune()  # type: ignore[arg-type]


def verdicts(tuned: Tuned) -> dict[str, str]:
    return {str(trial.tuning): trial.verdict for trial in tuned.trials}


class TestChoice:
    def test_each_thing_is_changed_alone_and_kept_where_it_is_faster(self, clock: Clock) -> None:
        by_threads = {4: 1.0, 2: 0.8, 1: 2.0}
        device = Device(clock, lambda x: by_threads[torch.get_num_threads()] * (len(x) if len(x) != 2 else 1.0))

        tuned = device.tuned(1000, clock)

        assert tuned.choice == Tuning("float32", 2, channels_last=True, threads=2)
        assert tuned.complete
        assert verdicts(tuned) == {
            "float32, 1 window at a time, channels last, 4 threads": BEFORE,
            "float32, 1 window at a time, channels last, 2 threads": FASTER,
            "float32, 1 window at a time, channels last, 1 thread": SLOWER,
            "float32, 2 windows at a time, channels last, 2 threads": FASTER,
            "float32, 4 windows at a time, channels last, 2 threads": SLOWER,
        }
        assert torch.get_num_threads() == 4, "tuning leaves the threads alone"
        assert device.predictor.execution == Execution.fastest(CPU, torch.float32), "and the predictor"

    def test_what_is_hardly_faster_is_not_worth_a_change(self, clock: Clock) -> None:
        tuned = Device(clock, lambda x: len(x) * (0.97 if torch.get_num_threads() == 2 else 1.0)).tuned(
            1000, clock
        )

        assert tuned.choice.threads == 4
        assert FASTER not in verdicts(tuned).values()

    def test_a_narrower_type_that_is_faster_is_taken(self, clock: Clock) -> None:
        tuned = Device(clock, lambda x: len(x) * (0.5 if x.dtype == torch.bfloat16 else 1.0)).tuned(
            1000, clock, dtypes=(torch.float32, torch.bfloat16)
        )

        assert tuned.choice.precision == "bfloat16"
        (trial,) = (each for each in tuned.trials if each.tuning == tuned.choice)
        assert trial.difference is not None
        assert 0 < trial.difference < tuner.MOST_DIFFERENCE

    def test_one_that_the_checkpoint_does_not_allow_is_not_tried(self, clock: Clock) -> None:
        tuned = Device(clock, lambda x: len(x) * (0.5 if x.dtype == torch.bfloat16 else 1.0)).tuned(1000, clock)

        assert {trial.tuning.precision for trial in tuned.trials} == {"float32"}

    def test_what_deceived_by_a_busy_moment_is_found_out(self, clock: Clock) -> None:
        """The way before tuning was timed while the machine did something else."""
        calls = itertools.count()

        def cost(x: Tensor) -> float:
            busy = next(calls) < 8
            return len(x) * (5.0 if busy else 1.0) * (1.2 if torch.get_num_threads() == 2 else 1.0)

        tuned = Device(clock, cost).tuned(1000, clock)

        assert FASTER in verdicts(tuned).values()
        assert tuned.choice == Tuning("float32", 1, channels_last=True, threads=4)

    def test_the_best_counts_of_several_times(self, clock: Clock) -> None:
        calls = itertools.count()

        def cost(x: Tensor) -> float:
            return len(x) * (1.0 + 3.0 * (next(calls) % 3 == 0)) * (0.7 if torch.get_num_threads() == 2 else 1.0)

        assert Device(clock, cost).tuned(1000, clock).choice.threads == 2


class TestAgreement:
    @staticmethod
    def wrong_in(dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda ct, pet: pointwise(ct, pet) * (0.8 if ct.dtype == dtype else 1.0)

    def test_a_fast_way_that_is_too_far_from_float32_is_dropped(self, clock: Clock) -> None:
        tuned = Device(
            clock, lambda x: len(x) * (0.1 if x.dtype == torch.bfloat16 else 1.0), self.wrong_in(torch.bfloat16)
        ).tuned(1000, clock, dtypes=(torch.float32, torch.bfloat16))

        assert tuned.choice.precision == "float32"
        (trial,) = (each for each in tuned.trials if each.tuning.precision == "bfloat16")
        assert (trial.verdict, trial.seconds) == (TOO_FAR, None)
        assert trial.difference is not None
        assert trial.difference > tuner.MOST_DIFFERENCE

    def test_so_is_the_way_before_tuning(self, clock: Clock) -> None:
        device = Device(clock, lambda x: float(len(x)), self.wrong_in(torch.bfloat16))
        device.predictor = Predictor(device.predictor._given, CPU, torch.bfloat16)

        tuned = device.tuned(1000, clock, dtypes=BOTH)

        assert [trial.verdict for trial in tuned.trials[:2]] == [TOO_FAR, INSTEAD]
        assert tuned.choice.precision == "float32"

    def test_values_that_are_not_finite_are_no_answer(self, clock: Clock) -> None:
        tuned = Device(
            clock,
            lambda x: len(x) * (0.1 if x.dtype == torch.bfloat16 else 1.0),
            lambda ct, pet: pointwise(ct, pet) * (torch.nan if ct.dtype == torch.bfloat16 else 1.0),
        ).tuned(1000, clock, dtypes=(torch.float32, torch.bfloat16))

        assert tuned.choice.precision == "float32"
        assert "dropped: values that are not finite" in verdicts(tuned).values()

    def test_windows_that_get_mixed_up_in_a_batch_are_found_out(self, clock: Clock) -> None:
        def swapped(ct: Tensor, pet: Tensor) -> Tensor:
            return pointwise(ct, pet).flip(0)

        tuned = Device(clock, lambda x: 1.0, swapped).tuned(1000, clock)

        assert tuned.choice.batch == 1
        assert [trial.verdict for trial in tuned.trials if trial.tuning.batch > 1] == [TOO_FAR, TOO_FAR]

    def test_no_tumour_anywhere_is_no_agreement_with_a_little(self) -> None:
        little = torch.zeros(1, 32, 32, 16)
        little[0, :5, :5, :5] = 1

        assert tuner._difference([little], [little]) == 0
        assert tuner._difference([torch.zeros_like(little)], [little]) > tuner.MOST_DIFFERENCE


class TestWhatFails:
    @pytest.mark.parametrize(
        ("error", "verdict"),
        [
            (NotImplementedError("no such kernel\nbacktrace"), "dropped: no such kernel"),
            (ValueError(), "dropped: ValueError"),
            (torch.OutOfMemoryError("simulated"), NO_MEMORY),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), NO_MEMORY),
        ],
    )
    def test_a_way_that_is_not_there_is_dropped_with_its_reason(
        self, error: Exception, verdict: str, clock: Clock
    ) -> None:
        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            if len(ct) == 4:
                raise error
            return pointwise(ct, pet)

        tuned = Device(clock, lambda x: 1.0, answer).tuned(1000, clock)

        assert tuned.choice.batch == 2
        assert [trial.verdict for trial in tuned.trials if trial.tuning.batch == 4] == [verdict]

    def test_memory_that_does_not_hold_the_way_before_tuning_leaves_all_as_it_was(self, clock: Clock) -> None:
        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("simulated")

        tuned = Device(clock, lambda x: 1.0, answer).tuned(1000, clock)

        assert (tuned.choice.batch, tuned.trials, tuned.complete) == (1, (), False)

    def test_a_bug_is_not_hidden(self, clock: Clock) -> None:
        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            raise RuntimeError("bug")

        with pytest.raises(RuntimeError, match="bug"):
            Device(clock, lambda x: 1.0, answer).tuned(1000, clock)
        assert torch.get_num_threads() == 4


class TestTime:
    @pytest.mark.parametrize("seconds", [0.0, 3.0, 12.0, 14.0, 20.0, 30.0])
    def test_no_way_is_begun_that_would_not_end(self, seconds: float, clock: Clock) -> None:
        """A window takes a second: float32's answers two, the way before tuning six."""
        began = clock.now
        device = Device(clock, lambda x: len(x) * (0.5 if torch.get_num_threads() == 2 else 1.0))

        tuned = device.tuned(seconds, clock)

        assert clock.now - began <= max(seconds + 1, 2 + 6), "one window may be under way when the time is up"
        assert tuned.complete == (seconds == 30)
        assert tuned.trials[0].verdict == BEFORE
        assert tuned.seconds == clock.now - began
        assert tuned.choice.threads == (2 if seconds >= 12 else 4), "the best so far is kept"

    def test_a_way_that_turns_out_slow_is_given_up(self, clock: Clock) -> None:
        began = clock.now
        device = Device(clock, lambda x: len(x) * (1.0 if torch.get_num_threads() == 4 else 20.0))

        tuned = device.tuned(30, clock)

        assert tuned.choice.threads == 4
        assert clock.now - began <= 30 + 20

    def test_a_hopeless_way_is_timed_once(self, clock: Clock) -> None:
        counted: list[int] = []

        def cost(x: Tensor) -> float:
            counted.append(torch.get_num_threads())
            return len(x) * (1.0 if torch.get_num_threads() == 4 else 2.0)

        Device(clock, cost).tuned(1000, clock)

        assert counted.count(2) == 2 + 1 + 1  # two windows compared, one more to warm up, one timed

    def test_time_that_runs_out_while_the_choice_is_confirmed_is_no_error(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        confirmed, slower = Tuner._confirmed, [1.0]

        def busier(self: Tuner, first: _Way, best: _Way) -> _Way:
            slower[0] = 50.0
            return confirmed(self, first, best)

        monkeypatch.setattr(Tuner, "_confirmed", busier)

        def compute(ct: Tensor, pet: Tensor) -> Tensor:
            clock.now += slower[0] * len(ct) * (0.7 if torch.get_num_threads() == 2 else 1.0)
            return pointwise(ct, pet)

        networks = [Stub(compute) for _ in range(5)]
        volumes = member_of(networks[0], SIZE).volumes
        predictor = Predictor(networks, CPU, torch.float32)  # type: ignore[arg-type]
        tuned = Tuner(predictor, predictor.execution, [volumes] * 5, (torch.float32,), clock.budget(300)).tune()

        assert tuned.choice.threads in {2, 4}


class TestUse:
    def test_a_graph_that_was_not_kept_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            predictor_module, "GraphedNetwork", lambda network, batch: ("graph of", network, batch)
        )
        predictor = Predictor([Stub(pointwise), Stub(pointwise)], CPU, torch.float32)  # type: ignore[list-item]

        networks = predictor.networks_in(replace(predictor.execution, cuda_graph=True))

        assert [each[0] for each in networks] == ["graph of"] * 2  # type: ignore[index]

    def test_the_choice_is_used_by_every_case_from_now_on(self) -> None:
        member = member_of(random_network())
        plain = Predictor([random_network()], CPU, torch.float32)
        tuned = Predictor([random_network()], CPU, torch.float32)
        before = plain.predict([member.volumes], Budget(), flips=2)

        torch.set_num_threads(2)
        tuned.use(Tuning("bfloat16", 2, channels_last=False, threads=1))
        after = tuned.predict([member.volumes], Budget(), flips=2)
        again = tuned.predict([member.volumes], Budget(), flips=2)

        assert torch.get_num_threads() == 1
        assert after.execution.tuning == Tuning("bfloat16", 2, channels_last=False, threads=1)
        np.testing.assert_array_equal(after.probability, again.probability)
        np.testing.assert_allclose(after.probability, before.probability, atol=0.1)
        assert not np.array_equal(after.probability, before.probability)

    @pytest.mark.parametrize("channels_last", [True, False])
    def test_the_layout_changes_nothing_but_rounding(self, channels_last: bool) -> None:
        member = member_of(random_network())
        plain = Predictor([random_network()], CPU, torch.float32).predict([member.volumes], Budget(), flips=1)
        other = Predictor([random_network()], CPU, torch.float32)

        other.use(Tuning("float32", 1, channels_last, threads=1))

        probability = other.predict([member.volumes], Budget(), flips=1).probability
        np.testing.assert_allclose(probability, plain.probability, atol=1e-3)
        (network,) = other.networks_in(other.execution)
        kernel = network.decoder.blocks["1"].conv1.weight  # type: ignore[attr-defined]
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d) == channels_last

    def test_a_tuning_is_what_an_execution_says(self) -> None:
        tuning = Tuning("float32", 3, channels_last=False, threads=2, cudnn_benchmark=True, cuda_graph=True)

        assert Execution.tuned(CPU, tuning).tuning == tuning
        assert Execution.fastest(CPU, torch.bfloat16).tuning == Tuning(
            "bfloat16", 1, channels_last=True, threads=1
        )

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"precision": "auto"}, "precision must be one of float32, bfloat16, float16, got 'auto'"),
            ({"batch": 0}, "batch must lie between 1 and 256, got 0"),
            ({"threads": 0}, "threads must lie between 1 and 4096, got 0"),
        ],
    )
    def test_no_tuning_makes_no_sense(self, changes: dict[str, object], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            replace(Tuning("float32", 1, channels_last=True), **changes)  # type: ignore[arg-type]

    def test_less_memory_than_the_tuning_wants(self) -> None:
        """The ladder begins at the tuning, and the next case at the tuning again."""
        small = {"now": True}

        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            if small["now"] and len(ct) > 1:
                raise torch.OutOfMemoryError("simulated")
            return pointwise(ct, pet)

        member = member_of(Stub(answer))
        predictor = Predictor([member.network], CPU, torch.float32)  # type: ignore[list-item]
        predictor.use(Tuning("float32", 4, channels_last=True, threads=1))

        first = predictor.predict([member.volumes], Budget(), flips=1)
        small["now"] = False
        second = predictor.predict([member.volumes], Budget(), flips=1)

        assert (first.execution.batch, len(first.notes)) == (1, 2)
        assert (second.execution.batch, second.notes) == (4, ())
        assert first.execution.threads == second.execution.threads == 1

    def test_the_forecast_is_that_of_the_tuned_way(self, clock: Clock) -> None:
        """Of windows that take 1 s each, or 2 s two at a time for the price of one: as many flips as fit."""
        device = Device(clock, lambda x: 1.0)
        passes_done = []
        for batch in (1, 2):
            device.predictor.use(Tuning("float32", batch, channels_last=True, threads=4))
            prediction = device.predictor.predict([device.volumes], clock.budget(9.5))
            passes_done.append(prediction.passes)

        assert passes_done == [3, 7]


def test_the_table_has_a_line_per_way_and_marks_the_choice() -> None:
    first, second = Tuning("float32", 1, channels_last=True, threads=2), Tuning("float32", 2, channels_last=True)
    tuned = Tuned(second, (Trial(first, 0.5, 0.0, BEFORE), Trial(second, None, 1e-3, "dropped: why")), 3.0, True)

    head, *rows = tuned.table()

    assert head.split() == ["s/window", "difference", "way"]
    assert (
        rows[0].split("  ")[-1] == "float32, 1 window at a time, channels last, 2 threads: the way before tuning"
    )
    assert rows[1].split()[:2] == ["-", "1.0e-03"]
    assert rows[1].endswith("  float32, 2 windows at a time, channels last: dropped: why <- chosen")


@pytest.mark.parametrize("dtypes", [BOTH, (torch.float32,)])
def test_a_real_network_is_tuned_on_this_machine(dtypes: tuple[torch.dtype, ...]) -> None:
    predictor = Predictor([random_network()], CPU, dtypes[0])
    assert torch.tensor(TINY_PATCH).prod() == 2**14

    tuned = Tuner(
        predictor, predictor.execution, [member_of(random_network(), SIZE).volumes], dtypes, Budget()
    ).tune()

    assert tuned.complete
    assert tuned.choice in [trial.tuning for trial in tuned.trials]
    assert {trial.tuning.precision for trial in tuned.trials} <= {
        str(each).removeprefix("torch.") for each in dtypes
    }
    exact = [trial for trial in tuned.trials if trial.tuning.precision == "float32"]
    assert all(trial.difference is not None and trial.difference < tuner.MOST_DIFFERENCE for trial in exact)
