from __future__ import annotations

import pytest
import torch

from algorithm.errors import DeviceError
from algorithm.inference import device as device_module
from algorithm.inference.device import choose_device, choose_dtype, dtype_of, precision_of
from algorithm.inference.precision import PRECISIONS


class TestChoices:
    def test_names_and_types(self) -> None:
        assert [precision_of(dtype_of(name)) for name in PRECISIONS[1:]] == ["float32", "bfloat16", "float16"]
        with pytest.raises(ValueError, match="must be one of float32, bfloat16, float16, got 'auto'"):
            dtype_of("auto")

    def test_float16_needs_a_gpu(self) -> None:
        with pytest.raises(DeviceError, match="float16 needs a GPU"):
            choose_dtype("float16", torch.device("cpu"))

    @pytest.mark.parametrize(
        ("amx", "avx512_bf16", "fields", "dtype"),
        [
            (True, True, {"vendor_id": "GenuineIntel"}, torch.bfloat16),
            (False, True, {"vendor_id": "GenuineIntel"}, torch.float32),  # half as fast in it
            (False, True, {"vendor_id": "AuthenticAMD"}, torch.bfloat16),
            (False, False, {"vendor_id": "AuthenticAMD"}, torch.float32),
            (False, True, {}, torch.float32),
        ],
    )
    def test_auto_asks_the_cpu(
        self,
        amx: bool,
        avx512_bf16: bool,
        fields: dict[str, str],
        dtype: torch.dtype,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(device_module, "processor_fields", lambda: fields)

        assert choose_dtype("auto", torch.device("cpu")) == dtype

    def test_auto_is_float16_on_a_gpu(self) -> None:
        assert choose_dtype("auto", torch.device("cuda")) == torch.float16

    @pytest.mark.parametrize("name", ["float32", "bfloat16"])
    def test_named(self, name: str) -> None:
        assert choose_dtype(name, torch.device("cpu")) == getattr(torch, name)


class TestDevice:
    @pytest.fixture
    def gpus(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)

    @pytest.mark.parametrize("gpus", [0], indirect=True)
    @pytest.mark.usefixtures("gpus")
    def test_without_a_gpu(self) -> None:
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(DeviceError, match="no usable GPU was found; start the container with --gpus all"):
            choose_device("cuda")
        with pytest.raises(DeviceError, match="a GPU is required"):
            choose_device("auto", require_gpu=True)

    @pytest.mark.parametrize("gpus", [2], indirect=True)
    @pytest.mark.usefixtures("gpus")
    def test_with_two(self) -> None:
        assert choose_device("auto", require_gpu=True).type == "cuda"
        assert choose_device("cuda:1") == torch.device("cuda:1")
        with pytest.raises(DeviceError, match="there is no GPU 2; this machine has 2"):
            choose_device("cuda:2")
        with pytest.raises(DeviceError, match="a GPU is required"):
            choose_device("cpu", require_gpu=True)

    @pytest.mark.parametrize("gpus", [2], indirect=True)
    @pytest.mark.usefixtures("gpus")
    def test_one_of_several_processes_has_a_gpu_of_its_own(self) -> None:
        assert choose_device("auto", gpu=1) == choose_device("cuda", gpu=1) == torch.device("cuda:1")
        assert choose_device("cuda:0", gpu=1) == torch.device("cuda:0")
        assert choose_device("cpu", gpu=1) == torch.device("cpu")

    @pytest.mark.parametrize("name", ["gpu", "mps", "meta", ""])
    def test_other_names(self, name: str) -> None:
        with pytest.raises(DeviceError, match=f"the device must be auto, cpu, cuda or cuda:N, got '{name}'"):
            choose_device(name)
