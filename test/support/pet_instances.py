"""PET series as DICOM with any geometry, small and synthetic: what a segmentation must refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat


def grid_of(
    size: Sequence[int], spacing: Sequence[float], direction: Sequence[float], origin: Sequence[float]
) -> sitk.Image:
    """Return an image of random SUVs; sizes and spacings as x, y, z."""
    pixels = np.random.default_rng(1).gamma(2, 1, tuple(reversed(size))).astype(np.float32)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(tuple(spacing))
    image.SetDirection(tuple(direction))
    image.SetOrigin(tuple(origin))
    return image


def write_series(folder: Path, image: sitk.Image, order: Sequence[int] | None = None) -> list[Path]:
    """Write one instance per slice; ``order`` is the order of the files and of InstanceNumber."""
    folder.mkdir(parents=True, exist_ok=True)
    common = _common(image)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    pixels = sitk.GetArrayFromImage(image)
    paths = []
    for number, slice_ in enumerate(order if order is not None else range(image.GetSize()[2]), start=1):
        instance = Dataset()
        instance.update(common)
        instance.SOPClassUID = PositronEmissionTomographyImageStorage
        instance.SOPInstanceUID = generate_uid()
        instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.FrameOfReferenceUID = study, series, frame
        instance.InstanceNumber = number
        instance.ImagePositionPatient = _position(image, slice_)
        instance.ImageOrientationPatient = _orientation(image)
        instance.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
        instance.SliceThickness = image.GetSpacing()[2]
        instance.PixelData = (pixels[slice_] * 100).astype(np.uint16).tobytes()
        path = folder / f"{number:04d}.dcm"
        _save(instance, path)
        paths.append(path)
    return paths


def write_enhanced(path: Path, image: sitk.Image, order: Sequence[int]) -> Path:
    """Write one multi-frame instance whose frames are the slices of ``order``."""
    instance = _common(image)
    instance.SOPClassUID = EnhancedPETImageStorage
    instance.SOPInstanceUID = generate_uid()
    instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.FrameOfReferenceUID = (
        generate_uid() for _ in range(3)
    )
    instance.InstanceNumber = 1
    instance.NumberOfFrames = len(order)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
    measures.SliceThickness = image.GetSpacing()[2]
    orientation.ImageOrientationPatient = _orientation(image)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    instance.SharedFunctionalGroupsSequence = [shared]
    instance.PerFrameFunctionalGroupsSequence = []
    for slice_ in order:
        position, item = Dataset(), Dataset()
        position.ImagePositionPatient = _position(image, slice_)
        item.PlanePositionSequence = [position]
        instance.PerFrameFunctionalGroupsSequence.append(item)
    pixels = sitk.GetArrayFromImage(image)[list(order)]
    instance.PixelData = (pixels * 100).astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(instance, path)
    return path


def _orientation(image: sitk.Image) -> list[float]:
    cosines = np.array(image.GetDirection()).reshape(3, 3)
    return [DSfloat(each, auto_format=True) for each in (*cosines[:, 0].tolist(), *cosines[:, 1].tolist())]


def _position(image: sitk.Image, slice_: int) -> list[float]:
    return [DSfloat(each, auto_format=True) for each in image.TransformIndexToPhysicalPoint((0, 0, int(slice_)))]


def _common(image: sitk.Image) -> Dataset:
    """Return what every instance has; patient and study are made up."""
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.Modality = "PT"
    common.PatientName, common.PatientID = "Phantom^Synthetic", "SYN-001"
    common.PatientBirthDate, common.PatientSex = "", "O"
    common.StudyDate, common.StudyTime, common.StudyID, common.AccessionNumber = "20260102", "090000", "1", ""
    common.SeriesNumber = 4
    common.Manufacturer = "Synthetic"
    common.Columns, common.Rows = image.GetSize()[:2]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit, common.PixelRepresentation = 15, 0
    return common


def _save(instance: Dataset, path: Path) -> None:
    instance.file_meta = FileMetaDataset()
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, instance, enforce_file_format=True)
