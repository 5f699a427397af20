from __future__ import annotations

import builtins
import json
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.description import WeightsUsed
from algorithm.errors import GeometryError, InstallationError, InvalidImageError, UnreadableImageError
from algorithm.lesions import measure_burden, number_lesions

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from algorithm.dicom.segmentation import write_segmentation  # noqa: E402
from test.support.pet_instances import grid_of, write_enhanced, write_series  # noqa: E402

WEIGHTS = [WeightsUsed("h2aseg", "ab" * 32)]
SIZE = (11, 9, 7)  # x, y, z
SPACING = (2.5, 3.0, 4.0)
ORIGIN = (-120.0, -95.5, -812.25)
HEAD_FIRST = (1, 0, 0, 0, 1, 0, 0, 0, 1)
FEET_FIRST = (-1, 0, 0, 0, 1, 0, 0, 0, -1)
OBLIQUE = tuple(sitk.Euler3DTransform((0, 0, 0), 0.2, -0.3, 0.5).GetMatrix())
BIN = Path(sys.executable).parent


def write(path: Path, labels: NDArray[np.int32], grid: sitk.Image, files: Sequence[Path]) -> bool:
    return write_segmentation(path, labels, grid, files, software_version="0.1.0", weights=WEIGHTS)


def some_mask(seed: int = 0, density: float = 0.06) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random(SIZE[::-1]) < density).astype(np.uint8)


def source_positions(files: Sequence[Path]) -> dict[tuple[str, int], list[float]]:
    """ImagePositionPatient by SOPInstanceUID and frame number (1 for single-frame instances)."""
    positions = {}
    for path in files:
        instance = pydicom.dcmread(path)
        frames = instance.get("PerFrameFunctionalGroupsSequence", [None])
        for number, frame in enumerate(frames, start=1):
            where = instance if frame is None else frame.PlanePositionSequence[0]
            positions[instance.SOPInstanceUID, number] = [float(each) for each in where.ImagePositionPatient]
    return positions


def read_back(path: Path, grid: sitk.Image, files: Sequence[Path]) -> NDArray[np.int32]:
    """Put the segmentation's pixels on a grid by their position alone; every frame must refer to its slice."""
    segmentation = pydicom.dcmread(path)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    sources = source_positions(files)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = shared.PixelMeasuresSequence[0].PixelSpacing
    labels = np.zeros(grid.GetSize()[::-1], np.int32)
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(each) for each in groups.PlanePositionSequence[0].ImagePositionPatient]
        for source in groups.DerivationImageSequence[0].SourceImageSequence:
            named = source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1))
            assert position == sources[named]
        holder = groups if "SegmentIdentificationSequence" in groups else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for row, column in np.argwhere(frame):
            at_mm = position + cosines[0] * column * between_columns + cosines[1] * row * between_rows
            x, y, z = grid.TransformPhysicalPointToIndex(at_mm.tolist())
            assert labels[z, y, x] == 0
            labels[z, y, x] = number
    return labels


@pytest.mark.parametrize(
    "direction", [HEAD_FIRST, FEET_FIRST, OBLIQUE], ids=["head first", "feet first", "oblique"]
)
@pytest.mark.parametrize("enhanced", [False, True], ids=["single-frame", "multi-frame"])
def test_read_back_it_is_the_mask_voxel_for_voxel(
    tmp_path: Path, direction: tuple[float, ...], enhanced: bool
) -> None:
    grid = grid_of(SIZE, SPACING, direction, ORIGIN)
    order = [3, 0, 6, 5, 1, 2, 4]
    files = (
        [write_enhanced(tmp_path / "pet.dcm", grid, order)] if enhanced else write_series(tmp_path, grid, order)
    )
    burden = measure_burden(some_mask(), grid)

    assert write(tmp_path / "seg.dcm", burden.labels, grid, files)

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), burden.labels)
    assert len(burden.lesions) > 5


