"""Predictors over small volumes: stand-ins for the network whose answer is known, and a clock that can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithm.inference.budget import Budget
from algorithm.inference.case_run import Prediction
from algorithm.inference.execution import Execution
from algorithm.inference.passes import NetworkInput
from algorithm.inference.predictor import Predictor
from test.support.checkpoints import TINY_PATCH

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
