"""Wherever and however two images lie: what is found in them lies, in the mask, where it lies in the patient."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from algorithm.images import read_mask, read_pet_ct, write_mask
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.preprocessing import prepare
from algorithm.segmentation import mask_on, prepare_case, segment_prepared
from test.support.random_grids import (
    BODY_RADII,
    Grid,
    Sphere,
    Vector,
    ct_of,
    describe_threshold,
    pet_of,
    rotation,
    threshold_predictor,
)

SUFFIXES = (".mha", ".nii.gz", ".nrrd")
NETWORK_SPACINGS: tuple[Vector | None, ...] = (None, (4.0, 4.0, 4.0), (6.0, 6.0, 4.0), (3.0, 5.0, 7.0))
SILENT = Progress(logging.DEBUG)
WIDEST = 2 * max(BODY_RADII) * 1.35

UPRIGHT = Grid((60, 60, 60), (3.0, 3.0, 3.0), np.eye(3), (0.0, 0.0, 0.0))
# What is left of an angle of zero after some arithmetic; ITK's inverse of such a direction is NaN.
_TINY_ANGLES = np.array([[-1, 1e-300, 0], [1e-300, 1, 1e-20], [0, 1e-20, -1]])
SUBNORMAL = Grid((60, 60, 60), (3.0, 3.0, 3.0), _TINY_ANGLES, (0.0, 0.0, 0.0))

unit = st.floats(-1, 1)
offset = st.floats(-8, 8)


@st.composite
def grids(draw: st.DrawFn, at: Vector) -> Grid:
    """A grid around a place that holds the whole body, however it is turned."""
    spacing = draw(st.tuples(*[st.floats(2.5, 8.0)] * 3))
    extra = draw(st.tuples(*[st.integers(0, 6)] * 3))
    quaternion = draw(st.tuples(unit, unit, unit, unit).filter(lambda four: np.linalg.norm(four) > 0.1))
    size = [int(np.ceil(WIDEST / step)) + more for step, more in zip(spacing, extra, strict=True)]
    shift = draw(st.tuples(offset, offset, offset))
    centre = tuple(place + move for place, move in zip(at, shift, strict=True))
    return Grid(tuple(size), spacing, rotation(quaternion, mirrored=draw(st.booleans())), centre)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Grid, Grid, Sphere, Vector]:
    """PET's and CT's grids, the lesion, and where the body's middle lies."""
    at = draw(st.tuples(*[st.floats(-900, 900)] * 3))
    pet, ct = draw(grids(at)), draw(grids(at))
    radius = draw(st.floats(14.0, 18.0))
    part = draw(st.tuples(*[st.floats(-0.3, 0.3)] * 3))
    centre = tuple(place + share * half for place, share, half in zip(at, part, BODY_RADII, strict=True))
    return pet, ct, Sphere(centre, radius), at  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return threshold_predictor()


@settings(
    max_examples=max(200, settings.default.max_examples),  # 1,000 with `--hypothesis-profile thorough`
    deadline=None,
    derandomize=True,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example((SUBNORMAL, UPRIGHT, Sphere((0.0, 0.0, 0.0), 14.0), (0.0, 0.0, 0.0)), ".mha", ".mha", None)
@example((UPRIGHT, SUBNORMAL, Sphere((0.0, 0.0, 0.0), 14.0), (0.0, 0.0, 0.0)), ".mha", ".mha", None)
@given(cases(), st.sampled_from(SUFFIXES), st.sampled_from(SUFFIXES), st.sampled_from(NETWORK_SPACINGS))
def test_a_sphere_lands_within_half_a_voxel(
    predictor: Predictor,
    tmp_path: Path,
    case: tuple[Grid, Grid, Sphere, Vector],
    pet_suffix: str,
    ct_suffix: str,
    spacing: Vector | None,
) -> None:
    pet_grid, ct_grid, sphere, at = case
    ct_path, pet_path = tmp_path / f"ct{ct_suffix}", tmp_path / f"pet{pet_suffix}"
    sitk.WriteImage(pet_of(pet_grid, sphere, at), str(pet_path))
    sitk.WriteImage(ct_of(ct_grid, sphere, at), str(ct_path))
    description = describe_threshold(spacing)

    pair = read_pet_ct(ct_path, pet_path)
    prepared = prepare_case([description], lambda how: prepare(pair, how))
    probability = segment_prepared(predictor, prepared, flips=1, progress=SILENT).probability
    mask_path = tmp_path / "mask.mha"
    write_mask(mask_on(probability, prepared.prepared.grid, pair.pet, description), pair.pet, mask_path)

    mask = read_mask(mask_path)
    assert mask.GetSize() == pet_grid.size
    steps = pet_grid.direction * np.array(pet_grid.spacing)
    found = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]  # x, y, z
    assert len(found), "nothing was found"
    there = np.linalg.inv(steps) @ (np.array(sphere.centre) - pet_grid.origin)  # in the PET's voxels
    assert np.abs(found.mean(axis=0) - there).max() < 0.5
    # The mask's own header says the same: it is where the mask is, not where the PET was meant to be.
    middle = mask.TransformContinuousIndexToPhysicalPoint(found.mean(axis=0).tolist())
    reach = np.linalg.norm(np.array(middle) - sphere.centre)
    assert reach < 0.5 * np.linalg.norm(pet_grid.spacing)
    volume = len(found) * np.prod(pet_grid.spacing) / (4 / 3 * np.pi * sphere.radius**3)
    assert 0.5 < volume < 1.5
