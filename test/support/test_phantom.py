"""The committed synthetic case is what its generator makes, and has what the other tests rely on."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from algorithm.images import read_mask, read_pet_ct, same_geometry
from algorithm.sockets import Edition, find_job
from test.support.phantom import CT_STEP, INPUT, PET_STEP, TRUTH, make_torso
from test.support.plain_lesions import measure_lesions


def test_committed_files_are_small() -> None:
    assert sum(path.stat().st_size for path in INPUT.rglob("*") if path.is_file()) < 1.5e6


def test_committed_files_are_the_generators() -> None:
    """Up to one step of the rounding, since another processor may add up in another order."""
    job = find_job(INPUT, INPUT / "no output")
    pair = read_pet_ct(job.ct, job.pet)
    truth = read_mask(TRUTH)

    torso = make_torso()

    assert job.edition is Edition.III
    assert job.ct.stem != job.pet.stem
    assert not pair.ct_resampled
    for stored, made, step in (
        (pair.ct, torso.ct, CT_STEP),
        (pair.pet, torso.pet, PET_STEP),
        (truth, torso.truth, 0),
    ):
        assert same_geometry(stored, made)
        np.testing.assert_allclose(
            sitk.GetArrayViewFromImage(stored), sitk.GetArrayViewFromImage(made), rtol=0, atol=step
        )


def test_four_hot_lesions_of_various_sizes() -> None:
    torso = make_torso()

    lesions = measure_lesions(sitk.GetArrayFromImage(torso.truth), torso.pet)

    assert len(lesions) == 4
    assert all(2 <= lesion.volume_ml <= 41 for lesion in lesions)
    assert all(6 <= lesion.suv_max <= 14 for lesion in lesions)
