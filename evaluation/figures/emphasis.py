"""How strongly TAMW weights PET and CT at each depth of the decoder (the H2ASeg paper's Figure 5).

The paper plots the modalities' shares without defining them. Our reading: TAMW multiplies the tumour part and the
rest of every CT and PET channel by a gain in (-1, 1). The emphasis of a modality is the mean magnitude of its
channels' gains, and its share is that over the sum of both modalities'; 0.5 is no preference. Gains belong to a
window, so shares are averaged over the windows that hold tumour, then over the cases.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from algorithm.cases import WHERE_CASES_LIE, Case, list_cases, named_synthetic
from algorithm.description import Description
from algorithm.errors import MissingInputError, UsageError
from algorithm.images import PetCt, read_pet_ct
from algorithm.inference.device import choose_device
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.network.h2aseg import DECODER_LEVELS, H2ASeg
from algorithm.network.weighting import Gains
from algorithm.outputs import SOFTWARE, written_as
from algorithm.preprocessing import Box, prepare, resample
from algorithm.segmentation import prepare_case, segment_prepared
from algorithm.weights import build_network, find_checkpoints, load_checkpoint
from evaluation.outputs import EMPHASIS, PLOT, make_way
from evaluation.scoring.score import csv_text, write_text
from evaluation.scoring.truths import truth_on_pet

GAINS = ("foreground", "background")
_SILENT = Progress(logging.DEBUG)

CT_COLOUR, PET_COLOUR = "#8c96a3", "#e07b1a"


@dataclass(frozen=True)
class Emphasis:
    """Shares of one case.

    Attributes
    ----------
    case : Case
    windows : int
        Windows that hold tumour.
    pet_share : dict
        (level, "foreground" or "background") to the mean share of the PET over those windows; the CT has the rest.
        Empty without such windows.
    """

    case: Case
    windows: int
    pet_share: dict[tuple[int, str], float]


def pet_share(gain: Tensor, channels: int) -> NDArray[np.float64]:
    """Return the PET's share of TAMW's gains.

    Parameters
    ----------
    gain : Tensor, (B, 2 C + C')
        Over the channels ``[ct, pet, decoder]``.
    channels : int
        C, of one modality.

    Returns
    -------
    ndarray, (B,)
        ``mean |g_pet| / (mean |g_ct| + mean |g_pet|)``; NaN where all are 0.
    """
    magnitude = gain.detach().double().abs()
    ct, pet = magnitude[:, :channels].mean(dim=1), magnitude[:, channels : 2 * channels].mean(dim=1)
    share: NDArray[np.float64] = (pet / (ct + pet)).cpu().numpy()
    return share


class GainsObserver:
    """Collects the PET's shares of the windows that hold tumour while a case is segmented.

    A window holds tumour where the truth says so, or, for a case without truth, where the network itself finds a
    voxel above the checkpoint's threshold.

    Parameters
    ----------
    description : Description
    truth : bool array, x, y, z, or None
        On the case's grid. Windows without tumour are not computed where it is given.
    """

    def __init__(self, description: Description, truth: NDArray[np.bool_] | None) -> None:
        self._channels = description.architecture.channels
        self._threshold = description.threshold
        self._truth = truth
        self._shares: dict[tuple[tuple[int, int], ...], dict[tuple[int, str], float]] = {}

    def wants(self, window: Box) -> bool:
        """Tell whether a window may hold tumour."""
        return self._truth is None or bool(self._truth[window].any())

    def see(self, window: Box, probability: Tensor, gains: Sequence[Gains]) -> None:
        """Keep a window's shares if it holds tumour."""
        if self._truth is None and not bool((probability > self._threshold).any()):
            return
        self._shares[tuple((side.start, side.stop) for side in window)] = {
            (level, kind): float(pet_share(gain, self._channels[level - 1])[0])
            for level, of_level in zip(DECODER_LEVELS, gains, strict=True)
            for kind, gain in zip(GAINS, of_level, strict=True)
        }

    def emphasis_of(self, case: Case) -> Emphasis:
        """Return the mean over the windows seen."""
        windows = list(self._shares.values())
        means = {key: _mean([shares[key] for shares in windows]) for key in windows[0]} if windows else {}
        return Emphasis(case, len(windows), means)


def measure_case(case: Case, predictor: Predictor, description: Description) -> Emphasis:
    """Segment a case once, without flips, and average the shares over its windows that hold tumour.

    Raises
    ------
    GeometryError
        The truth does not lie on the PET's grid.
    UserError
        An image cannot be read or is not what it should be.
    """
    pair = read_pet_ct(case.ct, case.pet)
    observer = GainsObserver(description, _truth_on_grid(case, pair, description))
    segment_prepared(
        predictor,
        prepare_case([description], partial(prepare, pair)),
        flips=1,
        progress=_SILENT,
        observer=observer,
    )
    return observer.emphasis_of(case)


def to_rows(measured: Sequence[Emphasis]) -> list[list[object]]:
    """Return the table: a line of headings, a line per case, level and gain, then the means.

    Real and synthetic cases have means of their own.
    """
    rows: list[list[object]] = [["case", "synthetic", "level", "gain", "windows", "ct_share", "pet_share"]]
    for one in measured:
        for (level, kind), share in one.pet_share.items():
            rows.append([one.case.name, int(one.case.synthetic), level, kind, one.windows, 1 - share, share])
    for name, synthetic, members in _groups(measured):
        windows = sum(one.windows for one in members)
        for (level, kind), share in _means(members).items():
            rows.append([name, int(synthetic), level, kind, windows, 1 - share, share])
    return rows


def draw(measured: Sequence[Emphasis]) -> Figure:
    """Draw the mean shares per level as bars, each case as a dot: foreground and background, a row per group."""
    groups = _groups(measured)
    figure = Figure(figsize=(8, 0.5 + 3.1 * len(groups)), dpi=120, layout="constrained")
    figure.suptitle("Emphasis of TAMW on PET and CT (share of the mean gain's magnitude)", fontsize=11)
    panels = figure.subplots(len(groups), len(GAINS), sharey=True, squeeze=False)
    for row, (name, _, members) in zip(panels, groups, strict=True):
        for axes, kind in zip(row, GAINS, strict=True):
            _draw_panel(axes, members, kind)
            axes.set_title(f"{kind} gain, {name}", fontsize=10)
        row[0].set_ylabel("share")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation emphasis``."""
    parser.description = (
        "Report TAMW's emphasis on PET and CT per decoder level: of --cases, or of one --ct and --pet."
    )
    parser.add_argument("--cases", type=Path, help=WHERE_CASES_LIE)
    parser.add_argument("--ct", type=Path, help="the CT of a single case")
    parser.add_argument("--pet", type=Path, help="the PET of a single case")
    parser.add_argument(
        "--truth", type=Path, help="the true mask of a single case (default: where tumour is found)"
    )
    parser.add_argument("--weights", type=Path, help="checkpoint (default: the installed one)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for emphasis.csv and emphasis.png")


def main(args: argparse.Namespace) -> int:
    """Measure, print the means, write table and plot; returns the exit code."""
    make_way([(args.out / "emphasis.csv", EMPHASIS), (args.out / "emphasis.png", PLOT)])
    cases = _cases(args)
    device = choose_device(args.device)
    network, description = _load(args.weights)
    predictor = Predictor([network], device, torch.float32)
    measured = []
    for number, case in enumerate(cases, start=1):
        measured.append(measure_case(case, predictor, description))
        print(
            f"case {number} of {len(cases)}: {case.title}, {measured[-1].windows} windows with tumour", flush=True
        )
    if not any(one.windows for one in measured):
        raise MissingInputError(
            "no window of any case holds tumour, so there is no emphasis to report; give other cases"
        )
    rows = to_rows(measured)
    print(_text(measured))
    write_text(args.out / "emphasis.csv", csv_text(rows), EMPHASIS)
    with written_as(args.out / "emphasis.png", PLOT) as temporary:
        draw(measured).savefig(temporary, format="png", metadata={"Software": SOFTWARE})
    print(f"wrote {args.out / 'emphasis.csv'} and {args.out / 'emphasis.png'}")
    return 0


def _cases(args: argparse.Namespace) -> list[Case]:
    if args.cases is not None and args.ct is None and args.pet is None and args.truth is None:
        return list_cases(args.cases)
    if args.cases is None and args.ct is not None and args.pet is not None:
        name = args.pet.name.partition(".")[0]
        return [Case(name, args.ct, args.pet, args.truth, named_synthetic(name))]
    raise UsageError("give either --cases, or --ct and --pet of a single case")


def _load(weights: Path | None) -> tuple[H2ASeg, Description]:
    paths = find_checkpoints(weights)
    if len(paths) != 1:
        raise UsageError(f"the emphasis is that of one checkpoint, found {len(paths)}; name one with --weights")
    checkpoint = load_checkpoint(paths[0])
    if not checkpoint.description.architecture.tamw:
        raise UsageError(
            f"the checkpoint {paths[0]} has no TAMW, so it has no emphasis; name another with --weights"
        )
    return build_network(checkpoint), checkpoint.description


def _truth_on_grid(case: Case, pair: PetCt, description: Description) -> NDArray[np.bool_] | None:
    """Return the truth on the network's grid, x, y, z; None where there is none."""
    truth = truth_on_pet(case, pair.pet)
    if truth is None:
        return None
    on_grid = resample(truth, description.spacing, orientation=description.orientation, linear=False)
    found: NDArray[np.bool_] = sitk.GetArrayFromImage(on_grid).transpose(2, 1, 0) > 0
    return found


def _groups(measured: Sequence[Emphasis]) -> list[tuple[str, bool, list[Emphasis]]]:
    """Return name, whether synthetic, and members of the groups that have any tumour; the two are never mixed."""
    groups = []
    for synthetic in (False, True):
        members = [one for one in measured if one.windows and one.case.synthetic == synthetic]
        count = f"{len(members)} {'synthetic ' if synthetic else ''}case{'' if len(members) == 1 else 's'}"
        if members:
            groups.append((f"mean of {count}", synthetic, members))
    return groups


def _means(members: Sequence[Emphasis]) -> dict[tuple[int, str], float]:
    return {key: _mean([one.pet_share[key] for one in members]) for key in members[0].pet_share}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _text(measured: Sequence[Emphasis]) -> str:
    lines = []
    for name, _, members in _groups(measured):
        means = _means(members)
        lines.append(f"PET share, {name} (the CT has the rest)")
        lines.append(f"{'level':<8}{GAINS[0]:>12}{GAINS[1]:>12}")
        lines += [
            f"{level:<8}" + "".join(f"{means[level, kind]:>12.3f}" for kind in GAINS) for level in DECODER_LEVELS
        ]
    return "\n".join(lines)


def _draw_panel(axes: Axes, members: Sequence[Emphasis], kind: str) -> None:
    means = _means(members)
    places = range(len(DECODER_LEVELS))
    pet = [means[level, kind] for level in DECODER_LEVELS]
    axes.bar(places, pet, width=0.6, color=PET_COLOUR, label="PET")
    axes.bar(places, [1 - share for share in pet], width=0.6, bottom=pet, color=CT_COLOUR, label="CT")
    for place, (level, share) in enumerate(zip(DECODER_LEVELS, pet, strict=True)):
        shares = [one.pet_share[level, kind] for one in members]
        offsets = [((number * 0.618034) % 1 - 0.5) * 0.4 for number in range(len(shares))]
        label = "PET of each case" if place == 0 else None
        axes.scatter([place + offset for offset in offsets], shares, s=9, color="#222222", zorder=3, label=label)
        axes.annotate(f"{share:.2f}", (place, 0.03), ha="center", fontsize=9, color="white", weight="bold")
    axes.axhline(0.5, color="white", linewidth=1, linestyle="--")
    axes.set_xticks(places, [f"level {level}" for level in DECODER_LEVELS])
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
