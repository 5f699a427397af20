"""Scoring from files: matching, geometry, missing cases, aggregates and the three forms of output."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import case_name
from algorithm.errors import GeometryError, InvalidImageError, MissingInputError, UsageError
from evaluation.__main__ import COMMANDS, main
from evaluation.figures.cohort import read_rows
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import METRICS
from evaluation.scoring.pairs import find_pairs
from evaluation.scoring.score import CaseScore, aggregate, score_pair, score_pairs, summarise
from test.evaluation.scoring.test_metrics import EMPTY, ONE, voxels
from test.support import plain_metrics

SPACING = (2.0, 2.5, 3.0)
DIRECTION = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
TWO = voxels((2, 3, 3), (0, 0, 0))


def write(path: Path, mask: np.ndarray, **geometry: tuple[float, ...]) -> Path:
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(geometry.get("spacing", SPACING))
    image.SetOrigin(geometry.get("origin", (10.0, -20.0, 30.0)))
    image.SetDirection(DIRECTION)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three truths and predictions in other formats; psma_c has no prediction, stray no truth."""
    write(tmp_path / "truth/fdg_a.nii.gz", ONE)
    write(tmp_path / "truth/fdg_b.nii.gz", EMPTY)
    write(tmp_path / "truth/psma_c.nii.gz", TWO)
    write(tmp_path / "prediction/fdg_a.mha", TWO)
    write(tmp_path / "prediction/fdg_b.mha", ONE)
    write(tmp_path / "prediction/stray.mha", ONE)
    return tmp_path


def score(folder: Path, edition: str, *more: str) -> int:
    return main(
        [
            "score",
            "--truth",
            f"{folder}/truth",
            "--prediction",
            f"{folder}/prediction",
            "--edition",
            edition,
            *more,
        ]
    )


def scored_json(folder: Path, edition: str, *more: str) -> dict:
    assert score(folder, edition, "--json", f"{folder}/metrics.json", *more) == 0
    return json.loads((folder / "metrics.json").read_text())


def test_results_equal_the_published_rules(cohort, capsys):
    content = scored_json(cohort, "III")
    by_case = {result["case"]: result for result in content["results"]}
    expected = plain_metrics.edition_3(ONE, TWO, SPACING, SPACING)
    assert {name: by_case["fdg_a"][name] for name in expected} == expected
    assert by_case["fdg_b"]["dice"] is None
    assert by_case["fdg_b"]["fnv_ml"] is None
    assert by_case["fdg_b"]["fpv_ml"] == plain_metrics.voxel_ml(SPACING)
    assert [by_case[case]["subset"] for case in by_case] == ["fdg", "fdg", "psma"]
    out, err = capsys.readouterr()
    assert err == ""
    assert "Missing, counted as-empty: psma_c" in out
    assert "no truth of that name: stray.mha" in out


def test_edition_3_ranks_the_mean_of_the_subsets_means(cohort):
    content = scored_json(cohort, "III")
    aggregates = content["aggregates"]
    fdg, psma = (aggregates["subsets"][subset] for subset in ("fdg", "psma"))
    assert (fdg["cases"], psma["cases"]) == (2, 1)
    assert fdg["dice"] == pytest.approx(2 / 3)  # fdg_b has no tumour and does not count
    assert psma["dice"] == 0
    assert aggregates["dice"]["mean"] == pytest.approx(1 / 3)
    assert aggregates["dice"]["count"] == 2
    assert aggregates["ranking"]["fpv_ml"]["value"] == pytest.approx((fdg["fpv_ml"] + psma["fpv_ml"]) / 2)
    assert aggregates["fpv_ml"]["mean"] == pytest.approx(2 * fdg["fpv_ml"] / 3)
    assert {name: ranked["weight"] for name, ranked in aggregates["ranking"].items()} == {
        "dice": 0.5,
        "fpv_ml": 0.25,
        "fnv_ml": 0.25,
    }


@pytest.mark.parametrize(
    ("edition", "dice", "cases"),
    [("I", 0.0, 3), ("III", 0.0, 3), ("IV", None, 2), ("V", 0.0, 3), ("paper", 0.0, 3)],
)
def test_missing_cases_count_as_the_edition_says(cohort, edition, dice, cases):
    content = scored_json(cohort, edition)
    assert content["missing"] == ["psma_c"]
    assert len(content["results"]) == cases
    missing = [result for result in content["results"] if result["missing"]]
    assert [result["dice"] for result in missing] == ([] if dice is None else [dice])
    if missing:
        assert missing[0]["fnv_ml"] == 2 * plain_metrics.voxel_ml(SPACING)


