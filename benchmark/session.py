"""What the parts share: the options, the body and checkpoints on disk, peaks and counted work, each found once."""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algorithm.errors import UsageError
from benchmark import process
from benchmark.process import ROOT, Answer
from benchmark.results import short

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_REDUCED = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "float16", "bfloat16")}
_GROWING_PARTS = (4, 2, 1)  # a quarter of the body, half of it, all


class Session:
    """One run of the benchmarks.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``python -m benchmark``.
    folder : Path
        For body, checkpoints and masks; empty.

    Raises
    ------
    UsageError
        No device has one of the precisions asked for.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.machine = process.measure_once("machine:describe")
        self.gpu: bool = self.machine.pop("cuda")
        self.threads: int = self.machine.pop("threads")
        self.devices = ["cpu", "cuda"] if self.gpu else ["cpu"]
        if options.device:
            self.devices = [device for device in self.devices if device == options.device]
        able = [device for device in self.devices if self.precisions(device)]
        if self.devices and not able:
            known = ", ".join(_REDUCED[self.devices[0]])
            raise UsageError(
                f"--precision {' '.join(options.precision)} is none of {known}, which {self.devices[0]} computes "
                "in; choose one of them"
            )
        self.devices = able

    @property
    def cases(self) -> str | None:
        """Where real pairs lie: as chosen, else beside the checkout, else nowhere."""
        chosen: str | None = self.options.cases
        return chosen or find_data("sts")

    @property
    def processors(self) -> dict[str, str]:
        """What computes, as the history names it."""
        return {
            "cpu": self.machine["CPU"],
            "gpu": self.machine["GPU"] if self.gpu else "",
            "instruction_sets": self.machine["instruction sets"].replace(",", ""),
            "threads": str(self.threads),
        }

    def precisions(self, device: str) -> Sequence[str]:
        """Return the types to compute in on a device, float32 first."""
        allowed = _REDUCED[device]
        return [each for each in allowed if each in self.options.precision] if self.options.precision else allowed

    @functools.cached_property
    def settings(self) -> dict[str, Answer]:
        """The answer of :func:`benchmark.case.write_checkpoints`; writes them at first use."""
        return process.measure_once(
            "case:write_checkpoints", folder=str(self.folder), weights=self.options.weights
        )

    @functools.cached_property
    def body(self) -> Answer:
        """The answer of :func:`benchmark.case.write_body`; writes the body at first use."""
        return process.measure_once(
            "case:write_body",
            folder=str(self.folder),
            size=self.options.size,
            spacing=self.options.spacing,
            anatomies=self.options.anatomies or find_data("anatomy"),
            parts=_GROWING_PARTS,
        )

    def files(self, setting: str, part: int = 1) -> dict[str, Any]:
        """Return the paths of a checkpoint, the CT and the PET."""
        assert self.settings
        assert self.body
        return {
            "weights": str(self.folder / setting / f"{setting}.json"),
            "ct": str(self.folder / f"ct_{part}.mha"),
            "pet": str(self.folder / f"pet_{part}.mha"),
        }

    def floors(self, patch: Sequence[int], device: str, precision: str, windows: int = 1) -> dict[str, str]:
        """Return both floors in seconds of so many windows, as the last columns of a row."""
        flop, elements = self.work(tuple(patch))
        flop_per_s, byte_per_s = self.peaks(device, precision)
        return {
            "arithmetic floor (s)": short(windows * flop / flop_per_s),
            "bytes floor (s)": short(windows * elements * _BYTES[precision] / byte_per_s),
        }

    @functools.cache  # noqa: B019 -- one session per process
    def work(self, patch: tuple[int, ...]) -> tuple[int, int]:
        """Return FLOP and elements of one window."""
        answer = process.measure_once("floors:work", weights=self.options.weights, patch=patch)
        return answer["flop"], answer["elements"]

    @functools.cache  # noqa: B019
    def peaks(self, device: str, precision: str) -> tuple[float, float]:
        """Return FLOP/s and byte/s."""
        answer = process.measure_once("machine:peaks", device=device, precision=precision)
        return answer["flop_per_s"], answer["byte_per_s"]

    def conditions(self, patches: Sequence[Sequence[int]]) -> str:
        """Return when and under which load something is measured, and what its floors were computed from."""
        load = Path("/proc/loadavg")
        busy = f", load average {load.read_text().split()[0]} at the end" if load.is_file() else ""
        lines = [f"Measured {time.strftime('%Y-%m-%d %H:%M %Z')}{busy}."]
        for device in self.devices:
            for precision in self.precisions(device):
                flop_per_s, byte_per_s = self.peaks(device, precision)
                lines.append(
                    f"{device} {precision}: {flop_per_s / 1e9:,.0f} GFLOP/s in arithmetic, "
                    f"{byte_per_s / 1e9:,.1f} GB/s in copies."
                )
        if "cuda" not in self.devices:
            lines.append(f"GPU rows not measured ({'no GPU here' if not self.gpu else '--device cpu'}).")
        for patch in patches:
            flop, elements = self.work(tuple(patch))
            lines.append(
                f"One window of {times(patch)}: {flop / 1e9:.1f} GFLOP, "
                f"{elements / 1e6:.0f} million elements moved."
            )
        return "\n".join(f"* {line}" for line in lines)


def find_data(name: str) -> str | None:
    """Return a folder of the data that H2ASEG_DATA names or the checkout's neighbour holds, if it is there."""
    named = os.environ.get("H2ASEG_DATA")
    folder = (Path(named) if named else ROOT.parent / "shared" / "data") / name
    return str(folder) if folder.is_dir() else None


def times(sides: Sequence[int]) -> str:
    """Return sides as 128x128x64."""
    return "x".join(map(str, sides))
