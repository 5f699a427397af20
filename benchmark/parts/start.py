"""A fresh process up to the end of its first window."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmark.parts.rows import body_text, command, patches_of
from benchmark.process import ROOT, ChildError
from benchmark.results import Section, spread, table
from benchmark.session import Session


def startup(session: Session) -> Section:
    """Time a fresh process up to the end of its first window."""
    rows = []
    for setting in session.options.setting:
        for device in session.devices:
            for precision in session.precisions(device):
                runs = [_start(session, setting, device, precision) for _ in range(session.options.repetitions)]
                rows.append(
                    {
                        "setting": setting,
                        "device": device,
                        "precision": precision,
                        "imports done (s)": spread([run["imports"] for run in runs]),
                        "first window begins (s)": spread([run["inputs"] for run in runs]),
                        "first window done (s)": spread([run["first_window"] for run in runs]),
                        **session.floors(session.settings[setting]["patch"], device, precision),
                        "command": command(
                            session, "startup", setting=[setting], device=device, precision=[precision]
                        ),
                    }
                )
    text = f"""
{body_text(session)}

`python -m algorithm predict` on that body, cut short after its first window (the first batch of windows on a
GPU). Seconds since the kernel started the process, median (smallest to largest) of
fresh processes (repetitions: {session.options.repetitions}): imports; weights checked, pair read, resampled and
normalised; first window. The floors are those of one window, so the rest is what starting costs.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("Start to first window", text)


def _start(session: Session, setting: str, device: str, precision: str) -> dict[str, float]:
    files, result = session.files(setting), session.folder / "first_window.json"
    result.unlink(missing_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmark.first_window", str(result)),
            *(files["ct"], files["pet"], str(session.folder / "out"), "--weights", files["weights"]),
            *("--device", device, "--precision", precision),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if not result.is_file():
        raise ChildError("the process that was to reach its first window did not; what it said stands above")
    seconds: dict[str, float] = json.loads(result.read_text())
    return seconds