def test_a_missing_tumour_free_case_is_zero_in_edition_5_although_empty_masks_agree(tmp_path):
    truth = write(tmp_path / "a.mha", EMPTY)
    scores = score_pair(truth, None, RULES["V"])
    assert (scores.dice, scores.lesion_f1) == (0.0, 0.0)
    assert score_pair(truth, truth, RULES["V"]).dice == 1.0


def test_area_under_the_curve_of_an_unchanging_mask_is_the_trapezoid_over_all_steps(cohort):
    for edition, steps in (("IV", 11), ("V", 6)):
        ranking = scored_json(cohort, edition)["aggregates"]["ranking"]
        dice = ranking["dice"]["value"]
        assert ranking["dice"]["auc"] == pytest.approx(np.trapezoid([dice] * steps, range(steps)))
    assert "auc" not in scored_json(cohort, "III")["aggregates"]["ranking"]["dice"]


def test_pooled_lesions_are_counted_over_all_cases(cohort):
    lesions = scored_json(cohort, "III")["aggregates"]["lesions"]
    assert (lesions["truth"], lesions["prediction"]) == (3, 3)
    assert lesions["sensitivity"] == pytest.approx(1 / 3)
    assert lesions["precision"] == pytest.approx(1 / 3)
    assert lesions["f1"] == pytest.approx(2 / 6)


