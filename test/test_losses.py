from __future__ import annotations

import math

import pytest
import torch

from training.losses import HEAD_WEIGHTS, SMOOTHING, DeepSupervisionLoss

SIZE = (2, 1, 6, 5, 4)


def plain_loss(logits: torch.Tensor, truth: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross-entropy plus soft Dice by their definitions, in float64."""
    probability = torch.softmax(logits.double(), dim=1)
    wanted = torch.cat([1 - truth, truth], dim=1).double()
    cross_entropy = -(wanted * torch.log(probability)).sum(1).mean()
    shared = (probability * wanted).sum((2, 3, 4))
    dice = (2 * shared + smoothing) / (probability.sum((2, 3, 4)) + wanted.sum((2, 3, 4)) + smoothing)
    return cross_entropy + (1 - dice).mean()


def heads(seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(SIZE[0], 2, *SIZE[2:], generator=generator) for _ in HEAD_WEIGHTS)


def truth(seed: int) -> torch.Tensor:
    return (torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) > 0.7).to(torch.uint8)


@pytest.mark.parametrize("smoothing", [1e-5, SMOOTHING])
def test_the_heads_count_5_4_3_2_1(smoothing: float):
    logits, wanted = heads(0), truth(0)
    each = zip((5, 4, 3, 2, 1), logits, strict=True)
    expected = sum(weight * plain_loss(head, wanted, smoothing) for weight, head in each)

    loss = DeepSupervisionLoss(smoothing=smoothing)(logits, wanted)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_smoothing_lets_false_positives_of_a_crop_without_tumour_count():
    def cost(called: int, smoothing: float) -> float:
        logits = torch.full((1, 2, 20, 20, 20), -20.0)
        logits[:, 0] = 20.0
        logits[0, :, :called, :10, :10] *= -1
        return float(DeepSupervisionLoss(smoothing=smoothing)([logits] * 5, torch.zeros(1, 1, 20, 20, 20)))

    rare = cost(4, SMOOTHING) - cost(2, SMOOTHING)
    assert cost(4, 1e-5) - cost(2, 1e-5) == pytest.approx(rare - dice_rise(400, 200), rel=0.05)


def dice_rise(called: int, fewer: int) -> float:
    """Return what the smoothed Dice of the foreground adds, at five heads and for one of two classes."""
    weights = 5 + 4 + 3 + 2 + 1
    return weights / 2 * (SMOOTHING / (fewer + SMOOTHING) - SMOOTHING / (called + SMOOTHING))


def test_parts_of_a_batch_average_to_the_whole():
    loss, logits, wanted = DeepSupervisionLoss(), heads(1), truth(1)
    parts = [loss([head[each : each + 1] for head in logits], wanted[each : each + 1]) for each in range(2)]

    assert torch.stack(parts).mean().item() == pytest.approx(loss(logits, wanted).item(), rel=1e-6)


def test_a_sure_and_right_answer_costs_nothing():
    wanted = truth(2)
    sure = torch.cat([1.0 - 2.0 * wanted, 2.0 * wanted - 1.0], dim=1) * 30

    assert DeepSupervisionLoss()([sure] * 5, wanted).item() == pytest.approx(0, abs=1e-3)


def test_a_crop_without_tumour_teaches_to_call_none():
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
