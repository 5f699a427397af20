from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from algorithm.errors import ResourceError
from algorithm.inference import predictor as predictor_module
from algorithm.inference.budget import Budget
from algorithm.inference.windows import plan_windows
from algorithm.network.h2aseg import H2ASeg
from test.support.checkpoints import TINY_PATCH
from test.support.predictors import (
    CPU,
    SIZE,
    Stub,
    assert_pointwise,
    member_of,
    pointwise,
    predictor_of,
)


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
    @pytest.mark.parametrize("call", [1, 2])
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
        def full(*_: object, **__: object) -> H2ASeg:
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

    @pytest.mark.parametrize(
        ("call", "deadline"),
        [(1, math.inf), (2, math.inf), (1, 1e12), (2, 1e12), (3, 1e12), (4, 1e12)],
        ids=["first", "second", "warming up", "timing", "first after timing", "second after timing"],
    )
    def test_in_the_first_pass_it_starts_again(self, call: int, deadline: float) -> None:
        member = member_of(self.network_that_fails(lambda number, size: number == call))
        predictor = predictor_of(2, batch=2)

        prediction = predictor.predict([member], Budget(deadline))

        assert_pointwise(prediction, member)
        assert (prediction.passes, prediction.execution.batch) == (2, 1)

    @pytest.mark.parametrize("flips", [None, 8])
    def test_in_a_later_pass_what_is_done_counts(self, flips: int | None) -> None:
        windows = len(plan_windows(SIZE, TINY_PATCH, 0.5))
        fails_at = 2 * windows + 3  # two passes, in the middle of the third
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
        bad = member_of(self.network_that_fails(lambda number, size: size > 1))
        predictor = predictor_of(1, batch=2)

        prediction = predictor.predict([good, bad], Budget())

        assert_pointwise(prediction, good)
        assert (prediction.passes, prediction.execution.batch, prediction.windows) == (2, 1, 2 * windows)
