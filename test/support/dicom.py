"""Makers of synthetic DICOM series: classic slices and enhanced multi-frame objects, in any orientation.

Everything made here is synthetic; identifiers come from names, so that the same call makes the same files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
FEET_FIRST = (
    -1.0,
    0.0,
    0.0,
    0.0,
    1.0,
    0.0,
)  # supine, feet first: columns run to the right, the normal to the feet
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

Edit = Callable[[Dataset, int], None]
"""Changes one slice's dataset before it is written; gets its index along the normal."""


def oblique(degrees: float = 12.0) -> tuple[float, ...]:
    """Axial, turned about two axes."""
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    row = np.array([np.cos(a), np.sin(a), 0.0])
    column = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    return tuple(np.concatenate([row, column]).tolist())


@dataclass(frozen=True)
class Maker:
    """What the series of one study share, and where its slices lie.

    Attributes
    ----------
    study : str
        Names the study; its UID, patient and frame of reference come from it.
    orientation : tuple of float
        ImageOrientationPatient.
    spacing : tuple of float
        z (between slices), y (rows), x (columns), mm.
    origin : tuple of float
        Of the first slice, x, y, z, mm.
    frame_of_reference : str
        Names another one than the study's.
    """

    study: str = "study"
    orientation: Sequence[float] = AXIAL
    spacing: tuple[float, float, float] = (3.0, 4.0, 5.0)
    origin: tuple[float, float, float] = (-40.0, -30.0, 100.0)
    frame_of_reference: str = ""

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])

    def position(self, index: int) -> list[float]:
        """ImagePositionPatient of a slice."""
        return [round(float(v), 6) for v in np.array(self.origin) + index * self.spacing[0] * self.normal]

    def ct(
        self, folder: Path, hu: NDArray[np.int16], *, series: str = "ct", edit: Edit | None = None, number: int = 2
    ) -> list[Path]:
        """Write a classic CT of values in HU (z, y, x); stored + 1024."""

        def slice_of(index: int) -> Dataset:
            dataset = self._slice("CT", CTImageStorage, series, number, index)
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
            dataset.KVP, dataset.GantryDetectorTilt = "120", 0
            _put_pixels(dataset, (hu[index].astype(np.int32) + 1024).astype(np.uint16))
            return dataset

        return _write_all(folder, len(hu), slice_of, edit)

    def pet(
        self,
        folder: Path,
        stored: NDArray[np.int16],
        *,
        series: str = "pet",
        slopes: Sequence[float] | float = 1.0,
        edit: Edit | None = None,
        number: int = 3,
    ) -> list[Path]:
        """Write a classic PET of stored values (z, y, x): BQML, START, F-18, 60 minutes after the injection."""

        def slice_of(index: int) -> Dataset:
            dataset = self._slice("PT", PositronEmissionTomographyImageStorage, series, number, index)
            dataset.ImageType = ["ORIGINAL", "PRIMARY"]
            dataset.RescaleIntercept = 0
            dataset.RescaleSlope = slopes if isinstance(slopes, (int, float)) else slopes[index]
            dataset.NumberOfSlices = len(stored)
            fill_pet(dataset)
            _put_pixels(dataset, stored[index].astype(np.int16))
            return dataset

        return _write_all(folder, len(stored), slice_of, edit)

    def enhanced(
        self,
        path: Path,
        modality: str,
        stored: NDArray[np.int16],
        slopes: Sequence[float],
        *,
        intercept: float = 0.0,
        order: Sequence[int] | None = None,
        edit: Callable[[Dataset], None] | None = None,
    ) -> Path:
        """Write an enhanced multi-frame CT or PET; ``order`` shuffles its frames."""
        kind = EnhancedCTImageStorage if modality == "CT" else EnhancedPETImageStorage
        dataset = self._slice(modality, kind, f"enhanced {modality}", 4, 0)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(dataset, keyword)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if modality == "PT":
            fill_enhanced_pet(dataset)
        order = list(range(len(stored))) if order is None else list(order)
        shared = Dataset()
        shared.PixelMeasuresSequence = [_item(PixelSpacing=list(self.spacing[1:]), SliceThickness=self.spacing[0])]
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(self.orientation))]
        dataset.SharedFunctionalGroupsSequence = [shared]
        dataset.PerFrameFunctionalGroupsSequence = [
            _frame(self.position(index), slopes[index], intercept, index) for index in order
        ]
        _put_pixels(dataset, stored[order].astype(np.int16))
        dataset.NumberOfFrames = len(order)
        if edit is not None:
            edit(dataset)
        write(dataset, path)
        return path

    def _slice(self, modality: str, kind: str, series: str, number: int, index: int) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID = kind
        dataset.SOPInstanceUID = uid(self.study, series, str(index))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(self.study), uid(self.study, series)
        dataset.FrameOfReferenceUID = uid(self.frame_of_reference or self.study, "frame of reference")
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20250101"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "110000"
        dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "A1", "1", ""
        dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = modality, "Synthetic", "Phantom"
        dataset.StudyDescription, dataset.SeriesDescription = "synthetic PET/CT", f"synthetic {series}"
        dataset.PatientName, dataset.PatientID = f"Phantom^{self.study}", f"P-{self.study}"
        dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19900131", "M", "034Y"
        dataset.PatientWeight, dataset.PatientSize, dataset.PatientPosition = 70, "1.75", "HFS"
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = number, index + 1, 1
        dataset.PositionReferenceIndicator = ""
        dataset.ImagePositionPatient = self.position(index)
        dataset.ImageOrientationPatient = [round(float(v), 9) for v in self.orientation]
        dataset.PixelSpacing = list(self.spacing[1:])
        dataset.SliceThickness = self.spacing[0]
        return dataset


