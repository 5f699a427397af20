"""Writes the corpus' seeds, the same every time: ``python -m test.fuzz.seeds``.

Beside the seeds lies what fuzzing found, under the name of the fault; a find stays for good, as a test.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from test.fuzz.targets import FUZZED_SLICE, write_tiny_study
from test.support.checkpoints import describe

CORPUS = Path(__file__).resolve().parent / "corpus"

_JOB = {"pk": "pk-1", "status": "Succeeded", "exec_duration": "PT12.5S"}


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and bytes of every seed."""
    yield from _images()
    yield from _documents()
    yield from _tables()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_study(Path(folder))
        yield "dicom", "slice", (Path(folder) / "pet" / FUZZED_SLICE).read_bytes()


def _images() -> Iterator[tuple[str, str, bytes]]:
    values = np.arange(64, dtype=np.float32).reshape(4, 4, 4) / 7
    for pixel in (np.float32, np.int16, np.uint8):
        image = sitk.GetImageFromArray(values.astype(pixel))
        image.SetSpacing((2.0, 3.0, 4.0))
        image.SetOrigin((-10.0, 20.5, 3.0))
        image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
        name = np.dtype(pixel).name
        for suffix in ("mha", "nrrd", "nii"):
            for packed in (False, True):
                data = _written(image, f".{suffix}", packed=packed)
                if suffix != "nii":
                    yield suffix, f"{name}{'_packed' if packed else ''}", data
                elif not packed:
                    yield "nii", name, data
                    yield "nii-gz", name, data
    grid = b"DimSize = 4 4 4\nElementSpacing = 2 3 4\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    yield (
        "mhd",
        "uint8",
        (
            b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            + grid
            + b"ElementType = MET_UCHAR\nElementDataFile = voxels.raw\n"
        ),
    )
    yield (
        "nhdr",
        "uint8",
        (
            b"NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
            b"space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (0,0,0)\nencoding: raw\n"
            b"data file: voxels.raw\n"
        ),
    )


def _written(image: sitk.Image, suffix: str, *, packed: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{suffix}"
        sitk.WriteImage(image, str(path), useCompression=packed)
        return path.read_bytes()


def _documents() -> Iterator[tuple[str, str, bytes]]:
    image = {"name": "case.mha"}
    for name, key in (("today", "socket"), ("before", "interface")):
        ct = {key: {"slug": "ct", "relative_path": "images/ct", "is_image_kind": True}, "image": image}
        pet = {key: {"slug": "pet", "relative_path": "images/pet", "super_kind": "Image"}, "image": image}
        mask_folder = "images/tumor-lesion-segmentation"
        mask = {key: {"slug": "tumor-lesion-segmentation", "relative_path": mask_folder, "is_image_kind": True}}
        clicks = {key: {"slug": "lesion-clicks", "relative_path": "lesion-clicks.json"}, "value": {"points": []}}
        yield "inputs", name, json.dumps([ct, pet]).encode()
        yield "inputs", f"{name}_clicks", json.dumps([ct, pet, clicks]).encode()
        yield "predictions", name, json.dumps([{**_JOB, "inputs": [ct, pet], "outputs": [mask]}]).encode()
    points = [{"point": [1, 2, 3], "name": "tumor"}, {"point": [9, 9, 99], "name": "background"}]
    yield (
        "clicks",
        "platform",
        json.dumps({"version": {"major": 1, "minor": 0}, "type": "Multiple points", "points": points}).encode(),
    )
    yield "clicks", "organisers", b'{"tumor": [[1, 2, 3], [4, 5, 6]], "background": [[7, 8, 9]]}'
    yield "clicks", "empty", b"{}"
    yield "description", "tiny", describe().to_json().encode()
    yield "manifest", "one_case", json.dumps(_manifest()).encode()


def _manifest() -> dict[str, object]:
    sha = "0" * 64
    case = {
        "name": "a",
        "synthetic": True,
        "ct": {"path": "ct.mha", "sha256": sha},
        "pet": {"path": "p.mha", "sha256": sha},
        "truth": None,
        "mask": "masks/a.mha",
        "voxels_sha256": sha,
    }
    settings = {"device": "cpu", "precision": "float32", "flips": 8, "overlap": None, "threads": 2}
    return {
        "format": 1,
        "code": {"version": "0.1.0", "commit": None, "uncommitted": None, "sha256": sha},
        "image": None,
        "system": {"python": "3.11", "platform": "Linux"},
        "device_class": "cpu",
        "settings": settings,
        "edition": "III",
        "weights": ["weights/a.json"],
        "cases": [case],
        "files": {"weights/a.json": sha, "masks/a.mha": sha},
    }


def _tables() -> Iterator[tuple[str, str, bytes]]:
    head = b"case,ct,pet,truth,patient,tracer,synthetic\n"
    yield "cases", "two", head + b"a,ct.nii.gz,pet.nii.gz,truth.nii.gz,p1,fdg,yes\nb,ct.nii.gz,pet.nii.gz,,,,\n"
    yield "cases", "quoted", b'\xef\xbb\xbfcase,ct,pet,truth\r\n"a, b",ct.nii.gz,pet.nii.gz,truth.nii.gz\r\n'


def main() -> int:
    """Write them all."""
    for target, name, data in seeds():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        (CORPUS / target / f"seed_{name}").write_bytes(data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
