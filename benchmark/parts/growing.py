"""The product's cost as the volume, the flips and the checkpoints grow."""

from __future__ import annotations

from benchmark import process
from benchmark.parts.rows import Row, body_text, command, patches_of
from benchmark.results import Section, gib, short, table
from benchmark.session import Session, times


def growth(session: Session) -> Section:
    """Measure the product's cost as the volume, the flips and the checkpoints grow, one at a time."""
    rows: list[Row] = []
    for setting in session.options.setting:
        for device in session.devices:
            for precision in session.precisions(device)[:2][-1:]:  # what the product chooses by itself
                rows += _growth_rows(session, setting, device, precision)
    text = f"""
{body_text(session)}

The product with its box, each row a fresh process; against the whole body with one flip and one checkpoint, one
thing grows at a time. Flips along axes that the weights never mirrored are no passes. An ensemble is the same
checkpoint several times. The reduced precision stands for the other.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("As things grow", text)


def _growth_rows(session: Session, setting: str, device: str, precision: str) -> list[Row]:
    cases = dict.fromkeys(
        [
            (1, 1, 1),
            *((int(part), 1, 1) for part in session.body["sizes"]),
            *((1, flips, 1) for flips in session.options.growing_flips),
            *((1, 1, checkpoints) for checkpoints in session.options.growing_checkpoints),
        ]
    )
    rows, first = [], None
    for part, flips, checkpoints in cases:
        answer = process.measure_once(
            "segmentation:product",
            **session.files(setting, part),
            flips=flips,
            precision=precision,
            device=device,
            box=True,
            save=str(session.folder / "mask.npy"),
            checkpoints=checkpoints,
        )
        first = first or answer
        rows.append(
            {
                "setting": setting,
                "device": device,
                "precision": precision,
                "volume": times(session.body["sizes"][str(part)]),
                "flips": str(flips),
                "passes": str(answer["passes"]),
                "checkpoints": str(checkpoints),
                "windows": str(answer["windows"]),
                "passes (s)": short(answer["predict_s"]),
                "end to end (s)": short(answer["seconds"]),
                "passes / first row": short(answer["predict_s"] / first["predict_s"]),
                "end to end / first row": short(answer["seconds"] / first["seconds"]),
                "host peak (GiB)": gib(answer["host_mib"]),
                "device peak (GiB)": gib(answer["device_mib"]),
                **session.floors(
                    session.settings[setting]["patch"],
                    device,
                    precision,
                    answer["windows"] * answer["passes"],
                ),
                "command": command(session, "growth", setting=[setting], device=device, precision=[precision]),
            }
        )
    return rows
