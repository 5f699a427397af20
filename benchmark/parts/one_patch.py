"""One forward pass of one window: the plain network against the product."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmark import process
from benchmark.parts.rows import RELEASED_PATCH, Row, command
from benchmark.results import NOT_THERE, Section, short, spread, table
from benchmark.session import Session, times


def patch(session: Session) -> Section:
    """Time one forward pass of one window: the plain network twice, the product, in turn."""
    patches = (
        [session.options.patch]
        if session.options.patch
        else [RELEASED_PATCH, session.settings["default"]["patch"]]
    )
    rows = [
        row
        for sides in patches
        for device in session.devices
        for row in _patch_rows(session, sides, device, session.precisions(device))
    ]
    text = f"""
One forward pass of one window, batch 1: the plain network (`test/support/plain_network.py`, all five heads,
parameters of the checkpoint, under autocast where the precision is reduced) against the product (`H2ASeg.finest`
as `predictor.place` puts it). Each has a process of its own; all of a table's rows for one patch and device take
turns, and after one pass to warm up {session.options.repetitions} of each are timed: median (smallest to
largest) in seconds. "Memory reused": the same plain network with `reuse_freed_memory()`, the product's
allocator setting, so that the allocator's share shows. Ratios are of medians. The difference is the largest of
the tumour probability from the plain network's in float32.

{table(rows)}

{session.conditions(patches)}"""
    return Section("One patch", text)


def _patch_rows(session: Session, sides: Sequence[int], device: str, precisions: Sequence[str]) -> list[Row]:
    contestants = [("plain", False), *([("plain", True)] if device == "cpu" else []), ("product", device == "cpu")]
    seconds: dict[tuple[str, bool, str], list[float]] = {}
    with ExitStack() as stack:
        children = {
            (kind, reuse, precision): stack.enter_context(
                process.Child(
                    "forward:forward",
                    kind=kind,
                    weights=session.options.weights,
                    patch=sides,
                    precision=precision,
                    device=device,
                    reuse=reuse,
                    save=str(_probability(session, kind, precision)),
                )
            ).wait_until_ready()
            for precision in precisions
            for kind, reuse in contestants
        }
        for _ in range(session.options.repetitions):
            for key, child in children.items():
                seconds.setdefault(key, []).append(child.measure()["seconds"])
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    reference = _probability(session, "plain", "float32") if "float32" in precisions else None
    rows = []
    for precision in precisions:
        ours = medians["product", device == "cpu", precision]
        reused = ("plain", True, precision)
        row = {
            "patch": times(sides),
            "device": device,
            "precision": precision,
            "plain (s)": spread(seconds["plain", False, precision]),
            "plain, memory reused (s)": spread(seconds[reused]) if reused in seconds else NOT_THERE,
            "product (s)": spread(seconds["product", device == "cpu", precision]),
            "plain / product": short(medians["plain", False, precision] / ours),
            "plain, memory reused / product": short(medians[reused] / ours) if reused in medians else NOT_THERE,
            "plain float32 / product": NOT_THERE,
            "difference": NOT_THERE,
            **session.floors(sides, device, precision),
            "command": command(session, "patch", patch=sides, device=device, precision=precisions),
        }
        if reference is not None:
            row["plain float32 / product"] = short(medians["plain", False, "float32"] / ours)
            difference = np.abs(np.load(reference) - np.load(_probability(session, "product", precision))).max()
            row["difference"] = f"{difference:.1e}"
        rows.append(row)
    return rows


def _probability(session: Session, kind: str, precision: str) -> Path:
    return session.folder / f"{kind}_{precision}.npy"
