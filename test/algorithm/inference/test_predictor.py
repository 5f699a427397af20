from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithm.errors import DeviceError, ResourceError
from algorithm.inference import budget as budget_module
from algorithm.inference import case_run, memory, passes
from algorithm.inference import predictor as predictor_module
from algorithm.inference.augmentation import flip_order
from algorithm.inference.budget import Budget, TooSlowError, process_start, seconds_since_start
from algorithm.inference.case_run import Prediction
from algorithm.inference.device import PRECISIONS, choose_dtype, dtype_of, precision_of
from algorithm.inference.execution import Execution, place
from algorithm.inference.passes import NetworkInput
from algorithm.inference.predictor import Predictor
from algorithm.inference.windows import cut_box, paste_box, plan_windows
from algorithm.network.h2aseg import H2ASeg, tumour_probability
from algorithm.network.weighting import Gains
from test.support.checkpoints import TINY_PATCH, random_network

CPU = torch.device("cpu")
SIZE = (40, 32, 24)
Volume = NDArray[np.float32]
Answer = Callable[[Tensor, Tensor], Tensor]


def volumes(size: Sequence[int] = SIZE, seed: int = 0) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=tuple(size)).astype(np.float32), rng.normal(size=tuple(size)).astype(np.float32)


@dataclass(frozen=True)
class Member:
    """A network with the case as it takes it."""

    network: nn.Module
    ct: Tensor
    pet: Tensor
    patch: tuple[int, int, int]
    overlap: float

    @property
    def volumes(self) -> NetworkInput:
        return NetworkInput(self.ct, self.pet, self.patch, self.overlap)


def member_of(network: nn.Module, size: Sequence[int] = SIZE, overlap: float = 0.5, seed: int = 0) -> Member:
    ct, pet = volumes(size, seed)
    return Member(network, torch.from_numpy(ct), torch.from_numpy(pet), TINY_PATCH, overlap)


@dataclass(frozen=True)
class Runner:
    """Predicts with a predictor of its own for every call."""

    flips: int | None
    dtype: torch.dtype
    batch: int
    store: torch.device

    def predict(self, members: Sequence[Member], budget: Budget) -> Prediction:
        predictor = Predictor([member.network for member in members], CPU, self.dtype)  # type: ignore[misc]
        predictor.execution = Execution(CPU, self.dtype, self.batch, self.store)
        return predictor.predict([member.volumes for member in members], budget, flips=self.flips)


def predictor_of(
    flips: int | None = 1, dtype: torch.dtype = torch.float32, batch: int = 1, store: torch.device = CPU
) -> Runner:
    return Runner(flips, dtype, batch, store)


@torch.inference_mode()
def monai_probability(
    network: H2ASeg, ct: Volume, pet: Volume, overlap: float, axes: Sequence[int] = (), pad: float = 0.0
) -> Volume:
    """Return what MONAI makes of the same network and windows, each seen mirrored along some axes."""
    placed = place(network, CPU, torch.float32)
    flipped = [axis + 2 for axis in axes]

    def window(x: Tensor) -> Tensor:
        x = x.flip(flipped)
        inputs = (x[:, part : part + 1].contiguous(memory_format=torch.channels_last_3d) for part in (0, 1))
        return tumour_probability(placed.finest(*inputs)).flip(flipped)

    pair = torch.from_numpy(np.stack([ct, pet])[None])
    whole = sliding_window_inference(
        pair, TINY_PATCH, 1, window, overlap=overlap, mode="gaussian", sigma_scale=0.125, cval=pad
    )
    assert isinstance(whole, Tensor)
    return whole[0, 0].numpy()


