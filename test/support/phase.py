"""Three jobs of an evaluation phase as grand-challenge gives them to its evaluation container.

``python -m test.support.phase TRUTH FOLDER`` makes the masks of three jobs out of one truth: the truth itself, the
truth moved by two voxels along x, and an empty mask. It writes ``FOLDER/input`` (``predictions.json`` and the
jobs' folders), ``FOLDER/ground_truth``, and in ``FOLDER/masks`` the same masks by case, for ``evaluation score``.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SLUG = "tumor-lesion-segmentation"
SHIFT_VOXELS = 2


def job(pk: str, name: str, slug: str = SLUG, status: str = "Succeeded") -> dict[str, Any]:
    """Return one entry of ``predictions.json`` as the platform wrote it until December 2025."""

    def socket(slug: str, image: str) -> dict[str, Any]:
        interface = {"slug": slug, "kind": "Image", "super_kind": "Image", "relative_path": f"images/{slug}"}
        return {"file": None, "value": None, "image": {"name": image}, "interface": interface}

    clicks: dict[str, Any] = {
        "file": None,
        "value": {"points": []},
        "image": None,
        "interface": {"slug": "lesion-clicks", "super_kind": "File", "relative_path": "lesion-clicks.json"},
    }
    inputs = [clicks, socket("ct", f"{name}_0000.nii.gz"), socket("pet", f"{name}_0001.nii.gz")]
    return {"pk": pk, "status": status, "inputs": inputs, "outputs": [socket(slug, "mask.mha")]}


def variations(truth: sitk.Image) -> dict[str, sitk.Image]:
    """Return a mask per case; the jobs come in this order, which is not that of the names."""
    shifted = sitk.GetImageFromArray(np.roll(sitk.GetArrayViewFromImage(truth), SHIFT_VOXELS, axis=2))
    shifted.CopyInformation(truth)
    return {"psma_empty": truth * 0, "fdg_shifted": shifted, "fdg_perfect": truth}


def write_phase(truth_path: Path, folder: Path) -> None:
    """Write the jobs, the truths and the masks by case; see the module."""
    truth = sitk.ReadImage(str(truth_path))
    jobs: list[dict[str, Any]] = []
    for case, mask in variations(truth).items():
        pk, image_name = (str(uuid.uuid5(uuid.NAMESPACE_OID, f"{what} of {case}")) for what in ("job", "mask"))
        _write(mask, folder / f"input/{pk}/output/images/{SLUG}/{image_name}.mha")
        _write(mask, folder / f"masks/{case}.mha")
        _write(truth, folder / f"ground_truth/{case}.mha")
        jobs.append({**job(pk, case), "invoke_duration": f"P0DT00H00M{10 * (len(jobs) + 1)}S"})
    (folder / "input/predictions.json").write_text(json.dumps(jobs, indent=2))


def _write(image: sitk.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_phase(Path(sys.argv[1]), Path(sys.argv[2]))
