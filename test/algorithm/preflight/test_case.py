"""The job of a whole body's size that preflight makes of the example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import MissingInputError
from algorithm.images import read_pet_ct
from algorithm.preflight.case import SIZE, copy_job, enlarge
from algorithm.sockets import find_job

EXAMPLE = Path(__file__).resolve().parents[2] / "input"


@pytest.mark.slow
def test_the_enlarged_job_is_one_of_a_whole_body(tmp_path: Path) -> None:
    enlarge(EXAMPLE, tmp_path / "job")
    job = find_job(tmp_path / "job", tmp_path / "output")
    pair = read_pet_ct(job.ct, job.pet)
    assert pair.pet.GetSize() == pair.ct.GetSize() == SIZE
    example = read_pet_ct(find_job(EXAMPLE, tmp_path).ct, find_job(EXAMPLE, tmp_path).pet)

    def litres(ct: sitk.Image) -> float:
        tissue = np.count_nonzero(sitk.GetArrayViewFromImage(ct) > -300)
        return float(tissue * np.prod(ct.GetSpacing()) / 1e6)

    length = SIZE[2] * 3.0 / (example.ct.GetSize()[2] * example.ct.GetSpacing()[2])
    assert litres(pair.ct) == pytest.approx(length * litres(example.ct), rel=0.1)
    assert sitk.GetArrayViewFromImage(pair.pet).max() == pytest.approx(
        sitk.GetArrayViewFromImage(example.pet).max(), rel=0.2
    )


def test_every_user_can_read_the_copy(tmp_path: Path) -> None:
    copy_job(EXAMPLE, tmp_path / "input")
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "input").rglob("*"))
    with pytest.raises(MissingInputError, match="name one with --input"):
        copy_job(tmp_path / "nothing", tmp_path / "input")