class Stub(nn.Module):
    """Stands in for H2ASeg; a plain function, which copies share, gives the answer in the parameters' type."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.parameter = nn.Parameter(torch.ones(()))

    def finest_level(self) -> tuple[nn.Module]:
        return (self,)

    def finest(self, ct: Tensor, pet: Tensor) -> Tensor:
        return self.answer(ct.to(self.parameter.dtype), pet.to(self.parameter.dtype))


def pointwise(ct: Tensor, pet: Tensor) -> Tensor:
    """Answer with logits of each voxel alone, so that windows, flips and their number change nothing."""
    return torch.cat([-pet, ct], dim=1)


def expected_pointwise(member: Member) -> Volume:
    return torch.sigmoid(member.ct + member.pet).numpy()


def assert_pointwise(prediction: Prediction, member: Member) -> None:
    np.testing.assert_allclose(prediction.probability, expected_pointwise(member), atol=1e-5)


class Clock:
    """Time that passes only when told to; ``advance`` is a plain function."""

    def __init__(self) -> None:
        self.now = 1000.0

    def budget(self, seconds: float) -> Budget:
        return Budget(self.now + seconds)

    def slow(self, seconds: Callable[[int], float], answer: Answer = pointwise) -> Stub:
        """Return a network whose n-th call takes so many seconds for each window."""
        calls = [0]

        def answer_slowly(ct: Tensor, pet: Tensor) -> Tensor:
            self.now += seconds(calls[0]) * len(ct)
            calls[0] += 1
            return answer(ct, pet)

        return Stub(answer_slowly)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (case_run, passes, budget_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class TestAgainstMonai:
    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
    def test_windows(self, overlap: float) -> None:
        network = random_network()
        member = member_of(network, overlap=overlap)

        prediction = predictor_of().predict([member], Budget())

        expected = monai_probability(network, member.ct.numpy(), member.pet.numpy(), overlap)
        np.testing.assert_allclose(prediction.probability, expected, atol=2e-6)
        assert prediction.probability.dtype == np.float32
        assert prediction.windows == len(plan_windows(SIZE, TINY_PATCH, overlap))
        assert (prediction.passes, prediction.passes_planned) == (1, 1)
        assert prediction.stopped_because == "all flips were done"
        assert prediction.notes == ()

    @pytest.mark.parametrize("size", [(20, 40, 10), (31, 31, 15), (33, 7, 16)])
    def test_volume_smaller_than_the_patch(self, size: tuple[int, int, int]) -> None:
        network = random_network()
        ct, pet = volumes(size)
        box = tuple(slice(0, side) for side in size)
        padded = [torch.from_numpy(cut_box(volume, box, TINY_PATCH, outside=-1.0)) for volume in (ct, pet)]
        member = Member(network, *padded, TINY_PATCH, 0.25)

        prediction = predictor_of().predict([member], Budget())

        expected = monai_probability(network, ct, pet, 0.25, pad=-1.0)
        np.testing.assert_allclose(paste_box(prediction.probability, box, size), expected, atol=2e-6)

    def test_flips_average_probabilities(self) -> None:
        network = random_network()
        member = member_of(network, overlap=0.25)

        prediction = predictor_of(8).predict([member], Budget())

        single = [
            monai_probability(network, member.ct.numpy(), member.pet.numpy(), 0.25, axes) for axes in flip_order()
        ]
        assert np.std(single, axis=0).max() > 0.01  # the network is not symmetric: the flips do differ
        np.testing.assert_allclose(prediction.probability, np.mean(single, axis=0), atol=2e-6)
        assert prediction.passes == 8

    def test_batches_change_nothing_but_rounding(self) -> None:
        member = member_of(random_network())

        alone = predictor_of().predict([member], Budget())
        together = predictor_of(batch=5).predict([member], Budget())

        np.testing.assert_allclose(together.probability, alone.probability, atol=1e-2)

    def test_ensemble_averages_probabilities(self) -> None:
        members = [member_of(random_network(seed=seed), overlap=0.25, seed=seed) for seed in (1, 2)]

        prediction = predictor_of(2).predict(members, Budget())

        single = [predictor_of(2).predict([member], Budget()).probability for member in members]
        np.testing.assert_allclose(prediction.probability, np.mean(single, axis=0), atol=1e-6)
        assert prediction.passes == prediction.passes_planned == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_every_time(dtype: torch.dtype) -> None:
    member = member_of(random_network(), overlap=0.25)

    first, second = (predictor_of(2, dtype).predict([member], Budget()).probability for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_bfloat16_is_close_to_float32() -> None:
    member = member_of(random_network(), overlap=0.25)

    exact, rounded = (
        predictor_of(1, dtype).predict([member], Budget()).probability for dtype in (torch.float32, torch.bfloat16)
    )

    # With everything in bfloat16 the mean is 0.06.
    assert np.abs(exact - rounded).mean() < 0.005
    assert not np.array_equal(exact, rounded)


def test_a_narrower_type_is_for_the_finest_level_alone() -> None:
    placed = place(random_network(), torch.device("cpu"), torch.bfloat16)

    narrow = {name for name, value in placed.named_parameters() if value.dtype == torch.bfloat16}

    assert narrow == {
        name for name, _ in placed.named_parameters() if re.match(r"decoder\.(blocks|heads)\.1\.", name)
    }
    assert narrow


def test_the_network_given_is_not_changed() -> None:
    network = random_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    predictor_of(1, torch.bfloat16).predict([member_of(network, TINY_PATCH)], Budget())

    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


class TestMemoryLadder:
    """A device of limited memory, simulated by a network that raises what torch raises."""

    @staticmethod
    def network_that_fails(
        when: Callable[[int, int], bool],
        error: type[RuntimeError] = torch.OutOfMemoryError,
        words: str = "simulated",
    ) -> Stub:
        """Return a network that runs out of memory when told so by the call's number and the batch."""
        calls = [0]

        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            calls[0] += 1
            if when(calls[0], len(ct)):
                raise error(words)
            return pointwise(ct, pet)

        return Stub(answer)

    @pytest.mark.parametrize(("largest", "batch"), [(4, 4), (3, 2), (2, 2), (1, 1)])
    def test_fewer_windows_at_a_time(self, largest: int, batch: int) -> None:
        member = member_of(self.network_that_fails(lambda call, size: size > largest))
        predictor = predictor_of(2, batch=4)

        prediction = predictor.predict([member], Budget())

        assert_pointwise(prediction, member)
        assert prediction.execution.batch == batch
        assert prediction.passes == 2
        assert len(prediction.notes) == int(math.log2(4 / batch))
        assert all("memory is too small" in note for note in prediction.notes)

    @pytest.mark.parametrize(
        "words",
        [
            "GET was unable to find an engine to execute this computation",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "CUDA error: out of memory",
        ],
    )
    @pytest.mark.parametrize("call", [1, 4])
    def test_in_the_words_of_cudnn(self, words: str, call: int) -> None:
        network = self.network_that_fails(lambda number, size: number == call, RuntimeError, words)
        predictor = predictor_of(batch=2)

        prediction = predictor.predict([member_of(network)], Budget())

        assert prediction.passes == 1
        assert prediction.execution.batch == 1

    @staticmethod
    def is_call(wanted: int, number: int, size: int) -> bool:
        return number == wanted

    def test_other_errors_are_not_taken_for_it(self) -> None:
        for call in (1, 4, 20):
            network = self.network_that_fails(partial(self.is_call, call), RuntimeError, "bug")
            with pytest.raises(RuntimeError, match="bug"):
                predictor_of(8).predict([member_of(network)], Budget())

    def test_a_device_that_does_not_hold_the_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> H2ASeg:
            raise torch.OutOfMemoryError("simulated")

        monkeypatch.setattr(predictor_module, "place", full)
        with pytest.raises(ResourceError, match="does not hold the network; free the device, or use --device cpu"):
            predictor_of().predict([member_of(Stub(pointwise))], Budget())

    def test_then_the_host_accumulates(self) -> None:
        member = member_of(self.network_that_fails(lambda call, size: call <= 3))
        predictor = predictor_of(batch=4, store=torch.device("meta"))  # holds nothing: using it would fail

        prediction = predictor.predict([member], Budget())

        assert_pointwise(prediction, member)
        assert (prediction.execution.batch, prediction.execution.store) == (1, CPU)
        assert prediction.notes[-1].endswith("the host accumulates the probability")

    def test_then_it_gives_up(self) -> None:
        member = member_of(self.network_that_fails(lambda call, size: True))

        with pytest.raises(ResourceError, match="does not hold one window; free the device, or use --device cpu"):
            predictor_of(batch=4).predict([member], Budget())

    @pytest.mark.parametrize("call", [3, 4])
    def test_in_the_first_pass_it_starts_again(self, call: int) -> None:
        member = member_of(self.network_that_fails(lambda number, size: number == call))
        predictor = predictor_of(2, batch=2)

        prediction = predictor.predict([member], Budget())

        assert_pointwise(prediction, member)
        assert (prediction.passes, prediction.execution.batch) == (2, 1)

    @pytest.mark.parametrize("flips", [None, 8])
    def test_in_a_later_pass_what_is_done_counts(self, flips: int | None) -> None:
        windows = len(plan_windows(SIZE, TINY_PATCH, 0.5))
        fails_at = 2 + 2 * windows + 3  # two calls for timing, two passes, in the middle of the third
        member = member_of(self.network_that_fails(lambda number, size: number == fails_at))

        prediction = predictor_of(flips).predict([member], Budget())

        assert_pointwise(prediction, member)
        assert (prediction.passes, prediction.passes_planned) == (2, 8)
        assert prediction.stopped_because == (
            "pass 3 ran out of device memory; what was averaged until then is kept"
        )
        assert prediction.stopped_because in prediction.notes

    def test_the_first_pass_of_every_member_is_needed(self) -> None:
        windows = len(plan_windows(SIZE, TINY_PATCH, 0.5))
        good = member_of(Stub(pointwise))
        bad = member_of(self.network_that_fails(lambda number, size: number > 2 and size > 1))
        predictor = predictor_of(1, batch=2)

        prediction = predictor.predict([good, bad], Budget())

        assert_pointwise(prediction, good)
        assert (prediction.passes, prediction.execution.batch, prediction.windows) == (2, 1, 2 * windows)


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


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
class TestValuesThatAreNotFinite:
    @staticmethod
    def broken_in(dtype: torch.dtype, value: float) -> Stub:
        return Stub(lambda ct, pet: pointwise(ct, pet) * (value if ct.dtype == dtype else 1))

    def test_bfloat16_falls_back_to_float32(self, value: float) -> None:
        member = member_of(self.broken_in(torch.bfloat16, value))
        predictor = predictor_of(2, torch.bfloat16)

        prediction = predictor.predict([member], Budget())

        assert_pointwise(prediction, member)
        assert prediction.execution.dtype == torch.float32
        assert prediction.notes == (
            "the network gave values that are not finite in torch.bfloat16; float32 is used instead",
        )

    def test_in_a_later_pass_only_the_windows_concerned_are_lost(self, value: float) -> None:
        windows, calls = len(plan_windows(SIZE, TINY_PATCH, 0.5)), itertools.count(1)
        fails_at = 2 + 2 * windows + 3  # two calls for timing, two passes, in the middle of the third
        member = member_of(Stub(lambda ct, pet: pointwise(ct, pet) * (value if next(calls) == fails_at else 1)))
        predictor = predictor_of(4, torch.bfloat16)

        prediction = predictor.predict([member], Budget())

        assert np.abs(prediction.probability - expected_pointwise(member)).max() < 0.05
        assert (prediction.passes, prediction.execution.dtype) == (4, torch.bfloat16)
        assert prediction.notes == ("windows of pass 3 were left out, not being finite in torch.bfloat16",)

    def test_float32_is_an_error(self, value: float) -> None:
        with pytest.raises(DeviceError, match="not finite in float32; check the weights and the images"):
            predictor_of().predict([member_of(self.broken_in(torch.float32, value))], Budget())


