"""One case from start to end: the pair in, the mask out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithm import __version__
from algorithm.description import Description
from algorithm.errors import DeviceError, ResourceError, WeightsError
from algorithm.images import PetCt, geometry_text, read_header, read_pet_ct
from algorithm.inference.budget import Budget
from algorithm.inference.memory import host_limit_bytes
from algorithm.inference.predictor import Member, Prediction, Predictor, TooSlowError, choose_dtype
from algorithm.inference.windows import cut_box, fit_box, paste_box
from algorithm.network.h2aseg import H2ASeg
from algorithm.postprocessing import Lesion, clean_mask, measure_lesions
from algorithm.preprocessing import Box, Prepared, prepare, restore
from algorithm.report import Geometry, RunReport, WeightsUsed, peak_host_memory_mib
from algorithm.weights import Checkpoint, build_network

Say = Callable[[str], None]

_COARSENING = 1.25  # factor of the spacing while one pass does not fit the time limit
_COARSEST_MM = 12.0
_RESERVE_S = 3.0  # writing, and whatever the machine does meanwhile
_RESERVE_S_PER_VOXEL = 2e-7  # restoring, postprocessing and writing a mask: measured 1e-7 on two cores
_BYTES_PER_PET_VOXEL = 30  # pair as float32, its decoded original, mask, labels of the postprocessing
_BYTES_PER_CT_VOXEL = 12  # of a CT on a grid of its own: decoded, as float32, and a copy while it is turned
_BYTES_PER_GRID_VOXEL = 28  # resampled pair, normalised pair, probability, weights, body
_BYTES_PER_FURTHER_MEMBER = 20  # of an ensemble: the pair as that checkpoint wants it, if no other wants it so
_BYTES_PER_WINDOW_VOXEL = 1400  # activations of one float32 window, measured
_BYTES_OF_PROGRAM = 700 * 2**20  # interpreter, torch and the weights


@dataclass(frozen=True)
class Settings:
    """How to run; everything that belongs to the data is in the checkpoint's description instead.

    Attributes
    ----------
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    flips : int or None
        Exactly so many of the eight mirrorings, 1 being none, however long they take; None: as many as fit the
        time limit, all eight without one.
    overlap : float or None
        Of neighbouring windows; None: the checkpoint's.
    time_limit_s : float or None
        Counted from the start of the process.
    require_gpu : bool
        Refuse to run on a CPU.
    whole_volume : bool
        Let windows cover the air around the patient too.
    """

    device: str = "auto"
    precision: str = "auto"
    flips: int | None = None
    overlap: float | None = None
    time_limit_s: float | None = None
    require_gpu: bool = False
    whole_volume: bool = False


@dataclass(frozen=True)
class Result:
    """A segmented case.

    Attributes
    ----------
    mask : uint8 array, z, y, x
        0 and 1 on the PET's grid.
    pair : PetCt
    lesions : tuple of Lesion
        Largest first.
    report : RunReport
    """

    mask: NDArray[np.uint8]
    pair: PetCt
    lesions: tuple[Lesion, ...]
    report: RunReport


@dataclass
class Stopwatch:
    """Seconds by stage, in the order of the stages."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def segment(
    ct: Path,
    pet: Path,
    checkpoints: Sequence[Checkpoint],
    settings: Settings | None = None,
    *,
    edition: str | None = None,
    say: Say = print,
    bar: bool = False,
) -> Result:
    """Segment the tumours of one PET/CT pair.

    Parameters
    ----------
    ct, pet : Path
        HU and SUV; a CT on another grid is resampled onto the PET's.
    checkpoints : sequence of Checkpoint
        Several are averaged; they must share spacing, orientation, threshold and postprocessing.
    settings : Settings, optional
    edition : str, optional
        For the report.
    say : callable
        Takes one line of progress.
    bar : bool
        Show a progress bar on stdout while a CPU works.

    Raises
    ------
    UserError
        Images, weights, device, memory or time do not allow it; the message says what to do.
    """
    settings = settings or Settings()
    description = _common_description(checkpoints)
    device = choose_device(settings.device, require_gpu=settings.require_gpu)
    predictor = Predictor(device, choose_dtype(settings.precision, device), settings.flips, say, bar=bar)
    watch = Stopwatch()
    _check_memory(ct, pet, checkpoints)
    with watch.stage("read"):
        pair = read_pet_ct(ct, pet)
    notes = ["the CT was resampled onto the PET's grid"] if pair.ct_resampled else []
    if float(sitk.GetArrayViewFromImage(pair.pet).max()) <= 0:
        notes.append("the PET shows no uptake anywhere; check the file")
        say(notes[-1])
    prediction, case, coarsened = _predict(pair, checkpoints, predictor, settings, watch)
    with watch.stage("postprocess"):
        mask = mask_of(prediction.probability, case, pair.pet, description)
        lesions = measure_lesions(mask, pair.pet)
    report = RunReport(
        software_version=__version__,
        edition=edition,
        ct=str(ct),
        pet=str(pet),
        ct_resampled=pair.ct_resampled,
        geometry=Geometry.of(pair.pet),
        weights=tuple(WeightsUsed(each.description.name, each.description.sha256) for each in checkpoints),
        device=_device_name(device),
        precision=str(predictor.dtype).removeprefix("torch."),
        windows=prediction.windows,
        passes=prediction.passes,
        passes_planned=prediction.passes_planned,
        stopped_because=prediction.stopped_because,
        seconds={name: round(seconds, 3) for name, seconds in watch.seconds.items()},
        peak_host_memory_mib=round(peak_host_memory_mib(), 1),
        peak_device_memory_mib=_peak_device_memory_mib(device),
        lesions=lesions,
        total_volume_ml=sum(lesion.volume_ml for lesion in lesions),
        notes=(*notes, *coarsened, *prediction.notes),
    )
    return Result(mask, pair, lesions, report)


