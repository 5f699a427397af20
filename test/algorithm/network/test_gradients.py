from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithm.network.architecture import Architecture
from algorithm.network.blocks import EntryBlock, instance_norm
from algorithm.network.h2aseg import H2ASeg
from test.support.checkpoints import (
    released_state,
)
from test.support.plain_network import PlainH2ASeg, reference_inputs
from test.support.processor import BFLOAT16_HERE
from training.kernels import Kernels
from training.losses import DeepSupervisionLoss

pytestmark = pytest.mark.numerical

SLIM = Architecture(channels=(2, 4, 8, 16, 32))  # the published window
SEED = 7


def double_inputs(batch: int, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    ct, pet = reference_inputs(batch, patch, SEED)
    return ct.double(), pet.double()


class DefinedNormH2ASeg(PlainH2ASeg):
    """The oracle with instance normalisation by its definition: its gradients rest on no kernel of torch's."""

    def norm(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3, 4), correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5)


def gradients_of_the_oracle(network: H2ASeg, ct: Tensor, pet: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return the loss's float64 gradients by released names."""
    parameters = {
        name: value.detach().double().requires_grad_() for name, value in released_state(network).items()
    }
    DeepSupervisionLoss()(DefinedNormH2ASeg(parameters)(ct.double(), pet.double()), truth).backward()
    return {name: value.grad for name, value in parameters.items() if value.grad is not None}


def gradients_of_the_product(
    network: H2ASeg, ct: Tensor, pet: Tensor, truth: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the loss's gradients as the training loop makes them, by released names."""
    network = copy.deepcopy(network).to(memory_format=torch.channels_last_3d).train()
    images = (image.to(memory_format=torch.channels_last_3d) for image in (ct, pet))
    with Kernels(dtype), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        logits = network(*images)
    DeepSupervisionLoss()(logits, truth).backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return {name: value.double() for name, value in released_state(network).items()}


@pytest.mark.parametrize(
    ("batch", "dtype", "least", "of_most", "of_all"),
    [
        (1, torch.float32, 0.9999, 0.9999, 0.9999),
        # Six random networks: 0.63 (the projection of a query or key) to 0.94; 0.93 to 0.97; 0.994 to 0.997.
        pytest.param(1, torch.bfloat16, 0.5, 0.9, 0.99, marks=BFLOAT16_HERE),
        pytest.param(2, torch.bfloat16, 0.5, 0.9, 0.99, marks=BFLOAT16_HERE),
    ],
)
def test_training_follows_the_gradients_of_the_plain_transcription(
    batch: int, dtype: torch.dtype, least: float, of_most: float, of_all: float
) -> None:
    patch = (64, 32, 16)
    torch.manual_seed(SEED)
    network = H2ASeg(Architecture(channels=(8, 16, 32, 48, 64), dropout=0.0))
    coarse = reference_inputs(batch, tuple(side // 8 for side in patch), SEED)
    ct, pet = (torch.nn.functional.interpolate(image, scale_factor=8, mode="trilinear") for image in coarse)
    truth = (pet > 0.8).to(torch.uint8)
    expected = gradients_of_the_oracle(network, ct, pet, truth)
    got = gradients_of_the_product(network, ct, pet, truth, dtype)

    # A bias before a normalisation has no gradient but rounding.
    weights = [name for name, value in expected.items() if value.ndim > 1]
    cosines = {
        name: torch.nn.functional.cosine_similarity(got[name].flatten(), expected[name].flatten(), 0).item()
        for name in weights
    }
    assert len(cosines) > 100
    assert not {name: value for name, value in cosines.items() if value < least}
    assert np.quantile(list(cosines.values()), 0.05) >= of_most
    ours, theirs = (torch.cat([each[name].flatten() for name in weights]) for each in (got, expected))
    assert torch.nn.functional.cosine_similarity(ours, theirs, 0).item() >= of_all
    assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=0.1)


@torch.inference_mode()
def test_a_bias_that_dwarfs_low_uptake_costs_bfloat16_no_digits() -> None:
    torch.manual_seed(SEED)
    block = EntryBlock(8, dropout=0.0)
    faint = 0.1 + 0.01 * torch.rand(1, 1, 16, 16, 8)
    expected = block(faint)
    assert block.conv1.bias is not None
    block.conv1.bias.fill_(10.0)
    torch.testing.assert_close(block(faint), expected)

    got = copy.deepcopy(block).bfloat16()(faint.bfloat16()).float()

    assert (got - expected).std() < 0.1 * expected.std()


@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("gradient_last", [False, True])
def test_gradients_of_instance_norm_in_every_layout(channels: int, x_last: bool, gradient_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn((1, channels, 6, 5, 4), generator=generator) for _ in range(2))
    formats = {False: torch.contiguous_format, True: torch.channels_last_3d}
    ours = x.clone(memory_format=formats[x_last]).requires_grad_()
    instance_norm(ours).backward(gradient.to(memory_format=formats[gradient_last]))

    defined = x.detach().double().requires_grad_()
    DefinedNormH2ASeg({}).norm(defined).backward(gradient.double())
    torch.testing.assert_close(ours.grad, defined.grad.float(), atol=1e-5, rtol=1e-4)
