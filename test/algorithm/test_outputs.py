"""Files of this software are known by what is in them, and no others are replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import OutputError
from algorithm.images import write_mask
from algorithm.outputs import (
    MASK,
    PICTURE,
    RUN_REPORT,
    check_free,
    html_kind,
    json_kind,
    mark_png,
    remove_earlier,
    text_kind,
    written_as,
)


def grid() -> sitk.Image:
    return sitk.Image([5, 4, 3], sitk.sitkFloat32)


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz"])
def test_a_mask_is_known_and_may_be_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    for value in (0, 1):
        write_mask(np.full((3, 4, 5), value, np.uint8), grid(), path)
        assert MASK.is_earlier(path)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).all()


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz"])
def test_somebody_elses_mask_stays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mask{suffix}"
    sitk.WriteImage(sitk.Image([5, 4, 3], sitk.sitkUInt8), str(path), useCompression=True)
    before = path.read_bytes()

    with pytest.raises(OutputError, match="is there already and is not a tumour mask that this software wrote"):
        write_mask(np.zeros((3, 4, 5), np.uint8), grid(), path)
    remove_earlier({path: MASK})

    assert path.read_bytes() == before


def test_a_marked_picture_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
    assert not PICTURE.is_earlier(path)
    mark_png(path)
    assert PICTURE.is_earlier(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), pixels)
    pil = pytest.importorskip("PIL.Image")
    with pil.open(path) as image:
        assert image.info["Software"] == "h2aseg"


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        (
            json_kind("x", "a", "b"),
            json.dumps({"a": 1, "b": 2, "c": 3}),
            ['{"a": 1}', "[]", "no JSON", "[" * 9999],
        ),
        (text_kind("x", "case,volume"), "case,volume,iou\n", ["case;volume", "patient,case,volume"]),
        (html_kind("x"), '<html><meta name="generator" content="h2aseg 1">', ["<html>h2aseg</html>"]),
        (RUN_REPORT, json.dumps(dict.fromkeys(("software_version", "stopped_because", "geometry"))), ["{}"]),
    ],
    ids=["json", "csv", "html", "report"],
)
def test_texts(tmp_path: Path, kind, ours: str, theirs: list[str]) -> None:
    path = tmp_path / "file"
    check_free(path, kind)
    for text in ("", ours):
        path.write_text(text)
        check_free(path, kind)
    for text in theirs:
        path.write_text(text)
        with (
            pytest.raises(
                OutputError, match="is there already and is not x" if kind.name == "x" else "run report"
            ),
            written_as(path, kind) as temporary,
        ):
            temporary.write_text("new")
        assert path.read_text() == text


def test_an_empty_file_may_be_replaced_but_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()
    remove_earlier({path: RUN_REPORT})
    assert path.exists()
    with written_as(path, RUN_REPORT) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
