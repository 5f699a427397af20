"""A small world in a folder, in which anything can be done wrong: a job, weights, scores, a bundle, a data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from algorithm.images import write_mask
from test.support.checkpoints import write_checkpoint
from test.support.phantom import CT_NAME, INPUT, PET_NAME
from test.support.phase import SLUG, job

MASK_FOLDER = "images/automated-petct-lesion-segmentation"
QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1")
SCORES = "case,subset,missing,dice\na,,0,0.5\nb,,0,0.7\n"


@dataclass(frozen=True)
class World:
    """The folder and what lies in it; ``out`` is where results go, and is looked at afterwards."""

    top: Path

    @property
    def out(self) -> Path:
        """Folder of the results; not there at first."""
        return self.top / "out"

    def __truediv__(self, name: str) -> Path:
        return self.top / name

    @property
    def mask(self) -> Path:
        """Where the job's mask goes."""
        return self.out / MASK_FOLDER / f"{CT_NAME}.mha"

    def run(self, *more: object, weights: object = None, time_limit: bool = False) -> list[str]:
        """Return the words of the job's command."""
        places = (
            "--input",
            self / "input",
            "--output",
            self.out,
            "--weights",
            weights or self / "weights/tiny.json",
        )
        return [str(each) for each in ("run", *places, *QUICK[: 6 if not time_limit else 4], *more)]

    def predict(self, *more: object) -> list[str]:
        """Return the words that segment the pair as files."""
        pair = (self / f"input/images/ct/{CT_NAME}.mha", self / f"input/images/pet/{PET_NAME}.mha")
        return [str(each) for each in ("predict", *pair, self.out, "--weights", self / "weights", *QUICK, *more)]

    def score(self, *more: object) -> list[str]:
        """Return the words that score the masks."""
        return [str(each) for each in ("score", "--prediction", self / "masks", "--truth", self / "truth", *more)]

    def container(self, *more: object) -> list[str]:
        """Return the words that score the phase."""
        places = ("--input", self / "phase", "--truth", self / "truth", "--output", self.out)
        return [str(each) for each in ("container", *places, *more)]

    def verify(self, *more: object) -> list[str]:
        """Return the words that verify the bundle."""
        return [str(each) for each in ("verify", self / "bundle", "--input", self / "data", *more)]

    def fit(self, *more: object) -> list[str]:
        """Return the words that train."""
        places = ("--cases", self / "data", "--cache", self / "cache", "--out", self.out)
        return [str(each) for each in ("fit", *places, "--device", "cpu", *more)]

    def synthesise(self, *more: object) -> list[str]:
        """Return the words that make a synthetic body."""
        return [str(each) for each in ("--anatomy", self / "anatomies", "--out", self.out, "--count", 1, *more)]

    def earlier_job(self) -> None:
        """Leave what an earlier job, of another patient, would have left."""
        write_mask(
            np.ones((4, 5, 6), np.uint8), sitk.Image([6, 5, 4], sitk.sitkFloat32), self.mask.with_name("x.mha")
        )
        (self.out / "data-centric-model.json").write_text("false\n")
        self.earlier_report(self.out / "report.json")

    def earlier_predict(self) -> None:
        """Leave what an earlier ``predict`` would have left."""
        write_mask(
            np.ones((4, 5, 6), np.uint8), sitk.Image([6, 5, 4], sitk.sitkFloat32), self.out / "tumour.nii.gz"
        )
        self.earlier_report(self.out / "report.json")

    def earlier_report(self, path: Path) -> None:
        """Leave a run report."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"software_version": "0.1.0", "stopped_because": "", "geometry": {}}, indent=2))

    def put(self, name: str, content: str | bytes) -> Path:
        """Write a file, with the folders that it needs."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def description(self, change: Callable[[dict[str, Any]], object] | str | bytes) -> list[str]:
        """Change the weights' description, or write another text; return the words that verify it."""
        path = self / "weights/tiny.json"
        if callable(change):
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        else:
            self.put("weights/tiny.json", change)
        return ["weights", "verify", str(path)]

    def manifest(self, change: Callable[[dict[str, Any]], object] | str) -> list[str]:
        """Write a bundle's manifest, changed or as a text; return the words that verify it."""
        digest = "0" * 64
        file = {"path": "a/SUV.nii.gz", "sha256": digest}
        settings = {"device": "cpu", "precision": "float32", "flips": 1, "overlap": None, "threads": 1}
        case = {"name": "a", "synthetic": False, "ct": file, "pet": file, "truth": None, "mask": "masks/a.mha"}
        content = {
            "format": 1,
            "code": {"version": "0", "commit": None, "uncommitted": None, "sha256": digest},
            "image": None,
            "system": {"python": "3", "platform": "x"},
            "device_class": "cpu",
            "settings": settings,
            "edition": "III",
            "weights": ["weights/tiny.json"],
            "cases": [{**case, "voxels_sha256": digest}],
            "files": {"weights/tiny.json": digest, "masks/a.mha": digest},
        }
        if callable(change):
            change(content)
        self.put("bundle/manifest.json", json.dumps(content) if callable(change) else change)
        return self.verify()

    def jobs(self, change: Callable[[list[Any]], object] | str) -> list[str]:
        """Write the phase's list of jobs, changed or as a text; return the words that score it."""
        content = [job("1a", "a")]
        if callable(change):
            change(content)
        self.put("phase/predictions.json", json.dumps(content) if callable(change) else change)
        return self.container()

    def left(self) -> set[str]:
        """Return what lies in the results' folder now."""
        found = self.out.rglob("*") if self.out.is_dir() else ()
        return {path.relative_to(self.out).as_posix() for path in found if not path.is_dir()}


def build_world(top: Path) -> None:
    """Make the world once; tests take copies."""
    shutil.copytree(INPUT, top / "input")
    write_checkpoint(top / "weights")
    cube = np.zeros((8, 9, 10), np.uint8)
    cube[2:5, 3:6, 4:7] = 1
    for name in ("a", "b"):
        for folder in ("masks", "truth"):
            _write(cube, top / folder / f"{name}.mha")
    _write(cube, top / f"phase/1a/output/images/{SLUG}/m.mha")
    for name in ("CTres", "SUV", "SEG"):
        _write(cube, top / f"data/a/{name}.nii.gz")
    _write(cube, top / "anatomies/fdg_x/organs.nii.gz")
    (top / "scores.csv").write_text(SCORES)
    (top / "scores2.csv").write_text(SCORES.replace("0.5", "0.6"))
    (top / "notes.txt").write_text("somebody's")


def _write(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=True)
