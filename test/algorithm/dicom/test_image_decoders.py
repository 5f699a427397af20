"""What the image itself can decode: uncompressed, RLE, JPEG 2000 and HTJ2K; GDCM is not in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    RLELossless,
)

from algorithm.dicom import volume
from algorithm.dicom.study import read_pet
from test.support.studies import write_study

IN_THE_IMAGE = {"pydicom", "pylibjpeg"}


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL])
def test_there_is_a_decoder(syntax: pydicom.uid.UID) -> None:
    """HTJ2K with RPCL is how some archives store whatever is uploaded."""
    assert IN_THE_IMAGE & set(get_decoder(syntax).available_plugins)


@pytest.mark.parametrize(("syntax", "plugin"), [(RLELossless, "pydicom"), (JPEG2000Lossless, "pylibjpeg")])
def test_it_decodes(syntax, plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read_pet(write_study(tmp_path / "plain", ct=False)).image
    for path in (write_study(tmp_path / "packed", ct=False) / "pet").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.save_as(path)
    monkeypatch.setattr(
        volume, "_choose_decoder", lambda stored: stored.pixel_array_options(decoding_plugin=plugin)
    )

    packed = read_pet(tmp_path / "packed").image

    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(image) for image in (packed, plain)))
