from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases, read_study
from algorithm.errors import InvalidImageError, MissingInputError, UsageError, UserError
from test.support.trees import alter, write_tree

LIMB = ("STS_002", "STS_008", "STS_019")


@pytest.fixture
def patients(real_data) -> list[Path]:
    """Folders of the study of three small real patients."""
    return [real_data / "sts" / name / "pet-ct" for name in LIMB]


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def autopet_tree(root: Path, patients: list[Path]) -> Path:
    for study in patients:
        for name in ("CTres", "SUV", "SEG"):
            copy(study / f"{name}.nii.gz", root / study.parent.name / study.name / f"{name}.nii.gz")
    return root


def nnunet_tree(root: Path, patients: list[Path]) -> Path:
    for number, study in enumerate(patients):
        name = f"fdg_{number // 2:010x}_01-31-2003-NA-PET-CT-0{number}"
        copy(study / "CTres.nii.gz", root / "imagesTr" / f"{name}_0000.nii.gz")
        copy(study / "SUV.nii.gz", root / "imagesTr" / f"{name}_0001.nii.gz")
        copy(study / "SEG.nii.gz", root / "labelsTr" / f"{name}.nii.gz")
    return root


def hecktor_tree(root: Path, patients: list[Path]) -> Path:
    """Real patients with the CT and the contours on a finer grid, half of each tumour called a node."""
    for number, study in enumerate(patients):
        name = f"CHUM-{number + 1:03}"
        pet = sitk.ReadImage(study / "SUV.nii.gz")
        fine = sitk.Image([2 * side for side in pet.GetSize()], sitk.sitkFloat32)
        fine.SetSpacing([step / 2 for step in pet.GetSpacing()])
        fine.SetDirection(pet.GetDirection())
        fine.SetOrigin(pet.TransformContinuousIndexToPhysicalPoint([-0.25] * 3))
        ct = sitk.Resample(sitk.ReadImage(study / "CTres.nii.gz"), fine, sitk.Transform(), sitk.sitkLinear, -1024)
        seg = sitk.Resample(sitk.ReadImage(study / "SEG.nii.gz"), fine, sitk.Transform(), sitk.sitkNearestNeighbor)
        labels = sitk.GetArrayFromImage(seg)
        labels[: labels.shape[0] // 2] *= 2
        node = sitk.GetImageFromArray(labels)
        node.CopyInformation(seg)
        (root / "imagesTr").mkdir(parents=True, exist_ok=True)
        (root / "labelsTr").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(ct, root / "imagesTr" / f"{name}__CT.nii.gz")
        sitk.WriteImage(pet, root / "imagesTr" / f"{name}__PT.nii.gz")
        sitk.WriteImage(node, root / "labelsTr" / f"{name}.nii.gz")
    return root


TREES = {"autopet": autopet_tree, "nnunet": nnunet_tree, "hecktor": hecktor_tree}


@pytest.mark.data
@pytest.mark.parametrize("layout", TREES)
def test_each_layout_gives_the_same_patients(tmp_path, patients, layout):
    found = find_cases(TREES[layout](tmp_path, patients))

    assert found.layout == layout
    assert found.skipped == ()
    assert len(found.cases) == 3
    for case, study in zip(found.cases, patients, strict=True):
        read = read_study(case)
        suv = sitk.ReadImage(study / "SUV.nii.gz")
        truth = sitk.GetArrayFromImage(sitk.ReadImage(study / "SEG.nii.gz"))
        assert read.ct.GetSize() == read.seg.GetSize() == read.pet.GetSize() == suv.GetSize()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read.pet), sitk.GetArrayFromImage(suv))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read.seg), truth)


@pytest.mark.data
def test_the_studies_of_an_autopet_iii_patient_belong_together(tmp_path, patients):
    found = find_cases(nnunet_tree(tmp_path, patients))

    assert [case.patient for case in found.cases] == ["fdg_0000000000", "fdg_0000000000", "fdg_0000000001"]


def touch(root: Path, *names: str) -> None:
    """Make empty .nii.gz files of these names."""
    for name in names:
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("names", [("{}_0000", "{}_0001"), ("{}__CT", "{}__PT")], ids=["nnunet", "hecktor"])
def test_files_that_macos_leaves_are_no_cases(tmp_path, names):
    for case in ("a", "._a"):
        touch(tmp_path, f"labelsTr/{case}", *(f"imagesTr/{name.format(case)}" for name in names))
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["a"]
    assert not found.skipped


