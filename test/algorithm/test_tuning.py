"""What a checkpoint allows to be tried, on which windows, and the file that keeps the choice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithm.description import Normalisation
from algorithm.errors import MissingInputError, UsageError
from algorithm.inference import device as device_module
from algorithm.inference.tuning import Tuning
from algorithm.preprocessing import body_mask
from algorithm.tuning import allowed_dtypes, trial_input
from algorithm.tuning_file import TuningFile, read_tuning, write_tuning
from test.support.checkpoints import TINY_PATCH, describe

CPU = torch.device("cpu")
TUNING = Tuning("float32", 2, channels_last=True, threads=3)
DESCRIPTIONS = [describe(sha256="ab" * 32), describe(sha256="cd" * 32)]


@pytest.mark.parametrize("faster", [True, False])
def test_a_cpu_may_compute_in_float32_and_in_bfloat16_where_that_is_faster(
    faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "is_faster_in_bfloat16", lambda: faster)

    assert allowed_dtypes(CPU) == ((torch.bfloat16, torch.float32) if faster else (torch.float32,))


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_gpu_may_compute_in_all_that_it_has(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    between = (torch.bfloat16,) if bfloat16 else ()

    assert allowed_dtypes(torch.device("cuda")) == (torch.float16, *between, torch.float32)


def test_two_windows_are_tried_that_hold_something() -> None:
    one, again = trial_input(describe()), trial_input(describe())

    assert one.ct.shape == one.pet.shape == (32, 32, 24)
    assert (one.patch, one.ct.dtype) == (TINY_PATCH, torch.float32)
    assert torch.equal(one.ct, again.ct)
    assert torch.equal(one.pet, again.pet)
    hu = one.ct.numpy() * 2000 - 1000  # the tiny checkpoint scales -1000 to 1000 HU to 0 to 1
    shares = [
        np.mean((hu > low) & (hu < high)) for low, high in ((-2000, -900), (-900, -600), (-50, 200), (300, 600))
    ]
    assert min(shares) > 0.005, "air, lung, soft tissue and bone"
    windows = one.pet[..., :16], one.pet[..., 8:]
    assert all(float(window.max()) > float(window.mean()) + 4 * float(window.std()) for window in windows), (
        "lesions"
    )


def test_they_are_normalised_by_the_body_that_the_product_finds() -> None:
    measured = trial_input(describe(pet=Normalisation("z-score-body"))).pet.numpy()
    suv = trial_input(describe(pet=Normalisation("clip-scale", 0.0, 20.0))).pet.numpy() * 20
    hu = trial_input(describe()).ct.numpy() * 2000 - 1000

    body = body_mask(suv.transpose(2, 1, 0), hu.transpose(2, 1, 0)).transpose(2, 1, 0)

    lungs = (hu > -900) & (hu < -600)
    assert body[lungs].mean() > 0.99
    assert float(measured[body].mean()) == pytest.approx(0, abs=1e-4)
    assert float(measured[body].std()) == pytest.approx(1, abs=1e-4)


class TestFile:
    def written(self, folder: Path, **changes: Any) -> Path:
        path = folder / "tuning.json"
        write_tuning(path, TUNING, CPU, DESCRIPTIONS)
        content = json.loads(path.read_text())
        for name, value in changes.items():
            part = content["tuning"] if name in content["tuning"] else content
            part[name] = value
            if value is ...:
                del part[name]
        path.write_text(json.dumps(content))
        return path

    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        assert read_tuning(self.written(tmp_path), CPU, DESCRIPTIONS) == TUNING

    def test_a_new_choice_takes_the_place_of_an_earlier_one(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        write_tuning(path, Tuning("float32", 1, channels_last=True, threads=1), CPU, DESCRIPTIONS)

        assert read_tuning(path, CPU, DESCRIPTIONS).batch == 1

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"device": "Tesla T4"}, "is for device Tesla T4, and here is "),
            ({"torch_version": "1.0"}, f"is for torch_version 1.0, and here is {re.escape(torch.__version__)}"),
            (
                {"weights": ["ef" * 32]},
                r"is for weights efefefefefef\.\.\., and here is abababababab\.\.\. \+ cdcd",
            ),
            ({"format": 2}, "is wrong: format must be 1, got 2"),
            ({"batch": ...}, "is wrong: missing key 'batch'"),
            ({"batch": True}, "batch must be a whole number, got True"),
            ({"batch": 2.0}, "batch must be a whole number, got 2.0"),
            ({"batch": 10**9}, "batch must lie between 1 and 256, got 1000000000"),
            ({"threads": "2"}, "threads must be a whole number, got '2'"),
            ({"precision": "float8"}, "precision must be one of float32, bfloat16, float16, got 'float8'"),
            ({"channels_last": 1}, "channels_last must be true or false, got 1"),
            ({"weights": "abc"}, "weights must be a list, got 'abc'"),
            ({"tuning": []}, r"tuning must be an object, got \[\]"),
            ({"colour": "red"}, "the file has unknown keys colour; known are format, device, torch_version"),
        ],
    )
    def test_another_one_is_one_sentence(self, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
        path = self.written(tmp_path, **changes)

        with pytest.raises(UsageError, match=words) as caught:
            read_tuning(path, CPU, DESCRIPTIONS)
        assert str(caught.value).endswith("remove it, and `serve` makes a new one")

    @pytest.mark.parametrize("content", ["[1]", "7"])
    def test_so_is_other_json(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "tuning.json"
        path.write_text(content)

        with pytest.raises(UsageError, match="the file must be an object"):
            read_tuning(path, CPU, DESCRIPTIONS)

    def test_and_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="cannot read the tuning"):
            read_tuning(tmp_path / "none.json", CPU, DESCRIPTIONS)

    def test_it_names_where_it_belongs(self) -> None:
        here = TuningFile.here(TUNING, CPU, DESCRIPTIONS)

        assert here.weights == ("ab" * 32, "cd" * 32)
        assert here.device.endswith(" cores")
        assert torch.backends.cpu.get_cpu_capability() in here.device
