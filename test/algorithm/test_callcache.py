"""What decides whether a case was seen before: all its voxels, wherever they are stored."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.callcache import key_of
from algorithm.cohort import record
from algorithm.formats.volume import files_of


def image(folder: Path, name: str, value: float) -> Path:
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 5, 6), value, np.float32)), str(folder / name))
    return folder / name


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nhdr", "a.nrrd", "a.nii.gz", "a.hdr"])
def test_other_voxels_have_another_key(tmp_path: Path, name: str) -> None:
    one, same, other = (image(tmp_path / each, name, value) for each, value in (("1", 1), ("2", 1), ("3", 2)))
    assert key_of([one]) == key_of([same]) != key_of([other])


def test_a_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    one, other = (image(tmp_path / each, "a.mha", value).parent for each, value in (("1", 1), ("2", 2)))
    assert key_of([one]) != key_of([other])
    assert key_of([one], 1) != key_of([one], 2)


def test_a_folder_counts_with_files_behind_links(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name, value in (("1", 1), ("2", 2)):
        os.utime(image(tmp_path / name, "a.mha", value), (value, value))
    (folder / "series").symlink_to(tmp_path / "1")
    one = (key_of([folder]), record.key_of([folder]))
    (folder / "series").unlink()
    (folder / "series").symlink_to(tmp_path / "2")
    assert files_of(folder) == [folder / "series" / "a.mha"]
    assert all(before != now for before, now in zip(one, (key_of([folder]), record.key_of([folder])), strict=True))


@pytest.mark.parametrize("voxels", ["a.raw", "a.zraw"])
def test_a_cohort_sees_that_the_voxels_changed(tmp_path: Path, voxels: str) -> None:
    header = tmp_path / "images" / "a.mhd"
    header.parent.mkdir()
    picture = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
    sitk.WriteImage(picture, str(header), useCompression=voxels == "a.zraw")
    before = record.key_of([header])
    assert record.key_of([header]) == before
    os.utime(header.parent / voxels, ns=(1, 1))
    assert record.key_of([header]) != before
