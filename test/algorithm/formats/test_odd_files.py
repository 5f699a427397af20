from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import ResourceError, UnreadableImageError
from algorithm.formats import values
from algorithm.images import read_header, read_image
from test.support.bodies import small_pair
from test.support.odd_files import FILES
from test.support.odd_headers import HEADERS, meta
from test.support.odd_inputs import Odd, outcome

NO_VOXELS = [odd for odd in (*FILES, *HEADERS) if odd.code == 2]


@pytest.mark.parametrize("odd", [*FILES, *HEADERS], ids=lambda odd: odd.name)
def test_odd_file(odd: Odd, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, text = outcome(odd, tmp_path)

    assert code == odd.code
    assert odd.says in text
    assert "\n" not in text
    assert text or odd.code == 0
    assert capfd.readouterr() == ("", "")
    text.encode()


@pytest.mark.parametrize("odd", NO_VOXELS, ids=lambda odd: odd.name)
def test_header_of_an_odd_file_is_read_or_none(odd: Odd, tmp_path: Path) -> None:
    """The memory's check asks for headers first: no abort, no hang, no exception."""
    for path in odd.make(tmp_path):
        header = read_header(path)
        assert header is None or min(header.GetSize()) > 0


def test_no_memory_is_asked_for_before_the_length_is_known(tmp_path: Path) -> None:
    path = meta("DimSize", "1000 1000 1000", compressed=True)(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableImageError, match="compressed ones hold fewer"):
            read_image(path, "PET")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pet.mha"
    sitk.WriteImage(small_pair()[1], str(path))

    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(values.np, "empty", none_left)

    with pytest.raises(ResourceError, match=r"not enough memory for the PET .* of 46x38x40 voxels"):
        read_image(path, "PET")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pet.mha"
    sitk.WriteImage(small_pair()[1], str(path))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda self, *mode: _denied() if self == path else opened(self, *mode))

    with pytest.raises(UnreadableImageError, match="Permission denied; make it readable"):
        read_image(path, "PET")


def _denied() -> None:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is never left as memory was found."""
    path = tmp_path / "pet.mha"
    sitk.WriteImage(small_pair()[1], str(path))
    empty = np.empty

    def shrinking(*arguments: object) -> object:
        os.truncate(path, 4000)
        return empty(*arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(values.np, "empty", shrinking)

    with pytest.raises(UnreadableImageError, match="it is cut off after"):
        read_image(path, "PET")
