"""One HTML file that a nuclear medicine physician reads without help: pictures, numbers, viewer, origins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from algorithm.clinic.numbers import Number, place_numbers
from algorithm.clinic.pictures import CT_WINDOW_HU, TOP_SUV, Picture, Upright, fused_slice, projections
from algorithm.clinic.volumes import volumes_for_viewer
from algorithm.errors import InstallationError
from algorithm.lesions import Burden, MeasuredLesion, in_words
from algorithm.outputs import PAGE, written_as

_FOLDER = Path(__file__).parent
_NIIVUE = _FOLDER / "vendor" / "niivue-0.69.0.umd.js"
_MOST_BYTES, _LEAST_ROOM = 14_800_000, 1_000_000  # of the whole page; of its volumes
_MOST_SLICES = 10
_MOST_NUMBERS = 60  # in a projection; more cannot be told apart
_TEXT_PX, _PAIR_PX, _SLICE_PX = 13.0, (560.0, 640.0), 240.0  # about what a screen gives to text and pictures


@dataclass(frozen=True)
class PageInput:
    """All that the page shows; texts are plain and are escaped.

    Attributes
    ----------
    ct : SimpleITK.Image
        HU, on any grid; the finer one before resampling gives the better slices.
    pet : SimpleITK.Image
        SUV.
    burden : Burden
        The lesions on the PET's grid.
    software : str
        Name and version.
    created : str
        Date and time of the run.
    patient : tuple of (name, value)
        What the user's files say of patient and study; empty where they say nothing.
    files : tuple of (name, value)
        Where the images came from.
    method : tuple of (name, value)
        Weights, device, passes and the like.
    seconds : mapping
        Wall-clock time by stage.
    suv : tuple of str
        How the SUVs were reckoned, sentence by sentence.
    notes : tuple of str
        What was done differently than asked.
    """

    ct: sitk.Image
    pet: sitk.Image
    burden: Burden
    software: str
    created: str
    patient: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    method: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    suv: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture with its numbers, as the template draws it.

    Attributes
    ----------
    picture : Picture
    numbers : list of Number
    text_mm : float
        Height of the numbers.
    sides : tuple of str
        Letters at the left and the right edge.
    """

    picture: Picture
    numbers: list[Number]
    text_mm: float
    sides: tuple[str, str]


@dataclass(frozen=True)
class Column:
    """A column of the lesion table: heading, unit, attribute of `MeasuredLesion`, format of its numbers."""

    heading: str
    unit: str
    key: str
    form: str
    about: str


COLUMNS = (
    Column("Lesion", "", "number", "d", "1 is the largest"),
    Column("MTV", "ml", "mtv_ml", ".2f", "Metabolic tumour volume: the volume of the lesion's voxels"),
    Column("SUVmax", "", "suv_max", ".2f", "The hottest voxel"),
    Column("SUVmean", "", "suv_mean", ".2f", "Over the lesion's voxels"),
    Column(
        "SUVpeak", "", "suv_peak", ".2f", "Mean of the 1 ml sphere, centred in the lesion, where it is largest"
    ),
    Column("TLG", "g", "tlg_g", ".1f", "Total lesion glycolysis: MTV times SUVmean"),
    Column("Longest", "mm", "longest_diameter_mm", ".1f", "Longest diameter in three dimensions"),
)


def write_page(path: Path, page: PageInput, *, viewer: bool = True, anonymous: bool = False) -> None:
    """Write the report: one file that needs nothing else and asks nothing of a network.

    Parameters
    ----------
    path : Path
        .html
    page : PageInput
    viewer : bool
        Put CT, PET and lesions into the page to scroll through, some megabytes.
    anonymous : bool
        Leave out what the files say of the patient, and the files' names.

    Raises
    ------
    InstallationError
        jinja2 or the page's own files are missing.
    OutputError
        The file cannot be written.
    """
    case = Upright.of(page.pet, page.burden.labels)
    parts: dict[str, Any] = {
        "page": page,
        "patient": () if anonymous else page.patient,
        "files": () if anonymous else page.files,
        "columns": COLUMNS,
        "in_words": in_words,
        "cell": lambda lesion, column: format(getattr(lesion, column.key), column.form),
        "projections": _projections(case),
        "slices": _slices(case, page),
        "tiles": tiles(page.burden),
        "most_numbers": _MOST_NUMBERS,
        "ct_window": [f"{each:g}".replace("-", "\N{MINUS SIGN}") for each in CT_WINDOW_HU],
        "top_suv": f"{TOP_SUV:g}",
        "total_seconds": f"{sum(page.seconds.values()):.1f}",
        "data": _data(page.burden.lesions),
    }
    template = _template()
    html = template.render(**parts, volumes=None, niivue="")
    if viewer:
        library = _library()
        room = max(_MOST_BYTES - len(html) - len(library), _LEAST_ROOM)
        html = template.render(**parts, volumes=volumes_for_viewer(case, page.ct, room), niivue=library)
    with written_as(path, PAGE) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")  # names of files may hold any byte


