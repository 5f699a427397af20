"""The rows of the tables that a GPU is measured by; on a CPU the same, as far as it has what they need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmark import process
from benchmark.parts.clock import Clock
from benchmark.parts.one_patch import patch_rows, patches_to_measure
from benchmark.parts.rows import Row, own_precision
from benchmark.process import Answer
from benchmark.results import NOT_THERE, gib, short
from benchmark.session import Session, times

SETTINGS = ("default", "released")
NO_CAP = "not capped: a CPU"

_MONAI_WINDOWS = 16  # computed, the others extrapolated
_BATCHES = {"default": (1, 2, 4, 8, 16, 32, 64), "released": (1, 2, 4, 8, 16)}  # windows at a time
_BATCHES_OF_A_CPU = 2  # of these, the first: the rest would be memory for nothing
_CAPS = (0.75, 0.5, 0.25, 0.1)  # shares of the device memory that is taken without a cap
_TUNING_S = 30.0

Case = tuple[str, str, str]
"""Name, CT, PET."""


@dataclass
class Tables:
    """Measures what the tables hold, row by row, within the clock's time.

    Attributes
    ----------
    session : Session
    device : str
        ``cuda`` or ``cpu``.
    clock : Clock
    pairs : sequence of Case
        To compare masks on, besides the body.
    """

    session: Session
    device: str
    clock: Clock
    pairs: Sequence[Case]
    _choices: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What the product chooses by itself on this device."""
        return own_precision(self.session, self.device)

    def best(self) -> list[Row]:
        """Measure what the device does at its best."""
        rows = []
        for precision in self.session.precisions(self.device):
            row = {"precision": precision}
            found = self.clock.tried(partial(self.session.peaks, self.device, precision))
            if isinstance(found, str):
                row["arithmetic (GFLOP/s)"] = found
            else:
                row["arithmetic (GFLOP/s)"], row["copies (GB/s)"] = (f"{each / 1e9:,.0f}" for each in found)
            rows.append(row)
        return rows

    def patches(self) -> list[Row]:
        """Measure one window, as the part ``patch`` does."""
        rows: list[Row] = []
        for sides in patches_to_measure(self.session):
            found = self.clock.tried(partial(patch_rows, self.session, sides, self.device))
            if isinstance(found, str):
                found = [{"patch": times(sides), "device": self.device, "precision": "all", "plain (s)": found}]
            rows += found
        return rows

    def bodies(self) -> list[Row]:
        """Segment a whole body: the product in its own precision, MONAI, the product in float32."""
        chosen, answers = self.precision, dict[tuple[object, ...], Answer]()
        ways = [
            *((setting, chosen, flips, False) for setting in SETTINGS for flips in (1, 8)),
            *((setting, chosen, 1, True) for setting in SETTINGS),
            *(
                (setting, "float32", flips, False)
                for setting in SETTINGS
                for flips in (1, 8)
                if chosen != "float32"
            ),
        ]
        rows = []
        for setting, precision, flips, monai in ways:
            row = {
                "setting": setting,
                "precision": precision,
                "flips": str(flips),
                "method": "MONAI, plain" if monai else "product",
            }
            found = self.clock.tried(partial(self._segmented, setting, precision, flips, monai))
            if isinstance(found, str):
                rows.append({**row, "passes (s)": found})
                continue
            answers[setting, precision, flips, monai] = found
            product = answers.get((setting, precision, flips, False))
            slower = found["seconds"] / product["seconds"] if monai and product else None
            rows.append({**row, **_body_figures(found, slower), **found["floors"]})
        return rows

    def _segmented(self, setting: str, precision: str, flips: int, monai: bool) -> Answer:
        how: dict[str, Any] = {"flips": flips, "precision": precision, "device": self.device, "box": True}
        files = {**self.session.files(setting), "save": str(self.session.folder / "mask.npy")}
        if monai:
            answer = process.measure_once("monai_segmentation:monai", only=_MONAI_WINDOWS, **files, **how)
        else:
            answer = process.measure_once("segmentation:product", **files, **how)
        patch = self.session.settings[setting]["patch"]
        windows = answer["windows"] * answer["passes"]
        return {**answer, "floors": self.session.floors(patch, self.device, precision, windows)}

    def ladder(self) -> list[Row]:
        """Measure memory and speed of ever more windows at a time, until the device does not hold them."""
        return self._by_setting(self._climb, "windows at a time", "s/window")

    def _climb(self, setting: str, rows: list[Row]) -> str:
        batches = _BATCHES[setting] if self.device == "cuda" else _BATCHES[setting][:_BATCHES_OF_A_CPU]
        for batch, answer in self._answers(
            "device_memory:ladder", batches, weights=self.session.files(setting)["weights"], batches=batches
        ):
            held = answer["batch"] == batch
            rows.append(
                {
                    "setting": setting,
                    "windows at a time": str(batch),
                    "s/window": short(answer["window_s"]),
                    "peak in use (GiB)": gib(answer["used_mib"]),
                    "peak taken (GiB)": gib(answer["taken_mib"]),
                    "held": "yes" if held else f"no, {answer['batch']} at a time instead",
                }
            )
            if not held:
                break
        return ""

    def capped(self) -> list[Row]:
        """Segment the body with ever less device memory."""
        return self._by_setting(self._squeeze, "cap (GiB)", "passes (s)")

    def _squeeze(self, setting: str, rows: list[Row]) -> str:
        shares: list[float | None] = [None, *(_CAPS if self.device == "cuda" else ())]
        task = {**self.session.files(setting), "shares": shares}
        for share, answer in self._answers("device_memory:capped", shares, **task):
            cap = NO_CAP if self.device == "cpu" else "none"
            row = {"setting": setting, "cap (GiB)": cap if share is None else gib(answer["cap_mib"])}
            if "refused" in answer:
                rows.append({**row, "passes (s)": f"refused: {answer['refused']}"})
                continue
            row["taken (GiB)"] = gib(answer["taken_mib"])
            row["passes (s)"] = short(answer["predict_s"])
            row |= _against_first(answer)
            steps = [note.rpartition("; ")[2] for note in answer["notes"] if "device" in note]
            rows.append({**row, "steps taken": "; ".join(steps) or NOT_THERE})
        return ""

    def agreement(self) -> list[Row]:
        """Compare masks with those of the CPU in float32: of the body, then of pairs."""
        files, precisions = self.session.files("default"), self.session.precisions(self.device)
        rows = []
        for case in [("the body", files["ct"], files["pet"]), *self.pairs]:
            found = self.clock.tried(
                partial(
                    process.measure_once,
                    "agreement:agreement",
                    weights=files["weights"],
                    cases=[case],
                    precisions=precisions,
                    device=self.device,
                    flips=1,
                    reference="cpu",
                )
            )
            if isinstance(found, str):
                rows.append({"case": case[0], precisions[0]: found})
            else:
                rows.append({"case": case[0], **{each: f"{found[each][case[0]]:.4f}" for each in precisions}})
        return rows

    def tuning(self) -> list[Row]:
        """Tune as a server does, and list what was tried."""
        rows = []
        for setting in SETTINGS:
            seconds = min(_TUNING_S, max(0.0, self.clock.left_s / 2))
            task = partial(process.measure_once, "tuned:trials", device=self.device, seconds=seconds)
            found = self.clock.tried(partial(task, weights=self.session.files(setting)["weights"]))
            if isinstance(found, str):
                rows.append({"setting": setting, "way": NOT_THERE, "s/window": found})
                continue
            self._choices[setting] = found["choice"]
            rows += [{"setting": setting, **_trial_figures(trial)} for trial in found["trials"]]
            if not found["complete"]:
                rows.append({"setting": setting, "way": "further", "s/window": f"not within {seconds:.0f} s"})
        return rows

    def switches(self) -> list[Row]:
        """Segment the body as tuned, with and without what a GPU alone has; call it after :meth:`tuning`."""
        return self._by_setting(self._switched, "CUDA graph", "passes (s)")

    def _switched(self, setting: str, rows: list[Row]) -> str:
        both = [
            {"cuda_graph": graph, "cudnn_benchmark": benchmark}
            for graph, benchmark in itertools.product((False, True), repeat=2)
        ]
        ways = both if self.device == "cuda" else both[:1]  # a CPU has neither
        task = {**self.session.files(setting), "tuning": self._choices.get(setting), "switches": ways}
        for way, answer in self._answers("tuned:ways", ways, **task):
            row = {
                "setting": setting,
                "CUDA graph": "on" if way["cuda_graph"] else "off",
                "cuDNN's benchmark": "on" if way["cudnn_benchmark"] else "off",
            }
            if "failed" in answer:
                rows.append({**row, "passes (s)": f"failed: {answer['failed']}"})
            else:
                rows.append({**row, "passes (s)": short(answer["predict_s"]), **_against_first(answer)})
        return ""

    def _by_setting(self, measure: Callable[[str, list[Row]], str], step: str, seconds: str) -> list[Row]:
        """Return the rows that a setting's measurement adds as it goes; of those that are lost a row says why.

        Parameters
        ----------
        measure : callable
            Takes a setting and the rows; returns nothing worth saying, an empty string.
        step, seconds : str
            Columns in which a lost row says ``further``, and why.
        """
        rows: list[Row] = []
        for setting in SETTINGS:
            lost = self.clock.tried(partial(measure, setting, rows))
            if lost:
                rows.append({"setting": setting, step: "further", seconds: lost})
        return rows

    def _answers(self, task: str, steps: Iterable[Any], **arguments: Any) -> Iterable[tuple[Any, Answer]]:
        """Yield each step with the answer to it, all by one process."""
        with process.Child(task, device=self.device, precision=self.precision, **arguments) as child:
            child.wait_until_ready()
            for step in steps:
                yield step, child.measure()


def _body_figures(answer: Answer, slower: float | None) -> Row:
    windows = answer["windows"] * answer["passes"]
    computed = answer.get("computed", windows)
    return {
        "windows x flips": f"{answer['windows']} x {answer['passes']}",
        "computed": "all" if computed == windows else f"{computed}, the others extrapolated",
        "passes (s)": short(answer["predict_s"]),
        "end to end (s)": short(answer["seconds"]),
        "times the product": NOT_THERE if slower is None else short(slower),
        "host peak (GiB)": gib(answer["host_mib"]),
        "device peak (GiB)": gib(answer["device_mib"]),
    }


def _against_first(answer: Answer) -> Row:
    return {"Dice with the first": f"{answer['dice']:.4f}", "voxels that differ": str(answer["differing"])}


def _trial_figures(trial: Answer) -> Row:
    return {
        "way": trial["way"],
        "s/window": NOT_THERE if trial["seconds"] is None else short(trial["seconds"]),
        "difference": NOT_THERE if trial["difference"] is None else f"{trial['difference']:.1e}",
        "verdict": trial["verdict"] + (", chosen" if trial["chosen"] else ""),
    }
