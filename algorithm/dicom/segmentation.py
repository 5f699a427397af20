"""The lesions as a DICOM Segmentation that lies on the PET from which it was made."""

from __future__ import annotations

import colorsys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.description import WeightsUsed
from algorithm.dicom.headers import items, lacks_preamble
from algorithm.errors import GeometryError, InstallationError, InvalidImageError, UnreadableImageError
from algorithm.outputs import SEGMENTATION, written_as

_TOLERANCE = 0.1  # of a voxel: geometry that went through another file format is rounded

_EMPTY_IF_MISSING = (  # type 2 in PS3.3: must be there and may be empty; anonymisers drop them
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)

_CHARACTERS = "ISO_IR 192"  # UTF-8 holds whatever the PET's own character sets do

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID", "Rows")
_NEEDED_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class _Slice:
    """One slice of the PET as DICOM has it.

    Attributes
    ----------
    position : three floats
        ImagePositionPatient (0020,0032): centre of the first pixel, mm.
    orientation : six floats
        ImageOrientationPatient (0020,0037): direction of a row, then of a column.
    spacing : two floats
        PixelSpacing (0028,0030): between rows, between columns, mm.
    rows, columns : int
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int


def write_segmentation(
    path: Path,
    labels: NDArray[np.integer],
    grid: sitk.Image,
    pet_files: Sequence[Path],
    *,
    software_version: str,
    weights: Sequence[WeightsUsed],
    series_description: str = "Tumour, automatic (research)",
) -> bool:
    """Write one binary segment per lesion, in the geometry of the PET instances; each frame refers to its slice.

    Slices are matched by position, so neither the order of the files nor that of the array matters, and the grid
    may be turned or flipped against the instances. The segments are Morphologically Abnormal Structures
    (SCT 49755003, CID 7150) of the type Neoplasm (SCT 108369006, CID 7159), found by artificial intelligence
    (DCM 123110, CID 7162).

    Parameters
    ----------
    path : Path
        .dcm
    labels : int array, z, y, x
        0 outside, else the lesion's number, from 1 on, as `algorithm.lesions` gives them; it becomes the
        SegmentNumber (0062,0004).
    grid : SimpleITK.Image
        The image whose grid the labels are on.
    pet_files : sequence of Path
        The PET series: single-frame instances, or one enhanced multi-frame instance.
    software_version : str
    weights : sequence of WeightsUsed
        Named with their SHA-256 in SegmentationAlgorithmIdentificationSequence (0062,0007).
    series_description : str

    Returns
    -------
    bool
        False where there is no lesion: DICOM has no segmentation without a segment, so none is written.

    Raises
    ------
    InstallationError
        highdicom is not installed.
    UnreadableImageError
        A PET file is no DICOM image.
    InvalidImageError
        A PET file lacks what a segmentation refers to.
    GeometryError
        The grid is not that of the PET instances.
    OutputError
        The file cannot be written.
    """
    hd = highdicom_module()
    if not labels.any():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom and highdicom tell of the PET's own faults, which are not ours
        segmentation = _segmentation(hd, labels, grid, pet_files, software_version, weights, series_description)
        with written_as(path, SEGMENTATION) as temporary:
            segmentation.save_as(temporary)
    return True


def _segmentation(
    hd: Any,
    labels: NDArray[np.integer],
    grid: sitk.Image,
    pet_files: Sequence[Path],
    software_version: str,
    weights: Sequence[WeightsUsed],
    series_description: str,
) -> Any:
    """Build the segmentation; the arguments are those of `write_segmentation`."""
    instances = [_header(each) for each in pet_files]
    slices = _slices(instances)
    order, frames = _frames(labels, grid, slices)
    if len(instances) > 1:
        instances = [instances[each] for each in order]
    if len(order) > 1:
        _put_step(instances, [slices[order[0]], slices[order[-1]]], len(order) - 1)
    source = instances[0]
    try:
        return hd.seg.Segmentation(
            source_images=instances,
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_segments(hd, int(labels.max()), software_version, weights),
            plane_positions=[hd.PlanePositionSequence("PATIENT", slices[each].position) for each in order],
            series_instance_uid=hd.UID(),
            series_number=min(max(int(source.get("SeriesNumber") or 0), 0), 10_000_000) * 100 + 1,
            series_description=series_description,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="h2aseg-container",
            manufacturer_model_name="H2ASeg",
            device_serial_number=weights[0].sha256[:16] if weights else "none",
            software_versions=software_version,
            content_label="LESIONS",
            content_description="Tumour lesions found by software for research, not for diagnosis",
            specific_character_set=_CHARACTERS,
        )
    # highdicom is strict about what it takes over
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidImageError(
            f"the headers of the PET beside {pet_files[0]} have what no segmentation may have: {error}; give the "
            "files as the scanner sent them, or do without the DICOM SEG"
        ) from error


def highdicom_module() -> Any:
    """Import highdicom; raises InstallationError where it is missing."""
    try:
        import highdicom
    except ImportError as error:
        raise InstallationError(
            f"a DICOM SEG needs highdicom, which is not installed ({error}); run "
            "`pip install -r requirements-clinic.txt` or add --no-dicom-seg"
        ) from error
    return highdicom


def _segments(hd: Any, count: int, version: str, weights: Sequence[WeightsUsed]) -> list[Any]:
    """Describe the segments 1 to ``count``."""
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name="H2ASeg",
        family=codes.cid7162.ArtificialIntelligence,
        version=version,
        source="h2aseg-container",
        parameters={each.name: f"sha256:{each.sha256}" for each in weights} or None,
    )
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Lesion {number}",
            segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.cid7159.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=hd.UID(),
            tracking_id=f"Lesion {number}",
            display_color=hd.color.CIELabColor.from_rgb(*_colour(number)),
        )
        for number in range(1, count + 1)
    ]


def _colour(number: int) -> tuple[float, float, float]:
    """Return a colour, 0 to 255; neighbours in number are far apart in hue (by the golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.95)
    return 255 * red, 255 * green, 255 * blue


