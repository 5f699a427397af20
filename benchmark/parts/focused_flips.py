"""Flips where they matter alone, against flips over all windows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from algorithm.cases import list_cases
from benchmark import process
from benchmark.parts.rows import Row, body_text, command, own_precision, patches_of
from benchmark.process import Answer
from benchmark.results import Section, short, table
from benchmark.session import Session


def flips(session: Session) -> Section:
    """Segment bodies without flips, with flips where they can change the mask, and with flips over all windows."""
    parts = [
        part for device in session.devices for part in _measured(session, device, own_precision(session, device))
    ]
    measured = "\n\n".join(parts)
    text = f"""
{body_text(session)}

{session.options.flips} flips, the identity included. Windows: of the first pass, and of each further flip where it
can change the mask (`flip_windows` of the run report); seconds: of the passes alone. Dice and
lesions: of the mask by focused flips, and of that without flips, with the mask by flips over all windows
(`--everywhere`); a lesion is found where the two share a voxel.

{measured}

{session.conditions(patches_of(session))}"""
    return Section("Flips where they matter", text)


def _measured(session: Session, device: str, precision: str) -> list[str]:
    """Return the table of one device, and what its rows come to."""
    bodies = _bodies(session)
    answers = [
        process.measure_once(
            "focused:focused",
            weights=session.files("default")["weights"],
            ct=ct,
            pet=pet,
            device=device,
            precision=precision,
            flips=session.options.flips,
        )
        for _, ct, pet in bodies
    ]
    rows = [
        {
            "body": name,
            "device": device,
            "precision": precision,
            **_row(answer),
            "command": command(session, "flips", device=device, precision=[precision]),
        }
        for (name, _, _), answer in zip(bodies, answers, strict=True)
    ]
    return [table(rows), _summary(answers)]


def _bodies(session: Session) -> list[tuple[str, str, str]]:
    """Return the bodies by name, CT and PET: those of the user's tree, else the one of all parts."""
    if session.options.bodies is None:
        files = session.files("default")
        return [("the body", files["ct"], files["pet"])]
    return [(case.name, str(case.ct), str(case.pet)) for case in list_cases(Path(session.options.bodies))]


def _row(answer: Answer) -> Row:
    return {
        "windows": str(answer["windows"]),
        "of each flip": str(answer["flip_windows"]),
        "share": f"{_share(answer):.0%}",
        **{f"{name} (s)": short(seconds) for name, seconds in answer["seconds"].items()},
        "Dice": f"{answer['dice']:.4f}",
        "Dice without flips": f"{answer['identity_dice']:.4f}",
        "lesions found": f"{answer['found']} of {answer['lesions']}",
        "lesions beside them": str(answer["extra"]),
    }


def _share(answer: Answer) -> float:
    share: float = answer["flip_windows"] / answer["windows"]
    return share


def _summary(answers: Sequence[Answer]) -> str:
    dice = [answer["dice"] for answer in answers]
    times = statistics.median(answer["seconds"]["focused"] / answer["seconds"]["identity"] for answer in answers)
    return (
        f"Median share of windows {statistics.median(map(_share, answers)):.0%}; median time of focused flips "
        f"{times:.1f} times the identity's; Dice mean {statistics.fmean(dice):.4f}, least {min(dice):.4f}."
    )