def test_csv_has_every_case_with_full_precision_and_empty_cells_for_nan(cohort):
    assert score(cohort, "III", "--csv", f"{cohort}/cases.csv") == 0
    with (cohort / "cases.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert float(rows["fdg_a"]["dice"]) == 2 / 3
    assert rows["fdg_b"]["dice"] == ""
    assert [row["missing"] for row in rows.values()] == ["0", "0", "1"]
    assert {row["edition"] for row in rows.values()} == {"III"}


def test_suffixes_in_capitals_and_files_that_macos_leaves(cohort):
    mask = next((cohort / "prediction").glob("fdg_a*"))
    mask.rename(mask.with_name("fdg_a.MHA"))
    for folder in ("truth", "prediction"):
        (cohort / folder / "._fdg_a.nii.gz").write_bytes(b"Mac OS X")
    content = scored_json(cohort, "III")
    assert [each["case"] for each in content["results"]] == ["fdg_a", "fdg_b", "psma_c"]
    assert content["missing"] == ["psma_c"]
    assert content["results"][0]["dice"] == pytest.approx(2 / 3)


def test_json_is_strict(cohort):
    scored_json(cohort, "III")
    text = (cohort / "metrics.json").read_text()
    assert "NaN" not in text
    json.loads(text, parse_constant=pytest.fail)


def test_a_table_names_cases_files_and_subsets(cohort):
    table = cohort / "cases.csv"
    table.write_text("case,truth,prediction,subset\none,psma_c.nii.gz,stray.mha,LMU\nfdg_a,,,\n")
    content = scored_json(cohort, "III", "--cases", str(table))
    assert [(result["case"], result["subset"]) for result in content["results"]] == [
        ("one", "LMU"),
        ("fdg_a", "fdg"),
    ]
    assert content["results"][0]["dice"] == pytest.approx(2 / 3)


def test_the_ranked_mean_leaves_out_no_case_without_a_subset(cohort):
    write(cohort / "truth/other.nii.gz", ONE)
    write(cohort / "prediction/other.mha", TWO)
    aggregates = scored_json(cohort, "III")["aggregates"]
    assert {name: each["cases"] for name, each in aggregates["subsets"].items()} == {
        "fdg": 2,
        "no subset": 1,
        "psma": 1,
    }
    assert aggregates["ranking"]["dice"]["value"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("rows", "subsets"),
    [
        ("case,tracer\nfdg_a, FDG\nfdg_b,\npsma_c,PSMA\n", ["fdg", "fdg", "psma"]),
        ("case,tracer,centre\nfdg_a,fdg,LMU \nfdg_b,fdg,\npsma_c,,UKT\n", ["fdg, LMU", "fdg", "psma, UKT"]),
    ],
)
def test_tracer_and_centre_of_a_table_are_the_subset(cohort, rows, subsets):
    table = cohort / "cases.csv"
    table.write_text(rows)
    content = scored_json(cohort, "III", "--cases", str(table))
    assert [result["subset"] for result in content["results"]] == subsets


def test_a_list_says_to_the_table_of_scores_what_is_synthetic(cohort):
    table = cohort / "cases.csv"
    table.write_text("case,synthetic\nfdg_a,yes\nfdg_b,\n")
    assert score(cohort, "III", "--cases", str(table), "--csv", f"{cohort}/scores.csv") == 0
    assert {row.case: row.synthetic for row in read_rows(cohort / "scores.csv")} == {"fdg_a": True, "fdg_b": False}


@pytest.mark.parametrize("edition", ["II", "III", "V"])
def test_synthetic_cases_are_not_ranked_where_there_are_patients(cohort, capsys, edition):
    write(cohort / "truth/synthetic_d.nii.gz", ONE)
    table = cohort / "cases.csv"
    table.write_text("case,synthetic\nfdg_a,\nfdg_b,\n")
    patients = scored_json(cohort, edition, "--cases", str(table))["aggregates"]
    table.write_text("case,synthetic\nfdg_a,\nfdg_b,\npsma_c,yes\nsynthetic_d,\n")
    capsys.readouterr()
    content = scored_json(cohort, edition, "--cases", str(table))
    assert "cases scored: 4, of them 2 synthetic, not ranked" in capsys.readouterr().out
    assert [each["synthetic"] for each in content["results"]] == [False, False, True, True]
    assert {name: content["aggregates"][name] for name in ("subsets", "ranking")} == {
        name: patients[name] for name in ("subsets", "ranking")
    }
    assert content["aggregates"]["truth_ml"]["count"] == 4

    table.write_text("case,synthetic\nfdg_a,yes\nfdg_b,yes\n")
    assert scored_json(cohort, edition, "--cases", str(table))["aggregates"] == patients
    assert "not ranked" not in capsys.readouterr().out


def test_a_tree_in_place_of_the_table_of_cases(cohort, capsys):
    assert score(cohort, "III", "--cases", str(cohort / "truth")) == 2
    sentence = capsys.readouterr().err
    assert f"the table of cases must be a CSV, got the folder {cohort / 'truth'}; name a CSV" in sentence


def test_single_files(tmp_path, capsys):
    truth, prediction = write(tmp_path / "t.nii.gz", ONE), write(tmp_path / "p.mha", ONE)
    assert main(["score", "--truth", str(truth), "--prediction", str(prediction)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("t       1.0000")


@pytest.mark.parametrize("name", ["case.1.nii.gz", "case.1.mha", "case.1.nrrd", "case.1", "case.1.NII.GZ"])
def test_case_names_lose_the_image_suffix_only(name):
    assert case_name(name) == "case.1"


@pytest.mark.parametrize(
    ("geometry", "told"),
    [
        ({"spacing": (2.0, 2.5, 3.5)}, "2.00x2.50x3.50 mm"),
        ({"origin": (10.0, -20.0, 31.0)}, "origin (10, -20, 31)"),
    ],
)
def test_another_geometry_is_an_error_that_names_both(tmp_path, geometry, told):
    truth, prediction = write(tmp_path / "t.mha", ONE), write(tmp_path / "p.mha", ONE, **geometry)
    with pytest.raises(GeometryError) as error:
        score_pair(truth, prediction, RULES["III"])
    for part in (told, "2.00x2.50x3.00 mm", "origin (10, -20, 30)", str(truth), str(prediction)):
        assert part in str(error.value)


def test_another_size_is_an_error(tmp_path):
    truth, prediction = write(tmp_path / "t.mha", ONE), write(tmp_path / "p.mha", ONE[:4])
    with pytest.raises(GeometryError, match=r"7x6x4 voxels .* 7x6x5 voxels"):
        score_pair(truth, prediction, RULES["III"])


def test_voxel_volume_comes_from_the_header_that_the_edition_names(tmp_path):
    truth = write(tmp_path / "t.mha", ONE, spacing=(2.0, 2.0, 2.0))
    prediction = write(tmp_path / "p.mha", ONE, spacing=(2.0, 2.0, 2.0001))  # the same grid up to rounding
    volumes = {edition: score_pair(truth, prediction, rules).truth_ml for edition, rules in RULES.items()}
    assert {edition for edition, volume in volumes.items() if volume == 0.008} == {"III", "V", "paper"}
    assert {edition for edition, volume in volumes.items() if volume > 0.008} == {"I", "II", "IV"}


def test_a_mask_with_other_values_is_an_error(tmp_path):
    truth, prediction = write(tmp_path / "t.mha", ONE), write(tmp_path / "p.mha", ONE * 2)
    with pytest.raises(InvalidImageError, match=r"p\.mha"):
        score_pair(truth, prediction, RULES["III"])


def test_a_mask_beside_a_cohort_s_folder_of_the_same_case_is_an_error(cohort, capsys):
    write(cohort / "prediction/fdg_a/tumour.nii.gz", ONE)
    assert score(cohort, "III") == 2
    assert "the case fdg_a has two masks" in capsys.readouterr().err


def test_two_masks_of_one_case_are_an_error(cohort):
    write(cohort / "prediction/fdg_a.nii.gz", ONE)
    with pytest.raises(MissingInputError, match=r"fdg_a\.mha and .*fdg_a\.nii\.gz are masks of fdg_a"):
        find_pairs(cohort / "truth", cohort / "prediction")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\nfdg_a\n", "unknown column name"),
        ("case,dice\nfdg_a,1\n", "has the unknown column dice; known are case, ct"),
        ("", "has no rows"),
        ("case\nfdg_a\nfdg_a\n", "has the case fdg_a twice"),
    ],
)
def test_a_wrong_table_is_one_sentence(cohort, text, told):
    table = cohort / "cases.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=told):
        find_pairs(cohort / "truth", cohort / "prediction", table)


def test_a_listed_case_without_truth_is_an_error(cohort):
    table = cohort / "cases.csv"
    table.write_text("case\nfdg_z\n")
    with pytest.raises(MissingInputError, match="no truth for the listed case fdg_z"):
        find_pairs(cohort / "truth", cohort / "prediction", table)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--truth", "{}/nowhere", "--prediction", "{}/prediction"], "the truth {}/nowhere does not exist"),
        (["--truth", "{}", "--prediction", "{}/prediction"], "no mask in {}"),
        (["--truth", "{}/truth/fdg_a.nii.gz", "--prediction", "{}/prediction"], "give two files or two folders"),
        (["--truth", "{}/truth", "--prediction", "{}/prediction", "--tolerance", "-1"], "--tolerance must be"),
    ],
)
def test_a_user_mistake_is_one_sentence_on_stderr(cohort, capsys, arguments, told):
    assert main(["score", *(argument.format(cohort) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Error: {told.format(cohort)}")
    assert err.count("\n") == 1


def test_nothing_is_left_behind_where_the_result_cannot_be_written(cohort, capsys):
    (cohort / "file").write_text("")
    assert score(cohort, "III", "--json", f"{cohort}/file/metrics.json") == 2
    assert "cannot write" in capsys.readouterr().err


def test_statistics_leave_out_nan():
    assert summarise([1.0, math.nan, 3.0]) == {
        "mean": 2.0,
        "median": 2.0,
        "std": pytest.approx(math.sqrt(2)),
        "min": 1.0,
        "max": 3.0,
        "count": 2,
    }
    assert math.isnan(summarise([math.nan])["mean"])
    assert math.isnan(summarise([1.0])["std"])


def test_aggregates_without_any_result_are_nan():
    content = aggregate([], RULES["III"])
    assert all(math.isnan(content[name]["mean"]) for name in METRICS)


def test_scores_come_case_by_case(cohort):
    pairs, _ = find_pairs(cohort / "truth", cohort / "prediction")
    first = next(score_pairs(pairs, RULES["III"]))
    assert isinstance(first, CaseScore)
    assert first.case == "fdg_a"


def test_scoring_needs_no_module_of_another_command(cohort, monkeypatch):
    for name, command in COMMANDS.items():
        if name not in ("score", "compare", "container"):
            absent = {key: f"not_installed.{getattr(command, key)}" for key in ("options", "run")}
            monkeypatch.setitem(COMMANDS, name, dataclasses.replace(command, **absent))
    assert score(cohort, "III") == 0


def test_a_command_whose_module_is_missing_is_a_broken_installation(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "cohort", dataclasses.replace(COMMANDS["cohort"], options="nowhere:add"))
    assert main(["cohort"]) == 3
    assert "needs the module nowhere, which is not installed; run" in capsys.readouterr().err


def test_the_paths_of_a_list_may_lie_beside_it(cohort, tmp_path):
    table = cohort / "cases.csv"
    table.write_text("case,truth,prediction,tracer\none,truth/psma_c.nii.gz,prediction/stray.mha,psma\n")
    (pair,), _ = find_pairs(cohort / "truth", cohort / "prediction", table)
    assert (pair.truth, pair.prediction) == (cohort / "truth/psma_c.nii.gz", cohort / "prediction/stray.mha")
    assert pair.subset == "psma"


def test_a_cohort_s_results_are_matched_to_a_folder_of_truths(cohort, capsys):
    for name in ("fdg_a", "stray"):
        (cohort / f"results/{name}").mkdir(parents=True)
        write(cohort / f"results/{name}/tumour.nii.gz", TWO)
    assert main(["score", "--truth", f"{cohort}/truth", "--prediction", f"{cohort}/results"]) == 0
    out = capsys.readouterr().out
    assert "Missing, counted as-empty: fdg_b, psma_c" in out
    assert "Not scored, no truth of that name: stray/tumour.nii.gz" in out
