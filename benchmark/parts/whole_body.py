"""A whole body from files to mask: MONAI over the plain network against the product."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import process
from benchmark.parts.rows import Row, body_text, command, patches_of
from benchmark.process import Answer
from benchmark.results import NOT_THERE, Section, gib, short, table
from benchmark.session import Session
from evaluation.scoring.metrics import dice_of


def body(session: Session) -> Section:
    """Segment a whole body by MONAI over the plain network and by the product, with the same windows and flips."""
    flips = f"{session.options.flips} {'flip' if session.options.flips == 1 else 'flips'}"
    rows: list[Row] = []
    for setting in session.options.setting:
        for device in session.devices:
            rows += _body_rows(session, setting, device)
    text = f"""
{body_text(session)}

From files to mask, {flips} (the identity is one). MONAI:
`sliding_window_inference` (Gaussian importance, the same overlap, batch 1 on a CPU and 8 on a GPU) over the
plain network, glibc's own allocator; reading, preparing and the mask are the product's, so that only the passes
differ. Product: `algorithm.job.Segmenter`. Both average the same windows mirrored in place. Every row is a fresh
process. "Box": windows cover the patient alone, the air is skipped. Host memory is the process's peak, program
included, and the same without the pair's two float32 arrays. "Faster": end to end, against MONAI's row of the
same box and precision, and against MONAI over the whole volume in float32. The Dice is that of the mask with
the product's in float32 with the same box.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section(f"Whole body: {', '.join(session.options.setting)}, {flips}", text)


@dataclass(frozen=True)
class _Way:
    """One row's way of segmenting the body."""

    monai: bool
    precision: str
    box: bool


def _body_rows(session: Session, setting: str, device: str) -> list[Row]:
    precisions = session.precisions(device)
    ways = [
        _Way(monai, each, box) for each, box, monai in itertools.product(precisions, (False, True), (True, False))
    ]
    answers = {way: _segment(session, setting, device, way) for way in ways}
    rows = []
    for way, answer in answers.items():
        windows = answer["windows"] * answer["passes"]
        complete = answer.get("computed", windows) == windows
        method = "MONAI, plain" if way.monai else "product"
        same, first = _Way(True, way.precision, way.box), _Way(True, "float32", False)
        reference = _mask(session, _Way(False, "float32", way.box))
        rows.append(
            {
                "setting": setting,
                "device": device,
                "precision": way.precision,
                "box": "on" if way.box else "off",
                "method": method if complete else f"{method}, extrapolated from {answer['computed']} windows",
                "windows x flips": f"{answer['windows']} x {answer['passes']}",
                "passes (s)": short(answer["predict_s"]),
                "end to end (s)": short(answer["seconds"]),
                "faster": NOT_THERE if way.monai else _ratio(answers[same], answer),
                "faster than float32, box off": NOT_THERE if way.monai else _ratio(answers.get(first), answer),
                "host peak (GiB)": gib(answer["host_mib"]),
                "above the inputs (GiB)": gib(answer["above_inputs_mib"]),
                "device peak (GiB)": gib(answer["device_mib"]),
                "Dice": f"{dice_of(np.load(reference), np.load(_mask(session, way))):.4f}"
                if complete and "float32" in precisions
                else NOT_THERE,
                **session.floors(session.settings[setting]["patch"], device, way.precision, windows),
                "command": command(
                    session,
                    "body",
                    setting=[setting],
                    device=device,
                    precision=precisions,
                    flips=session.options.flips,
                ),
            }
        )
    return rows


def _segment(session: Session, setting: str, device: str, way: _Way) -> Answer:
    return process.measure_once(
        "monai_segmentation:monai" if way.monai else "segmentation:product",
        **session.files(setting),
        flips=session.options.flips,
        precision=way.precision,
        device=device,
        box=way.box,
        save=str(_mask(session, way)),
        **({"only": session.options.windows} if way.monai else {}),
    )


def _mask(session: Session, way: _Way) -> Path:
    return session.folder / f"mask_{'monai' if way.monai else 'product'}_{way.precision}_{way.box}.npy"


def _ratio(slow: Answer | None, fast: Answer) -> str:
    return NOT_THERE if slow is None else short(slow["seconds"] / fast["seconds"])
