from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithm.description import (
    Agreement,
    Normalisation,
    Postprocessing,
    PrecisionProof,
    parse_description,
    read_description,
)
from algorithm.errors import WeightsError
from algorithm.network.architecture import Architecture
from test.conftest import ROOT
from test.support.checkpoints import describe

DESCRIPTIONS = ROOT / "weights" / "descriptions"


def content(**changes: Any) -> dict[str, Any]:
    return {**json.loads(describe().to_json()), **changes}


@given(
    spacing=st.none() | st.tuples(*[st.floats(0.5, 10)] * 3),
    orientation=st.sampled_from([None, "LPS", "RAS", "SPL"]),
    threshold=st.floats(0.01, 0.99),
    overlap=st.floats(0, 0.9),
    pet=st.sampled_from([Normalisation("z-score-volume"), Normalisation("z-score-body", low=0.0, high=30.0)]),
    minimum=st.floats(0, 10),
    flip_axes=st.sampled_from([("x", "y", "z"), ("x",), ("x", "z"), ()]),
)
def test_what_is_written_is_read(
    spacing: tuple[float, float, float] | None,
    orientation: str | None,
    threshold: float,
    overlap: float,
    pet: Normalisation,
    minimum: float,
    flip_axes: tuple[str, ...],
) -> None:
    description = describe(
        spacing=spacing,
        orientation=orientation,
        threshold=threshold,
        overlap=overlap,
        pet=pet,
        flip_axes=flip_axes,
        postprocessing=Postprocessing(minimum_lesion_ml=minimum),
        sha256="ab" * 32,
        provenance={"trained on": "nothing"},
    )

    assert parse_description(json.loads(description.to_json())) == description


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.4},
        {"overlap": 0.5},
        {"spacing": None},
        {"patch": (32, 32, 32)},
        {"orientation": "RAS"},
        {"flip_axes": ("x",)},
        {"ct": Normalisation("clip-scale", -900.0, 1000.0)},
        {"postprocessing": Postprocessing(minimum_suv_max=2.5)},
        {"precision": PrecisionProof(40.0, bfloat16=Agreement(9, 0.999, 0.999))},
        {"sha256": "ab" * 32},
    ],
)
def test_whatever_decides_a_mask_makes_another_identity(change: dict[str, Any]) -> None:
    assert describe(**change).identity != describe().identity


def test_provenance_does_not_make_another_identity() -> None:
    read = parse_description(content(provenance={"trained on": "nothing"}))

    assert read.identity == describe().identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format must be 1, got 2"),
        ({"colour": "red"}, "description has unknown keys colour; known are"),
        ({"architecture": {"width": 3}}, "architecture has unknown keys width"),
        ({"architecture": {"channels": [1, 2]}}, r"channels must be five numbers from 1 to 4096, .*got \(1, 2\)"),
        ({"architecture": {"window": [8, 8]}}, r"window must be three positive sides .*got \(8, 8\)"),
        ({"architecture": {"reduction": 64}}, "reduction must lie between 1 and the channels .*got 64"),
        ({"architecture": {"dropout": 1.5}}, "dropout must be at least 0 and below 1, got 1.5"),
        ({"patch": [32, 32, 20]}, "side z of the patch must be a multiple of 16, got 20"),
        ({"spacing": [1.0, -1.0, 1.0]}, "spacing must be three positive numbers"),
        ({"spacing": [1.0, float("nan"), 1.0]}, "NaN is no number of JSON"),
        ({"postprocessing": {"suv_floor": "low"}}, "suv_floor must be a number, got 'low'"),
        (
            {"postprocessing": {"minimum_lesion_ml": -1}},
            "minimum_lesion_ml must be a number of at least 0, got -1",
        ),
        ({"ct": {"kind": "z-score-stored", "low": 0, "high": 1}}, "needs mean and a positive std"),
        ({"ct": {"kind": "clip-scale"}}, "clip-scale needs low and high"),
        ({"ct": {"kind": "clip-scale", "low": 2, "high": 1}}, "low must be below high, got 2 and 1"),
        ({"pet": {"kind": "histogram"}}, "kind must be one of clip-scale, .*got 'histogram'"),
        ({"pet": {"kind": "z-score-body", "median": 0}}, "pet has unknown keys median"),
        ({"orientation": "LRS"}, "orientation must name three patient axes such as LPS, got 'LRS'"),
        (
            {"flip_axes": ["x", "x"]},
            r"flip_axes must be some of x, y, z, in order, each once, got \['x', 'x'\]",
        ),
        ({"flip_axes": ["z", "x"]}, r"got \['z', 'x'\]"),
        ({"flip_axes": ["w"]}, r"got \['w'\]"),
        ({"flip_axes": "x"}, "flip_axes must be a list of texts, got 'x'"),
        ({"threshold": 1.0}, "threshold must lie between 0 and 1, got 1.0"),
        ({"overlap": 1.0}, "overlap must be at least 0 and below 1, got 1.0"),
        ({"threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        ({"threshold": True}, "threshold must be a number, got True"),
        ({"name": 5}, "name must be a text, got 5"),
        ({"name": None}, "missing key 'name'"),
        ({"patch": 64}, "patch must be a list of whole numbers, got 64"),
        ({"spacing": [4, "4", 3]}, r"spacing must be a list of numbers, got \[4, '4', 3\]"),
        ({"pet": "clip-scale"}, "pet must be an object, got 'clip-scale'"),
        ({"ct": {"kind": "clip-scale", "low": "a", "high": 1}}, r"ct\.low must be a number, got 'a'"),
        ({"architecture": {"dropout": "none"}}, r"architecture\.dropout must be a number, got 'none'"),
    ],
)
def test_nonsense_is_named_with_its_file(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(content(**change)))

    with pytest.raises(WeightsError, match=message) as caught:
        read_description(path)

    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("key", ["sha256", "provenance", "labels"])
def test_null_is_as_if_it_were_left_out(key: str) -> None:
    assert parse_description(content(**{key: None})) == parse_description(
        {name: value for name, value in content().items() if name != key}
    )


@pytest.mark.parametrize("key", ["name", "architecture", "patch", "spacing", "ct", "pet"])
def test_missing_key(key: str, tmp_path: Path) -> None:
    path = tmp_path / "short.json"
    path.write_text(json.dumps({name: value for name, value in content().items() if name != key}))

    with pytest.raises(WeightsError, match=key):
        read_description(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "is not JSON"), (b"\xff\xfe\x00", "is not JSON"), (b"[1]", "expected a JSON object, got list")],
)
def test_not_a_description(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text)

    with pytest.raises(WeightsError, match=message):
        read_description(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read the checkpoint description .*none\.json: No such file"):
        read_description(tmp_path / "none.json")


@pytest.mark.parametrize("path", sorted(DESCRIPTIONS.glob("*.json")), ids=lambda path: path.stem)
def test_ready_descriptions_are_sound_and_own_up(path: Path) -> None:
    description = read_description(path)

    assert description.name == path.stem
    assert description.sha256 == ""
    assert "INFERRED" in json.dumps(description.provenance)


def test_description_of_the_authors_checkpoint() -> None:
    description = read_description(DESCRIPTIONS / "h2aseg-autopet2-released.json")

    assert description.architecture == Architecture()
    assert description.patch == (128, 128, 64)
    assert description.spacing == (2.03642, 2.03642, 3.0)
    assert description.orientation is None
    assert description.ct == Normalisation("z-score-stored", low=-831.95, high=1127.52, mean=107.78, std=286.17)
    assert description.pet == Normalisation("z-score-volume")
    assert description.overlap == 0.25
