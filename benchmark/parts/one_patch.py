"""One forward pass of one window: the plain network against the product."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark import RELEASED_PATCH, history, process
from benchmark.parts.rows import Row, command
from benchmark.results import NOT_THERE, Section, short, spread, table
from benchmark.session import Session, times

HOW = """\
One forward pass of one window, batch 1: the plain network (`test/support/plain_network.py`, all five heads,
parameters of the checkpoint, under autocast where the precision is reduced) against the product (`H2ASeg.finest`
as `algorithm.inference.execution.place` puts it). Each has a process of its own; all of a table's rows for one
patch and device take turns, and after one pass to warm up {repetitions} of each are timed: median (smallest to
largest) in seconds. "Memory reused": the same plain network with `reuse_freed_memory()`, the product's
allocator setting, so that the allocator's share shows. Ratios are of medians. The difference is the largest of
the tumour probability from the plain network's in float32. On a GPU the plain network's float32 is torch's own,
which rounds the factors in convolutions to 10 bits where the GPU can; the product's is not rounded."""


@dataclass(frozen=True)
class _Measured:
    """One patch in one precision on one device.

    Attributes
    ----------
    precision : str
    plain, product : list of float
        Seconds.
    reused : list of float
        Of the plain network with memory reused; empty on a GPU.
    difference : float or None
        Of the product from the plain network in float32; None where that was not measured.
    """

    precision: str
    plain: list[float]
    reused: list[float]
    product: list[float]
    difference: float | None


def patch(session: Session) -> Section:
    """Time one forward pass of one window: the plain network twice, the product, in turn."""
    patches = patches_to_measure(session)
    rows = [row for sides in patches for device in session.devices for row in patch_rows(session, sides, device)]
    text = f"""
{HOW.format(repetitions=session.options.repetitions)}

{table(rows)}

{session.conditions(patches)}"""
    return Section("One patch", text)


def patches_to_measure(session: Session) -> list[Sequence[int]]:
    """Return the patch that was chosen, else the release's and the checkpoint's."""
    if session.options.patch:
        return [session.options.patch]
    return [RELEASED_PATCH, session.settings["default"]["patch"]]


def patch_rows(session: Session, sides: Sequence[int], device: str) -> list[Row]:
    """Measure one patch on one device in all precisions; add it to the history if that was asked for."""
    measured = _measure(session, sides, device, session.precisions(device))
    if session.options.record:
        figures = [history.figures(times(sides), device, each.precision, _best_plain(each), each.product)
                   for each in measured]  # fmt: skip
        history.append(session.options.history, session.processors, figures)
    return _rows(session, sides, device, measured)


def _measure(session: Session, sides: Sequence[int], device: str, precisions: Sequence[str]) -> list[_Measured]:
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
    reference = np.load(_probability(session, "plain", "float32")) if "float32" in precisions else None
    return [
        _Measured(
            precision,
            seconds["plain", False, precision],
            seconds.get(("plain", True, precision), []),
            seconds["product", device == "cpu", precision],
            None
            if reference is None
            else float(np.abs(reference - np.load(_probability(session, "product", precision))).max()),
        )
        for precision in precisions
    ]


def _rows(session: Session, sides: Sequence[int], device: str, measured: Sequence[_Measured]) -> list[Row]:
    precisions = [each.precision for each in measured]
    exact = next((statistics.median(each.plain) for each in measured if each.precision == "float32"), None)
    rows = []
    for each in measured:
        ours = statistics.median(each.product)
        row = {
            "patch": times(sides),
            "device": device,
            "precision": each.precision,
            "plain (s)": spread(each.plain),
            "plain, memory reused (s)": spread(each.reused) if each.reused else NOT_THERE,
            "product (s)": spread(each.product),
            "plain / product": short(statistics.median(each.plain) / ours),
            "plain, memory reused / product": short(statistics.median(each.reused) / ours)
            if each.reused
            else NOT_THERE,
            "plain float32 / product": NOT_THERE if exact is None else short(exact / ours),
            "difference": NOT_THERE if each.difference is None else f"{each.difference:.1e}",
            **session.floors(sides, device, each.precision),
            "command": command(session, "patch", patch=sides, device=device, precision=precisions),
        }
        rows.append(row)
    return rows


def _best_plain(measured: _Measured) -> list[float]:
    """Return the plain network's seconds with memory reused; as it is on a GPU, which that does not concern."""
    return measured.reused or measured.plain


def _probability(session: Session, kind: str, precision: str) -> Path:
    return session.folder / f"{kind}_{precision}.npy"
