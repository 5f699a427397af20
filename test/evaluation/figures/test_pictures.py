from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from algorithm.errors import GeometryError, MissingInputError, UsageError
from evaluation.figures.pictures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    add_arguments,
    draw,
    main,
    map_errors,
    overlay,
    project,
    worst_slices,
    write_picture,
)

SHAPE = (30, 20, 24)  # z, y, x
SPACING = (2.0, 3.0, 5.0)
AUTOPET = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
UPSIDE_DOWN = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def image(values: np.ndarray, direction: tuple[float, ...] = AUTOPET) -> sitk.Image:
    made = sitk.GetImageFromArray(values)
    made.SetSpacing(SPACING)
    made.SetDirection(direction)
    return made


def case(direction: tuple[float, ...] = AUTOPET) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """A lesion found in part, one missed, and one invented; PET is hot at the missed one."""
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[4:8, 5:9, 5:9] = 1
    prediction[5:8, 5:9, 5:9] = 1
    truth[25:27, 2:4, 19:22] = 1
    prediction[15, 10:12, 10:12] = 1
    return (*(image(array, direction) for array in (truth.astype(np.float32) * 8, truth, prediction)),)


def test_codes_and_volumes():
    errors = map_errors(*case())
    voxel_ml = np.prod(SPACING) / 1000
    assert errors.volume_ml(TRUE_POSITIVE) == pytest.approx(3 * 16 * voxel_ml)
    assert errors.volume_ml(FALSE_NEGATIVE) == pytest.approx((16 + 12) * voxel_ml)
    assert errors.volume_ml(FALSE_POSITIVE) == pytest.approx(4 * voxel_ml)
    assert errors.extent_mm == (48.0, 60.0, 150.0)


def test_only_lesions_missed_entirely_are_boxed():
    errors = map_errors(*case())
    # y is flipped: AutoPET's second axis runs from back to front, the picture's from front to back.
    assert errors.misses == ((slice(25, 27), slice(16, 18), slice(19, 22)),)


def test_lesions_that_touch_by_an_edge_are_one():
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[5, 5, 5] = truth[5, 6, 6] = prediction[5, 5, 5] = 1
    errors = map_errors(image(truth.astype(np.float32)), image(truth), image(prediction))
    assert errors.misses == ()


@pytest.mark.parametrize("direction", [AUTOPET, UPSIDE_DOWN])
def test_the_head_is_up_and_the_front_first_whatever_the_direction(direction):
    """A marker at known places of the patient's space: left (+x), front (-y), head (+z) of the centre."""
    pet = image(np.zeros(SHAPE, np.float32), direction)
    centre = np.array(pet.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in pet.GetSize()]))
    marker = pet.TransformPhysicalPointToIndex(tuple(centre + np.array([15.0, -20.0, 60.0])))
    pet[marker] = 9.0
    empty = image(np.zeros(SHAPE, np.uint8), direction)
    z, y, x = np.argwhere(map_errors(pet, empty, empty).pet == 9.0)[0]
    assert z > SHAPE[0] / 2
    assert y < SHAPE[1] / 2
    assert x > SHAPE[2] / 2


def test_a_permuted_direction_matrix_gives_the_same_picture():
    straight = map_errors(*case())
    turned = map_errors(*(sitk.PermuteAxes(part, (2, 0, 1)) for part in case()))
    np.testing.assert_array_equal(turned.errors, straight.errors)
    np.testing.assert_array_equal(turned.pet, straight.pet)
    assert turned.spacing == straight.spacing


def test_another_grid_is_an_error_that_names_both():
    pet, truth, prediction = case()
    prediction.SetOrigin((1.0, 2.0, 3.0))
    with pytest.raises(
        GeometryError, match=r"the prediction \(24x20x30 .*origin \(1, 2, 3\).*PET's grid \(24x20x30"
    ):
        map_errors(pet, truth, prediction)


def test_worst_slices_come_first_and_apart():
    errors = map_errors(*case())
    assert worst_slices(errors, count=3, distance_mm=20) == [4, 25, 15]


def test_without_errors_the_slice_with_most_tumour_is_shown():
    pet, truth, _ = case()
    assert worst_slices(map_errors(pet, truth, truth)) == [4]
    empty = image(np.zeros(SHAPE, np.uint8))
    assert worst_slices(map_errors(pet, empty, empty)) == [SHAPE[0] // 2]


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3)), st.integers(0, 2))
def test_projection_shows_the_most_frequent_code(codes, axis):
    shown = project(codes, axis)
    for place in np.ndindex(shown.shape):
        ray = np.moveaxis(codes, axis, -1)[place]
        counts = {code: int((ray == code).sum()) for code in (1, 2, 3)}
        best = max(counts, key=lambda code: (counts[code], code))
        assert shown[place] == (best if counts[best] else 0)