def tiles(burden: Burden) -> list[tuple[str, str, str, str]]:
    """Return the totals as the page shows them: name, number, unit, explanation."""
    totals = burden.totals
    return [
        ("Lesions", str(totals.lesions), "", "Pieces that touch by a face or an edge of a voxel"),
        ("MTV", in_words(totals.mtv_ml), "ml", "Metabolic tumour volume, all lesions"),
        ("TLG", in_words(totals.tlg_g), "g", "Total lesion glycolysis, all lesions"),
        ("SUVmax", _or_dash(totals.suv_max, ".2f"), "", "Hottest voxel of all lesions"),
        ("SUVpeak", _or_dash(totals.suv_peak, ".2f"), "", "Largest of all lesions"),
        (
            "Dmax",
            _or_dash(totals.dmax_mm, ".0f"),
            "mm" if totals.dmax_mm is not None else "",
            "Largest distance between the centroids of two lesions",
        ),
    ]


def _or_dash(value: float | None, form: str) -> str:
    return "\N{EN DASH}" if value is None else format(value, form)


def _projections(case: Upright) -> list[Figure]:
    coronal, sagittal = projections(case)
    pixel_mm = max((coronal.width_mm + sagittal.width_mm) / _PAIR_PX[0], coronal.height_mm / _PAIR_PX[1])
    return [
        _figure(coronal, ("R", "L"), _MOST_NUMBERS, pixel_mm),
        _figure(sagittal, ("A", "P"), _MOST_NUMBERS, pixel_mm),
    ]


def _slices(case: Upright, page: PageInput) -> list[tuple[MeasuredLesion, Figure]]:
    """Return the largest lesions, each with its slice; there the lesion's own number chooses its place first."""
    slices = []
    for lesion in page.burden.lesions[:_MOST_SLICES]:
        picture = fused_slice(case, page.ct, lesion.number)
        figure = _figure(picture, ("R", "L"), 12, picture.width_mm / _SLICE_PX, first=lesion.number)
        slices.append((lesion, figure))
    return slices


def _figure(
    picture: Picture, sides: tuple[str, str], most: int, pixel_mm: float, first: int | None = None
) -> Figure:
    """Place up to ``most`` numbers, the first one before all others; ``pixel_mm`` is what a pixel will show."""
    text_mm = _TEXT_PX * pixel_mm
    outlines = sorted(picture.outlines, key=lambda outline: outline.number != first)
    numbers = place_numbers(outlines, picture.width_mm, picture.height_mm, text_mm, most=most)
    return Figure(picture, numbers, text_mm, sides)


def _library() -> str:
    """Return the viewer's library."""
    try:
        return _NIIVUE.read_text(encoding="utf-8")
    except OSError as error:
        raise InstallationError(
            f"the viewer's library {_NIIVUE.name} is missing ({error}); reinstall, or do without the viewer"
        ) from error


def _data(lesions: tuple[MeasuredLesion, ...]) -> str:
    """Return what the page's script needs, as JSON that may stand inside a script element.

    Positions are those of SUVmax in NIfTI's space (right, anterior, superior), which the viewer's library speaks.
    """
    value = {
        "lesions": [
            {"number": each.number, "ras": [-each.hottest_mm[0], -each.hottest_mm[1], each.hottest_mm[2]]}
            for each in lesions
        ],
        "topSuv": TOP_SUV,
        "ctWindow": CT_WINDOW_HU,
    }
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _template() -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise InstallationError(
            f"the report page needs jinja2, which is not installed ({error}); install requirements.txt"
        ) from error
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
