"""The parts of the benchmark: each measures and returns a section of the results."""

from __future__ import annotations

import itertools
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from algorithm.commands import MASK_NAME
from algorithm.images import same_geometry
from benchmark.agreement import dice_of
from benchmark.process import ROOT, Answer, Child, ChildError, measure_once
from benchmark.results import NOT_THERE, Section, gib, short, spread, table
from benchmark.session import Session, find_data, times
from evaluation.cases import list_cases

Row = dict[str, str]

RELEASED_PATCH = (128, 128, 64)


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
                Child(
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
            "command": _command(session, "patch", patch=sides, device=device, precision=precisions),
        }
        if reference is not None:
            row["plain float32 / product"] = short(medians["plain", False, "float32"] / ours)
            difference = np.abs(np.load(reference) - np.load(_probability(session, "product", precision))).max()
            row["difference"] = f"{difference:.1e}"
        rows.append(row)
    return rows


def _probability(session: Session, kind: str, precision: str) -> Path:
    return session.folder / f"{kind}_{precision}.npy"


def body(session: Session) -> Section:
    """Segment a whole body by MONAI over the plain network and by the product, with the same windows and flips."""
    flips = f"{session.options.flips} {'flip' if session.options.flips == 1 else 'flips'}"
    rows: list[Row] = []
    for setting in session.options.setting:
        for device in session.devices:
            rows += _body_rows(session, setting, device)
    text = f"""
{_case_text(session)}

From files to mask, {flips} (the identity is one). MONAI:
`sliding_window_inference` (Gaussian importance, the same overlap, batch 1 on a CPU and 8 on a GPU) over the
plain network, glibc's own allocator; reading, preparing and the mask are the product's, so that only the passes
differ. Product: `algorithm.job.Segmenter`. Both average the same windows mirrored in place. Every row is a fresh
process. "Box": windows cover the patient alone, the air is skipped. Host memory is the process's peak, program
included, and the same without the pair's two float32 arrays. "Faster": end to end, against MONAI's row of the
same box and precision, and against MONAI over the whole volume in float32. The Dice is that of the mask with
the product's in float32 with the same box.

{table(rows)}

{session.conditions(_patches(session))}"""
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
                "command": _command(
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
    return measure_once(
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
                        "command": _command(
                            session, "startup", setting=[setting], device=device, precision=[precision]
                        ),
                    }
                )
    text = f"""
{_case_text(session)}

`python -m algorithm predict` on that body, cut short after its first window (the first batch of windows on a
GPU). Seconds since the kernel started the process, median (smallest to largest) of
fresh processes (repetitions: {session.options.repetitions}): imports; weights checked, pair read, resampled and
normalised; first window. The floors are those of one window, so the rest is what starting costs.

{table(rows)}

{session.conditions(_patches(session))}"""
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


def growth(session: Session) -> Section:
    """Measure the product's cost as the volume, the flips and the checkpoints grow, one at a time."""
    rows: list[Row] = []
    for setting in session.options.setting:
        for device in session.devices:
            for precision in session.precisions(device)[:2][-1:]:  # what the product chooses by itself
                rows += _growth_rows(session, setting, device, precision)
    text = f"""
{_case_text(session)}

The product with its box, each row a fresh process; against the whole body with one flip and one checkpoint, one
thing grows at a time. An ensemble is the same checkpoint several times. The reduced precision stands for the
other.

{table(rows)}

{session.conditions(_patches(session))}"""
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
        answer = measure_once(
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
                "command": _command(session, "growth", setting=[setting], device=device, precision=[precision]),
            }
        )
    return rows


def agreement(session: Session) -> Section:
    """Compare masks of reduced precision with those of float32: on cases of the user's, and on the body."""
    chosen = session.options.cases
    groups = {"the body": [("body", *(session.files("default")[name] for name in ("ct", "pet")))]}
    if chosen is not None:
        listed = list_cases(Path(chosen))
        patients = [(case.name, str(case.ct), str(case.pet)) for case in listed]
        groups = {f"{len(patients)} in {Path(chosen).name}": patients, **groups}
    flips = session.options.flips
    rows = []
    for device, (group, cases) in itertools.product(session.devices, groups.items()):
        answer = measure_once(
            "agreement:agreement",
            weights=session.files("default")["weights"],
            cases=cases,
            precisions=[each for each in session.precisions(device) if each != "float32"],
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
                    "command": _command(session, "agreement", device=device, precision=[precision]),
                }
            )
    text = f"""
{_case_text(session)}

Dice of the product's mask in a reduced precision with its mask in float32, both with the box.

{table(rows)}

{session.conditions(_patches(session))}"""
    return Section("Agreement of reduced precision", text)


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
{_case_text(session)}

