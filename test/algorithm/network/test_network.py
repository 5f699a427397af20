from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from algorithm.inference.execution import place
from algorithm.network.architecture import Architecture
from algorithm.network.attention import from_windows, to_windows
from algorithm.network.blocks import Conv, EntryBlock, UnbiasedConv, instance_norm
from algorithm.network.h2aseg import H2ASeg
from algorithm.released import network_from_released
from test.support import plain_network
from test.support.checkpoints import (
    FIXTURES,
    PUBLISHED,
    TINY,
    TINY_PATCH,
    random_network,
    released_shapes,
    released_state,
    to_double,
)
from test.support.plain_network import PlainH2ASeg, reference_inputs, reference_parameters
from training.kernels import Kernels
from training.losses import DeepSupervisionLoss

pytestmark = pytest.mark.numerical

SLIM = Architecture(channels=(2, 4, 8, 16, 32))  # the published window
SEED = 7
BFLOAT16_HERE = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="neither training nor inference is bfloat16 on this CPU",
)


def double_inputs(batch: int, patch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    ct, pet = reference_inputs(batch, patch, SEED)
    return ct.double(), pet.double()


@torch.inference_mode()
def compare_with_oracle(network: H2ASeg, batch: int, patch: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Compare all five logits in float64, where rounding cannot hide a difference; return the network's."""
    network = network.double()
    ct, pet = double_inputs(batch, patch)
    logits = network(ct, pet)
    expected = PlainH2ASeg(released_state(network))(ct, pet)
    assert len(logits) == len(expected) == 5
    for ours, theirs in zip(logits, expected, strict=True):
        assert ours.shape == (batch, 2, *patch)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    return logits


def test_published_network_equals_its_plain_transcription() -> None:
    compare_with_oracle(network_from_released(reference_parameters(released_shapes(), SEED)), 1, (32, 32, 16))


@pytest.mark.parametrize(
    ("batch", "patch"),
    [(2, (32, 64, 16)), (1, (64, 32, 48)), (1, (96, 32, 16))],
)
def test_every_legal_patch_equals_the_plain_transcription(batch: int, patch: tuple[int, int, int]) -> None:
    compare_with_oracle(random_network(SLIM, SEED), batch, patch)


@pytest.mark.parametrize("window", [(4, 4, 2), (4, 4, 4), (2, 8, 4)])
def test_every_window_equals_the_plain_transcription(
    window: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_network, "WINDOW", window)

    compare_with_oracle(random_network(replace(SLIM, window=window), SEED), 1, (32, 32, 16))


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
    ("batch", "dtype", "likeness"),
    [
        (1, torch.float32, 0.9999),
        pytest.param(1, torch.bfloat16, 0.8, marks=BFLOAT16_HERE),
        pytest.param(2, torch.bfloat16, 0.8, marks=BFLOAT16_HERE),
    ],
)
def test_training_follows_the_gradients_of_the_plain_transcription(
    batch: int, dtype: torch.dtype, likeness: float
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
    assert not {name: value for name, value in cosines.items() if value < likeness}
    ours, theirs = (torch.cat([each[name].flatten() for name in weights]) for each in (got, expected))
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


@pytest.fixture(scope="module")
def released() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "released_outputs_64x64x32.npz") as stored:
        return dict(stored)


class TestReleasedOutputs:
    """What the authors' release returned for the reference parameters and inputs.

    The release's own float32 rounding, blown up by instance normalisation wherever a random TAMW gain
    1 + g_fore - g_back nearly cancels, keeps its outputs this far (finest first) from the exact value of the same
    function. No float32 evaluation can be asked to come closer than that; the coarsest head has no TAMW.
    """

    distances_to_exact = (1.1e-2, 5.1e-3, 4.4e-3, 5.7e-4, 5.0e-5)

    def differences(self, logits: tuple[Tensor, ...], released: dict[str, np.ndarray]) -> list[float]:
        step = slice(None, None, int(released["stride"]))
        return [
            float(np.abs(head[:, :, step, step, step].numpy() - released[f"pred{level}"]).max())
            for level, head in enumerate(logits, 1)
        ]

    @torch.inference_mode()
    def test_float32(self, released: dict[str, np.ndarray]) -> None:
        network = network_from_released(reference_parameters(released_shapes(), int(released["seed"])))
        inputs = reference_inputs(int(released["batch"]), tuple(released["patch"]), int(released["seed"]))

        found = self.differences(network(*inputs), released)

        for difference, distance in zip(found[:4], self.distances_to_exact[:4], strict=True):
            assert difference < 1.5 * distance
        assert found[4] < 1e-4  # without AVX-512 it is 7.7e-5

    @pytest.mark.slow
    @torch.inference_mode()
    def test_float64_and_the_plain_transcription(self, released: dict[str, np.ndarray]) -> None:
        parameters = reference_parameters(released_shapes(), int(released["seed"]))
        inputs = reference_inputs(int(released["batch"]), tuple(released["patch"]), int(released["seed"]))
        inputs = tuple(image.double() for image in inputs)

        exact = network_from_released(parameters).double()(*inputs)

        for ours, theirs in zip(exact, PlainH2ASeg(to_double(parameters))(*inputs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
        for difference, distance in zip(self.differences(exact, released), self.distances_to_exact, strict=True):
            assert difference < 1.05 * distance


@torch.inference_mode()
def test_finest_is_the_first_head() -> None:
    network = random_network()
    ct, pet = reference_inputs(1, TINY_PATCH, SEED)

    torch.testing.assert_close(network.finest(ct, pet), network(ct, pet)[0], rtol=0, atol=0)


@torch.inference_mode()
def test_memory_format_changes_nothing() -> None:
    ct, pet = double_inputs(1, (32, 32, 16))
    plain = random_network(SLIM).double()
    last = random_network(SLIM).double().to(memory_format=torch.channels_last_3d)

    logits = last(*(image.contiguous(memory_format=torch.channels_last_3d) for image in (ct, pet)))

    for ours, theirs in zip(logits, plain(ct, pet), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@torch.inference_mode()
def test_samples_of_a_batch_do_not_mix() -> None:
    network = random_network(SLIM).double()
    ct, pet = double_inputs(2, (32, 32, 16))

    together = network(ct, pet)

    for index in range(2):
        alone = network(ct[index : index + 1], pet[index : index + 1])
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[index], single[0], rtol=0, atol=1e-10)


def test_published_size() -> None:
    assert sum(parameter.numel() for parameter in H2ASeg().parameters()) == 7_164_869


@pytest.mark.parametrize("mcsa", [True, False])
@pytest.mark.parametrize("tamw", [True, False])
def test_switches(mcsa: bool, tamw: bool) -> None:
    full = set(H2ASeg(TINY).state_dict())
    network = random_network(replace(TINY, mcsa=mcsa, tamw=tamw, dropout=0.0)).train()

    names = set(network.state_dict())
    without = [part for part, on in (("encoder.attention", mcsa), ("decoder.weighting", tamw)) if not on]
    assert names == {name for name in full if not name.startswith(tuple(without))}

    ct, pet = reference_inputs(1, TINY_PATCH, SEED)
    sum((head**2).mean() for head in network(ct, pet)).backward()
    trained = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    for name, parameter in trained:
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        # A bias in front of a normalisation has no effect, so no gradient but rounding; a weight has both.
        assert name.endswith("bias") or bool(parameter.grad.any()), name


def test_dropout_is_for_training_only() -> None:
    network = random_network()
    inputs = reference_inputs(1, TINY_PATCH, SEED)

    with torch.inference_mode():
        assert torch.equal(network.finest(*inputs), network.finest(*inputs))
        network.train()
        assert not torch.equal(network.finest(*inputs), network.finest(*inputs))


class RecordingH2ASeg(PlainH2ASeg):
    """Keeps the gains of every gate, found from what the gate made of its input."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__(parameters)
        self.gains: dict[str, Tensor] = {}

    def gate(self, name: str, x: Tensor) -> Tensor:
        gated = super().gate(name, x)
        self.gains[name] = (gated * x).sum((2, 3, 4)) / (x * x).sum((2, 3, 4))
        return gated


@torch.inference_mode()
def test_emphasis_is_what_the_gates_chose() -> None:
    network = random_network(SLIM).double()
    ct, pet = double_inputs(2, (32, 32, 16))
    oracle = RecordingH2ASeg(released_state(network))
    oracle(ct, pet)

    emphasis = network.emphasis(ct, pet)

    assert list(emphasis) == [4, 3, 2, 1]
    for level, gains in emphasis.items():
        fore, back = (oracle.gains[f"decoder.tamw{level}.CA_{which}"] for which in ("fore", "back"))
        torch.testing.assert_close(gains.foreground, fore, rtol=0, atol=1e-9)
        torch.testing.assert_close(gains.background, back, rtol=0, atol=1e-9)
    assert random_network(replace(TINY, tamw=False)).emphasis(*reference_inputs(1, TINY_PATCH, SEED)) == {}


@pytest.mark.parametrize(
    ("architecture", "patch", "message"),
    [
        (PUBLISHED, (40, 32, 16), "side x of the patch must be a multiple of 16, got 40"),
        (PUBLISHED, (32, 8, 16), "side y of the patch must be a multiple of 16, got 8"),
        (PUBLISHED, (32, 32, 0), "side z of the patch must be a multiple of 16, got 0"),
        (PUBLISHED, (32, 48, 16), "side y of the patch must be a multiple of 32 so that the attention window 8"),
        (replace(PUBLISHED, window=(8, 8, 8)), (64, 64, 48), "side z of the patch must be a multiple of 32"),
        (TINY, (16, 16, 16), "must be larger than 16 along one side"),
        (replace(PUBLISHED, mcsa=False), (16, 16, 16), "must be larger than 16 along one side"),
    ],
)
def test_wrong_sides_are_named(architecture: Architecture, patch: tuple[int, int, int], message: str) -> None:
    network = H2ASeg(architecture)

    with pytest.raises(ValueError, match=message):
        network(*reference_inputs(1, patch, SEED))


def test_without_attention_any_multiple_of_16_will_do() -> None:
    network = random_network(replace(TINY, mcsa=False))

    assert network.finest(*reference_inputs(1, (48, 16, 16), SEED)).shape == (1, 2, 48, 16, 16)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 2, 32, 32, 16), (1, 1, 32, 32, 32)])
def test_ct_and_pet_must_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ct and pet must both be"):
        H2ASeg(TINY)(torch.zeros(shape), torch.zeros(1, 1, 32, 32, 16))


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
