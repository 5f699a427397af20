"""A network that proved its precision takes the images as they are, float32, whatever its parameters' type."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from algorithm.inference.execution import place
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg

PATCH = (32, 32, 16)


@pytest.mark.numerical
@pytest.mark.parametrize("channels", [(2, 4, 8, 16, 32), Architecture.channels])
def test_all_levels_compute_float32_images_in_bfloat16(channels: tuple[int, int, int, int, int]) -> None:
    torch.manual_seed(0)
    network = H2ASeg(Architecture(channels=channels)).eval()
    ct, pet = torch.randn(2, 1, 1, *PATCH)
    cpu = torch.device("cpu")
    with torch.inference_mode():
        exact = place(network, cpu, torch.float32).finest(ct, pet)
        low = place(network, cpu, torch.bfloat16, everywhere=True).finest(ct, pet)
    assert low.dtype == torch.bfloat16
    assert F.cosine_similarity(exact.flatten(), low.float().flatten(), dim=0) > 0.95