`python -m algorithm predict --time-limit {limit:g}` on that body; seconds from outside, from starting the process
to its end. "Valid": the mask has the PET's geometry, is uint8 and holds nothing but 0 and 1.

{table(rows)}

{session.conditions(_patches(session))}"""
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
        "command": _command(session, "deadline", setting=[setting], device=device, precision=[precision]),
    }


def _valid(mask: Path, pet: Path) -> bool:
    found, wanted = sitk.ReadImage(str(mask)), sitk.ReadImage(str(pet))
    values = set(np.unique(sitk.GetArrayViewFromImage(found)).tolist())
    return same_geometry(found, wanted) and found.GetPixelID() == sitk.sitkUInt8 and values <= {0, 1}


def scoring(session: Session) -> Section:
    """Score a pair of masks by visiting each component over the full volume, and by one labelling."""
    answer = measure_once(
        "metrics_speed:scoring", lesions=session.options.lesions, shape=session.options.size[::-1]
    )
    median_s = statistics.median(answer["counted_s"])
    row = {
        "masks": times(session.options.size),
        "lesions": " and ".join(map(str, answer["lesions"])),
        "visiting each (s)": short(answer["plain_s"]),
        "one labelling (s)": spread(answer["counted_s"]),
        "times as fast": short(answer["plain_s"] / median_s),
        "all measures (s)": spread(answer["all_s"]),
        "equal": "to the last digit" if answer["equal"] else "NO",
        "command": _command(session, "scoring"),
    }
    text = f"""
Dice, FPV and FNV of a pair of synthetic masks. "Visiting each": the rules of the published scripts
(`test/support/plain_metrics.py`), each component compared over the full volume, labelling not counted. "One
labelling": `evaluation.scoring.metrics.count_overlaps`, labelling and crop included; "all measures": with lesion
scores, HD95 and surface Dice. Median (smallest to largest).

{table([row])}

* Measured {time.strftime("%Y-%m-%d %H:%M %Z")}."""
    return Section("Scoring a mask", text)


PARTS = {
    "patch": patch,
    "body": body,
    "startup": startup,
    "growth": growth,
    "agreement": agreement,
    "deadline": deadline,
    "scoring": scoring,
}


def _patches(session: Session) -> list[Sequence[int]]:
    return [session.settings[setting]["patch"] for setting in session.options.setting]


def _case_text(session: Session) -> str:
    lines = [f"Body: {session.body['how']}; {times(session.options.size)} voxels."]
    for setting in session.options.setting:
        how = session.settings[setting]
        grid = "the image's own" if how["spacing"] is None else f"{times(how['spacing'])} mm"
        lines.append(
            f"Setting `{setting}`: {how['name']}; windows of {times(how['patch'])} at {how['overlap']:.0%} "
            f"overlap, spacing {grid}."
        )
    return "\n".join(f"* {line}" for line in lines)


def _command(session: Session, part: str, **chosen: Any) -> str:
    """Return the command that measures a row and those it is compared with."""
    words = ["python", "-m", "benchmark", part]
    given = {name: getattr(session.options, name) for name in _OPTIONS_OF[part]}
    if given.get("cases") == find_data("sts"):  # found again without being named
        del given["cases"]
    for name, value in {**given, **chosen}.items():
        if value is not None:
            words.append("--" + name.replace("_", "-"))
            words += map(str, value) if isinstance(value, (list, tuple)) else [str(value)]
    return f"`{shlex.join(words)}`"


_OF_CASE = ("weights", "size", "spacing")
_OPTIONS_OF = {
    "patch": ("weights", "repetitions"),
    "body": (*_OF_CASE, "windows"),
    "startup": (*_OF_CASE, "repetitions"),
    "growth": (*_OF_CASE, "growing_flips", "growing_checkpoints"),
    "agreement": (*_OF_CASE, "flips", "cases"),
    "deadline": (*_OF_CASE, "time_limit"),
    "scoring": ("size", "lesions"),
}