@pytest.mark.parametrize("orientation", ["RAI", "SPL", "ASR"])
def test_the_mask_may_be_turned_against_the_instances(tmp_path: Path, orientation: str) -> None:
    grid = grid_of(SIZE, SPACING, OBLIQUE, ORIGIN)
    files = write_series(tmp_path, grid)
    labels, _ = number_lesions(some_mask())
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    turned = sitk.DICOMOrient(image, orientation)

    write(tmp_path / "seg.dcm", sitk.GetArrayFromImage(turned), turned, files)

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)


def test_one_lesion_and_geometry_rounded_by_another_format(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, OBLIQUE, ORIGIN)
    files = write_series(tmp_path, grid)
    labels = np.zeros(SIZE[::-1], np.int32)
    labels[2:4, 3:6, 4:8] = 1
    sitk.WriteImage(grid, str(tmp_path / "pet.nii.gz"))

    write(tmp_path / "seg.dcm", labels, sitk.ReadImage(str(tmp_path / "pet.nii.gz")), files)

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)


def test_several_time_frames_at_one_place_make_one_frame(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = [write_enhanced(tmp_path / "pet.dcm", grid, [*range(7), *range(7)])]
    labels, _ = number_lesions(some_mask())

    write(tmp_path / "seg.dcm", labels, grid, files)

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)


