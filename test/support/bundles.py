"""Bundles to hand over, verify and forge; the inference is a threshold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.description import read_description
from algorithm.files import sha256_of
from algorithm.images import read_image
from algorithm.inference.augmentation import flip_order
from algorithm.lesions import measure_burden
from algorithm.report import Geometry
from evaluation.handover.bundle import (
    BundleSettings,
    SegmentedCase,
    voxels_sha256,
)
from evaluation.handover.manifest import read_manifest

SETTINGS = BundleSettings(device="cpu", precision="float32", flips=8, overlap=None, threads=1)


def threshold(ct: Path, pet: Path, checkpoints: list[Path], settings: BundleSettings) -> SegmentedCase:
    """Stands in for the network: everything above SUV 2 is tumour."""
    assert all(path.with_suffix(".safetensors").is_file() for path in checkpoints)
    assert ct.is_file()
    image = read_image(pet, "PET")
    mask = (sitk.GetArrayFromImage(image) > 2).astype(np.uint8)
    burden = measure_burden(mask, image)
    weights = [read_description(path) for path in checkpoints]
    passes = sum(len(flip_order(settings.flips, each.flip_dimensions)) for each in weights)
    report = {
        "device": settings.device,
        "precision": settings.precision,
        "passes": passes,
        "passes_planned": passes,
        "error": None,
        "geometry": dataclasses.asdict(Geometry.of(image)),
        "weights": [{"name": each.name, "sha256": each.sha256} for each in weights],
        "lesions": [dataclasses.asdict(each) for each in burden.lesions],
        "totals": dataclasses.asdict(burden.totals),
        "total_volume_ml": burden.totals.mtv_ml,
    }
    return SegmentedCase(mask, report)


def one_voxel_off(ct: Path, pet: Path, checkpoints: list[Path], settings: BundleSettings) -> SegmentedCase:
    found = threshold(ct, pet, checkpoints, settings)
    found.mask[0, 0, 0] ^= 1
    return found


def rewrite(bundle: Path, **changes: Any) -> None:
    """Forge the manifest: new fields, and hashes that fit whatever lies in the bundle now."""
    manifest = dataclasses.replace(read_manifest(bundle), **changes)
    cases = tuple(
        dataclasses.replace(case, voxels_sha256=voxels_sha256(sitk.ReadImage(str(bundle / case.mask))))
        for case in manifest.cases
    )
    files = {path: sha256_of(bundle / path) for path in manifest.files}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, cases=cases, files=files).to_json())


def flip_a_voxel(mask: Path) -> None:
    image = sitk.ReadImage(str(mask))
    image[3, 2, 1] = 1 - image[3, 2, 1]
    sitk.WriteImage(image, str(mask), useCompression=True)


def forge_reports(bundle: Path, inputs: Path) -> None:
    """Let the run reports say what the masks in the bundle say now."""
    for case in read_manifest(bundle).cases:
        report = bundle / f"reports/{case.name}.json"
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(bundle / case.mask)))
        burden = measure_burden(mask, read_image(inputs / case.pet.path, "PET"))
        content = json.loads(report.read_text())
        content["lesions"] = [dataclasses.asdict(each) for each in burden.lesions]
        content["totals"] = dataclasses.asdict(burden.totals)
        content["total_volume_ml"] = burden.totals.mtv_ml
        report.write_text(json.dumps(content))


def verdict(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def forge(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