def _header(path: Path) -> Any:
    """Read a PET instance without its pixels; what must be there and may be empty is there."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=lacks_preamble(path))
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise UnreadableImageError(
            f"cannot read {path} as DICOM: {error}; give the files of the PET series"
        ) from error
    multi_frame = "PerFrameFunctionalGroupsSequence" in header
    for keyword in _NEEDED if multi_frame else (*_NEEDED, *_NEEDED_PLANE):
        if not header.get(keyword):
            raise InvalidImageError(
                f"{path} has no {keyword}, so a segmentation cannot refer to it; give the files as the scanner "
                "sent them, or do without the DICOM SEG"
            )
    for keyword in _EMPTY_IF_MISSING:
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in ("M", "F", "O"):  # the enumerated values of (0010,0040); others would be refused
        header.PatientSex = None
    date, time = pydicom.valuerep.DA, pydicom.valuerep.TM
    for keyword, kind in (("PatientBirthDate", date), ("StudyDate", date), ("StudyTime", time)):
        if not _is_valid(kind, header[keyword].value):
            setattr(header, keyword, None)
    return header


def _is_valid(kind: Any, value: Any) -> bool:
    """Tell whether a value is a date or a time as DICOM writes them; 00000000 or XXXXXXXX is none."""
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _put_step(instances: Sequence[Any], ends: Sequence[_Slice], steps: int) -> None:
    """Put the slices' distance where highdicom takes it from, as headers may contradict the positions.

    SpacingBetweenSlices (0018,0088) is it, along the normal (PS3.3 C.7.6.16.2.1); so is SliceThickness where that
    is missing (type 2 in the PET, 1 in the SEG).
    """
    normal = np.cross(*np.asarray(ends[0].orientation, float).reshape(2, 3))
    apart = round(float(abs(np.subtract(ends[1].position, ends[0].position) @ normal)) / steps, 6)
    shared = items(instances[0], "SharedFunctionalGroupsSequence")
    for measures in items(shared[0], "PixelMeasuresSequence") if shared else instances:
        measures.SpacingBetweenSlices = apart
        if not measures.get("SliceThickness"):
            measures.SliceThickness = apart


def _slices(instances: Sequence[Any]) -> list[_Slice]:
    """Return the slices of a series: one per single-frame instance, or one per frame of the only instance."""
    multi_frame = ["PerFrameFunctionalGroupsSequence" in each for each in instances]
    if multi_frame == [True]:
        return list(_frames_of(instances[0]))
    if any(multi_frame):
        raise InvalidImageError(
            f"the PET's frames lie in {len(instances)} multi-frame files, and a segmentation refers to one; join "
            "them, or do without the DICOM SEG"
        )
    return [
        _Slice(
            tuple(each.ImagePositionPatient),
            tuple(each.ImageOrientationPatient),
            tuple(each.PixelSpacing),
            each.Rows,
            each.Columns,
        )
        for each in instances
    ]


def _frames_of(instance: Any) -> Iterator[_Slice]:
    """Yield the frames of a multi-frame instance from its functional groups, its own before the shared ones."""
    shared = items(instance, "SharedFunctionalGroupsSequence")
    for own in instance.PerFrameFunctionalGroupsSequence:
        position, orientation, measures = (
            _group(keyword, own, *shared)
            for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        yield _Slice(
            tuple(position.ImagePositionPatient),
            tuple(orientation.ImageOrientationPatient),
            tuple(measures.PixelSpacing),
            instance.Rows,
            instance.Columns,
        )


def _group(keyword: str, *groups: Any) -> Any:
    """Return the first item of a sequence of the first functional groups that have it."""
    for each in groups:
        if found := items(each, keyword):
            return found[0]
    raise InvalidImageError(
        f"a frame of the PET has no {keyword}, so a segmentation cannot refer to it; give the files as the "
        "scanner sent them, or do without the DICOM SEG"
    )


def _frames(
    labels: NDArray[np.integer], grid: sitk.Image, slices: Sequence[_Slice]
) -> tuple[list[int], NDArray[np.uint16]]:
    """Cut the labels into the PET's slices.

    Returns
    -------
    order : list of int
        Slices along their normal; of several at one place (time frames) the first.
    frames : uint16 array, slice, row, column
        In that order.

    Raises
    ------
    GeometryError
        A slice does not lie on the grid, or the slices do not cover every lesion.
    """
    cosines = np.asarray(slices[0].orientation, float).reshape(2, 3)
    along = [float(np.dot(each.position, np.cross(*cosines))) for each in slices]
    places = np.round(np.array(along) / (_TOLERANCE * min(grid.GetSpacing()))).astype(int)
    order = [int(each) for each in np.unique(places, return_index=True)[1]]
    frames = np.stack([_frame(labels, grid, slices[each]) for each in order])
    found, wanted = np.count_nonzero(frames), np.count_nonzero(labels)
    if found != wanted:
        raise GeometryError(
            f"the PET's {len(order)} DICOM slices hold {found} of the {wanted} tumour voxels; give the files of "
            "the PET that was segmented, all of them"
        )
    return order, frames


def _frame(labels: NDArray[np.integer], grid: sitk.Image, where: _Slice) -> NDArray[np.uint16]:
    """Return the labels in one slice, row by column, by where its corners lie on the grid."""
    along_row, along_column = np.asarray(where.orientation, float).reshape(2, 3)
    between_rows, between_columns = where.spacing
    corners = [
        np.asarray(where.position, float),
        np.asarray(where.position) + along_column * between_rows * (where.rows - 1),
        np.asarray(where.position) + along_row * between_columns * (where.columns - 1),
    ]
    at = np.array([grid.TransformPhysicalPointToContinuousIndex(each.tolist()) for each in corners])[:, ::-1]
    whole = np.rint(at).astype(int)
    if np.abs(at - whole).max() > _TOLERANCE:
        raise GeometryError(
            f"the PET's DICOM slice at {[round(float(each), 2) for each in where.position]} mm does not lie on "
            "the mask's voxels; give the files of the PET that was segmented"
        )
    steps = []
    for reach, count in ((whole[1] - whole[0], where.rows), (whole[2] - whole[0], where.columns)):
        moves = reach if count == 1 else reach / (count - 1)
        if not np.array_equal(np.sort(np.abs(moves)), [0, 0, count > 1]):
            raise GeometryError(
                f"the PET's DICOM pixels are {where.spacing} mm apart, the mask's voxels {grid.GetSpacing()} mm; "
                "give the files of the PET that was segmented"
            )
        steps.append(moves.astype(int))
    opposite = whole[1] + whole[2] - whole[0]
    if np.minimum(whole[0], opposite).min() < 0 or (np.maximum(whole[0], opposite) >= labels.shape).any():
        return np.zeros((where.rows, where.columns), np.uint16)
    strides = np.array([labels.shape[1] * labels.shape[2], labels.shape[2], 1])
    start, down, right = (int(each @ strides) for each in (whole[0], *steps))
    places = start + down * np.arange(where.rows)[:, None] + right * np.arange(where.columns)
    frame: NDArray[np.uint16] = labels.reshape(-1)[places].astype(np.uint16)
    return frame
