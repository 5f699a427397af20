"""Less time than the body needs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.images import same_geometry
from algorithm.outputs import MASK_NAME
from benchmark.parts.rows import Row, body_text, command, patches_of
from benchmark.process import ROOT, ChildError
from benchmark.results import NOT_THERE, Section, short, table
from benchmark.session import Session


def deadline(session: Session) -> Section:
    """Give the product less time than the body needs."""
    limit = session.options.time_limit
    rows = [
        _deadline_row(session, setting, device, precision, limit)
        for setting in session.options.setting
        for device in session.devices
        for precision in session.precisions(device)
    ]
    text = f"""
{body_text(session)}

`python -m algorithm predict --time-limit {limit:g}` on that body; seconds from outside, from starting the process
to its end. "Valid": the mask has the PET's geometry, is uint8 and holds nothing but 0 and 1.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("Against the clock", text)


def _deadline_row(session: Session, setting: str, device: str, precision: str, limit: float) -> Row:
    files, out = session.files(setting), session.folder / "deadline"
    report = out / "report.json"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "algorithm", "predict", files["ct"], files["pet"], str(out)),
            *("--weights", files["weights"], "--device", device, "--precision", precision),
            *("--time-limit", str(limit), "--report", str(report)),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - began
    if not report.is_file():
        raise ChildError(f"predict --time-limit {limit:g} ended with exit code {ended.returncode} and no report")
    done = json.loads(report.read_text())
    return {
        "setting": setting,
        "device": device,
        "precision": precision,
        "time limit (s)": f"{limit:g}",
        "took (s)": short(seconds),
        "exit code": str(ended.returncode),
        "valid": "yes" if _valid(out / MASK_NAME, Path(files["pet"])) else "no",
        "passes": f"{done['passes']} of {done['passes_planned']}",
        "stopped because": done["stopped_because"],
        "otherwise than asked": "; ".join(done["notes"]) or NOT_THERE,
        "command": command(session, "deadline", setting=[setting], device=device, precision=[precision]),
    }


def _valid(mask: Path, pet: Path) -> bool:
    found, wanted = sitk.ReadImage(str(mask)), sitk.ReadImage(str(pet))
    values = set(np.unique(sitk.GetArrayViewFromImage(found)).tolist())
    return same_geometry(found, wanted) and found.GetPixelID() == sitk.sitkUInt8 and values <= {0, 1}
