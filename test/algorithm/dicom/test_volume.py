"""Series to image, against SimpleITK's own GDCM reader: order, geometry, values, compressed pixels."""

from __future__ import annotations

from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames

from algorithm.dicom.series import find_series
from algorithm.dicom.study import read_ct, read_pet
from algorithm.errors import InvalidImageError, UnreadableImageError
from test.support.dicom import AXIAL, CORONAL, FEET_FIRST, SAGITTAL, Maker, edit_all, oblique

SHAPE = (6, 40, 36)
ORIENTATIONS = {
    "axial": AXIAL,
    "feet first": FEET_FIRST,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": oblique(),
    "upside down": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
}


def _hu(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, SHAPE).astype(np.int16)


def _stored(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 20000, SHAPE).astype(np.int16)


def _by_gdcm(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def _same_grid(a: sitk.Image, b: sitk.Image) -> None:
    assert a.GetSize() == b.GetSize()
    np.testing.assert_allclose(a.GetSpacing(), b.GetSpacing(), atol=1e-5)
    np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_ct_equals_gdcms_in_any_orientation(tmp_path, orientation):
    Maker(orientation=orientation).ct(tmp_path, _hu())
    image = read_ct(tmp_path).image
    other = _by_gdcm(tmp_path)
    _same_grid(image, other)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(other))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), _hu())


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_pet_with_a_slope_per_slice_equals_gdcms(tmp_path, orientation):
    slopes = [0.5, 1.5, 2.0, 0.25, 3.0, 1.0]
    gml = edit_all(Units="GML", SUVType="BW")
    Maker(orientation=orientation).pet(tmp_path, _stored(), slopes=slopes, edit=gml)
    image = read_pet(tmp_path).image
    other = _by_gdcm(tmp_path)
    _same_grid(image, other)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(other), rtol=1e-6)


def test_every_voxel_lies_where_the_header_says(tmp_path):
    maker = Maker(orientation=oblique(), spacing=(3.0, 4.0, 5.0))
    paths = maker.ct(tmp_path, _hu())
    image = read_ct(tmp_path).image
    for index, path in enumerate(paths):
        header = pydicom.dcmread(path)
        row, column = np.array(header.ImageOrientationPatient[:3]), np.array(header.ImageOrientationPatient[3:])
        expected = np.array(header.ImagePositionPatient) + 2 * 5.0 * row + 3 * 4.0 * column
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((2, 3, index)), expected, atol=1e-4)


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_enhanced_equals_classic(tmp_path, modality):
    maker, slopes = Maker(orientation=FEET_FIRST), [1.0, 2.0, 0.5, 3.0, 1.0, 0.1]
    order = [3, 0, 5, 1, 4, 2]
    if modality == "CT":
        stored = _hu()
        maker.enhanced(tmp_path / "a" / "e.dcm", "CT", stored, [1.0] * 6, order=order)
        maker.ct(tmp_path / "b", stored)
        enhanced, classic = read_ct(tmp_path / "a").image, read_ct(tmp_path / "b").image
    else:
        maker.enhanced(tmp_path / "a" / "e.dcm", "PT", _stored(), slopes, order=order)
        maker.pet(tmp_path / "b", _stored(), slopes=slopes)
        enhanced, classic = read_pet(tmp_path / "a").image, read_pet(tmp_path / "b").image
    _same_grid(enhanced, classic)
    np.testing.assert_allclose(sitk.GetArrayFromImage(enhanced), sitk.GetArrayFromImage(classic), rtol=1e-5)


@pytest.mark.parametrize("orientation", [AXIAL, FEET_FIRST, oblique()])
def test_enhanced_ct_equals_gdcms(tmp_path, orientation):
    path = Maker(orientation=orientation).enhanced(tmp_path / "e.dcm", "CT", _hu(), [1.0] * 6, intercept=-24.0)
    image, other = read_ct(tmp_path).image, sitk.ReadImage(str(path))
    _same_grid(image, other)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.maximum(sitk.GetArrayFromImage(other), -1024))


SYNTAXES = {
    "RLE": gdcm.TransferSyntax.RLELossless,
    "JPEG lossless SV1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "implicit": gdcm.TransferSyntax.ImplicitVRLittleEndian,
    "big endian": gdcm.TransferSyntax.ExplicitVRBigEndian,
}


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_compressed_pixels_are_those_of_plain_ones(tmp_path, syntax, modality):
    plain, coded = tmp_path / "plain", tmp_path / "coded"
    maker, read = Maker(), read_ct if modality == "CT" else read_pet
    paths = maker.ct(plain, _hu()) if modality == "CT" else maker.pet(plain, _stored())
    coded.mkdir()
    for path in paths:
        _transcode(path, coded / path.name, syntax)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read(coded).image), sitk.GetArrayFromImage(read(plain).image)
    )


@pytest.mark.parametrize("syntax", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000", "RLE"])
def test_a_compressed_stream_cut_off_is_named(tmp_path, syntax):
    path = Maker().pet(tmp_path, _stored())[0]
    _transcode(path, path, SYNTAXES[syntax])
    coded = pydicom.dcmread(path)
    frame = next(generate_frames(coded.PixelData, number_of_frames=1))
    coded.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    coded.save_as(path)
    with pytest.raises(UnreadableImageError, match=path.name):
        read_pet(tmp_path)


def test_a_file_from_before_part_10_is_read(tmp_path):
    paths = Maker().ct(tmp_path, _hu())
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(tmp_path).image), _hu())


