from __future__ import annotations

import pytest
import torch

from algorithm.errors import DeviceError
from training.device import autocast_dtype


def test_a_gpu_without_bfloat16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    gpu = torch.device("cuda")
    with pytest.raises(DeviceError, match="this GPU does not compute in it; use auto or float32"):
        autocast_dtype("bfloat16", gpu)
    assert autocast_dtype("auto", gpu) is torch.float16
    assert autocast_dtype("float32", gpu) is None
