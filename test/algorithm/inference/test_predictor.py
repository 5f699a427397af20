from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from algorithm.errors import InvalidImageError
from algorithm.inference import predictor as predictor_module
from algorithm.inference.augmentation import flip_order
from algorithm.inference.budget import Budget
from algorithm.inference.case_run import CaseRun, Prediction
from algorithm.inference.execution import Execution, place
from algorithm.inference.passes import NetworkInput
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.inference.windows import cut_box, paste_box, plan_windows
from algorithm.network.h2aseg import H2ASeg, tumour_probability
from algorithm.network.weighting import Gains
from test.support.checkpoints import TINY_PATCH, random_network
from test.support.predictors import (
    CPU,
    SIZE,
    Member,
    Stub,
    Volume,
    assert_pointwise,
    expected_pointwise,
    member_of,
    pointwise,
    predictor_of,
    volumes,
)

pytestmark = pytest.mark.numerical


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

    def test_flips_are_those_along_the_axes_that_the_network_knows(self) -> None:
        network = random_network()
        member = member_of(network, overlap=0.25)
        known = replace(member.volumes, flip_axes=(0,))

        def average(count: int | None) -> Prediction:
            networks = Predictor([network], torch.device("cpu"), torch.float32)
            return networks.predict([known], Budget(), flips=count)

        single = [
            monai_probability(network, member.ct.numpy(), member.pet.numpy(), 0.25, axes) for axes in ((), (0,))
        ]
        for count in (8, 2, None):
            prediction = average(count)
            np.testing.assert_allclose(prediction.probability, np.mean(single, axis=0), atol=2e-6)
            assert prediction.passes == prediction.passes_planned == 2
        np.testing.assert_allclose(average(1).probability, single[0], atol=2e-6)

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


def test_in_all_levels_what_counts_for_a_whole_window_stays_as_it_was_given() -> None:
    given = random_network()
    placed = place(given, torch.device("cpu"), torch.bfloat16, everywhere=True)

    exact = {name for name, value in placed.named_parameters() if value.dtype == torch.float32}

    assert exact == {
        name
        for name, _ in placed.named_parameters()
        if re.match(r"encoder\.(ct|pet)\.0\.conv1\.|decoder\.weighting\.\d\.(fore|back)\.", name)
    }
    assert exact
    parameters = dict(given.named_parameters())
    for name, value in placed.named_parameters():
        rounded = parameters[name] if name in exact else parameters[name].bfloat16()
        assert torch.equal(value, rounded)


def test_the_network_given_is_not_changed() -> None:
    network = random_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    predictor_of(1, torch.bfloat16).predict([member_of(network, TINY_PATCH)], Budget())

    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


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

    @pytest.mark.parametrize("deadline", [math.inf, 1e9])
    def test_a_recording_that_does_not_fit_costs_no_batch(self, deadline: float) -> None:
        def recorded(ct: Tensor, pet: Tensor) -> Tensor:
            if len(ct) == 4:
                raise torch.OutOfMemoryError("simulated")
            return pointwise(ct, pet)

        def networks(how: Execution) -> list[Stub]:
            return [Stub(recorded if how.cuda_graph else pointwise)]

        how = replace(Execution.fastest(CPU, torch.float32), batch=4, cuda_graph=True)
        first, _ = self.cases()
        run = CaseRun(
            networks,  # type: ignore[arg-type]
            first,
            how,
            Budget(deadline),
            flips=1,
            focus=None,
            progress=Progress(logging.DEBUG),
            observer=None,
        )
        assert run.predict().execution.batch == 4

    def test_networks_are_placed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        placed: list[torch.dtype] = []

        def counted(network: H2ASeg, device: torch.device, dtype: torch.dtype, *, everywhere: bool) -> H2ASeg:
            placed.append(dtype)
            return place(network, device, dtype, everywhere=everywhere)

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
        fails_at = 2 * windows + 3  # two passes, in the middle of the third
        member = member_of(Stub(lambda ct, pet: pointwise(ct, pet) * (value if next(calls) == fails_at else 1)))
        predictor = predictor_of(4, torch.bfloat16)

        prediction = predictor.predict([member], Budget())

        assert np.abs(prediction.probability - expected_pointwise(member)).max() < 0.05
        assert (prediction.passes, prediction.execution.dtype) == (4, torch.bfloat16)
        assert prediction.notes == ("windows of pass 3 were left out, not being finite in torch.bfloat16",)

    def test_float32_is_an_error(self, value: float) -> None:
        with pytest.raises(InvalidImageError, match="not finite in float32; check the weights and the images"):
            predictor_of().predict([member_of(self.broken_in(torch.float32, value))], Budget())