def _transcode(source: Path, target: Path, syntax: int) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()


@pytest.mark.parametrize(("value", "limit"), [(-2000, None), (-2000, -1990)])
def test_padding_becomes_air(tmp_path, value, limit):
    def edit(dataset, _):
        pixels = dataset.pixel_array.astype(np.int16) - 1024
        pixels[0, 0], pixels[0, 1] = -2000, -1995
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = pixels.tobytes()
        dataset.PixelPaddingValue = value
        if limit is not None:
            dataset.PixelPaddingRangeLimit = limit

    Maker().ct(tmp_path, _hu(), edit=edit)
    values = sitk.GetArrayFromImage(read_ct(tmp_path).image)
    assert (values[:, 0, :2] == -1024).all()
    np.testing.assert_array_equal(values[:, 1:], _hu()[:, 1:])


def test_padding_above_air_becomes_air_too(tmp_path):
    hu = _hu()
    hu[:, 0, 0] = 3000
    Maker().ct(tmp_path, hu, edit=lambda dataset, _: setattr(dataset, "PixelPaddingValue", 3000 + 1024))
    values = sitk.GetArrayFromImage(read_ct(tmp_path).image)
    assert (values[:, 0, 0] == -1024).all()
    np.testing.assert_array_equal(values[:, 0, 1:], hu[:, 0, 1:])


def test_padding_of_the_other_sign(tmp_path):
    """A padding of -2000 that the writer put down as 63536."""

    def edit(dataset, _):
        pixels = dataset.pixel_array.astype(np.int16) - 1024
        pixels[0, 0] = 2000
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = np.where(pixels == 2000, -2000, pixels).astype(np.int16).tobytes()
        dataset.add_new("PixelPaddingValue", "US", 63536)

    Maker().ct(tmp_path, _hu(), edit=edit)
    assert (sitk.GetArrayFromImage(read_ct(tmp_path).image)[:, 0, 0] == -1024).all()


def test_overlay_bits_above_the_stored_ones_are_cleared(tmp_path):
    hu = _hu()

    def edit(dataset, _):
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PixelData = (dataset.pixel_array | 0x4000).astype(np.uint16).tobytes()

    Maker().ct(tmp_path, hu, edit=edit)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(tmp_path).image), hu)


def test_twelve_signed_bits_keep_their_sign(tmp_path):
    hu = np.clip(_hu(), -1000, 1000)

    def edit(dataset, _):
        signed = dataset.pixel_array.astype(np.int32) - 1024
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PixelData = (signed & 0x0FFF).astype(np.uint16).tobytes()

    Maker().ct(tmp_path, hu, edit=edit)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(tmp_path).image), hu)


def test_a_file_cut_off_is_named(tmp_path):
    path = Maker().ct(tmp_path, _hu())[2]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UnreadableImageError, match=path.name):
        read_ct(tmp_path)


@pytest.mark.parametrize("slope", [0, -1])
def test_a_ct_slice_whose_slope_is_not_above_0_is_refused(tmp_path, slope):
    def edit(dataset, index):
        if index == 3:
            dataset.RescaleSlope = slope

    Maker().ct(tmp_path, _hu(), edit=edit)
    with pytest.raises(InvalidImageError, match=f"must have a RescaleSlope above 0, got {slope}; export"):
        read_ct(tmp_path)


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_refused(tmp_path):
    Maker().ct(tmp_path, _hu(), edit=edit_all(RescaleSlope="1e300"))
    with pytest.raises(InvalidImageError, match="must have finite values, got"):
        read_ct(tmp_path)


def test_pixels_that_do_not_end_where_they_are_stored_are_refused(tmp_path):
    Maker().ct(tmp_path, _hu(), edit=edit_all(BitsStored=12, HighBit=15))
    with pytest.raises(InvalidImageError, match="must end at bit 11, as 12 are stored, got HighBit 15"):
        read_ct(tmp_path)


def test_ct_without_intercept_is_refused(tmp_path):
    Maker().ct(tmp_path, _hu(), edit=edit_all(RescaleIntercept=None))
    with pytest.raises(InvalidImageError, match="no RescaleIntercept, so its values are not HU"):
        read_ct(tmp_path)


def test_headers_alone_are_read_while_choosing(tmp_path):
    """Pixels of series that are not chosen may be damaged."""
    maker = Maker()
    maker.ct(tmp_path / "good", _hu())
    for path in maker.ct(tmp_path / "short", _hu()[:3], series="other"):
        path.write_bytes(path.read_bytes()[:-60])
    assert len(find_series(tmp_path).series) == 2
    assert read_ct(tmp_path).image.GetSize() == SHAPE[::-1]


def test_slices_come_in_dicom_order_for_whoever_refers_to_them(tmp_path):
    paths = Maker(orientation=FEET_FIRST).pet(tmp_path, _stored())
    assert read_pet(tmp_path).series.paths == tuple(paths)