def test_segments_say_what_they_are_and_who_found_them(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    labels, count = number_lesions(some_mask())
    write(tmp_path / "seg.dcm", labels, grid, files)

    segmentation, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(files[0])

    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert (segmentation.Modality, segmentation.SegmentationType) == ("SEG", "BINARY")
    assert [each.SegmentNumber for each in segmentation.SegmentSequence] == list(range(1, count + 1))
    for segment in segmentation.SegmentSequence:
        (category,), (kind,) = (
            segment.SegmentedPropertyCategoryCodeSequence,
            segment.SegmentedPropertyTypeCodeSequence,
        )
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("49755003", "SCT")
        assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("108369006", "SCT", "Neoplasm")
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (segment.SegmentAlgorithmType, algorithm.AlgorithmVersion) == ("AUTOMATIC", "0.1.0")
        assert algorithm.AlgorithmParameters == f"h2aseg=sha256:{'ab' * 32}"
        assert segment.SegmentLabel == f"Lesion {segment.SegmentNumber}"
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert segmentation[keyword].value == source[keyword].value
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID


@pytest.mark.parametrize("enhanced", [False, True], ids=["single-frame", "multi-frame"])
@pytest.mark.parametrize("most", [1, 1000], ids=["one lesion", "many"])
def test_the_validator_of_dicom3tools_has_no_complaint(tmp_path: Path, enhanced: bool, most: int) -> None:
    if not (BIN / "dciodvfy").exists():
        pytest.skip("no dciodvfy; install dicom3tools from requirements-dev.txt")
    grid = grid_of(SIZE, SPACING, OBLIQUE, ORIGIN)
    order = range(SIZE[2])
    files = [write_enhanced(tmp_path / "pet.dcm", grid, order)] if enhanced else write_series(tmp_path, grid)
    labels, _ = number_lesions(some_mask())
    write(tmp_path / "seg.dcm", labels * (labels <= most), grid, files)

    said = subprocess.run(
        [BIN / "dciodvfy", "-new", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False
    )

    assert [line for line in said.stderr.splitlines() if line.startswith(("Error", "Warning"))] == []
    assert "Segmentation" in said.stderr + said.stdout


@pytest.mark.parametrize(
    "direction", [HEAD_FIRST, FEET_FIRST, OBLIQUE], ids=["head first", "feet first", "oblique"]
)
def test_dcmqi_reads_the_mask_where_it_lies(tmp_path: Path, direction: tuple[float, ...]) -> None:
    if not (BIN / "segimage2itkimage").exists():
        pytest.skip("no segimage2itkimage; install dcmqi from requirements-dev.txt")
    grid = grid_of(SIZE, SPACING, direction, ORIGIN)
    files = write_series(tmp_path / "pet", grid, [3, 0, 6, 5, 1, 2, 4])
    mask = some_mask()
    labels, count = number_lesions(mask)
    write(tmp_path / "seg.dcm", labels, grid, files)

    command = [BIN / "segimage2itkimage", "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path]
    subprocess.run([*command, "--outputType", "nrrd", "--mergeSegments"], check=True, capture_output=True)

    theirs = sitk.Resample(
        sitk.ReadImage(str(tmp_path / "1.nrrd")), grid, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), labels)
    told = json.loads((tmp_path / "meta.json").read_text())
    assert len([each for group in told["segmentAttributes"] for each in group]) == count


@pytest.mark.parametrize(
    "missing", ["FrameOfReferenceUID", "StudyInstanceUID", "ImagePositionPatient", "PixelSpacing"]
)
def test_what_a_segmentation_refers_to_must_be_there(tmp_path: Path, missing: str) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    instance = pydicom.dcmread(files[3])
    for empty in (True, False):
        if empty:
            instance[missing].value = None
        else:
            del instance[missing]
        instance.save_as(files[3])

        with pytest.raises(InvalidImageError, match=rf"0004\.dcm has no {missing}, so"):
            write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, files)


def test_files_without_the_preamble_of_part_10_are_referred_to(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    labels, _ = number_lesions(some_mask())
    write(tmp_path / "whole.dcm", labels, grid, files)
    for path in files:
        instance = pydicom.dcmread(path)
        raw, syntax = path.read_bytes(), instance.file_meta.TransferSyntaxUID
        assert syntax == pydicom.uid.ExplicitVRLittleEndian
        path.write_bytes(raw[144 + instance.file_meta.FileMetaInformationGroupLength :])

    write(tmp_path / "seg.dcm", labels, grid, files)

    one, other = (pydicom.dcmread(tmp_path / name) for name in ("seg.dcm", "whole.dcm"))
    assert one.PixelData == other.PixelData
    assert one.ReferencedSeriesSequence == other.ReferencedSeriesSequence


@pytest.mark.parametrize("keyword", ["SharedFunctionalGroupsSequence", "PixelMeasuresSequence"])
def test_frames_without_their_groups_are_refused(tmp_path: Path, keyword: str) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    path = write_enhanced(tmp_path / "pet.dcm", grid, range(7))
    instance = pydicom.dcmread(path)
    del (instance if keyword in instance else instance.SharedFunctionalGroupsSequence[0])[keyword]
    instance.save_as(path)

    with pytest.raises(InvalidImageError, match="a frame of the PET has no P"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, [path])


@pytest.mark.parametrize("missing", ["PatientID", "PatientSex", "AccessionNumber", "StudyTime", "SliceThickness"])
def test_what_an_anonymiser_took_away_is_empty(tmp_path: Path, missing: str) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    for path in files:
        instance = pydicom.dcmread(path)
        del instance[missing]
        instance.save_as(path)
    labels, _ = number_lesions(some_mask())

    write(tmp_path / "seg.dcm", labels, grid, files)

    assert not pydicom.dcmread(tmp_path / "seg.dcm").get(missing)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("SpecificCharacterSet", ["", "ISO 2022 IR 87"], "ISO_IR 192"),
        ("SpecificCharacterSet", "", "ISO_IR 192"),
        ("SpecificCharacterSet", "ISO_IR 6", "ISO_IR 192"),
        ("PatientBirthDate", "00000000", ""),
        ("PatientBirthDate", "1950", ""),
        ("StudyDate", "XXXXXXXX", ""),
        ("StudyTime", "240000", ""),
        ("PatientBirthDate", "19500131", "19500131"),
        ("SeriesNumber", -5, "1"),
    ],
)
def test_headers_as_hospitals_have_them(tmp_path: Path, keyword: str, value: object, kept: str) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    for path in files:
        instance = pydicom.dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setattr(instance, keyword, value)
            instance.save_as(path)
    labels, _ = number_lesions(some_mask())

    write(tmp_path / "seg.dcm", labels, grid, files)

    assert str(pydicom.dcmread(tmp_path / "seg.dcm").get(keyword) or "") == kept
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)


def test_a_name_in_kanji_stays_as_it_is(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    name = "Yamada^Tarou=山田^太郎"
    for path in files:
        instance = pydicom.dcmread(path)
        instance.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        instance.PatientName = name
        instance.save_as(path)

    write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, files)

    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == name


