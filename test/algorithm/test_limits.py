from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm import job, limits
from algorithm.description import Description
from algorithm.errors import ResourceError
from algorithm.images import PetCt
from algorithm.inference.budget import TooSlowError
from algorithm.inference.case_run import Prediction
from algorithm.inference.passes import NetworkInput, Pass
from algorithm.inference.predictor import Predictor
from algorithm.preprocessing import Prepared, prepare
from algorithm.weights import Checkpoint, load_checkpoint
from test.support.checkpoints import write_checkpoint
from test.support.jobs import CT, PET, QUICK, run, segment


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return load_checkpoint(write_checkpoint(tmp_path))


class TestTime:
    """Predictors that find the case too large for the time."""

    limited = replace(QUICK, flips=None, time_limit_s=1e9)

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Checkpoint:
        return load_checkpoint(write_checkpoint(tmp_path, spacing=(9.0, 9.0, 9.0)))

    @staticmethod
    def too_slow(monkeypatch: pytest.MonkeyPatch, times: float, factor: float = 1.5) -> list[tuple[int, ...]]:
        """Let the first predictions be too slow by a factor; return the list of all sizes that are asked for."""
        sizes: list[tuple[int, ...]] = []
        predict = Predictor.predict

        def slow(self: Predictor, inputs: Sequence[NetworkInput], budget: Any, **options: Any) -> Prediction:
            sizes.append(inputs[0].ct.shape)
            if len(sizes) <= times:
                raise TooSlowError(factor)
            return predict(self, inputs, budget, **options)

        monkeypatch.setattr(Predictor, "predict", slow)
        return sizes

    def test_voxels_grow_until_it_fits(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        sizes = self.too_slow(monkeypatch, times=1)

        with caplog.at_level(logging.INFO):
            result = segment(CT, PET, [checkpoint], self.limited)

        assert len(sizes) == 2
        assert np.prod(sizes[1]) < 0.8 * np.prod(sizes[0])
        assert result.mask.shape == sitk.ReadImage(PET).GetSize()[::-1]
        assert result.report.notes == ("voxels were made 1.25 times as long to keep the time limit",)
        assert (
            "one pass takes 1.5 times the time that is left; voxels 1.25 times as long are tried"
            in caplog.messages
        )

    def test_they_grow_alike_where_the_pet_lies_otherwise_and_the_checkpoint_names_no_spacing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = self.too_slow(monkeypatch, times=1)
        for name, path in (("ct", CT), ("pet", PET)):
            coronal = sitk.PermuteAxes(sitk.ReadImage(str(path)), (0, 2, 1))
            sitk.WriteImage(coronal, str(tmp_path / f"{name}.mha"))
        free = load_checkpoint(write_checkpoint(tmp_path, "free", spacing=None))

        segment(tmp_path / "ct.mha", tmp_path / "pet.mha", [free], self.limited)

        assert sizes[1] == pytest.approx([side / 1.25 for side in sizes[0]], abs=1)

    def test_until_they_are_too_coarse(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = self.too_slow(monkeypatch, times=float("inf"))

        with pytest.raises(
            ResourceError, match=r"time limit of 1e\+09 s is too short .*raise --time-limit or use"
        ):
            run(checkpoint, self.limited)

        assert len(sizes) == 3  # 9, 11.25 and 12 mm, the coarsest

    def test_fine_voxels_may_grow_several_times(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = self.too_slow(monkeypatch, times=float("inf"))

        with pytest.raises(ResourceError, match=r"time limit of 1e\+09 s is too short"):
            run(load_checkpoint(write_checkpoint(tmp_path, "fine", spacing=(6.0, 6.0, 6.0))), self.limited)

        assert len(sizes) == 4  # 6, 7.5, 9.38 and 11.72 mm, so near the coarsest that it is not tried as well

    def test_they_grow_at_once_as_far_as_the_time_is_short(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = self.too_slow(monkeypatch, times=1, factor=6.0)

        result = run(load_checkpoint(write_checkpoint(tmp_path, "fine", spacing=(6.0, 6.0, 6.0))), self.limited)

        assert len(sizes) == 2
        assert sizes[1][0] == pytest.approx(sizes[0][0] / 6 ** (1 / 3), abs=2)
        assert result.report.notes == ("voxels were made 1.82 times as long to keep the time limit",)

    def test_a_window_is_timed_once_for_all_grids(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        timed: list[int] = []

        def hours(one: Pass) -> float:
            timed.append(1)
            return 3.6e8

        monkeypatch.setattr(Pass, "seconds_per_window", hours)

        with pytest.raises(ResourceError, match="is too short for this case on this machine"):
            run(checkpoint, replace(self.limited, time_limit_s=1e6))

        assert timed == [1]

    def test_a_grid_is_gone_before_the_next_one_is_made(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[weakref.ref[Prepared]] = []
        alive: list[int] = []

        def watched(pair: PetCt, description: Description) -> Prepared:
            alive.append(sum(each() is not None for each in made))
            case = prepare(pair, description)
            made.append(weakref.ref(case))
            return case

        monkeypatch.setattr(job, "prepare", watched)
        monkeypatch.setattr(Pass, "seconds_per_window", lambda _: 3.6e8)

        with pytest.raises(ResourceError, match="is too short for this case on this machine"):
            run(checkpoint, replace(self.limited, time_limit_s=1e6))

        assert alive == [0, 0]  # 9 mm, and 12 mm, the coarsest

    def test_no_grid_is_tried_when_the_time_is_over(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = self.too_slow(monkeypatch, times=float("inf"))

        with pytest.raises(ResourceError, match="is too short for this case on this machine"):
            run(checkpoint, replace(self.limited, time_limit_s=1000), started=time.monotonic() - 2000)

        assert len(sizes) == 1

    def test_a_limit_that_has_passed(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(ResourceError, match=r"the time limit of 0\.1 s is too short for this case"):
            run(checkpoint, replace(self.limited, time_limit_s=0.1))

    def test_the_limit_counts_from_the_moment_given(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left: list[float] = []
        predict = Predictor.predict

        def recorded(self: Predictor, inputs: Sequence[NetworkInput], budget: Any, **options: Any) -> Prediction:
            left.append(budget.remaining_s)
            return predict(self, inputs, budget, **options)

        monkeypatch.setattr(Predictor, "predict", recorded)
        settings = replace(self.limited, time_limit_s=1000)
        run(checkpoint, settings, started=time.monotonic() - 500)
        run(checkpoint, settings)

        assert 450 < left[0] < 497
        assert 950 < left[1] < 997

    def test_a_number_of_flips_overrules_the_limit(self, checkpoint: Checkpoint) -> None:
        assert run(checkpoint, replace(QUICK, flips=1, time_limit_s=0.1)).report.passes == 1


def test_too_little_memory_is_said_before_it_is_used(
    checkpoint: Checkpoint, predictions: list[Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "host_limit_bytes", lambda: 2**29)

    with pytest.raises(
        ResourceError, match=r"110x90x80 voxels .* needs about .* GiB of memory, but only 0\.5 GiB"
    ):
        run(checkpoint)

    assert predictions == []


def test_it_is_said_before_the_images_are_read(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header alone tells: the voxels of this file are not even there."""
    (tmp_path / "absent.raw").write_bytes(b"nothing")
    monkeypatch.setattr(limits, "host_limit_bytes", lambda: 2**32)
    huge = tmp_path / "huge.mhd"
    huge.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4000 4000 4000\nElementSpacing = 1 1 1\n"
        "ElementType = MET_FLOAT\nElementDataFile = absent.raw\n"
    )

    with pytest.raises(ResourceError, match=r"a PET of 4000x4000x4000 .* with a CT of .* check their headers"):
        segment(CT, huge, [checkpoint], QUICK)
    with pytest.raises(ResourceError, match="with a CT of 4000x4000x4000"):
        segment(huge, PET, [checkpoint], QUICK)


def test_unknown_memory_is_no_obstacle(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "host_limit_bytes", lambda: None)

    assert run(checkpoint).report.passes == 1
