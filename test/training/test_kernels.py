from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from test.support.broken_machine import (
    DAMAGES,
    BrokenActivation,
    BrokenNormalisation,
    Damage,
    Machine,
    a_tenth_too_long,
    not_a_number,
)
from test.support.processor import BFLOAT16_HERE
from test.support.trees import write_tree
from training.__main__ import main
from training.kernels import KernelError, Kernels, proof, proven_kernels
from training.kernels.convolution import Convolution, Part, Route
from training.kernels.proof import prove, smallest_crop
from training.kernels.routing import choose_routes
from training.kernels.trial import Trial

pytestmark = pytest.mark.numerical

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SMALL = Architecture(channels=(2, 4, 8, 16, 32), window=(4, 4, 2))
PLAIN = Convolution((2, 8, 6, 5, 4), (4, 8, 3, 3, 3), True, (1, 1, 1), (1, 1, 1), True, 1)
STRIDED = replace(PLAIN, stride=(2, 2, 2), bias=False)
MERGING = Convolution((1, 8, 8, 8, 4), (8, 8, 4, 4, 4), True, (4, 4, 4), (0, 0, 0), False, 1)
SIMULATED = [PLAIN, STRIDED, MERGING]
LEAST_FAST = (48, 48, 48)
"""The smallest patch whose features are nowhere shorter than a kernel."""


@pytest.fixture(autouse=True)
def _nothing_is_proven_yet() -> None:
    proof._proof.cache_clear()


