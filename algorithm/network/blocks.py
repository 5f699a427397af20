"""Convolution blocks of H2ASeg and the two primitives that they share.

Tensors are ``(B, C, H, W, D)`` with H, W, D along the image's x, y, z. Every function works in any memory
format; on a CPU channels-last is the fast one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5
_VECTOR_CHANNELS = 16
"""From this many channels on, torch's channels-last batch normalisation of bfloat16 is vectorised on CPUs."""
_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def instance_norm(x: Tensor) -> Tensor:
    """Normalise each channel of each sample to mean 0 and variance 1; no affine parameters.

    For a single sample this is batch normalisation with batch statistics, whose channels-last kernel is about
    eight times as fast on CPUs as that of torch's own instance normalisation. Where gradients are wanted there is
    no choice: on CPUs torch 2.13's own returns wrong ones for a single sample whose incoming gradient is
    channels-last.
    """
    if x.is_cuda:
        return F.instance_norm(x, eps=EPSILON)
    if not torch.is_grad_enabled():
        channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
        if channels_last and x.dtype == torch.float32:
            return _precise_norm(x)
        if not channels_last or x.shape[1] < _VECTOR_CHANNELS:
            x = x.contiguous()
    return _joined([_batch_norm(sample) for sample in torch.split(x, 1)])


def _joined(samples: list[Tensor]) -> Tensor:
    return samples[0] if len(samples) == 1 else torch.cat(samples)


def _batch_norm(x: Tensor) -> Tensor:
    """Normalise one sample; its statistics stay in float32.

    torch keeps them in the type of the input, unless it is given running statistics of another. A mean in bfloat16
    is off by up to 0.4 % of itself, for all voxels alike: no sum after it averages that out.
    """
    if x.dtype != torch.bfloat16:
        return F.batch_norm(x, None, None, training=True, eps=EPSILON)
    unused = torch.zeros(2, x.shape[1], device=x.device)
    return F.batch_norm(x, unused[0], unused[1], training=True, momentum=0.0, eps=EPSILON)


def _precise_norm(x: Tensor) -> Tensor:
    """Normalise with means that are summed pairwise.

    The kernel that sums in one go loses 1e-5 of the scale over a million float32 voxels, which bfloat16 does not
    notice; the network as a whole would be 1e-4 off. The mean of squares less the square of the mean would lose
    more wherever a channel is nearly constant, in air, and come out negative.
    """
    means = x.mean((2, 3, 4))
    variances = (x - means[:, :, None, None, None]).square_().mean((2, 3, 4))
    samples = zip(torch.split(x, 1), means, variances, strict=True)
    return _joined([F.batch_norm(sample, mean, variance, eps=EPSILON) for sample, mean, variance in samples])


class PReLU(nn.PReLU):
    """PReLU with one slope; on a CPU by the leaky ReLU's kernels, whose backward pass is 4 to 10 times as fast."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an array of the same shape."""
        if x.is_cuda:  # the slope would have to be fetched from the device
            return super().forward(x)
        if not torch.is_grad_enabled():
            return F.leaky_relu(x, float(self.weight))
        result: Tensor = _LearntLeakyReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return result


class _LearntLeakyReLU(torch.autograd.Function):
    """Leaky ReLU with a gradient for its slope: the sum of gradient times input where the input is negative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, float(slope))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        x, slope = ctx.saved_tensors
        to_x = torch.ops.aten.leaky_relu_backward(gradient, x, float(slope), False)
        to_slope = (gradient * x.clamp(max=0)).sum()  # adds up in float32 also where x is bfloat16
        return to_x, to_slope.to(slope.dtype).reshape(slope.shape)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Enlarge the last three axes by an integer factor, trilinearly, corners aligned."""
    if factor == 1:
        return x
    if torch.is_grad_enabled():
        return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
    # On a GPU autocast would double the bytes by float32, which only the backward pass, adding many up, needs.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)


def upsampled_mean(x: Tensor, factor: int) -> Tensor:
    """Return the channel means, (B, C), that ``upsample(x, factor)`` would have, without making it.

    The upsampled values are weighted sums of the given ones, so their mean is one too.
    """
    along_x, along_y, along_z = (_share_in_upsampled(side, factor, x) for side in x.shape[2:])
    shares = along_x[:, None, None] * along_y[:, None] * along_z
    if x.is_cuda:  # shares are too small for float16
        return (x * shares).sum((2, 3, 4))
    rounded = shares.flatten().to(x.dtype)  # most of them alike, so that no sum averages it out
    return weighted_sums(x, rounded.expand(x.shape[0], 1, -1))[:, 0] / rounded.sum(dtype=shares.dtype)


