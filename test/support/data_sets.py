"""Miniatures of the public data sets: their folders and names, each patient a synthetic cylinder with a hot ball.

Folders and names are those of the data sets' own pages, which ``docs/train.md`` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import SimpleITK as sitk

from algorithm.cases import patient_of
from test.support.trees import write_tree

_AUTOPET_STUDY = "{date}-NA-PET-CT Ganzkoerper  primaer mit KM-{number:05}"
_FINER = 2.0


def write_autopet(root: Path, scratch: Path, patients: int = 5) -> Path:
    """Write ``root/PETCT_HASH/STUDY/{CT,CTres,PET,SEG,SUV}.nii.gz`` and the list beside them.

    The first patient came twice, the third has no tumour.
    """
    names = [*(f"{number:010x}" for number in range(patients)), "again"]
    plain = write_tree(scratch / "autopet", *names, tumour_free=(names[2],))
    for number, name in enumerate(names):
        patient = names[0] if name == "again" else name
        date = f"01-{1 + number:02}-2003"
        study = root / f"PETCT_{patient}" / _AUTOPET_STUDY.format(date=date, number=number)
        study.parent.mkdir(parents=True, exist_ok=True)
        (plain / name / "study").rename(study)
        for image in ("CT", "PET"):  # in HU on its own grid, and in counts: neither is trained on
            (study / f"{image}.nii.gz").write_bytes(b"not read")
    (root / "fdg_metadata.csv").write_text("Subject ID,Study UID,diagnosis\n", encoding="utf-8")
    return root


def write_autopet_iii(root: Path, scratch: Path, patients: int = 5) -> Path:
    """Write ``root/{imagesTr,labelsTr}`` with as many patients of each tracer, and five folds by patient.

    The first patient of each tracer came twice.
    """
    hashes = [f"{number + (1 << 36):010x}" for number in range(patients)]
    names = []
    for tracer, study in (("fdg", "01-{:02}-2003-NA-PET-CT_Ganzkoerper_nativ-20368"), ("psma", "2018-04-{:02}")):
        names += [f"{tracer}_{name}_{study.format(at + 1)}" for at, name in enumerate([*hashes, hashes[0]])]
    plain = write_tree(scratch / "autopet_iii", *names)
    for name in names:
        for file, target in (("CTres", "imagesTr/{}_0000"), ("SUV", "imagesTr/{}_0001"), ("SEG", "labelsTr/{}")):
            _move(plain / name / "study" / f"{file}.nii.gz", root / f"{target.format(name)}.nii.gz")
    folds = [
        {
            "train": [each for each in names if patient_of(each).rpartition("_")[2] != held],
            "val": [each for each in names if patient_of(each).rpartition("_")[2] == held],
        }
        for held in hashes
    ]
    (root / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    labels = {"background": 0, "tumor": 1}
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return root


def write_hecktor_2022(root: Path, scratch: Path, patients: int = 5) -> Path:
    """Write ``root/{imagesTr,labelsTr}``: CT and labels finer than the PET, 1 the tumour and 2 the nodes."""
    for name, study in _head_and_neck(scratch / "hecktor_2022", patients):
        _move(study / "CTres.nii.gz", root / "imagesTr" / f"{name}__CT.nii.gz")
        _move(study / "SUV.nii.gz", root / "imagesTr" / f"{name}__PT.nii.gz")
        _move(study / "SEG.nii.gz", root / "labelsTr" / f"{name}.nii.gz")
    (root / "hecktor2022_clinical_info_training.csv").write_text("PatientID\n", encoding="utf-8")
    return root


def write_hecktor_2025(root: Path, scratch: Path, patients: int = 5) -> Path:
    """Write ``root/{Task 1,Task 2}/PATIENT``, with labels for the first task alone."""
    for name, study in _head_and_neck(scratch / "hecktor_2025", patients):
        segmentation, prognosis = root / "Task 1" / name, root / "Task 2" / name
        prognosis.mkdir(parents=True)
        for modality, file in (("CT", "CTres"), ("PT", "SUV")):
            content = (study / f"{file}.nii.gz").read_bytes()
            (prognosis / f"{name}__{modality}.nii.gz").write_bytes(content)
            _move(study / f"{file}.nii.gz", segmentation / f"{name}__{modality}.nii.gz")
        (prognosis / f"{name}__CTPlanning.nii.gz").write_bytes(b"not read")
        _move(study / "SEG.nii.gz", segmentation / f"{name}.nii.gz")
    (root / "Task 1" / "HECKTOR_2025_Training_Task_1.csv").write_text("PatientID\n", encoding="utf-8")
    return root


def write_own(root: Path, scratch: Path, patients: int = 5) -> Path:
    """Write images in MetaImage under names of nobody's layout, and ``root/cases.csv``."""
    names = [f"p{number}" for number in range(patients)]
    plain = write_tree(scratch / "own", *names)
    rows = ["case,ct,pet,truth,patient"]
    for number, name in enumerate(names):
        for file in ("CTres", "SUV", "SEG"):
            image = sitk.ReadImage(plain / name / "study" / f"{file}.nii.gz")
            for key in image.GetMetaDataKeys():  # NIfTI's, which MetaImage has no place for
                image.EraseMetaData(key)
            (root / file.lower()).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, root / file.lower() / f"{name}.mha")
        rows.append(f"{name},ctres/{name}.mha,suv/{name}.mha,seg/{name}.mha,patient {number // 2}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def _head_and_neck(scratch: Path, patients: int) -> Iterable[tuple[str, Path]]:
    names = [f"CHUM-{number + 1:03}" for number in range(patients)]
    for name in names:
        study = write_tree(scratch / name, name) / name / "study"
        for file, how in (("CTres", sitk.sitkLinear), ("SEG", sitk.sitkNearestNeighbor)):
            path = study / f"{file}.nii.gz"
            image = _finer(sitk.ReadImage(path), how)
            if file == "SEG":
                node = sitk.Image(image.GetSize(), image.GetPixelID()) + 1
                node.CopyInformation(image)
                middle = image.GetSize()[2] // 2
                node[:, :, middle:] = 2
                image = image * node
            sitk.WriteImage(image, path)
        yield name, study


def _finer(image: sitk.Image, how: int) -> sitk.Image:
    """Return an image on a grid of half the spacing that begins half a voxel earlier."""
    grid = sitk.Image([int(_FINER * side) for side in image.GetSize()], image.GetPixelID())
    grid.SetSpacing([step / _FINER for step in image.GetSpacing()])
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([-0.25] * 3))
    return sitk.Resample(image, grid, sitk.Transform(), how, -1000.0 if how == sitk.sitkLinear else 0.0)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