class TestManyCases:
    """A predictor serves one case after the other; none changes what comes of the next."""

    @staticmethod
    def cases() -> tuple[list[NetworkInput], list[NetworkInput]]:
        first, second = member_of(Stub(pointwise), seed=1), member_of(Stub(pointwise), (64, 32, 16), seed=2)
        return [first.volumes], [second.volumes]

    def test_the_first_again_gives_the_same_bits(self) -> None:
        predictor = Predictor([random_network()], CPU, torch.bfloat16)
        first, second = self.cases()

        before = predictor.predict(first, Budget(), flips=2)
        predictor.predict(second, Budget(), flips=1)
        after = predictor.predict(first, Budget(), flips=2)

        np.testing.assert_array_equal(after.probability, before.probability)

    def test_a_fall_back_to_float32_ends_with_its_case(self) -> None:
        broken = {"now": False}
        network = random_network()
        finest = type(network).finest

        def sometimes_broken(self: H2ASeg, ct: Tensor, pet: Tensor) -> Tensor:
            logits = finest(self, ct, pet)
            return logits * torch.nan if broken["now"] and logits.dtype == torch.bfloat16 else logits

        first, second = self.cases()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(H2ASeg, "finest", sometimes_broken)
            predictor = Predictor([network], CPU, torch.bfloat16)
            before = predictor.predict(first, Budget(), flips=1)
            broken["now"] = True
            fallen_back = predictor.predict(second, Budget(), flips=1)
            broken["now"] = False
            after = predictor.predict(first, Budget(), flips=1)

        exact = Predictor([network], CPU, torch.float32).predict(second, Budget(), flips=1)
        np.testing.assert_array_equal(fallen_back.probability, exact.probability)
        assert fallen_back.execution.dtype == torch.float32
        assert len(fallen_back.notes) == 1
        np.testing.assert_array_equal(after.probability, before.probability)
        assert after.execution == before.execution == predictor.execution
        assert after.notes == ()

    def test_smaller_batches_end_with_their_case(self) -> None:
        broken = {"now": False}

        def answer(ct: Tensor, pet: Tensor) -> Tensor:
            if broken["now"] and len(ct) > 1:
                raise torch.OutOfMemoryError("simulated")
            return pointwise(ct, pet)

        predictor = Predictor([Stub(answer)], CPU, torch.float32)  # type: ignore[list-item]
        predictor.execution = replace(predictor.execution, batch=4)
        first, second = self.cases()
        broken["now"] = True
        assert predictor.predict(second, Budget(), flips=1).execution.batch == 1
        broken["now"] = False

        after = predictor.predict(first, Budget(), flips=1)

        assert (after.execution.batch, after.notes) == (4, ())

    def test_networks_are_placed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        placed: list[torch.dtype] = []

        def counted(network: H2ASeg, device: torch.device, dtype: torch.dtype) -> H2ASeg:
            placed.append(dtype)
            return place(network, device, dtype)

        monkeypatch.setattr(predictor_module, "place", counted)
        predictor = Predictor([random_network()], CPU, torch.float32)
        for case in self.cases():
            predictor.predict(case, Budget(), flips=1)

        assert placed == [torch.float32]


