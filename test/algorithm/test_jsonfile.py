from __future__ import annotations

import os
from pathlib import Path

import pytest

from algorithm.errors import MissingInputError
from algorithm.jsonfile import read_json


def test_what_is_well_formed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, -2.5e3, true, null, "\\u00e4"]}')
    assert read_json(path) == {"a": [1, -2500.0, True, None, "ä"]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "can't decode byte"),
        (b"[" * 100_000, "recursion|nested"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 levels"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"[1e999]", "the number 1e999 is out of range"),
        (b"[" + b"9" * 5000 + b"]", "is out of range"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'["a\\u0000"]', "null character"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (b"[" + b" " * 2000 + b"]", "more than 0 are not taken"),
    ],
)
def test_what_is_not_is_one_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    most = 1000 if b"  " in content else 10**6
    with pytest.raises(MissingInputError, match=told) as caught:
        read_json(path, most_bytes=most)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name in ("pipe", ".", "absent"):
        with pytest.raises(MissingInputError, match=r"no regular file|No such file"):
            read_json(tmp_path / name)