def test_what_highdicom_refuses_is_one_sentence(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    instance = pydicom.dcmread(files[3])
    instance.FrameOfReferenceUID = "1.2.3"
    instance.save_as(files[3])

    with pytest.raises(InvalidImageError, match=r"have what no segmentation may have: .*; give the files"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, files)


def test_a_kind_of_object_that_highdicom_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)
    for path in files:
        instance = pydicom.dcmread(path)
        instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = "1.3.46.670589.11.0.0.12.1"
        instance.save_as(path)

    with pytest.raises(InvalidImageError, match=r"no segmentation may have: '1\.3\.46.*'; give the files"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, files)


def test_several_multi_frame_files_are_refused(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    halves = [
        write_enhanced(tmp_path / f"{name}.dcm", grid, order)
        for name, order in (("a", [0, 1, 2]), ("b", [3, 4, 5, 6]))
    ]

    with pytest.raises(InvalidImageError, match="lie in 2 multi-frame files"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, halves)


def test_without_a_lesion_nothing_is_written(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)

    assert not write(tmp_path / "seg.dcm", np.zeros(SIZE[::-1], np.int32), grid, files)

    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"origin": (-119.0, -95.5, -812.25)}, r"does not lie on the mask's voxels"),
        ({"spacing": (2.5, 3.0, 5.0)}, r"hold \d+ of the \d+ tumour voxels|does not lie on the mask's voxels"),
        ({"spacing": (5.0, 3.0, 4.0)}, r"apart, the mask's voxels|does not lie on"),
        ({"origin": (-120.0, -95.5, -832.25)}, r"hold \d+ of the \d+ tumour voxels"),
    ],
    ids=["shifted", "slices apart", "pixels apart", "elsewhere"],
)
def test_another_pets_files_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    other = {"spacing": SPACING, "origin": ORIGIN, **change}
    files = write_series(tmp_path, grid_of(SIZE, other["spacing"], HEAD_FIRST, other["origin"]))

    with pytest.raises(GeometryError, match=sentence):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, files)


def test_missing_slices_are_refused(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    files = write_series(tmp_path, grid)

    with pytest.raises(GeometryError, match=r"6 DICOM slices hold \d+ of the \d+ tumour voxels"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, [*files[:3], *files[4:]])


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    grid = grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN)
    (tmp_path / "notes.txt").write_text("no DICOM")

    with pytest.raises(UnreadableImageError, match=r"notes\.txt as DICOM"):
        write(tmp_path / "seg.dcm", number_lesions(some_mask())[0], grid, [tmp_path / "notes.txt"])


def test_without_highdicom_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == "highdicom":
            raise ImportError("No module named 'highdicom'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(InstallationError, match=r"needs highdicom.*requirements-clinic\.txt"):
        write(tmp_path / "seg.dcm", some_mask().astype(np.int32), grid_of(SIZE, SPACING, HEAD_FIRST, ORIGIN), [])


@pytest.mark.data
@pytest.mark.parametrize("patient", ["STS_002", "STS_008"])
def test_a_real_pet_series_is_referred_to_slice_by_slice(real_data: Path, tmp_path: Path, patient: str) -> None:
    """The expert's mask on the grid that was made of this very series becomes a segmentation of the series."""
    with tarfile.open(real_data / "dicom" / "sts" / f"{patient}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = sorted((tmp_path / patient / "PET" / "image").iterdir())
    grid, seg = (
        sitk.ReadImage(str(real_data / "sts" / patient / "pet-ct" / f"{name}.nii.gz")) for name in ("SUV", "SEG")
    )
    labels, _ = number_lesions(sitk.GetArrayFromImage(seg))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the series' own faults (a StudyID too long) are not told to the user
        write(tmp_path / "seg.dcm", labels, grid, files)

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", grid, files), labels)
    if (BIN / "dciodvfy").exists():
        said = subprocess.run(
            [BIN / "dciodvfy", "-new", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False
        )
        assert [
            line for line in said.stderr.splitlines() if line.startswith("Error") and "StudyID" not in line
        ] == []