class TestObserver:
    class Seen:
        """Wants the windows that begin at 0 along x."""

        def __init__(self) -> None:
            self.windows: dict[tuple[int, int, int], Tensor] = {}
            self.levels: set[int] = set()

        def wants(self, start: tuple[int, int, int]) -> bool:
            return start[0] == 0

        def see(self, start: tuple[int, int, int], probability: Tensor, gains: Sequence[Gains]) -> None:
            self.windows[start] = probability
            self.levels.add(len(gains))

    @pytest.mark.parametrize("batch", [1, 3])
    def test_sees_what_the_sums_get_and_chooses_windows(self, batch: int) -> None:
        network, seen = random_network(), self.Seen()
        member = member_of(network, overlap=0.0)
        predictor = Predictor([network], CPU, torch.float32)
        predictor.execution = replace(predictor.execution, batch=batch)

        prediction = predictor.predict([member.volumes], Budget(), flips=1, observer=seen)

        plan = plan_windows(SIZE, TINY_PATCH, 0.0)
        assert set(seen.windows) == {start for start in plan if start[0] == 0} != set(plan)
        assert prediction.windows == len(seen.windows)
        assert seen.levels == {4}
        assert not prediction.probability[TINY_PATCH[0] :].any()  # no window came there
        first = seen.windows[0, 0, 0].numpy()
        np.testing.assert_allclose(prediction.probability[:32, :32, :8], first[:, :, :8], atol=1e-5)


