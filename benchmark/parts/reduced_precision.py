"""How far masks of a reduced precision agree with those of float32."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

from algorithm.cases import list_cases
from algorithm.errors import UsageError
from benchmark import process
from benchmark.parts.rows import body_text, command, patches_of
from benchmark.results import Section, table
from benchmark.session import Session


def agreement(session: Session) -> Section:
    """Compare masks of reduced precision with those of float32: on cases of the user's, and on the body.

    Raises
    ------
    UsageError
        No reduced precision is asked for.
    """
    reduced = {
        device: [each for each in session.precisions(device) if each != "float32"] for device in session.devices
    }
    if not any(reduced.values()):
        raise UsageError(
            "agreement compares other precisions with float32, got --precision float32; name one of them"
        )
    chosen = session.cases
    files = session.files("default")
    groups = {"the body": [("body", files["ct"], files["pet"])]}
    if chosen is not None:
        listed = list_cases(Path(chosen))
        patients = [(case.name, str(case.ct), str(case.pet)) for case in listed]
        groups = {f"{len(patients)} in {Path(chosen).name}": patients, **groups}
    flips = session.options.flips
    rows = []
    for device, (group, cases) in itertools.product(session.devices, groups.items()):
        answer = process.measure_once(
            "agreement:agreement",
            weights=files["weights"],
            cases=cases,
            precisions=reduced[device],
            device=device,
            flips=flips,
        )
        for precision, dice in answer.items():
            worst = min(dice, key=lambda name: dice[name])
            rows.append(
                {
                    "cases": group,
                    "device": device,
                    "precision": precision,
                    "flips": str(flips),
                    "mean": f"{statistics.fmean(dice.values()):.4f}",
                    "median": f"{statistics.median(dice.values()):.4f}",
                    "least": f"{dice[worst]:.4f} ({worst})",
                    "below 0.995": str(sum(value < 0.995 for value in dice.values())),
                    "command": command(session, "agreement", device=device, precision=[precision]),
                }
            )
    text = f"""
{body_text(session)}

Dice of the product's mask in a reduced precision with its mask in float32, both with the box.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("Agreement of reduced precision", text)
