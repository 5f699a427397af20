from __future__ import annotations

import gzip
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases
from algorithm.errors import MissingInputError
from test.support.trees import SPACING, alter, write_image, write_tree
from training import cache as cache_module
from training.__main__ import main
from training.cache import build_cache, tumour_statistics


def build(root, tmp_path, spacing=SPACING):
    return build_cache(find_cases(root).cases, tmp_path / "cache", spacing, progress=False)


def test_arrays_are_the_images_in_x_y_z(tmp_path):
    root = write_tree(tmp_path / "data", "a")
    (case,) = build(root, tmp_path).cases
    study = root / "a" / "study"

    for name, array in (("CTres", case.ct()), ("SUV", case.pet()), ("SEG", case.seg())):
        values = sitk.GetArrayFromImage(sitk.ReadImage(study / f"{name}.nii.gz"))
        np.testing.assert_allclose(array, values.transpose(2, 1, 0), rtol=1e-6)
        assert isinstance(array, np.memmap)
        assert array.shape == case.size
    assert case.tumour_ml == pytest.approx(case.seg().sum() * 4 * 4 * 3 / 1000)


def test_a_case_is_cut_to_the_patient(tmp_path):
    root = write_tree(tmp_path / "data", "a")
    study = root / "a" / "study"
    (whole,) = build(root, tmp_path).cases
    for name, air in (("CTres", -1000), ("SUV", 0), ("SEG", 0)):
        values = sitk.GetArrayFromImage(sitk.ReadImage(study / f"{name}.nii.gz"))
        write_image(study / f"{name}.nii.gz", np.pad(values, ((0, 0), (40, 30), (20, 50)), constant_values=air))
    (cut,) = build(root, tmp_path).cases

    assert cut.size[2] == whole.size[2]
    assert all(0 <= more - less <= 10 for more, less in zip(cut.size, whole.size, strict=True))
    assert cut.tumour_ml == whole.tumour_ml
    np.testing.assert_array_equal(np.sort(cut.pet()[cut.seg() > 0]), np.sort(whole.pet()[whole.seg() > 0]))
    assert (cut.seg()[tuple(cut.tumour_points().T)] == 1).all()