def choose_device(name: str, *, require_gpu: bool = False) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the CPU where there is none.

    Raises
    ------
    DeviceError
        There is no such device, or a GPU is required and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no usable GPU was found; start the container with --gpus all, or use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no GPU {device.index}; this machine has {torch.cuda.device_count()}")
    if device.type == "cpu" and require_gpu:
        raise DeviceError(
            "a GPU is required (--require-gpu) but none was found; start the container with --gpus all"
        )
    return device


def _predict(
    pair: PetCt,
    checkpoints: Sequence[Checkpoint],
    predictor: Predictor,
    settings: Settings,
    watch: Stopwatch,
) -> tuple[Prediction, Prepared, list[str]]:
    """Return the prediction, the case as it was prepared for it, and what was said about making it coarser."""
    reserve = _RESERVE_S + _RESERVE_S_PER_VOXEL * pair.pet.GetNumberOfPixels()
    budget = Budget.of_limit(settings.time_limit_s if settings.flips is None else None, reserve)
    networks = [build_network(each) for each in checkpoints]
    coarser = 1.0
    while True:
        with watch.stage("prepare"):
            members, case, box = _members(pair, checkpoints, networks, settings, coarser)
        try:
            with watch.stage("predict"):
                prediction = predictor.predict(members, budget)
        except TooSlowError as error:
            coarser *= _COARSENING
            if coarser * min(case.grid.GetSpacing()) > _COARSEST_MM:
                raise ResourceError(
                    f"the time limit of {settings.time_limit_s:g} s is too short for this case on this machine "
                    f"({error}); raise --time-limit or use a GPU"
                ) from error
            predictor.say(f"{error}; voxels {coarser:.2f} times as long are tried")
            continue
        whole = paste_box(prediction.probability, box, case.ct.shape)
        notes = [f"voxels were made {coarser:.2f} times as long to keep the time limit"] if coarser > 1 else []
        return dataclasses.replace(prediction, probability=whole), case, notes


def _members(
    pair: PetCt, checkpoints: Sequence[Checkpoint], networks: Sequence[H2ASeg], settings: Settings, coarser: float
) -> tuple[list[Member], Prepared, Box]:
    """Return the checkpoints with the case as each wants it, the first one's case, and the box that is segmented.

    Checkpoints that want the same share it, so that the memory does not grow with their number.
    """
    largest = [max(sides) for sides in zip(*(each.description.patch for each in checkpoints), strict=True)]
    first = prepare(pair, _coarsened(checkpoints[0].description, pair.pet, coarser))
    box = _box(first, largest, whole=settings.whole_volume)
    inputs: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
    members = []
    for network, each in zip(networks, checkpoints, strict=True):
        how = each.description
        if _wanted(how) not in inputs:
            case = prepare(pair, _coarsened(how, pair.pet, coarser)) if inputs else first
            inputs[_wanted(how)] = (
                torch.from_numpy(cut_box(case.ct, box, largest, case.ct_outside)),
                torch.from_numpy(cut_box(case.pet, box, largest, case.pet_outside)),
            )
        overlap = how.overlap if settings.overlap is None else settings.overlap
        members.append(Member(network, *inputs[_wanted(how)], how.patch, overlap))
    return members, first, box


