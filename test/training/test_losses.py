from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from training.losses import HEAD_WEIGHTS, DeepSupervisionLoss
from training.parallel import Processes

pytestmark = pytest.mark.numerical

SIZE = (2, 1, 6, 5, 4)


def heads(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(SIZE[0], 2, *SIZE[2:], generator=generator) for _ in HEAD_WEIGHTS)


def truth(seed: int) -> torch.Tensor:
    return (torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) > 0.7).to(torch.uint8)


class OneOfTwo(Processes):
    """A process whose neighbour's share of every sum is known."""

    def __init__(self, others: torch.Tensor) -> None:
        super().__init__(rank=0, count=2)
        object.__setattr__(self, "others", others)

    def total(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.others


class Listening(Processes):
    """A single process that remembers what it was asked to add up."""

    def total(self, value: torch.Tensor) -> torch.Tensor:
        object.__setattr__(self, "heard", value)
        return value


def test_it_is_monais_with_the_dice_of_the_whole_batch_and_heads_that_count_5_4_3_2_1():
    logits, wanted = heads(0), truth(0)
    plain = DiceCELoss(include_background=True, to_onehot_y=True, softmax=True, batch=True)
    expected = sum(weight * plain(head, wanted) for weight, head in zip((5, 4, 3, 2, 1), logits, strict=True))

    assert DeepSupervisionLoss()(logits, wanted).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_of_two_processes_average_to_those_of_the_whole_batch():
    wanted = truth(1)
    whole = [head.requires_grad_() for head in heads(1)]
    DeepSupervisionLoss()(whole, wanted).backward()

    sums = []
    for part in (0, 1):
        listening = Listening()
        DeepSupervisionLoss(processes=listening)(
            [head[part : part + 1] for head in heads(1)], wanted[part : part + 1]
        )
        sums.append(listening.heard)
    losses = []
    for part in (0, 1):
        own = [head[part : part + 1].requires_grad_() for head in heads(1)]
        loss = DeepSupervisionLoss(processes=OneOfTwo(sums[1 - part]))(own, wanted[part : part + 1])
        loss.backward()
        losses.append(loss.detach())
        for mine, all_of_them in zip(own, whole, strict=True):
            torch.testing.assert_close(mine.grad / 2, all_of_them.grad[part : part + 1])
    assert torch.stack(losses).mean().item() == pytest.approx(
        DeepSupervisionLoss()(heads(1), wanted).item(), rel=1e-6
    )


def test_false_positives_of_a_crop_without_tumour_count_in_the_dice():
    wanted = torch.zeros(2, 1, 20, 20, 20)
    wanted[0, 0, :5, :5, :5] = 1

    def cost(called: int) -> float:
        logits = torch.cat([1 - 2 * wanted, 2 * wanted - 1], dim=1) * 30
        logits[1, :, :called] *= -1
        return float(DeepSupervisionLoss()([logits] * 5, wanted))

    tumour, called, voxels = 125, 400, wanted.numel()
    tumour_dice = 2 * tumour / (2 * tumour + called)
    background_dice = 2 * (voxels - tumour - called) / (2 * (voxels - tumour) - called)
    expected = 60 * called / voxels + 1 - (tumour_dice + background_dice) / 2
    assert cost(1) == pytest.approx(sum(HEAD_WEIGHTS) * expected, rel=1e-5)
    assert 1 - tumour_dice > 0.6


def test_a_sure_and_right_answer_costs_nothing():
    wanted = truth(2)
    sure = torch.cat([1.0 - 2.0 * wanted, 2.0 * wanted - 1.0], dim=1) * 30

    assert DeepSupervisionLoss()([sure] * 5, wanted).item() == pytest.approx(0, abs=1e-3)


def test_of_hard_voxels_the_cross_entropy_is_over_each_crops_worst():
    logits, wanted = heads(6), truth(6)
    losses = [
        F.cross_entropy(head[crop : crop + 1], wanted[crop].long(), reduction="none")
        for head in logits
        for crop in (0, 1)
    ]
    everywhere = torch.stack([loss.mean() for loss in losses]).view(5, 2).mean(1)
    worst = torch.stack([loss.flatten().sort().values[-12:].mean() for loss in losses]).view(5, 2).mean(1)
    more = float(torch.tensor(HEAD_WEIGHTS) @ (worst - everywhere))

    whole = DeepSupervisionLoss()(logits, wanted).item()
    assert DeepSupervisionLoss(hard_voxels=0.1)(logits, wanted).item() == pytest.approx(whole + more, rel=1e-5)


def test_a_lesion_missed_with_confidence_has_a_gradient_through_hard_voxels_alone():
    wanted = torch.zeros(1, 1, 40, 40, 20)
    wanted[0, 0, :2, :2, :4] = 1
    sure = torch.cat([torch.full_like(wanted, 8.0), torch.zeros_like(wanted)], dim=1)

    def pull(hard_voxels: float) -> float:
        logits = [sure.clone().requires_grad_() for _ in HEAD_WEIGHTS]
        DeepSupervisionLoss(hard_voxels=hard_voxels)(logits, wanted).backward()
        return float(-logits[0].grad[0, 1, :2, :2, :4].sum())

    assert pull(0.01) > 10 * pull(1)


def test_a_batch_without_tumour_teaches_to_call_none():
    logits = [head.requires_grad_() for head in heads(3)]
    DeepSupervisionLoss()(logits, torch.zeros(SIZE)).backward()

    assert all(bool((head.grad[:, 1] > 0).all()) for head in logits)
    assert math.isfinite(sum(float(head.grad.abs().sum()) for head in logits))


def test_bfloat16_logits_are_summed_in_float32():
    logits, wanted = heads(4), truth(4)
    rounded = [head.bfloat16() for head in logits]
    loss = DeepSupervisionLoss()(rounded, wanted)

    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(DeepSupervisionLoss()([head.float() for head in rounded], wanted).item())


def test_a_missing_head_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        DeepSupervisionLoss()(heads(5)[:4], truth(5))
