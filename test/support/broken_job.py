"""The entry point of a deliberately broken image: does a job with one fault: ``python broken_job.py FAULT``.

It runs inside the image, so it needs nothing but what that has. The mask is the PET above SUV 4.
"""

from __future__ import annotations

import sys
from pathlib import Path

import SimpleITK as sitk

SOCKET = Path("/output/images/automated-petct-lesion-segmentation")
EXTRA = Path("/output/data-centric-model.json")


def main(fault: str) -> None:
    """Write a mask of the wrong geometry, of other labels, or twice."""
    ct = next(Path("/input/images/ct").glob("*.mha"))
    pet = sitk.ReadImage(str(next(Path("/input/images/pet").glob("*.mha"))))
    mask = sitk.Cast(pet > 4, sitk.sitkUInt8)
    if fault == "geometry":
        mask = sitk.GetImageFromArray(sitk.GetArrayFromImage(mask))  # the classic: no CopyInformation
    if fault == "labels":
        mask = mask * 255
    SOCKET.mkdir(parents=True)
    for name in ("first.mha", "second.mha") if fault == "two" else (ct.name,):
        sitk.WriteImage(mask, str(SOCKET / name))
    EXTRA.write_text("false")


if __name__ == "__main__":
    main(sys.argv[1])
