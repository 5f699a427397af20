from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from algorithm.inference.execution import place
from algorithm.network.architecture import Architecture
from algorithm.network.attention import from_windows, to_windows
from algorithm.network.blocks import (
    Conv,
    UnbiasedConv,
    instance_norm,
    upsample,
    upsampled_mean,
    weighted_means,
    weighted_sums,
)
from test.support.checkpoints import (
    random_network,
)
from test.support.plain_network import reference_inputs
from test.support.processor import BFLOAT16_HERE

pytestmark = pytest.mark.numerical

SLIM = Architecture(channels=(2, 4, 8, 16, 32))  # the published window
SEED = 7


def test_windows_hold_neighbours_and_come_back() -> None:
    size = (8, 16, 4)
    places = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))[None].double()

    tokens = to_windows(places, (4, 8, 2))

    assert tokens.shape == (8, 64, 3)
    spread = (tokens.amax(1) - tokens.amin(1)).unique(dim=0)
    assert spread.tolist() == [[3, 7, 1]]
    assert torch.equal(from_windows(tokens, (4, 8, 2), torch.Size(size)), places)


@pytest.mark.parametrize("channels", [1, 5, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_convolutions_without_gradients(
    channels: int, stride: int, batch: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(SEED)
    x = torch.randn(batch, channels, 6, 8, 10)
    for layer, biased in ((Conv(channels, 7, stride), True), (UnbiasedConv(channels, 7, stride), False)):
        expected = F.conv3d(
            x.double(), layer.weight.double(), layer.bias.double() if biased else None, stride, padding=1
        )
        with torch.inference_mode():
            ours = layer.to(memory_format=layout)(x.to(memory_format=layout))
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 16, 24])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_instance_norm_in_every_branch(
    channels: int,
    batch: int,
    inference: bool,
    layout: torch.memory_format,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    x = torch.from_numpy(np.random.default_rng(SEED).normal(3, 2, (batch, channels, 4, 5, 6)))

    mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, correction=0)
    with torch.inference_mode(inference):
        ours = instance_norm(x.to(dtype, memory_format=layout))

    expected = (x - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("channels", [3, 16, 24])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_statistics_of_bfloat16_are_not_rounded(
    channels: int, batch: int, inference: bool, layout: torch.memory_format
) -> None:
    # A mean in bfloat16 would shift all voxels of a channel alike: by up to 0.015 here, where 0.0017 is one's own.
    generator = torch.Generator().manual_seed(SEED)
    x = (4.7 + torch.randn(batch, channels, 16, 16, 16, generator=generator)).bfloat16().to(memory_format=layout)
    variance, mean = torch.var_mean(x.double(), (2, 3, 4), correction=0, keepdim=True)
    with torch.inference_mode(inference):
        ours = instance_norm(x)
    error = ours.double() - (x - mean) / (variance + 1e-5).sqrt()
    assert ours.dtype == torch.bfloat16
    assert error.mean((2, 3, 4)).abs().max() < 1e-3
    assert error.square().mean().sqrt() < 2.5e-3


class FeatureLayouts(TorchDispatchMode):
    """Collect what computed a feature map, (B, C > 1, H, W, D), that is not channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.otherwise: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.permute.default, torch.ops.aten.reshape.default):  # between features and tokens
            return result
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, Tensor) and x.ndim == 5 and x.shape[1] > 1:
                self.seen += 1
                if not x.is_contiguous(memory_format=torch.channels_last_3d):
                    self.otherwise.append(f"{func} gave {tuple(x.shape)} with strides {x.stride()}")
        return result


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=BFLOAT16_HERE)])
def test_no_feature_map_leaves_the_fast_layout(dtype: torch.dtype) -> None:
    # Small sides: from a certain size down torch takes a convolution of its own that gives up the layout.
    network = place(random_network(Architecture()), torch.device("cpu"), dtype)
    ct, pet = (x.to(memory_format=torch.channels_last_3d) for x in reference_inputs(1, (64, 64, 32), SEED))
    with torch.inference_mode(), FeatureLayouts() as layouts:
        network.finest(ct, pet)
    assert layouts.seen > 100
    assert layouts.otherwise == []


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.1])
def test_instance_norm_of_nearly_constant_channels(spread: float) -> None:
    # As in a window of air: E[x^2] - E[x]^2 would be off by more than the variance, or negative.
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(-90, 90, 16)[None, :, None, None, None]
    x = (level + spread * torch.randn((2, 16, 32, 32, 16), generator=generator)).contiguous(
        memory_format=torch.channels_last_3d
    )
    variance, mean = torch.var_mean(x.double(), (2, 3, 4), correction=0, keepdim=True)
    with torch.inference_mode():
        ours = instance_norm(x)
    torch.testing.assert_close(ours, ((x - mean) / (variance + 1e-5).sqrt()).float(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_sums_of_bfloat16_are_added_in_float32(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(SEED)
    x = (1 + 0.1 * torch.randn(2, 16, 32, 16, 8, generator=generator)).bfloat16().contiguous(memory_format=layout)
    weights = torch.full((2, 1, 32 * 16 * 8), 2.0**-12)  # a mean, exact in bfloat16
    exact = x.double().mean((2, 3, 4))

    sums = weighted_sums(x, weights)[:, 0]

    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), exact, rtol=1e-3, atol=0)
    in_one_go = (weights.bfloat16() @ x.flatten(2).transpose(1, 2))[:, 0]
    assert (sums - exact).abs().mean() < 0.5 * (in_one_go - exact).abs().mean()
    torch.testing.assert_close(weighted_sums(x.double(), weights)[:, 0], exact)


@pytest.mark.parametrize("size", [(24, 16, 8), (8, 24, 8), (12, 12, 12)])  # 1 / (3 x 2^n) in bfloat16 is 0.2 % off
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_means_of_bfloat16_are_not_all_off_alike(size: tuple[int, int, int], layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(SEED)
    x = (1 + 0.1 * torch.randn(4, 64, *size, generator=generator)).bfloat16().contiguous(memory_format=layout)
    exact = x.double().mean((2, 3, 4))
    enlarged = upsample(x.double(), 2).mean((2, 3, 4))

    both = weighted_means(x, torch.tensor([1.0, 0.5]).repeat(4, 1)[:, :, None].expand(-1, -1, x[0, 0].numel()))

    assert both.dtype == torch.float32
    assert (both[:, 0] / exact - 1).mean().abs() < 5e-4
    assert (both[:, 1] / exact - 0.5).mean().abs() < 5e-4
    assert (upsampled_mean(x, 2) / enlarged - 1).mean().abs() < 5e-4


def test_means_of_float16_stay_in_its_range() -> None:
    x = torch.full((1, 2, 4, 64, 48), 100.0, dtype=torch.float16)  # a plane's sum is 307,200, of at most 65,504

    means = weighted_means(x, torch.ones(1, 1, 4 * 64 * 48))

    torch.testing.assert_close(means, torch.full((1, 1, 2), 100.0))
