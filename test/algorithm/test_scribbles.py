from __future__ import annotations

from typing import Any

import pytest

from algorithm import scribbles as module
from algorithm.errors import MissingInputError
from algorithm.scribbles import parse_scribbles


def points(*entries: tuple[str, list[Any]]) -> dict[str, Any]:
    return {"points": [{"name": name, "point": point} for name, point in entries]}


def test_both_forms_say_the_same() -> None:
    platform = parse_scribbles(points(("tumor", [1, 2, 3]), ("background", [4, 5, 6]), ("tumor", [7, 8, 9])), "x")
    organisers = parse_scribbles({"tumor": [[1, 2, 3], [7, 8, 9]], "background": [[4, 5, 6]]}, "x")
    for each in (platform, organisers):
        assert each.tumour.tolist() == [[1, 2, 3], [7, 8, 9]]
        assert each.background.tolist() == [[4, 5, 6]]
        assert len(each) == 3


@pytest.mark.parametrize(
    "content",
    [
        *(None, {}, [], {"points": []}, {"tumor": []}),
        *({"type": "Multiple points"}, {"points": None}, {"tumor": None, "background": []}),
    ],
)
def test_there_may_be_none(content: Any) -> None:
    assert len(parse_scribbles(content, "x").within((5, 5, 5))) == 0


def test_a_list_that_is_null_is_empty() -> None:
    assert parse_scribbles({"tumor": [[1, 2, 3]], "background": None}, "x").tumour.tolist() == [[1, 2, 3]]


def test_a_voxel_counts_once_and_fractions_are_rounded() -> None:
    content = points(("tumor", [1.4, 2, 3]), ("tumor", [1, 2.2, 2.9]), ("TUMOUR", [2, 2, 2]))
    assert parse_scribbles(content, "x").tumour.tolist() == [[1, 2, 3], [2, 2, 2]]


def test_points_outside_are_left_out_aloud() -> None:
    content = {"tumor": [[0, 0, 0], [-1, 0, 0], [4, 3, 2]], "background": [[5, 0, 0], [0, 4, 0], [0, 0, 3]]}
    kept = parse_scribbles(content, "x").within((5, 4, 3))
    assert kept.tumour.tolist() == [[0, 0, 0], [4, 3, 2]]
    assert len(kept.background) == 0
    assert kept.notes == ("4 of 6 scribbled points lie outside the image and were left out",)


def test_a_voxel_of_both_kinds_counts_as_neither() -> None:
    kept = parse_scribbles({"tumor": [[1, 1, 1], [2, 2, 2]], "background": [[1, 1, 1]]}, "x").within((5, 5, 5))
    assert kept.tumour.tolist() == [[2, 2, 2]]
    assert len(kept.background) == 0
    assert kept.notes == ("1 voxels were scribbled as tumour and as background and count as neither",)


@pytest.mark.parametrize(
    "content",
    [
        3,
        "clicks",
        [1, 2],
        {"dots": []},
        {"points": 3},
        {"points": [3]},
        points(("tumor", [1, 2])),
        points(("tumor", [1, 2, 3, 4])),
        points(("tumor", [1, 2, "3"])),
        points(("tumor", [1, 2, True])),
        points(("tumor", [1, 2, 2**40])),
        {"tumor": [[1, None, 2]]},
        {"background": {"a": 1}},
    ],
)
def test_anything_else_is_one_sentence(content: Any) -> None:
    with pytest.raises(MissingInputError, match=r"clicks\.json must hold points as") as caught:
        parse_scribbles(content, "clicks.json")
    assert len(str(caught.value)) < 300


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(MissingInputError, match="names a point 'lesion', but points are tumor or background"):
        parse_scribbles(points(("lesion", [1, 2, 3])), "x")


def test_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POINTS", 2)
    with pytest.raises(MissingInputError, match="has 3 points, but at most 2 are taken"):
        parse_scribbles({"tumor": [[1, 2, 3]] * 3}, "x")