def gradients(
    network: H2ASeg, kernels: Kernels, dtype: torch.dtype | None, crop: tuple[int, int, int]
) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 1, 1, *(side // 8 for side in crop), generator=random)
    ct, pet = (F.interpolate(image, scale_factor=8, mode="trilinear") for image in coarse)
    network.zero_grad()
    with kernels, torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = network(ct, pet)
    torch.stack([F.cross_entropy(head.float(), (pet[:, 0] > 0.6).long()) for head in logits]).sum().backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def of_a_right_machine(convolution: Convolution) -> dict[Part, Route]:
    return {"weight gradient": "float32"} if convolution.overhung else {}


@pytest.mark.parametrize("convolution", [*SIMULATED, replace(PLAIN, shape=(2, 8, 7, 1, 2), padding=(0, 1, 1))])
def test_the_closed_form_is_what_autograd_finds_in_float64(convolution: Convolution) -> None:
    trial = Trial(convolution)
    x, weight = (each.double().requires_grad_() for each in (trial.x, trial.weight))
    bias = None if trial.bias is None else trial.bias.double().requires_grad_()
    output = torch.conv3d(x, weight, bias, convolution.stride, convolution.padding)
    leaves = [each for each in (x, weight, bias) if each is not None]
    found = torch.autograd.grad(output, leaves, trial.incoming.double())

    sides = zip(trial.expected, (output.detach(), *found), strict=False)
    for place, (ours, theirs) in enumerate(sides):
        assert max(theirs.shape) <= 8  # rows at six positions of up to eight
        if place < 2:
            rows = [torch.linspace(0, side - 1, min(side, 6)).round().long() for side in theirs.shape[2:4]]
            theirs = theirs[:, :, rows[0]][:, :, :, rows[1]]
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("convolution", SIMULATED)
def test_a_right_machine_keeps_its_fast_kernels(convolution: Convolution) -> None:
    with Machine():
        assert choose_routes(convolution) == {}


@pytest.mark.parametrize("sides", [(2, 5, 4), (6, 1, 4), (6, 5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_longer_than_the_features_is_not_even_tried(sides: tuple[int, int, int], bias: bool) -> None:
    """Whatever this machine's kernels are: a trial may find zeros where none are sure."""

    def may_not_run(value: Tensor) -> Tensor:
        raise AssertionError("oneDNN was asked for a weight gradient in bfloat16")

    convolution = replace(PLAIN, shape=(2, 8, *sides), bias=bias)
    with Machine({"weight gradient": may_not_run}):
        assert choose_routes(convolution) == {"weight gradient": "float32"}
    with Machine({"output": not_a_number}):
        assert choose_routes(convolution) == {"output": "float32", "weight gradient": "float32"}


@pytest.mark.parametrize("convolution", SIMULATED)
@pytest.mark.parametrize("part", ["output", "input gradient", "weight gradient"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_part_alone_goes_to_float32(convolution: Convolution, part: str, damage: Damage) -> None:
    with Machine({part: damage}):
        assert choose_routes(convolution) == {part: "float32"}


def test_where_onednn_is_wrong_in_float32_too_it_is_left_out() -> None:
    with Machine({"weight gradient": not_a_number}, also_float32="onednn"):
        assert choose_routes(PLAIN) == {"weight gradient": "float32 without oneDNN"}
    assert torch.backends.mkldnn.enabled


def test_a_kernel_that_is_not_there_is_replaced() -> None:
    def refused(value: Tensor) -> Tensor:
        raise RuntimeError("DNNL does not support bf16/f16 backward on the platform with avx2_vnni_2")

    with Machine({"weight gradient": refused}):
        found = choose_routes(PLAIN)

    assert found == dict.fromkeys(["output", "input gradient", "weight gradient"], "float32")


def test_where_nothing_is_right_one_sentence_says_so() -> None:
    with (
        Machine({"weight gradient": not_a_number}, also_float32="always"),
        pytest.raises(KernelError) as caught,
    ):
        choose_routes(PLAIN)

    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "no kernel on this machine computes the weight gradient of the convolution 3x3x3 stride 1x1x1 from 8 to 4 "
        "channels on 2 x 6x5x4 voxels rightly; train on another machine, or install another version of torch"
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("input_learns", [True, False])
@pytest.mark.parametrize("broken", ["output", "input gradient", "weight gradient"])
def test_a_rerouted_convolution_is_that_of_float32(bias: bool, input_learns: bool, broken: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(4, 6, 3, stride=2, padding=1, bias=bias)
    x = torch.randn(2, 4, 6, 4, 4, requires_grad=input_learns)
    weights = torch.randn(2, 6, 3, 2, 2)
    kernels = Kernels(torch.bfloat16)
    with Machine({broken: not_a_number}):
        with kernels, torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(x)
        (output.float() * weights).sum().backward()
    leaves = [each for each in (x, *layer.parameters()) if each.requires_grad]
    exact = layer(x)
    expected = torch.autograd.grad((exact * weights).sum(), leaves)

    assert list(kernels.routes.values()) == [{broken: "float32"}]
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.02, atol=0.05)
    for leaf, theirs in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, theirs, rtol=0.02, atol=0.05)


def test_a_network_on_a_broken_machine_learns_with_the_gradients_of_float32() -> None:
    torch.manual_seed(0)
    network = H2ASeg(replace(SMALL, dropout=0.0)).train()
    crop = smallest_crop(SMALL)

    def deep(shape: torch.Size) -> bool:
        return max(shape[2:]) <= 8

    expected = gradients(network, Kernels(None), None, crop)
    kernels = Kernels(torch.bfloat16)
    with Machine({"weight gradient": not_a_number, "output": a_tenth_too_long}, only=deep):
        broken = gradients(network, Kernels(None), torch.bfloat16, crop)
        mended = gradients(network, kernels, torch.bfloat16, crop)

    assert any(not bool(each.isfinite().all()) for each in broken.values())
    for convolution, routes in kernels.routes.items():
        slow = {"output": "float32", "weight gradient": "float32"}
        assert routes == (slow if max(convolution.shape[2:]) <= 8 else of_a_right_machine(convolution))
    ours, theirs = (torch.cat([each[name].flatten() for name in expected]) for each in (mended, expected))
    assert F.cosine_similarity(ours, theirs, 0) > 0.97


@pytest.mark.parametrize("sides", [(2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 4, 2), (8, 4, 2), (1, 2, 2), (3, 3, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_this_machine_s_smallest_features(sides: tuple[int, int, int], stride: int) -> None:
    """Shapes that some processors' own kernels get wrong; no simulation."""
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(64, 128, 3, stride=stride, padding=1).to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 64, *sides).to(memory_format=torch.channels_last_3d).requires_grad_()
    with Kernels(torch.bfloat16), torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    weights = torch.randn(output.shape)
    (output.float() * weights).sum().backward()
    exact = [each.detach().double().requires_grad_() for each in (x, layer.weight, layer.bias)]
    (torch.conv3d(*exact, stride=stride, padding=1) * weights).sum().backward()

    for ours, theirs in zip((x, layer.weight, layer.bias), exact, strict=True):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 0.02


@BFLOAT16_HERE
def test_all_convolutions_of_a_run_are_tried_before_its_first_step() -> None:
    architecture, patch = replace(SMALL, dropout=0.5), (48, 32, 32)
    kernels = prove(architecture, patch, 2, torch.bfloat16, CPU).kernels
    before = set(kernels.routes)
    network = H2ASeg(architecture).train().to(memory_format=torch.channels_last_3d)
    image = torch.rand(2, 1, *patch).to(memory_format=torch.channels_last_3d)
    with kernels, torch.autocast("cpu", dtype=torch.bfloat16):
        network(image, image)

    assert {each for each in kernels.routes if each.shape[0] == 2} == {
        each for each in before if each.shape[0] == 2
    }
    assert set(kernels.routes) == before


def test_a_right_machine_is_proven_and_described() -> None:
    state = torch.get_rng_state()
    with Machine():
        proven = prove(SMALL, LEAST_FAST, 2, torch.bfloat16, CPU)

    assert torch.equal(torch.get_rng_state(), state)
    for convolution, routes in proven.kernels.routes.items():
        assert routes == of_a_right_machine(convolution)
    first, last = proven.report
    assert first.startswith(f"CPU with {torch.backends.cpu.get_cpu_capability()}, ")
    assert first.endswith(" convolutions of 2 x 48x48x48 voxels tried, the fast kernels are right")
    assert last.startswith("gradients are those of float32 (least alike, ")


def test_slower_kernels_are_named_in_the_log() -> None:
    with Machine({"output": not_a_number}, only=lambda shape: shape[2] == 3):
        proven = prove(SMALL, LEAST_FAST, 2, torch.bfloat16, CPU)

    first, *slow, _ = proven.report
    assert first.endswith("tried, some need slower kernels:")
    assert slow == [
        f"  float32 for the output of 3x3x3 stride 1x1x1 from {channels} channels on 2 x 3x3x3 voxels"
        for channels in ("32 to 32", "64 to 2")
    ]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (not_a_number, "gradients are not finite, among them encoder."),
        (torch.neg, "this machine's gradients are not those of float32 (likeness -"),
        (
            lambda value: value * 1.5,
            " of all parameters together, 1 is equal)",
        ),
    ],
)
def test_what_no_kernel_of_a_convolution_can_mend_ends_the_run(damage: Damage, sentence: str) -> None:
    with BrokenNormalisation(damage), pytest.raises(KernelError) as caught:
        prove(SMALL, (32, 32, 16), 2, torch.bfloat16, CPU)

    assert sentence in str(caught.value)
    assert str(caught.value).endswith(
        "; give --precision float32, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 and start again"
    )


def options(tmp_path: Path, *more: str) -> list[str]:
    tree = write_tree(tmp_path / "data", "a", "b")
    network = "--spacing 4 4 3 --patch 32 32 16 --channels 2 4 8 16 32 --device cpu --split all"
    where = ["--cases", str(tree), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    return ["fit", "--proof-cases", "0", *where, *network.split(), *more]


def test_a_run_says_what_was_proven_once_and_a_broken_machine_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = options(tmp_path, "--steps", "1", "--precision", "float32")
    assert main(command) == 0
    assert capsys.readouterr().out.count("gradients are those of float32") == 1
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert "gradients are those of float32" not in capsys.readouterr().out

    proof._proof.cache_clear()
    with BrokenActivation():
        assert main([*command, "--out", str(tmp_path / "broken")]) == 3
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert error.endswith("train on another machine, or install another version of torch\n")
    assert not (tmp_path / "broken" / "state.pt").exists()


def test_it_is_said_once_in_a_process(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "training.kernels"):
        for _ in range(2):
            proven_kernels(SMALL, (32, 32, 16), 2, None, CPU)

    assert len(caplog.messages) == 1


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_another_instruction_set_is_proven_too(limit: str) -> None:
    script = """
import logging
import sys
import torch
from algorithm.network.architecture import Architecture
from training.kernels import proven_kernels
from training.device import autocast_dtype

architecture = Architecture(channels=(2, 4, 8, 16, 32), window=(4, 4, 2))
cpu = torch.device("cpu")
logging.basicConfig(format="%(message)s", level="INFO", stream=sys.stdout)
proven_kernels(architecture, (32, 32, 16), 2, autocast_dtype("auto", cpu), cpu)
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("gradients are those of float32")
    if len(done.stdout.splitlines()) > 1:
        assert f"oneDNN limited to {limit}: " in done.stdout
