from __future__ import annotations

import pytest
import torch

from algorithm.errors import DeviceError
from training import device as device_module
from training.device import autocast_dtype, training_layout


def test_a_gpu_without_bfloat16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    gpu = torch.device("cuda")
    with pytest.raises(DeviceError, match="this GPU does not compute in it; use auto or float32"):
        autocast_dtype("bfloat16", gpu)
    assert autocast_dtype("auto", gpu) is torch.float16
    assert autocast_dtype("float32", gpu) is None


@pytest.mark.parametrize(
    ("computes", "faster", "auto"),
    [(True, True, torch.bfloat16), (True, False, None), (False, True, None), (False, False, None)],
)
def test_a_cpu_that_gains_nothing_by_bfloat16_trains_in_it_only_when_told_to(
    computes: bool, faster: bool, auto: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: computes)
    monkeypatch.setattr(device_module, "is_faster_in_bfloat16", lambda: faster)
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) is auto
    if computes:
        assert autocast_dtype("bfloat16", cpu) is torch.bfloat16
    else:
        with pytest.raises(DeviceError, match="this CPU does not compute in it; use auto or float32"):
            autocast_dtype("bfloat16", cpu)


def test_a_gpu_trains_in_another_layout_than_a_cpu() -> None:
    assert training_layout(torch.device("cuda:1")) is torch.contiguous_format
    assert training_layout(torch.device("cpu")) is torch.channels_last_3d