def weighted_means(x: Tensor, weights: Tensor) -> Tensor:
    """Return the means of ``x weights`` over all voxels; arguments and shapes as for the sums.

    1 / voxels would be rounded alike for all of them; a power of two is not, and keeps a plane's sum in float16's
    range.
    """
    voxels = weights.shape[2]
    share = 2.0 ** -(voxels // x.shape[2]).bit_length()
    return weighted_sums(x, weights * share) / (voxels * share)


def weighted_sums(x: Tensor, weights: Tensor) -> Tensor:
    """Return the sums of ``x weights`` over all voxels, (B, K, C), from (B, C, H, W, D) and (B, K, H W D).

    Planes are summed by a matrix product, which returns bfloat16 for bfloat16; their sums are added in float32.
    """
    rows = weights.to(x.dtype).reshape(*weights.shape[:2], x.shape[2], -1).transpose(1, 2)
    planes = x.flatten(3).permute(0, 2, 3, 1)
    sums: Tensor = (rows @ planes).sum(1, dtype=torch.promote_types(x.dtype, torch.float32))
    return sums


def _share_in_upsampled(side: int, factor: int, like: Tensor) -> Tensor:
    """Return how much each of ``side`` values in a row counts in the mean of the upsampled row; they sum to 1."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    rows = torch.eye(side, dtype=dtype, device=like.device)[None]
    return F.interpolate(rows, scale_factor=factor, mode="linear", align_corners=True).mean(dim=2)[0]


class Conv(nn.Conv3d):
    """3x3x3 convolution with bias that keeps the size at stride 1 and halves it at stride 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W, D) to (B, C', H / stride, W / stride, D / stride)."""
        return self._convolve(x, self.bias)

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve, on a CPU by oneDNN also where torch would not.

        For a single float32 sample whose x and y sides and channels multiply to 20,480 or less, torch 2.13 takes a
        kernel that unfolds the windows, is several times as slow, and gives up the layout.
        """
        if (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and _ONEDNN
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        ):
            result: Tensor = torch.ops.aten.mkldnn_convolution(
                x, self.weight, bias, self.padding, self.stride, self.dilation, self.groups
            )
            return result
        return F.conv3d(x, self.weight, bias, self.stride, self.padding)


class UnbiasedConv(Conv):
    """3x3x3 convolution before an instance normalisation, which takes any bias away again: it is left out.

    Where uptake is low, the bias outweighs what varies, and bfloat16 would spend its digits on it. It remains a
    parameter, which is not trained, because released checkpoints have it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W, D) to (B, C', H / stride, W / stride, D / stride)."""
        return self._convolve(x, None)


def as_computed_by(layer: nn.Module, x: Tensor) -> Tensor:
    """Cast features to the type of a layer's weight; not under autocast, which chooses the types by itself."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(layer.get_parameter("weight").dtype)


class EntryBlock(nn.Module):
    """Level 1 of an encoder stream: ``conv(dropout(PReLU(IN(conv(x))))) + conv_skip(x)``.

    Takes ``(B, 1, H, W, D)``, gives ``(B, C, H, W, D)``.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = UnbiasedConv(1, channels)
        self.act = PReLU()
        self.dropout = nn.Dropout3d(dropout)
        self.conv2 = Conv(channels, channels)
        self.skip = Conv(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of level 1."""
        entered = as_computed_by(self.conv2, self.act(instance_norm(self.conv1(x))))
        main: Tensor = self.conv2(self.dropout(entered))
        return main.add_(self.skip(as_computed_by(self.skip, x)))


class ResidualBlock(nn.Module):
    """Pre-activation residual block whose skip path has an activation and a convolution of its own.

    Main path ``IN, PReLU, conv, dropout, IN, PReLU, conv``, skip path ``IN, PReLU, conv``. Both begin with
    the same normalisation, which is computed once. With stride 2, the first convolution of both paths halves
    the size.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float, stride: int = 1) -> None:
        super().__init__()
        self.act1 = PReLU()
        self.conv1 = UnbiasedConv(in_channels, out_channels, stride)
        self.dropout = nn.Dropout3d(dropout)
        self.act2 = PReLU()
        self.conv2 = Conv(out_channels, out_channels)
        self.skip_act = PReLU()
        self.skip = Conv(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W, D) to (B, C', H / stride, W / stride, D / stride)."""
        normalised = instance_norm(x)
        main = self.dropout(self.conv1(self.act1(normalised)))
        out: Tensor = self.conv2(self.act2(instance_norm(main)))
        return out.add_(self.skip(self.skip_act(normalised)))


class Head(nn.Module):
    """Prediction at one level: ``IN, PReLU, conv`` to two logits, background and tumour."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.act = PReLU()
        self.conv = Conv(in_channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map features to logits of the same size."""
        out: Tensor = self.conv(self.act(instance_norm(x)))
        return out