def _box(case: Prepared, patch: Sequence[int], *, whole: bool) -> Box:
    """Return the part of the grid that windows cover: the patient, or everything."""
    x, y, z = case.ct.shape
    return fit_box((slice(0, x), slice(0, y), slice(0, z)) if whole else case.body, case.ct.shape, patch)


def mask_of(
    probability: NDArray[np.float32], case: Prepared, pet: sitk.Image, description: Description
) -> NDArray[np.uint8]:
    """Return the mask on the PET's grid: above the threshold, not in air, and cleaned.

    Parameters
    ----------
    probability : float32 array, x, y, z
        Of tumour, on the case's grid; it is set to 0 in air.
    case : Prepared
    pet : SimpleITK.Image
    description : Description
        Of the checkpoint: threshold and postprocessing.

    Returns
    -------
    uint8 array, z, y, x
    """
    probability[~case.matter] = 0
    slabs = [slab > description.threshold for slab in restore(probability, case.grid, pet)]
    mask = np.concatenate(slabs).view(np.uint8)
    return clean_mask(mask, sitk.GetArrayViewFromImage(pet), pet.GetSpacing(), description.postprocessing)


def _common_description(checkpoints: Sequence[Checkpoint]) -> Description:
    """Return what an ensemble has in common; raises WeightsError where it has not."""
    first, *others = (each.description for each in checkpoints)
    for other in others:
        for key in ("spacing", "orientation", "threshold", "postprocessing"):
            if getattr(other, key) != getattr(first, key):
                raise WeightsError(
                    f"the checkpoints of an ensemble must have the same {key}, got {getattr(first, key)} in "
                    f"{first.name} and {getattr(other, key)} in {other.name}; run them one by one"
                )
    return first


def _coarsened(description: Description, pet: sitk.Image, factor: float) -> Description:
    if factor == 1.0:
        return description
    x, y, z = description.spacing or pet.GetSpacing()
    return dataclasses.replace(description, spacing=(x * factor, y * factor, z * factor))


def _check_memory(ct_path: Path, pet_path: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ResourceError for a case that the host's memory cannot hold, before a voxel is read.

    Headers that cannot be read are left to those who read the images.
    """
    limit, pet, ct = host_limit_bytes(), read_header(pet_path), read_header(ct_path)
    if limit is None or pet is None or ct is None:
        return
    voxels = math.prod(pet.GetSize())
    spacing = checkpoints[0].description.spacing or pet.GetSpacing()
    grid_voxels = voxels * float(np.prod(pet.GetSpacing()) / np.prod(spacing))
    own_ct_voxels = math.prod(ct.GetSize()) if ct.GetSize() != pet.GetSize() else 0
    members = len({_wanted(each.description) for each in checkpoints})
    largest_window = max(math.prod(each.description.patch) for each in checkpoints)
    need = (
        _BYTES_OF_PROGRAM
        + _BYTES_PER_WINDOW_VOXEL * largest_window
        + _BYTES_PER_PET_VOXEL * voxels
        + _BYTES_PER_CT_VOXEL * own_ct_voxels
        + (_BYTES_PER_GRID_VOXEL + _BYTES_PER_FURTHER_MEMBER * (members - 1)) * grid_voxels
    )
    if need > limit:
        with_ct = f" with a CT of {geometry_text(ct)}" if own_ct_voxels else ""
        raise ResourceError(
            f"a PET of {geometry_text(pet)}{with_ct} needs about {need / 2**30:.1f} GiB of memory, but only "
            f"{limit / 2**30:.1f} GiB may be used; give more memory, crop the images, or check their headers"
        )


def _wanted(description: Description) -> tuple[object, ...]:
    """Return all that decides how a pair is prepared: checkpoints with the same answer share it."""
    return description.spacing, description.orientation, description.ct, description.pet


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _peak_device_memory_mib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