def test_hecktor_files_of_one_name_are_named_not_chosen_from(tmp_path):
    for name in ("a", "b"):
        touch(tmp_path, f"imagesTr/{name}__CT", f"imagesTr/{name}__PT", f"labelsTr/{name}")
    touch(tmp_path, "runs/masks/a")

    found = find_cases(tmp_path)

    assert [case.name for case in found.cases] == ["b"]
    (skipped,) = found.skipped
    assert skipped.name == "a"
    assert skipped.reason == (
        "several files in one role, labelsTr/a.nii.gz and runs/masks/a.nii.gz; keep one of them, or give the "
        "folder of one"
    )


def test_hecktor_masks_beside_differently_named_labels_are_not_taken_for_them(tmp_path):
    touch(tmp_path, "imagesTr/a__CT", "imagesTr/a__PT", "labelsTr/a__GTV", "runs/masks/a")

    with pytest.raises(MissingInputError, match=r"runs/masks/a.nii.gz and labelsTr/a__GTV.nii.gz; keep one"):
        find_cases(tmp_path)


def test_an_incomplete_study_is_named_with_what_is_missing(tmp_path):
    write_tree(tmp_path, "a", "b")
    (tmp_path / "b/study/SEG.nii.gz").unlink()
    (tmp_path / "b/study/SUV.nii.gz").unlink()
    (tmp_path / "notes").mkdir()

    found = find_cases(tmp_path)

    assert [case.name for case in found.cases] == ["a_study"]
    assert [(each.name, each.reason) for each in found.skipped] == [("b_study", "no SUV.nii.gz, no SEG.nii.gz")]


def test_a_study_with_other_names_is_named_too(tmp_path):
    write_tree(tmp_path, "a", "b")
    for path in (tmp_path / "b/study").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))

    (skipped,) = find_cases(tmp_path).skipped

    assert (skipped.name, skipped.reason) == ("b_study", "no CTres.nii.gz, no SUV.nii.gz, no SEG.nii.gz")


def test_labels_without_images_are_named(tmp_path):
    (case,) = find_cases(write_tree(tmp_path / "autopet", "a")).cases
    for image, target in ((case.ct, "imagesTr/x_0000"), (case.pet, "imagesTr/x_0001"), (case.truth, "labelsTr/x")):
        copy(image, tmp_path / "raw" / f"{target}.nii.gz")
    copy(case.truth, tmp_path / "raw/labelsTr/y.nii.gz")

    found = find_cases(tmp_path / "raw")

    assert [case.name for case in found.cases] == ["x"]
    assert [(each.name, each.reason) for each in found.skipped] == [
        ("y", "no imagesTr/y_0000.nii.gz, no imagesTr/y_0001.nii.gz")
    ]


def test_every_label_is_tumour(tmp_path):
    (case,) = find_cases(write_tree(tmp_path, "a")).cases
    alter(case.truth, lambda values: values * 2)

    assert set(np.unique(sitk.GetArrayViewFromImage(read_study(case).seg))) == {0, 1}


def test_contours_that_are_fractions_are_refused(tmp_path):
    (case,) = find_cases(write_tree(tmp_path, "a")).cases
    alter(case.truth, lambda values: values.astype(np.float32) * 0.5)

    with pytest.raises(UserError, match="holds fractions, expected whole-numbered labels"):
        read_study(case)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda root: root / "absent", MissingInputError, "does not exist"),
        (lambda root: root, UsageError, "holds none of the layouts autopet"),
        (
            lambda root: (write_tree(root, "a") / "a/study/SEG.nii.gz").unlink() or root,
            MissingInputError,
            "no SEG.nii.gz",
        ),
    ],
)
def test_a_folder_without_cases_is_explained(tmp_path, make, error, message):
    with pytest.raises(error) as caught:
        find_cases(make(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize(("file", "what"), [("SUV", "PET"), ("CTres", "CT"), ("SEG", "SEG")])
def test_what_is_not_finite_is_no_study(tmp_path: Path, file: str, what: str) -> None:
    """ITK's reader of NIfTI would make it 0 without a word."""
    case = find_cases(write_tree(tmp_path, "a")).cases[0]

    def with_nan(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        values[12, 18, 20] = np.nan
        return values

    alter(tmp_path / f"a/study/{file}.nii.gz", with_nan)

    with pytest.raises(InvalidImageError, match=f"the {what} must be finite, got values from nan"):
        read_study(case)
