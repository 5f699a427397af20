from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import SimpleITK as sitk

from algorithm.errors import OutputError
from algorithm.lesions import MeasuredLesion, Totals
from algorithm.report import (
    Geometry,
    RunReport,
    Stopwatch,
    WeightsUsed,
    peak_host_memory_mib,
    write_json,
    write_report,
)

SIZE = (40, 30, 20)
SPACING = (4.0, 4.0, 2.0)


LESION = MeasuredLesion(
    volume_ml=2.5,
    suv_max=9.0,
    suv_mean=6.0,
    centroid_mm=(1.0, 2.0, 3.0),
    number=1,
    suv_peak=7.0,
    mtv_ml=2.5,
    tlg_g=15.0,
    longest_diameter_mm=20.0,
    hottest_mm=(1.5, 2.0, 3.0),
)


def report(**changes: object) -> RunReport:
    whole = RunReport(
        software_version="1.2.3",
        edition="III",
        ct="ct.mha",
        pet="pet.mha",
        ct_resampled=False,
        geometry=Geometry(
            (4, 5, 6), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        ),
        weights=(WeightsUsed("h2aseg", "ab" * 32),),
        device="cpu",
        precision="float32",
        windows=12,
        flip_windows=5,
        passes=3,
        passes_planned=8,
        stopped_because="the next pass would not fit into the time limit",
        seconds={"read": 0.25, "predict": 3.5},
        peak_host_memory_mib=512.0,
        peak_device_memory_mib=None,
        lesions=(LESION,),
        totals=Totals(1, 2.5, 15.0, 9.0, 7.0, None),
        total_volume_ml=2.5,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def test_report_is_json_with_the_names_of_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "run.json"

    write_report(path, report())

    stored = json.loads(path.read_text())
    assert list(stored) == [field.name for field in dataclasses.fields(RunReport)]
    (lesion,) = stored["lesions"]
    assert {**lesion, "centroid_mm": (1, 2, 3), "hottest_mm": (1.5, 2, 3)} == dataclasses.asdict(LESION)
    assert (lesion["centroid_mm"], lesion["hottest_mm"]) == ([1, 2, 3], [1.5, 2, 3])
    assert stored["totals"]["dmax_mm"] is None
    assert stored["weights"] == [{"name": "h2aseg", "sha256": "ab" * 32}]
    assert stored["geometry"]["spacing_mm"] == [2, 2, 3]
    assert stored["peak_device_memory_mib"] is None
    assert [entry.name for entry in tmp_path.rglob("*")] == ["reports", "run.json"]


def test_report_that_cannot_be_stored_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_report(path, report())
    before = path.read_text()

    with pytest.raises(ValueError):
        write_report(path, report(total_volume_ml=math.nan))
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_json_into_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(OutputError, match=r"cannot write .*taken/x\.json"):
        write_json(tmp_path / "taken" / "x.json", False)


def test_bare_boolean(tmp_path: Path) -> None:
    write_json(tmp_path / "data-centric-model.json", False)

    assert (tmp_path / "data-centric-model.json").read_text() == "false\n"


def test_geometry_of_an_image() -> None:
    pet = sitk.Image(*SIZE, sitk.sitkFloat32)
    pet.SetSpacing(SPACING)

    assert Geometry.of(pet) == Geometry(SIZE, SPACING, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def test_peak_memory_is_that_of_a_python_process() -> None:
    assert 20 < peak_host_memory_mib() < 200_000


def test_a_stage_that_an_error_ends_is_timed() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="too slow"), watch.stage("predict"):
        raise ValueError("too slow")
    assert watch.seconds.keys() == {"predict"}
