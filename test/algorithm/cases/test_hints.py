"""A wrong folder ends in a sentence that says which one is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from algorithm.cases import find_cases, list_cases
from algorithm.errors import MissingInputError, UsageError, UserError
from test.support.data_sets import (
    write_autopet,
    write_autopet_iii,
    write_hecktor_2022,
    write_hecktor_2025,
    write_own,
)

Writer = Callable[[Path, Path, int], Path]


@pytest.mark.parametrize(
    ("write", "below", "layout", "cases", "patients"),
    [
        (write_autopet, "", "autopet", 4, 3),
        (write_autopet_iii, "", "nnunet", 8, 6),
        (write_hecktor_2022, "", "hecktor", 3, 3),
        (write_hecktor_2025, "Task 1", "hecktor", 3, 3),
        (write_own, "cases.csv", "csv", 3, 2),
    ],
)
def test_the_miniatures_are_what_they_are_called(
    tmp_path: Path, write: Writer, below: str, layout: str, cases: int, patients: int
) -> None:
    root = write(tmp_path / "set", tmp_path / "scratch", 3)
    found = find_cases(root / below)
    people = {case.patient for case in found.cases}
    assert (found.layout, len(found.cases), len(people)) == (layout, cases, patients)
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("data/set/imagesTr", "give the folder above it, {top}/data/set"),
        ("data/set/labelsTr", "give the folder above it, {top}/data/set"),
        ("data", "give {top}/data/set, which holds imagesTr"),
        (".", "give {top}/data/set, which holds imagesTr"),
    ],
)
def test_a_folder_of_the_wrong_level_names_the_right_one(tmp_path: Path, given: str, sentence: str) -> None:
    write_autopet_iii(tmp_path / "data/set", tmp_path / "scratch", 2)
    (tmp_path / "scratch").rename(tmp_path.with_name(f"{tmp_path.name}-scratch"))

    for look, error in ((find_cases, UsageError), (list_cases, MissingInputError)):
        with pytest.raises(error) as caught:
            look(tmp_path / given)
        assert sentence.format(top=tmp_path) in str(caught.value)


def test_images_in_another_format_belong_in_a_list(tmp_path: Path) -> None:
    write_own(tmp_path / "own", tmp_path / "scratch", 2)

    for look in (find_cases, list_cases):
        with pytest.raises(UserError, match=r"it holds 6 images in \.mha, .* name the images in a list of cases"):
            look(tmp_path / "own")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "psma-fdg-pet-ct-lesions_v2.zip").touch()

    with pytest.raises(UsageError, match=r"unpack psma-fdg-pet-ct-lesions_v2\.zip first"):
        find_cases(tmp_path)


def test_images_of_no_layout_are_told_what_the_layouts_want(tmp_path: Path) -> None:
    (tmp_path / "ct_1.nii.gz").touch()

    with pytest.raises(UsageError, match=r"hecktor: imagesTr/\*__CT\.nii\.gz.*or a list of cases"):
        find_cases(tmp_path)


def test_the_tasks_of_hecktor_2025_are_taken_one_at_a_time(tmp_path: Path) -> None:
    root = write_hecktor_2025(tmp_path / "hecktor2025_training", tmp_path / "scratch", 2)

    with pytest.raises(MissingInputError, match=r"1/CHUM-001/CHUM-001__CT.nii.gz and Task 2/.*the folder of one"):
        find_cases(root)
    with pytest.raises(MissingInputError, match=r"CHUM-001: no CHUM-001.nii.gz among the labels"):
        find_cases(root / "Task 2")


def test_labels_with_other_names_than_the_images_are_missed_by_name(tmp_path: Path) -> None:
    root = write_hecktor_2022(tmp_path / "set", tmp_path / "scratch", 1)
    (root / "labelsTr/CHUM-001.nii.gz").rename(root / "labelsTr/CHUM_001.nii.gz")

    with pytest.raises(MissingInputError, match=r"CHUM-001: no CHUM-001.nii.gz among the labels"):
        find_cases(root)
