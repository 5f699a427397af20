"""Synthetic bodies: reproducible, plausible, honest about their lesions, and written whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.cases import find_cases
from algorithm.errors import InvalidImageError, MissingInputError, OutputError, UsageError
from algorithm.files import claimed
from synthesis.__main__ import main
from synthesis.body import Grid, Tissue, paint_balls
from synthesis.scan import SyntheticBody, synthesise
from synthesis.study import find_anatomies, split_anatomies, synthesise_many, tracer_of, write_case
from synthesis.style import Style
from synthesis.tumours import LARGEST_LESION_ML, SMALLEST_LESION_ML
from synthesis.uptake import Tracer
from test.support.anatomy import schematic_map

COARSE = (8.0, 8.0, 8.0)
NEVER = (Tissue.BRAIN, Tissue.BLADDER, Tissue.KIDNEY, Tissue.HEART)


@pytest.fixture(scope="module")
def organ_map() -> sitk.Image:
    return schematic_map()


@pytest.fixture(scope="module")
def bodies(organ_map: sitk.Image) -> list[SyntheticBody]:
    """Three FDG bodies and one PSMA body, all with many lesions."""
    tracers = ("fdg", "fdg", "fdg", "psma")
    return [
        synthesise(organ_map, t, [5, i], spacing=COARSE, lesions=9, style=Style()) for i, t in enumerate(tracers)
    ]


@pytest.fixture
def anatomies(tmp_path: Path, organ_map: sitk.Image) -> Path:
    """A folder of five small anatomies."""
    folder = tmp_path / "anatomy"
    for study in ("fdg_a_2001", "fdg_b_2002", "fdg_c_2003", "psma_d_2004", "psma_e_2005"):
        (folder / study).mkdir(parents=True)
        sitk.WriteImage(organ_map, str(folder / study / "organs.nii.gz"), useCompression=True)
    return folder


def array(image: sitk.Image) -> NDArray:
    return sitk.GetArrayFromImage(image)


def same_bytes(one: SyntheticBody, other: SyntheticBody) -> bool:
    images = ("ct", "suv", "seg", "organs")
    return one.lesions == other.lesions and all(
        array(getattr(one, name)).tobytes() == array(getattr(other, name)).tobytes() for name in images
    )


def test_same_seed_gives_the_same_bytes(organ_map: sitk.Image) -> None:
    first, again, other = (synthesise(organ_map, "fdg", seed, spacing=COARSE) for seed in (3, 3, 4))
    assert same_bytes(first, again)
    assert not same_bytes(first, other)


def test_pixel_types_and_one_grid(bodies: list[SyntheticBody], organ_map: sitk.Image) -> None:
    body = bodies[0]
    assert body.ct.GetPixelID() == sitk.sitkInt16
    assert body.suv.GetPixelID() == sitk.sitkFloat32
    assert body.seg.GetPixelID() == sitk.sitkUInt8
    for image in (body.ct, body.suv, body.seg):
        assert image.GetSize() == body.organs.GetSize()
        assert image.GetOrigin() == body.organs.GetOrigin()
        assert image.GetSpacing() == COARSE
        assert image.GetDirection() == organ_map.GetDirection()
    assert set(np.unique(array(body.seg))) <= {0, 1}
    suv = array(body.suv)
    assert np.isfinite(suv).all()
    assert suv.min() >= 0


def test_resampling_keeps_the_corner(bodies: list[SyntheticBody], organ_map: sitk.Image) -> None:
    corner = [organ_map.TransformContinuousIndexToPhysicalPoint((-0.5,) * 3)]
    corner += [bodies[0].organs.TransformContinuousIndexToPhysicalPoint((-0.5,) * 3)]
    np.testing.assert_allclose(corner[0], corner[1], atol=1e-6)


def test_without_spacing_the_grid_is_the_organ_maps(organ_map: sitk.Image) -> None:
    body = synthesise(organ_map, "fdg", 1, spacing=None, lesions=0, style=Style())
    assert body.ct.GetSize() == organ_map.GetSize()
    assert body.ct.GetOrigin() == organ_map.GetOrigin()
    np.testing.assert_array_equal(array(body.organs), array(organ_map))


def test_direction_does_not_change_the_body(bodies: list[SyntheticBody]) -> None:
    organs = bodies[0].organs
    maps = (organs, sitk.DICOMOrient(organs, "LPS"))
    turned, upright = (synthesise(m, "fdg", 2, spacing=None, lesions=2) for m in maps)
    np.testing.assert_array_equal(array(sitk.DICOMOrient(turned.suv, "LPS")), array(upright.suv))
    assert not np.array_equal(array(turned.suv), array(upright.suv))
    assert [lesion.volume_ml for lesion in turned.lesions] == [lesion.volume_ml for lesion in upright.lesions]
    for one, other in zip(turned.lesions, upright.lesions, strict=True):
        assert one.centre_mm == pytest.approx(other.centre_mm, abs=0.05)


@pytest.mark.parametrize(
    ("tracer", "ranges"),
    [
        (
            "fdg",
            {
                Tissue.BRAIN: (5, 12),
                Tissue.LIVER: (1.5, 3.5),
                Tissue.SPLEEN: (1.1, 3),
                Tissue.LUNG: (0.25, 0.9),
                Tissue.BLADDER: (4, 75),
                Tissue.KIDNEY: (1.8, 12),
            },
        ),
        (
            "psma",
            {
                Tissue.BRAIN: (0.1, 0.8),
                Tissue.LIVER: (2.8, 7.5),
                Tissue.KIDNEY: (20, 65),
                Tissue.BLADDER: (8, 75),
                Tissue.LUNG: (0.25, 0.9),
            },
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_uptake_of_healthy_organs(
    organ_map: sitk.Image, tracer: Tracer, ranges: dict[Tissue, tuple[float, float]], seed: int
) -> None:
    body = synthesise(organ_map, tracer, seed, spacing=COARSE, lesions=0)
    suv, organs = array(body.suv), array(body.organs)
    for organ, (low, high) in ranges.items():
        inside = ndimage.binary_erosion(organs == organ)
        assert low <= np.median(suv[inside]) <= high, organ.name
    assert suv[0, 0].max() == 0, "uptake in the air of the grid's corner"


def test_ct_numbers_of_a_healthy_body(organ_map: sitk.Image) -> None:
    body = synthesise(organ_map, "fdg", 0, spacing=COARSE, lesions=0)
    hu, organs = array(body.ct), array(body.organs)
    assert -900 < np.median(hu[ndimage.binary_erosion(organs == Tissue.LUNG)]) < -700
    assert 30 < np.median(hu[ndimage.binary_erosion(organs == Tissue.LIVER)]) < 135
    litres = (hu > -400).sum() * np.prod(COARSE) / 1e6
    assert 25 < litres < 120, "volume of head, trunk, arms and thighs"
    assert (hu > 300).sum() * np.prod(COARSE) / 1e6 > 0.8, "litres of bone"
    fat = ((hu > -140) & (hu < -60)).mean() / (hu > -400).mean()
    assert 0.08 < fat < 0.6, "share of fat"


def test_tumour_free_bodies_have_an_empty_mask(organ_map: sitk.Image) -> None:
    body = synthesise(organ_map, "fdg", 11, spacing=COARSE, lesions=0)
    assert body.lesions == ()
    assert not array(body.seg).any()


def test_lesions_are_as_recorded(bodies: list[SyntheticBody]) -> None:
    for body in bodies:
        seg, suv = array(body.seg), array(body.suv)
        assert 5 <= len(body.lesions) <= 9
        volume = seg.sum() * np.prod(COARSE) / 1000
        assert sum(lesion.volume_ml for lesion in body.lesions) == pytest.approx(volume, abs=0.01)
        for lesion in body.lesions:
            assert SMALLEST_LESION_ML <= lesion.volume_ml <= LARGEST_LESION_ML
            index = body.suv.TransformPhysicalPointToIndex(lesion.centre_mm)
            near = tuple(slice(max(0, i - 5), i + 6) for i in reversed(index))
            assert seg[near].any()
            assert suv[near].max() > 0.6 * lesion.suv_max


def test_lesions_stand_out_of_their_surroundings(bodies: list[SyntheticBody]) -> None:
    for body in bodies:
        seg, suv = array(body.seg) > 0, array(body.suv)
        labels, count = ndimage.label(seg, np.ones((3, 3, 3)))
        for i in range(1, count + 1):
            own = labels == i
            ring = ndimage.binary_dilation(own, iterations=4) & ~ndimage.binary_dilation(own, iterations=2) & ~seg
            assert suv[own].max() >= 1.5 * np.median(suv[ring])


def test_no_lesion_lies_in_brain_bladder_kidney_or_heart(bodies: list[SyntheticBody]) -> None:
    for body in bodies:
        assert not np.isin(array(body.organs)[array(body.seg) > 0], NEVER).any()


def test_bodies_from_real_anatomies(real_data: Path) -> None:
    maps = find_anatomies(real_data / "anatomy")
    for path, tracer in ((maps[0], "fdg"), (maps[-1], "psma")):
        body = synthesise(sitk.ReadImage(str(path)), tracer_of(path.parent.name), 1, spacing=COARSE)
        assert tracer_of(path.parent.name) == tracer
        assert body.lesions
        assert not np.isin(array(body.organs)[array(body.seg) > 0], NEVER).any()


def test_a_map_without_a_trunk_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="neither lungs"):
        synthesise(sitk.Image(20, 20, 20, sitk.sitkUInt8), "fdg", 0)


def test_a_map_with_next_to_no_trunk_is_refused(organ_map: sitk.Image) -> None:
    values = array(organ_map)
    values[np.isin(values, (Tissue.LUNG, Tissue.LIVER))] = 0
    values[100, 50, 50] = Tissue.LUNG  # 0.15 ml
    little = sitk.GetImageFromArray(values)
    little.CopyInformation(organ_map)
    with pytest.raises(InvalidImageError, match=r"less than 1 ml of lungs \(5\) and of liver \(3\); give one"):
        synthesise(little, "fdg", 0, spacing=None)


def test_a_map_that_is_refused_is_named(anatomies: Path, tmp_path: Path) -> None:
    bad = anatomies / "fdg_f_2006" / "organs.nii.gz"
    bad.parent.mkdir()
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(bad))
    with pytest.raises(InvalidImageError, match=f"^{bad}: the organ map holds neither"):
        synthesise_many([bad], tmp_path / "out", 1, 0, progress=False)


def test_a_map_with_other_labels_is_refused(organ_map: sitk.Image) -> None:
    with pytest.raises(InvalidImageError, match="labels 0 to 10, got 11"):
        synthesise(organ_map + (organ_map == 10), "fdg", 0)
    wide = sitk.Cast(organ_map, sitk.sitkFloat32)
    for odd, shift in (("-253", -256.0), ("3.7", 0.7)):  # as bytes they would be the liver again, label 3
        with pytest.raises(InvalidImageError, match=f"labels 0 to 10, got {odd}"):
            synthesise(wide + shift * sitk.Cast(organ_map == 3, sitk.sitkFloat32), "fdg", 0)


def test_written_cases_have_autopets_layout(bodies: list[SyntheticBody], tmp_path: Path) -> None:
    folder = tmp_path / "patient" / "study"
    write_case(bodies[0], folder, anatomy="a")
    names = ["CTres.nii.gz", "SEG.nii.gz", "SUV.nii.gz", "lesions.json", "organs.nii.gz"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert [p.name for p in folder.parent.iterdir()] == ["study"], "nothing half-written stays"
    record = json.loads((folder / "lesions.json").read_text())
    assert record["synthetic"] is True
    assert record["anatomy"] == "a"
    assert len(record["lesions"]) == len(bodies[0].lesions)
    body = bodies[0]
    for name, image in (("CTres", body.ct), ("SUV", body.suv), ("SEG", body.seg), ("organs", body.organs)):
        written = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        np.testing.assert_array_equal(array(written), array(image))
        np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)


def test_a_stopped_run_goes_on_and_changes_nothing(anatomies: Path, tmp_path: Path) -> None:
    options = {"seed": 9, "spacing": (11.0, 11.0, 11.0), "progress": False}
    first = synthesise_many(anatomies, tmp_path / "a", 2, **options)
    before = [(f / "SUV.nii.gz").stat().st_mtime_ns for f in first]
    (first[1] / "lesions.json").unlink()
    again = synthesise_many(anatomies, tmp_path / "a", 3, **options)
    assert again[:2] == first
    assert (first[0] / "SUV.nii.gz").stat().st_mtime_ns == before[0], "a finished body is not made again"
    assert (first[1] / "SUV.nii.gz").stat().st_mtime_ns > before[1], "an unfinished one is"
    elsewhere = synthesise_many(anatomies, tmp_path / "b", 3, **options)
    for one, other in zip(again, elsewhere, strict=True):
        suv = [array(sitk.ReadImage(str(f / "SUV.nii.gz"))) for f in (one, other)]
        assert np.array_equal(*suv)
    assert len({f.name for f in again}) == 3, "every anatomy is used before one is used twice"


def test_a_second_run_in_the_folder_is_refused(anatomies: Path, tmp_path: Path) -> None:
    with claimed(tmp_path / "out"), pytest.raises(OutputError, match="another run is writing to"):
        synthesise_many(anatomies, tmp_path / "out", 1, 9, spacing=COARSE, progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_run_left_is_removed(anatomies: Path, tmp_path: Path) -> None:
    options = {"seed": 9, "spacing": COARSE, "progress": False}
    (folder,) = synthesise_many(anatomies, tmp_path, 1, **options)
    folder.rename(folder.with_name(f".{folder.name}.partial"))
    folder.with_name(".another.partial").mkdir()
    assert synthesise_many(anatomies, tmp_path, 1, **options) == [folder]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 8}, "seed"),
        ({"tracer": "psma"}, "tracer"),
        ({"spacing": (12.0, 12.0, 12.0)}, "spacing"),
        ({"tumour_free": 1.0}, "tumour_free"),
    ],
)
def test_other_bodies_in_the_folder_are_not_taken_for_these(
    anatomies: Path, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    options = {"seed": 7, "spacing": COARSE, "tracer": "fdg", "progress": False}
    (folder,) = synthesise_many(find_anatomies(anatomies)[:1], tmp_path, 1, **options)
    with pytest.raises(UsageError, match=f"is a body made with another {what}; choose another --out"):
        synthesise_many(find_anatomies(anatomies)[:1], tmp_path, 1, **{**options, **change})
    assert folder.is_dir()


def test_a_body_of_an_older_version_stays(anatomies: Path, tmp_path: Path) -> None:
    options = {"seed": 7, "spacing": COARSE, "progress": False}
    (folder,) = synthesise_many(anatomies, tmp_path, 1, **options)
    record = json.loads((folder / "lesions.json").read_text())
    del record["tumour_free"]
    (folder / "lesions.json").write_text(json.dumps(record))
    before = (folder / "SUV.nii.gz").stat().st_mtime_ns
    assert synthesise_many(anatomies, tmp_path, 1, tumour_free=1.0, **options) == [folder]
    assert (folder / "SUV.nii.gz").stat().st_mtime_ns == before


def test_what_a_killed_run_left_is_no_case(bodies: list[SyntheticBody], tmp_path: Path) -> None:
    folder = tmp_path / "synthetic_0000" / "study"
    write_case(bodies[0], folder)
    shutil.copytree(folder, folder.with_name(".study.partial"))
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["synthetic_0000_study"]
    assert not found.skipped


def test_share_of_tumour_free_bodies(anatomies: Path, tmp_path: Path) -> None:
    folders = synthesise_many(anatomies, tmp_path / "free", 2, 0, spacing=COARSE, tumour_free=1.0, progress=False)
    for folder in folders:
        assert json.loads((folder / "lesions.json").read_text())["lesions"] == []


def test_held_out_anatomies_share_nothing_with_training(anatomies: Path) -> None:
    training, held_back = split_anatomies(anatomies, 2, seed=1)
    assert len(training) == 3
    assert len(held_back) == 2
    assert not set(training) & set(held_back)
    assert (training, held_back) == split_anatomies(anatomies, 2, seed=1)
    with pytest.raises(UsageError, match="5 anatomies cannot be held back of the 5"):
        split_anatomies(anatomies, 5)


def test_command_line(anatomies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--anatomy", str(anatomies), "--out", str(tmp_path / "out"), "--count", "1", "--seed", "4"]
    options += ["--spacing", "10", "10", "10", "--subset", "held-out", "--held-out", "2", "--tracer", "psma"]
    assert main(options) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "1 synthetic bodies from 2 anatomies" in output.out
    (case,) = (tmp_path / "out").glob("*/*/lesions.json")
    assert json.loads(case.read_text())["tracer"] == "psma"
    assert main([*options, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "at least 1, got 0"),
        ({"tumour_free": 1.5}, "between 0 and 1, got 1.5"),
        ({"spacing": (4.0, 0.0, 4.0)}, "must be 0.5 to 50 mm, got 4.0 0.0 4.0"),
    ],
)
def test_senseless_options_are_refused(anatomies: Path, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        synthesise_many(anatomies, tmp_path, **{"count": 1, "seed": 0, **change})


def test_a_folder_without_organ_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no organ map found"):
        synthesise_many(tmp_path, tmp_path / "out", 1, 0)


def test_balls_are_painted_where_they_lie() -> None:
    grid = Grid((20, 30, 25), (3.0, 2.0, 2.5))
    points = np.array([(30.0, 30.0, 30.0), (36.0, 30.0, 30.0)])
    nearest = paint_balls(grid, points, np.array([12.0, 12.0]))
    z, y, x = grid.axes()
    distance = np.stack([np.sqrt((z - p[0]) ** 2 + (y - p[1]) ** 2 + (x - p[2]) ** 2) for p in points])
    np.testing.assert_array_equal(nearest >= 0, distance.min(0) < 12)
    inside = nearest >= 0
    clear = inside & (np.abs(distance[0] - distance[1]) > 1e-3)
    np.testing.assert_array_equal(nearest[clear], distance.argmin(0)[clear])
