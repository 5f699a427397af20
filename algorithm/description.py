"""A checkpoint's description of itself: the JSON file beside its weights.

Everything that belongs to a data set rather than to the code (patch, spacing, normalisation, threshold) is
here, so that a checkpoint trained elsewhere runs without a change to the code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from algorithm.errors import MissingInputError, WeightsError
from algorithm.jsonfile import read_json
from algorithm.network.architecture import Architecture

FORMAT = 1

_MOST_BYTES = 2**20
_LONGEST_SIDE = 4096  # of a patch, in voxels
_COARSEST_MM = 100.0

AXES = ("x", "y", "z")
"""Of a patch and of flips."""

LABELS = {"0": "background", "1": "tumour"}
"""The classes of the network's two channels and of every mask, by the masks' values."""

LOW_PRECISIONS = ("bfloat16", "float16")
SAFE_LOGIT = 100.0
"""bfloat16 keeps 8 bits: below this an attention logit is rounded by at most 0.25, its weight by a quarter."""
SAFE_MEAN_DICE, SAFE_LEAST_DICE = 0.998, 0.99
"""Between the masks of a low precision and of float32, over the cases that were tried, and of each."""

NormalisationKind = Literal["clip-scale", "z-score-volume", "z-score-body", "z-score-stored"]


@dataclass(frozen=True)
class Normalisation:
    """How one modality's intensities (HU or SUV) become the network's input.

    Attributes
    ----------
    kind : str
        ``clip-scale``: clip to [low, high], then scale to [0, 1].
        ``z-score-volume``: subtract the mean and divide by the standard deviation of the whole volume.
        ``z-score-body``: the same with the mean and standard deviation inside the body.
        ``z-score-stored``: clip to [low, high], then use the stored mean and standard deviation.
    low, high : float or None
        Clipping limits in HU or SUV. Optional for the two z-scores that measure the image.
    mean, std : float or None
        Only for ``z-score-stored``.
    """

    kind: NormalisationKind
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(NormalisationKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(NormalisationKind))}, got {self.kind!r}")
        if not self.measures_image and (self.low is None or self.high is None):
            raise ValueError(f"{self.kind} needs low and high")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.kind == "z-score-stored" and (self.mean is None or self.std is None or self.std <= 0):
            raise ValueError(f"{self.kind} needs mean and a positive std, got {self.mean} and {self.std}")

    @property
    def measures_image(self) -> bool:
        """Whether a voxel's value depends on the others, so that a crop comes out otherwise than its volume."""
        return self.kind in ("z-score-volume", "z-score-body")


@dataclass(frozen=True)
class Postprocessing:
    """What is done to the mask after the threshold.

    Attributes
    ----------
    minimum_lesion_ml : float
        18-connected components smaller than this are removed. 0 keeps all.
    suv_floor : float
        Voxels with a lower SUV are never tumour. 0 switches it off.
    minimum_suv_max : float
        18-connected components whose highest SUV is lower are removed. 0 keeps all.
    """

    minimum_lesion_ml: float = 0.0
    suv_floor: float = 0.0
    minimum_suv_max: float = 0.0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ValueError(f"{entry.name} must be a number of at least 0, got {value!r}")


@dataclass(frozen=True)
class Agreement:
    """How the masks of a number format agree with those of float32.

    Attributes
    ----------
    cases : int
        Whose masks were compared.
    mean_dice, least_dice : float
        Of the two masks of a case; cases in which both are empty do not count.
    """

    cases: int
    mean_dice: float
    least_dice: float

    @property
    def is_close(self) -> bool:
        """Whether nobody would tell the masks apart."""
        return self.cases > 0 and self.mean_dice >= SAFE_MEAN_DICE and self.least_dice >= SAFE_LEAST_DICE