def test_overlay_has_the_papers_colours():
    pixels = overlay(np.array([[0, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE]], np.uint8), opacity=1)[0]
    assert pixels[0, 3] == 0
    red, yellow, blue = pixels[1], pixels[2], pixels[3]
    assert red[0] > 200 > 60 > max(red[1:3])
    assert min(yellow[:2]) > 200
    assert yellow[2] < 60
    assert blue[2] > 200 > 100 > max(blue[:2])


def test_panels_keep_proportions_and_box_the_miss():
    errors = map_errors(*case())
    figure = draw(errors, "case")
    coronal, sagittal, *slices = figure.axes
    width, depth, height = errors.extent_mm
    assert (coronal.get_xlim(), coronal.get_ylim()) == ((0, width), (0, height))
    assert (sagittal.get_xlim(), sagittal.get_ylim()) == ((0, depth), (0, height))
    assert all(axes.get_aspect() == 1 for axes in figure.axes)
    assert all(axes.get_ylim() == (depth, 0) for axes in slices)
    boxed = [len(axes.patches) for axes in figure.axes]
    assert boxed[:2] == [1, 1]
    assert sum(boxed[2:]) == 1  # one of the slices meets the missed lesion


def blue_pixels(path: Path) -> int:
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(int)
    return int(((pixels[..., 2] > 180) & (pixels[..., 0] < 90) & (pixels[..., 1] < 110)).sum())


def test_a_name_is_no_mathematics(tmp_path):
    pet, truth, prediction = case()
    write_picture(map_errors(pet, truth, prediction), r"a$\q$", tmp_path / "case.png")
    assert (tmp_path / "case.png").is_file()


def test_a_miss_makes_the_picture_blue_and_the_file_repeats(tmp_path):
    pet, truth, prediction = case()
    write_picture(map_errors(pet, truth, prediction), "missed", tmp_path / "missed.png")
    write_picture(map_errors(pet, truth, truth), "missed", tmp_path / "found.png")
    assert blue_pixels(tmp_path / "missed.png") > 4 * blue_pixels(tmp_path / "found.png")
    before = (tmp_path / "missed.png").read_bytes()
    write_picture(map_errors(pet, truth, prediction), "missed", tmp_path / "missed.png")
    assert (tmp_path / "missed.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.png", "missed.png"]


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def cohort(tmp_path) -> Path:
    pet, truth, prediction = case()
    study = tmp_path / "cases" / "synthetic_a" / "study"
    study.mkdir(parents=True)
    for part, name in ((pet, "CTres"), (pet, "SUV"), (truth, "SEG")):
        sitk.WriteImage(part, str(study / f"{name}.nii.gz"))
    (tmp_path / "masks").mkdir()
    sitk.WriteImage(prediction, str(tmp_path / "masks" / "synthetic_a_study.mha"))
    return tmp_path


def test_command_draws_a_folder_of_studies(cohort, caplog):
    with caplog.at_level("INFO", logger="evaluation"):
        assert run("--cases", cohort / "cases", "--prediction", cohort / "masks", "--out", cohort / "out") == 0
    assert caplog.messages == [f"wrote {cohort / 'out' / 'synthetic_a_study.png'}"]
    assert blue_pixels(cohort / "out" / "synthetic_a_study.png") > 0


def test_command_draws_a_cohort_s_results(cohort):
    name = "synthetic_a_study"
    mask = sitk.ReadImage(str(cohort / "masks" / f"{name}.mha"))
    (cohort / "results" / name).mkdir(parents=True)
    sitk.WriteImage(mask, str(cohort / "results" / name / "tumour.nii.gz"))
    assert run("--cases", cohort / "cases", "--prediction", cohort / "results", "--out", cohort / "out") == 0
    assert (cohort / "out" / f"{name}.png").is_file()


def test_command_draws_a_single_case(cohort):
    study = cohort / "cases" / "synthetic_a" / "study"
    files = ("--pet", study / "SUV.nii.gz", "--truth", study / "SEG.nii.gz")
    assert run(*files, "--prediction", cohort / "masks" / "synthetic_a_study.mha", "--out", cohort) == 0
    assert (cohort / "synthetic_a_study.png").is_file()


def test_command_says_what_is_missing(cohort):
    cases, out = ("--cases", cohort / "cases"), ("--out", cohort / "out")
    (cohort / "masks" / "synthetic_a_study.mha").rename(cohort / "masks" / "b.mha")
    with pytest.raises(MissingInputError, match=r"no mask synthetic_a_study\.mha in"):
        run(*cases, "--prediction", cohort / "masks", *out)
    (cohort / "cases" / "synthetic_a" / "study" / "SEG.nii.gz").unlink()
    with pytest.raises(MissingInputError, match="synthetic_a_study has no truth"):
        run(*cases, "--prediction", cohort / "masks", *out)
    with pytest.raises(UsageError, match="either --cases, or --pet and --truth"):
        run("--prediction", cohort / "masks", *out)