class TestChoices:
    def test_names_and_types(self) -> None:
        assert [precision_of(dtype_of(name)) for name in PRECISIONS[1:]] == ["float32", "bfloat16", "float16"]
        with pytest.raises(ValueError, match="must be one of float32, bfloat16, float16, got 'auto'"):
            dtype_of("auto")

    def test_float16_needs_a_gpu(self) -> None:
        with pytest.raises(DeviceError, match="float16 needs a GPU"):
            choose_dtype("float16", CPU)

    @pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
    def test_auto_asks_the_cpu(self, native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

        assert choose_dtype("auto", CPU) == dtype

    def test_auto_is_float16_on_a_gpu(self) -> None:
        assert choose_dtype("auto", torch.device("cuda")) == torch.float16

    @pytest.mark.parametrize("name", ["float32", "bfloat16"])
    def test_named(self, name: str) -> None:
        assert choose_dtype(name, CPU) == getattr(torch, name)


class TestHostMemory:
    def test_what_grand_challenge_states_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", "512")

        assert memory.host_limit_bytes() == 512 * 2**20

    @pytest.mark.parametrize("stated", ["", "unlimited"])
    def test_otherwise_the_machine_does(self, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", stated)
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", ())

        assert memory.host_limit_bytes() == memory._machine_memory()

    def test_least_limit_of_the_control_group(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        monkeypatch.delenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", raising=False)
        for name, text in (("unlimited", "max\n"), ("small", "1048576\n")):
            (tmp_path / name).write_text(text)
        paths = tuple(tmp_path / name for name in ("unlimited", "small", "absent"))
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", paths)

        assert memory.host_limit_bytes() == 2**20

    def test_nothing_to_do_without_glibc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "darwin")

        assert not memory.reuse_freed_memory()
