"""``docs/formats.md`` names the keys that the software reads and writes, all of them and in their order."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import COLUMNS
from algorithm.cohort.tables import COHORT_COLUMNS, LESION_COLUMNS
from algorithm.description import Agreement, Description, Normalisation, Postprocessing, PrecisionProof
from algorithm.inference.tuning import Tuning
from algorithm.lesions import MeasuredLesion, Totals
from algorithm.network.architecture import Architecture
from algorithm.report import Geometry, RunReport
from algorithm.scribbles import parse_scribbles
from algorithm.tuning_file import TuningFile
from benchmark.history import COLUMNS as HISTORY_COLUMNS
from evaluation.handover.bundle import BundleSettings, CaseRecord, Manifest
from evaluation.interactive.loop import Played, Step
from evaluation.interactive.results import Curve, to_content
from evaluation.scoring import lesions
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from evaluation.scoring.score import CaseScore, report, to_csv
from synthesis.scan import LesionRecord
from synthesis.study import synthesise_many
from synthesis.style import Style
from test.conftest import ROOT
from test.support.anatomy import schematic_map
from training.mistakes import Mistakes
from training.splits import Split

PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def table(section: str, heading: str) -> list[str]:
    """Return what stands in the first column of the section's table with this heading."""
    text = re.split(r"^#+ ", PAGE.partition(f"\n### {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = text.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)


def keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


TABLES = (
    ("List of cases", "Column", COLUMNS),
    ("Checkpoint", "Key", keys(Description)),
    ("Checkpoint", "Key of `architecture`", keys(Architecture)),
    ("Checkpoint", "Key of `ct` and `pet`", keys(Normalisation)),
    ("Checkpoint", "Key of `postprocessing`", keys(Postprocessing)),
    ("Checkpoint", "Key of `precision`", keys(PrecisionProof)),
    ("Checkpoint", "Key of an agreement", keys(Agreement)),
    ("Run report", "Key", keys(RunReport)),
    ("Run report", "Key of `geometry`", keys(Geometry)),
    ("Run report", "Key of `tuning`", keys(Tuning)),
    ("Tuning", "Key", keys(TuningFile)),
    ("Run report", "Key of a lesion", keys(MeasuredLesion)),
    ("Run report", "Key of `totals`", keys(Totals)),
    ("cohort.csv", "Column", COHORT_COLUMNS),
    ("lesions.csv", "Column", LESION_COLUMNS),
    ("benchmark/history.csv", "Column", HISTORY_COLUMNS),
    ("metrics.json", "Figure", keys(Scores)),
    ("interact.json", "Key of a curve", keys(Curve)),
    ("split.json", "Key", keys(Split)),
    ("mistakes.json", "Key of a case", keys(Mistakes)),
    ("A synthetic body's lesions.json", "Key of `style`", keys(Style)),
    ("A synthetic body's lesions.json", "Key of a planted lesion", keys(LesionRecord)),
    ("Hand-over bundle", "Key", keys(Manifest)),
    ("Hand-over bundle", "Key of `settings`", keys(BundleSettings)),
    ("Hand-over bundle", "Key of a case", keys(CaseRecord)),
)


@pytest.mark.parametrize(("section", "heading", "wanted"), TABLES)
def test_a_table_has_every_key(section: str, heading: str, wanted: Sequence[str]) -> None:
    assert set(table(section, heading)) == set(wanted)


def scores() -> Scores:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = 1
    return measure(mask, mask, (1.0, 1.0, 1.0), RULES["V"])


def test_metrics_json() -> None:
    content = report([CaseScore("a", None, False, scores())], [], "V")
    assert table("metrics.json", "Key") == list(content)


def test_lesions_json() -> None:
    content = lesions.report([])
    assert table("lesions.json", "Key") == list(content)
    (sizes,) = {tuple(each) for each in content["sizes"]}  # type: ignore[attr-defined]
    assert table("lesions.json", "Key of a size") == list(sizes)


def test_the_record_of_a_synthetic_body(tmp_path: Path) -> None:
    organs = tmp_path / "fdg_a_2001" / "organs.nii.gz"
    organs.parent.mkdir()
    sitk.WriteImage(schematic_map(), str(organs))
    (folder,) = synthesise_many([organs], tmp_path / "out", 1, 0, spacing=(8.0, 8.0, 8.0), progress=False)
    record = json.loads((folder / "lesions.json").read_text())
    assert table("A synthetic body's lesions.json", "Key") == list(record)


def test_scores_of_each_case_as_csv() -> None:
    headings = to_csv([], "V").strip().split(",")
    assert headings == ["case", "subset", "missing", "synthetic", *keys(Scores), "edition"]
    described = (
        "case: `case`, `subset`, `missing` (1: no prediction), `synthetic` (1: not of a patient), its figures"
    )
    assert f"row per\n{described} and `edition`" in PAGE


def test_interact_json() -> None:
    step = Step((), scores(), 1.0)
    content = to_content([Played("a", "click", (step, step))], "V")
    assert table("interact.json", "Key") == list(content)
    for case in content["cases"]:
        assert all(f"`{key}`" in PAGE for key in case)


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_examples_of_clicks_are_read(example: str) -> None:
    scribbles = parse_scribbles(json.loads(example), "the example")
    assert scribbles.tumour.tolist() == [[10, 20, 30]]
    assert scribbles.background.tolist() == [[1, 2, 3]]