def test_several_processes_make_the_same_entries(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b", "c")
    (root / "b" / "study" / "SUV.nii.gz").write_bytes(b"no image")
    cases = find_cases(root).cases
    alone = build_cache(cases, tmp_path / "alone", SPACING, progress=False)
    together = build_cache(cases, tmp_path / "together", SPACING, progress=False, workers=2)

    assert together.skipped == alone.skipped
    assert [case.name for case in together.cases] == ["a_study", "c_study"]
    for one, other in zip(alone.cases, together.cases, strict=True):
        files = sorted(path.name for path in one.folder.iterdir())
        assert files == sorted(path.name for path in other.folder.iterdir())
        assert all((one.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in files)


def test_another_spacing_keeps_the_lesion_volume(tmp_path):
    root = write_tree(tmp_path / "data", "a")
    (fine,) = build(root, tmp_path).cases
    (coarse,) = build(root, tmp_path, (5.0, 5.0, 4.0)).cases

    assert coarse.size == (32, 29, 18)
    assert coarse.tumour_ml == pytest.approx(fine.tumour_ml, rel=0.15)


def test_the_way_to_a_coarser_grid_and_back_costs_little(tmp_path, capsys):
    root = write_tree(tmp_path / "data", "a", "b", "free", tumour_free=("free",))
    grids = ["--spacing", *["4", "4", "3"], "--spacing", *["8", "8", "6"], "--spacing", *["16", "16", "12"]]
    assert main(["resampling", "--cases", str(root), *grids]) == 0

    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "x" in line and "|" in line]
    same, coarse, coarsest = rows[-3:]
    assert same[:5] == ["| 4x4x3", "2", "1.000", "1.000", "1.000 (a_study) |"]
    assert 1 > float(coarse[2]) > 0.8 > float(coarsest[2]) > 0

    assert main(["resampling", "--cases", str(root), "--spacing", "4", "0", "3"]) == 2
    assert "--spacing must be above 0, at most 100 mm, got 4 0 3" in capsys.readouterr().err


def test_crop_centres_lie_in_and_outside_the_lesion(tmp_path):
    (case,) = build(write_tree(tmp_path / "data", "a"), tmp_path).cases
    seg, ct = case.seg(), case.ct()

    assert len(case.tumour_points()) == cache_module.CENTRES_PER_LESION
    assert (seg[tuple(case.tumour_points().T)] == 1).all()
    assert (seg[tuple(case.background_points().T)] == 0).all()
    assert (ct[tuple(case.background_points().T)] > -500).mean() > 1.2 * (ct > -500).mean()


def test_contours_of_the_whole_image_are_named(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b")
    alter(root / "b" / "study" / "SEG.nii.gz", np.ones_like)
    cache = build(root, tmp_path)

    assert [case.patient for case in cache.cases] == ["a"]
    assert "leaves no background" in cache.skipped[0].reason
    assert not list((tmp_path / "cache").glob("*.part"))


def test_an_entry_that_another_run_made_meanwhile_is_taken(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "data", "a")
    crop_centres, nested = cache_module._crop_centres, iter([True])

    def slow(*arguments):
        if next(nested, False):
            build(root, tmp_path)
        return crop_centres(*arguments)

    monkeypatch.setattr(cache_module, "_crop_centres", slow)
    assert len(build(root, tmp_path).cases) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_only_a_damaged_entry_is_removed(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "data", "a")
    remove, removed = shutil.rmtree, []

    def noting(path, **options):
        removed.append(path)
        remove(path, **options)

    monkeypatch.setattr(cache_module.shutil, "rmtree", noting)
    (case,) = build(root, tmp_path).cases
    assert case.folder not in removed  # another run may have made it meanwhile
    for file in ("pet.npy", "entry.json"):
        (case.folder / file).unlink()
        removed.clear()
        assert build(root, tmp_path).cases == (case,)
        assert case.folder in removed
        assert (case.folder / file).is_file()


def test_half_of_the_background_centres_are_hot_healthy_tissue():
    pet = np.full((10, 20, 20), 0.5, np.float32)
    pet[2:4, 2:4, 2:4] = 9  # a healthy organ: 8 of 4000 voxels
    pet[7:9, 7:9, 7:9] = 9  # a lesion
    seg = np.zeros(pet.shape, np.uint8)
    seg[7:9, 7:9, 7:9] = 1

    tumour, background = cache_module._crop_centres(seg, pet, np.ones(pet.shape, bool), "seed")

    assert {tuple(point) for point in tumour} == {tuple(point[::-1]) for point in np.argwhere(seg)}
    x, y, z = background.T
    assert (seg[z, y, x] == 0).all()
    assert 0.49 < (pet[z, y, x] > 2).mean() < 0.52


def test_every_lesion_has_as_many_centres_whatever_its_size(tmp_path):
    root = write_tree(tmp_path / "data", "a")

    def two_lesions(_):
        values = np.zeros((24, 36, 40), np.uint8)
        values[2:20, 5:30, 5:25] = 1
        values[10:14, 15:19, 30:34] = 1
        return values

    alter(root / "a/study/SEG.nii.gz", two_lesions)
    (case,) = build(root, tmp_path).cases
    small = (case.tumour_points()[:, 0] >= 30).sum()

    assert small == cache_module.CENTRES_PER_LESION
    assert len(case.tumour_points()) == 2 * cache_module.CENTRES_PER_LESION


def test_what_is_there_is_not_made_again(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "data", "a", "b")
    first = build(root, tmp_path)
    read = []
    monkeypatch.setattr(cache_module, "read_study", lambda case: read.append(case.name))

    assert build(root, tmp_path) == first
    assert read == []


def test_a_changed_file_is_preprocessed_again(tmp_path):
    root = write_tree(tmp_path / "data", "a")
    (before,) = build(root, tmp_path).cases
    alter(root / "a/study/SUV.nii.gz", lambda values: values * 2)
    (after,) = build(root, tmp_path).cases

    np.testing.assert_allclose(after.pet(), 2 * before.pet(), rtol=1e-6)


@pytest.mark.parametrize("header", ["SUV.mhd", "SUV.nhdr", "SUV.hdr", "SUV.img"])
def test_changed_voxels_beside_a_header_are_preprocessed_again(tmp_path, header):
    study = write_tree(tmp_path / "data", "a") / "a/study"
    image = sitk.ReadImage(study / "SUV.nii.gz")
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)  # NIfTI's, which other headers hold in any order
    (tmp_path / "list.csv").write_text(
        f"case,ct,pet,truth\na,{study}/CTres.nii.gz,{study}/{header},{study}/SEG.nii.gz\n"
    )
    path = study / header.replace(".img", ".hdr")
    sitk.WriteImage(image, path)
    header_then = path.read_bytes(), path.stat().st_mtime_ns
    (before,) = build(tmp_path / "list.csv", tmp_path).cases
    sitk.WriteImage(image * 2, path)
    os.utime(path, ns=(header_then[1], header_then[1]))
    assert path.read_bytes() == header_then[0]
    (after,) = build(tmp_path / "list.csv", tmp_path).cases

    np.testing.assert_allclose(after.pet(), 2 * before.pet(), rtol=1e-6)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b")
    (root / "b/study/SUV.nii.gz").chmod(0)
    assert [each.name for each in build(root, tmp_path).skipped] == ["b_study"]


def test_an_interrupted_entry_is_made_again(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "data", "a")
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "body_mask", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(root, tmp_path)
    (case,) = build(root, tmp_path).cases

    assert case.pet().max() > 5


def test_damaged_cases_are_named_with_their_reasons_and_the_rest_is_used(tmp_path):
    """A missing SEG, a SEG on another grid, a PET in Bq/ml, a truncated file, an empty SEG (issue: must show)."""
    root = write_tree(tmp_path / "data", *"abcdef", tumour_free=("e",))
    (root / "a/study/SEG.nii.gz").unlink()
    write_image(root / "b/study/SEG.nii.gz", np.ones((24, 36, 40), np.uint8), spacing=(3.0, 3.0, 3.0))
    alter(root / "c/study/SUV.nii.gz", lambda values: values * 8000)
    truncated = root / "d/study/CTres.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])

    found = find_cases(root)
    built = build(root, tmp_path)
    reasons = {each.name: each.reason for each in (*found.skipped, *built.skipped)}

    assert [case.name for case in built.cases] == ["e_study", "f_study"]
    assert [case.tumour_ml > 0 for case in built.cases] == [False, True]
    assert reasons["a_study"] == "no SEG.nii.gz"
    assert "SEG.nii.gz (40x36x24 voxels of 3.00x3.00x3.00 mm" in reasons["b_study"]
    assert "does not lie on the grid of SUV.nii.gz (40x36x24 voxels of 4.00x4.00x3.00 mm" in reasons["b_study"]
    assert "must be in SUV" in reasons["c_study"]
    assert "looks like Bq/ml" in reasons["c_study"]
    assert "CTres.nii.gz" in reasons["d_study"]
    assert str(root) not in "".join(reasons.values())


def test_a_damaged_checksum_is_found(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b")
    path = root / "b/study/SEG.nii.gz"
    content = gzip.compress(gzip.decompress(path.read_bytes())[:-4000])
    path.write_bytes(content)

    assert [each.name for each in build(root, tmp_path).skipped] == ["b_study"]


def test_statistics_are_those_of_the_tumour_voxels(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b", "free", tumour_free=("free",))
    cases = build(root, tmp_path).cases
    inside = np.concatenate([case.ct()[case.seg() > 0] for case in cases]).astype(float)
    measured = tumour_statistics(cases, "ct")

    assert (measured.low, measured.high) == pytest.approx(tuple(np.percentile(inside, [0.5, 99.5])))
    assert (measured.mean, measured.std) == pytest.approx((inside.mean(), inside.std()))
    assert measured.voxels == inside.size


def test_statistics_need_a_tumour(tmp_path):
    cases = build(write_tree(tmp_path / "data", "free", tumour_free=("free",)), tmp_path).cases

    with pytest.raises(MissingInputError, match="none of the training cases holds a tumour"):
        tumour_statistics(cases, "pet")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_the_users_business(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)

    with pytest.raises(cache_module.OutputError, match="cannot write"):
        build(write_tree(tmp_path / "data", "a"), tmp_path)


def test_what_killed_runs_left_half_made_is_removed_after_a_day(tmp_path):
    root = write_tree(tmp_path / "data", "a")
    names = (f"b-{12 * '0'}.{32 * 'a'}.part", f"c-{12 * '1'}.{32 * 'b'}.part", "download.part")
    old, new, anothers = (tmp_path / "cache" / name for name in names)
    for part in (old, new, anothers):
        part.mkdir(parents=True)
        (part / "ct.npy").touch()
    os.utime(old, (0, 0))
    os.utime(anothers, (0, 0))
    build(root, tmp_path)
    assert not old.exists()
    assert new.exists()
    assert anothers.exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another shape"])
def test_a_damaged_organ_map_is_made_anew(tmp_path, damage):
    root = write_tree(tmp_path / "data", "a")
    write_image(root / "a/study/organs.nii.gz", np.full((24, 36, 40), 3, np.uint8))
    (case,) = build(root, tmp_path).cases
    file = case.folder / "organs.npy"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        np.save(file, np.zeros((2, 2, 2), np.uint8))
    assert build(root, tmp_path).cases == (case,)
    assert file.read_bytes() == whole


def test_no_option_is_advised_that_training_does_not_have(tmp_path):
    root = write_tree(tmp_path / "data", "a", "b")
    alter(root / "b/study/SUV.nii.gz", lambda values: values * 8000)
    (skipped,) = build(root, tmp_path).skipped
    assert "the PET must be in SUV" in skipped.reason
    assert "--no-checks" not in skipped.reason
