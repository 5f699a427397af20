"""What is fuzzed: each target hands bytes to the reader that a user's file would go through.

A target returns where the reader succeeds or ends in a :class:`UserError`; whatever else is raised is a find. What
a reader returns is looked at too: values that are finite, and the same at a second reading (memory that nobody
wrote differs).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.cases import find_cases, list_cases
from algorithm.description import read_description
from algorithm.errors import UserError
from algorithm.images import read_header, read_image
from algorithm.sockets import CLICKS_FILE, SOCKETS_FILE, find_job
from test.fuzz.mutators import Mutator, mutate_bytes, mutate_json, mutate_text

Read = Callable[[bytes, Path], None]

_VOXELS = bytes(range(64))  # of the detached data: 4 x 4 x 4 bytes
_GRID = (40, 40, 40)

LONGEST_SENTENCE = 1500
"""In characters, paths included: whatever the file holds, the message must not."""


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes
    ----------
    read : callable
        Takes the bytes and a folder of its own, which stays the same from call to call.
    mutate : Mutator
        Which changes lead deep into the format.
    """

    read: Read
    mutate: Mutator


def _image(suffix: str, detached: str = "", *, packed: bool = False) -> Read:
    def read(data: bytes, folder: Path) -> None:
        path = folder / f"image{suffix}"
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        if detached and not (folder / detached).exists():
            (folder / detached).write_bytes(_VOXELS)
        read_header(path)
        image = read_image(path, "PET")
        values = sitk.GetArrayFromImage(image)
        assert values.ndim == 3, f"{values.ndim} axes"
        assert values.dtype == np.float32, f"{values.dtype}"
        assert np.isfinite(values).all(), "values that are not finite"
        again = sitk.GetArrayFromImage(read_image(path, "PET"))
        assert np.array_equal(values, again), "two readings differ"

    return read


def _inputs_json(data: bytes, folder: Path) -> None:
    (_job_folder(folder) / SOCKETS_FILE).write_bytes(data)
    _find(folder)


def _clicks_json(data: bytes, folder: Path) -> None:
    (_job_folder(folder) / CLICKS_FILE).write_bytes(data)
    _find(folder)


def _find(folder: Path) -> None:
    job = find_job(folder / "input", folder / "output")
    for path in (job.ct, job.pet):
        assert path.resolve().is_relative_to((folder / "input").resolve()), f"{path} lies outside"
    assert job.mask.resolve().is_relative_to((folder / "output").resolve()), f"{job.mask} lies outside"
    inside = job.scribbles.within(_GRID)
    for points in (inside.tumour, inside.background):
        assert ((points >= 0) & (points < _GRID)).all(), "a scribble outside the image"


def _job_folder(folder: Path) -> Path:
    made = folder / "input"
    if not made.exists():
        for socket in ("ct", "pet"):
            (made / "images" / socket).mkdir(parents=True)
            (made / "images" / socket / "scan.mha").write_bytes(b"never opened")
    return made


def _predictions_json(data: bytes, folder: Path) -> None:
    from evaluation.container import find_pairs, read_jobs, summarise_jobs

    truth = folder / "truth"
    if not truth.exists():
        truth.mkdir()
        mask = folder / "jobs" / "pk-1" / "output" / "images" / "tumor-lesion-segmentation" / "mask.mha"
        mask.parent.mkdir(parents=True)
        for path in (mask, truth / "case.mha"):
            path.write_bytes(b"never opened")
    (folder / "jobs" / "predictions.json").write_bytes(data)
    jobs = read_jobs(folder / "jobs")
    for job in jobs:
        assert job.mask is None or job.mask.resolve().is_relative_to((folder / "jobs").resolve())
    summarise_jobs(jobs, "V")
    find_pairs(jobs, truth)


def _description(data: bytes, folder: Path) -> None:
    path = folder / "checkpoint.json"
    path.write_bytes(data)
    description = read_description(path)
    path.write_text(description.to_json(), encoding="utf-8")
    assert read_description(path) == description, "what is read is not what is written"


def _manifest(data: bytes, folder: Path) -> None:
    from evaluation.handover.manifest import read_manifest

    (folder / "manifest.json").write_bytes(data)
    read_manifest(folder)


def _case_list(data: bytes, folder: Path) -> None:
    for name in ("ct.nii.gz", "pet.nii.gz", "truth.nii.gz"):
        (folder / name).touch()
    path = folder / "cases.csv"
    path.write_bytes(data)
    for case in list_cases(path):
        assert "/" not in case.name, "a case that cannot name a file"
    find_cases(path)


def _dicom(data: bytes, folder: Path) -> None:
    """Put the bytes in place of one slice of a study's PET; the other slices and the CT are as they should be."""
    from algorithm.dicom.study import read_study

    study = folder / "study"
    if not study.exists():
        write_tiny_study(study)
    (study / "pet" / FUZZED_SLICE).write_bytes(data)
    read = read_study(study)
    assert np.isfinite(sitk.GetArrayViewFromImage(read.pet)).all(), "SUV that are not finite"


FUZZED_SLICE = "IM0002.dcm"


def write_tiny_study(folder: Path) -> None:
    """Write a synthetic study of 4 slices of CT and PET."""
    from test.support.dicom import Maker

    rng = np.random.default_rng(0)
    maker = Maker()
    maker.ct(folder / "ct", rng.integers(-1000, 200, (4, 6, 8)).astype(np.int16))
    maker.pet(folder / "pet", rng.integers(0, 9000, (4, 6, 8)).astype(np.int16))


TARGETS: dict[str, Target] = {
    "mha": Target(_image(".mha"), mutate_text),
    "mhd": Target(_image(".mhd", "voxels.raw"), mutate_text),
    "nrrd": Target(_image(".nrrd"), mutate_text),
    "nhdr": Target(_image(".nhdr", "voxels.raw"), mutate_text),
    "nii": Target(_image(".nii"), mutate_bytes),
    "nii-gz": Target(_image(".nii.gz", packed=True), mutate_bytes),
    "inputs": Target(_inputs_json, mutate_json),
    "clicks": Target(_clicks_json, mutate_json),
    "predictions": Target(_predictions_json, mutate_json),
    "description": Target(_description, mutate_json),
    "manifest": Target(_manifest, mutate_json),
    "cases": Target(_case_list, mutate_text),
    "dicom": Target(_dicom, mutate_bytes),
}


def try_once(target: Target, data: bytes, folder: Path) -> bool:
    """Hand bytes to a target; return whether its reader succeeded, raise what is a find."""
    try:
        target.read(data, folder)
    except UserError as error:
        sentence = " ".join(str(error).split())  # as the command line prints it
        assert 0 < len(sentence) <= LONGEST_SENTENCE, f"no sentence to read: {sentence!r}"
        return False
    return True