@dataclass(frozen=True)
class PrecisionProof:
    """What was measured of a checkpoint in low precision, by ``python -m training precision`` or at a run's end.

    Attributes
    ----------
    largest_logit : float or None
        Largest magnitude of an attention logit that was seen.
    bfloat16, float16 : Agreement or None
        With every level of the network in that format.
    """

    largest_logit: float | None = None
    bfloat16: Agreement | None = None
    float16: Agreement | None = None

    @property
    def allowed(self) -> tuple[str, ...]:
        """The formats that all levels may be computed in."""
        return tuple(name for name in LOW_PRECISIONS if self.allows(name))

    def allows(self, precision: str) -> bool:
        """Tell whether all levels may be computed in a format: it was tried, and nothing came out otherwise."""
        tried: Agreement | None = getattr(self, precision, None) if precision in LOW_PRECISIONS else None
        small = self.largest_logit is not None and self.largest_logit < SAFE_LOGIT
        return small and tried is not None and tried.is_close


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself; see ``weights/MODEL_CARD.md`` for the default one.

    Attributes
    ----------
    name : str
        Short name for reports.
    architecture : Architecture
    patch : tuple of int
        Sliding window in voxels of ``spacing``, x, y, z.
    spacing : tuple of float or None
        Voxel spacing in mm, x, y, z, that the network was trained at; None: each image's own.
    ct, pet : Normalisation
    orientation : str or None
        Patient axes that x, y, z point to while the network sees the image, as SimpleITK names them (``LPS``);
        None: as each image is stored.
    threshold : float
        A voxel is tumour where the averaged probability exceeds this.
    overlap : float
        Share of a window's side that two neighbouring windows have in common, 0 <= overlap < 1.
    flip_axes : tuple of str
        Axes along which test-time augmentation may mirror, of x, y and z: those that training mirrored along, as
        nnU-Net's ``inference_allowed_mirroring_axes``. n axes make 2^n flips.
    postprocessing : Postprocessing
    precision : PrecisionProof
        Which number formats were tried in all levels, and how their masks agreed; nothing by default, and then
        only the finest level is computed in a low one.
    labels : dict
        Class index (as a string) to its meaning.
    sha256 : str
        Of the weights file; empty while the description has none.
    provenance : dict
        What the weights were trained on, by what and when: free keys, printed by ``weights verify``.
    """

    name: str
    architecture: Architecture
    patch: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    ct: Normalisation
    pet: Normalisation
    orientation: str | None = "LPS"
    threshold: float = 0.5
    overlap: float = 0.5
    flip_axes: tuple[str, ...] = AXES
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    precision: PrecisionProof = field(default_factory=PrecisionProof)
    labels: dict[str, str] = field(default_factory=LABELS.copy)
    sha256: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.architecture.check_patch(self.patch)
        if max(self.patch) > _LONGEST_SIDE:
            raise ValueError(f"patch must have sides of at most {_LONGEST_SIDE} voxels, got {self.patch}")
        if self.spacing is not None and (
            len(self.spacing) != 3 or not all(0 < step <= _COARSEST_MM for step in self.spacing)
        ):
            raise ValueError(
                f"spacing must be three positive numbers of at most {_COARSEST_MM:g} mm (x, y, z), "
                f"got {self.spacing}"
            )
        if self.orientation is not None and not _names_three_axes(self.orientation):
            raise ValueError(f"orientation must name three patient axes such as LPS, got {self.orientation!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {self.overlap}")
        if self.flip_axes != tuple(axis for axis in AXES if axis in self.flip_axes):
            raise ValueError(f"flip_axes must be some of x, y, z, in order, each once, got {list(self.flip_axes)}")

    @property
    def preparation(self) -> tuple[object, ...]:
        """All that decides how a pair is prepared: checkpoints with the same answer share it."""
        return self.spacing, self.orientation, self.ct, self.pet

    @property
    def flip_dimensions(self) -> tuple[int, ...]:
        """``flip_axes`` as dimensions of a volume in x, y, z."""
        return tuple(map(AXES.index, self.flip_axes))

    @property
    def identity(self) -> str:
        """A hash of all that decides a mask: everything, the weights' SHA-256 included, but the provenance."""
        deciding = dataclasses.replace(self, provenance={})
        return hashlib.sha256(deciding.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the description as it is stored beside the weights."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True)
class WeightsUsed:
    """A checkpoint by its name and the SHA-256 of its weights file."""

    name: str
    sha256: str


def check_ensemble(descriptions: Sequence[Description]) -> None:
    """Raise WeightsError where checkpoints cannot be averaged, as they would not make the same mask of it."""
    first, *others = descriptions
    for other in others:
        for key in ("spacing", "orientation", "threshold", "flip_axes", "postprocessing"):
            if getattr(other, key) != getattr(first, key):
                raise WeightsError(
                    f"the checkpoints of an ensemble must have the same {key}, got {getattr(first, key)} in "
                    f"{first.name} and {getattr(other, key)} in {other.name}; run them one by one"
                )


def read_description(path: Path) -> Description:
    """Read and check a description.

    Raises
    ------
    WeightsError
        The file is missing, is not JSON, or holds a key or value that makes no sense.
    """
    try:
        content = read_json(path, "the checkpoint description", most_bytes=_MOST_BYTES)
    except MissingInputError as error:
        raise WeightsError(str(error)) from error
    try:
        return parse_description(content)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the checkpoint description {path} is wrong: {reason}") from error


def parse_description(content: dict[str, Any]) -> Description:
    """Build a description from the JSON's content; raises KeyError, TypeError or ValueError if it is wrong."""
    if not isinstance(content, dict):
        raise TypeError(f"expected a JSON object, got {type(content).__name__}")
    _check_kinds("", content, _KINDS)
    may_be_null = ("sha256", "provenance", "labels", "flip_axes")
    fields = {key: value for key, value in content.items() if value is not None or key not in may_be_null}
    version = fields.pop("format", None)
    if version != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {version}")
    _refuse_unknown("description", fields, Description)
    if fields.get("name") is None:
        raise KeyError("name")
    architecture = dict(fields["architecture"])
    _refuse_unknown("architecture", architecture, Architecture)
    for key in ("channels", "window"):
        if key in architecture:
            architecture[key] = tuple(int(value) for value in architecture[key])
    fields["architecture"] = Architecture(**architecture)
    if "flip_axes" in fields:
        fields["flip_axes"] = tuple(fields["flip_axes"])
    fields["patch"] = tuple(int(side) for side in fields["patch"])
    spacing = fields["spacing"]
    fields["spacing"] = None if spacing is None else tuple(float(step) for step in spacing)
    for modality in ("ct", "pet"):
        _refuse_unknown(modality, fields[modality], Normalisation)
        fields[modality] = Normalisation(**fields[modality])
    postprocessing = fields.get("postprocessing") or {}
    _refuse_unknown("postprocessing", postprocessing, Postprocessing)
    fields["postprocessing"] = Postprocessing(**postprocessing)
    fields["precision"] = _parse_precision(fields.get("precision") or {})
    return Description(**fields)


def _parse_precision(given: dict[str, Any]) -> PrecisionProof:
    _refuse_unknown("precision", given, PrecisionProof)
    proof: dict[str, Any] = {"largest_logit": given.get("largest_logit")}
    for name in LOW_PRECISIONS:
        if given.get(name) is not None:
            _refuse_unknown(f"precision.{name}", given[name], Agreement)
            proof[name] = Agreement(**given[name])
    return PrecisionProof(**proof)


_NUMBER, _WHOLE, _TRUTH = "a number", "a whole number", "true or false"
_TEXT, _OBJECT = "a text", "an object"
_NUMBERS, _WHOLES, _TEXTS = "a list of numbers", "a list of whole numbers", "a list of texts"
_LISTS = {_NUMBERS: _NUMBER, _WHOLES: _WHOLE, _TEXTS: _TEXT}
_NORMALISATION_KINDS = {"kind": _TEXT, **dict.fromkeys(("low", "high", "mean", "std"), _NUMBER)}
_AGREEMENT_KINDS = {"cases": _WHOLE, "mean_dice": _NUMBER, "least_dice": _NUMBER}
_KINDS = {
    "name": _TEXT,
    "orientation": _TEXT,
    "sha256": _TEXT,
    "threshold": _NUMBER,
    "overlap": _NUMBER,
    "patch": _WHOLES,
    "spacing": _NUMBERS,
    "flip_axes": _TEXTS,
    "architecture": {
        "channels": _WHOLES,
        "window": _WHOLES,
        "reduction": _WHOLE,
        "mcsa": _TRUTH,
        "tamw": _TRUTH,
        "dropout": _NUMBER,
    },
    "ct": _NORMALISATION_KINDS,
    "pet": _NORMALISATION_KINDS,
    "postprocessing": dict.fromkeys(("minimum_lesion_ml", "suv_floor", "minimum_suv_max"), _NUMBER),
    "precision": {"largest_logit": _NUMBER, "bfloat16": _AGREEMENT_KINDS, "float16": _AGREEMENT_KINDS},
    "labels": _OBJECT,
    "provenance": _OBJECT,
}
"""What each key of the JSON holds; an optional one may be null."""


def _check_kinds(prefix: str, given: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Raise TypeError, naming the key and the value got, where a value is of another kind than it must be."""
    for key, kind in kinds.items():
        value = given.get(key)
        wanted = _OBJECT if isinstance(kind, dict) else kind
        if value is not None and not _is_of(wanted, value):
            raise TypeError(f"{prefix}{key} must be {wanted}, got {value!r:.100}")
        if isinstance(kind, dict) and value is not None:
            _check_kinds(f"{key}.", value, kind)


def _is_of(kind: str, value: Any) -> bool:
    if kind in _LISTS:
        return isinstance(value, list) and all(_is_of(_LISTS[kind], each) for each in value)
    if kind == _TRUTH:
        return isinstance(value, bool)
    if kind == _WHOLE:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == _NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str if kind == _TEXT else dict)


def _names_three_axes(orientation: str) -> bool:
    return len(orientation) == 3 and all(len(set(orientation) & set(axis)) == 1 for axis in ("LR", "PA", "SI"))


def _refuse_unknown(what: str, given: dict[str, Any], kind: type) -> None:
    known = {entry.name for entry in dataclasses.fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{what} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