def fill_pet(dataset: Dataset) -> None:
    """Fill in what a SUV needs: BQML, corrected to 11:00 (SeriesTime), 368.08 MBq F-18 given at 10:00, 70 kg."""
    dataset.Units, dataset.DecayCorrection = "BQML", "START"
    dataset.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    dataset.SeriesType, dataset.CountsSource = ["WHOLE BODY", "IMAGE"], "EMISSION"
    dataset.ActualFrameDuration, dataset.FrameReferenceTime = 300000, 149605.344  # T_ave of F-18 over 300 s
    tracer = _item(
        RadiopharmaceuticalStartTime="100000",
        RadiopharmaceuticalStartDateTime="20250101100000",
        RadionuclideTotalDose="368080000",
        RadionuclideHalfLife="6586.2",
        RadionuclideCodeSequence=[
            _item(CodeValue="77004003", CodingSchemeDesignator="SCT", CodeMeaning="^18^Fluorine")
        ],
    )
    dataset.RadiopharmaceuticalInformationSequence = [tracer]


def fill_enhanced_pet(dataset: Dataset) -> None:
    """The same in an enhanced PET's words."""
    fill_pet(dataset)
    for keyword in ("Units", "DecayCorrection", "CorrectedImage", "ActualFrameDuration", "FrameReferenceTime"):
        delattr(dataset, keyword)
    dataset.DecayCorrected = dataset.AttenuationCorrected = "YES"
    dataset.DecayCorrectionDateTime = "20250101110000"


def tracer_of(dataset: Dataset) -> Dataset:
    """The tracer's item."""
    return dataset.RadiopharmaceuticalInformationSequence[0]


def edit_all(**elements: object) -> Edit:
    """Make an edit that sets elements of every slice; None removes one; names of the tracer's item go there."""

    def edit(dataset: Dataset, _: int) -> None:
        for keyword, value in elements.items():
            target = tracer_of(dataset) if keyword.startswith("Radio") and "Sequence" not in keyword else dataset
            if value is not None:
                setattr(target, keyword, copy.deepcopy(value))
            elif keyword in target:
                delattr(target, keyword)

    return edit


def write(dataset: Dataset, path: Path) -> None:
    """Write as a DICOM file, explicit little endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = _meta(dataset)
    dataset.save_as(path, enforce_file_format=True)


def uid(*names: str) -> str:
    """Make the UID that belongs to names."""
    return str(generate_uid(entropy_srcs=["synthetic", *names]))


def _meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _frame(position: list[float], slope: float, intercept: float, index: int) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = [_item(ImagePositionPatient=position)]
    frame.PixelValueTransformationSequence = [
        _item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
    ]
    frame.FrameContentSequence = [
        _item(
            FrameAcquisitionDateTime="20250101110000",
            FrameAcquisitionDuration=300000.0,
            InStackPositionNumber=index,
        )
    ]
    units = _item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Becquerels/milliliter")
    frame.RealWorldValueMappingSequence = [
        _item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept, MeasurementUnitsCodeSequence=[units])
    ]
    return frame


def _put_pixels(dataset: Dataset, pixels: NDArray[np.integer]) -> None:
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.file_meta = _meta(dataset)  # so that an edit can ask for the pixels


def _write_all(folder: Path, count: int, slice_of: Callable[[int], Dataset], edit: Edit | None) -> list[Path]:
    paths = []
    for index in range(count):
        dataset = slice_of(index)
        if edit is not None:
            edit(dataset, index)
        name = f"IM{count - index:04d}.dcm"  # names run against the positions, so that nobody sorts by them
        write(dataset, folder / name)
        paths.append(folder / name)
    return paths
