"""Comparison tables: the statistics against scipy and hand-made figures, and the three forms of the table."""

from __future__ import annotations

import csv
import dataclasses
import math
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation.__main__ import main
from evaluation.scoring.compare import (
    bootstrap_interval,
    caption,
    compare,
    holm,
    to_csv,
    to_latex,
    to_markdown,
    wilcoxon_p,
)
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import measure, surface_distances
from evaluation.scoring.score import CaseScore
from test.evaluation.scoring.test_metrics import ONE, SPACINGS
from test.evaluation.scoring.test_score import EMPTY, TWO, write

SOME_SCORES = measure(ONE, TWO, SPACINGS[0], RULES["III"])


def scored(dice: list[float]) -> list[CaseScore]:
    return [
        CaseScore(f"case {index}", None, False, dataclasses.replace(SOME_SCORES, dice=value))
        for index, value in enumerate(dice)
    ]


@pytest.fixture(scope="module")
def methods() -> dict[str, list[CaseScore]]:
    rng = np.random.default_rng(1)
    full = rng.uniform(0.5, 0.9, 20)
    return {
        "full": scored([*full, math.nan]),
        "a bit worse": scored([*(full - rng.uniform(0, 0.05, 20)), 0.3]),
        "much worse": scored([*(full - rng.uniform(0.1, 0.3, 20)), 0.2]),
    }


def test_figures_are_those_of_scipy(methods):
    lines = {line.method: line for line in compare(methods, "full", ["dice"])}
    full, worse = (np.array([case.scores.dice for case in methods[name]])[:20] for name in ("full", "much worse"))
    line = lines["much worse"]
    assert line.p == stats.wilcoxon(worse, full).pvalue
    assert line.difference == pytest.approx((worse - full).mean())
    assert line.difference_interval[0] < line.difference < line.difference_interval[1] < 0
    assert line.count == 21  # its own mean is over all its cases, the test over the 20 pairs
    assert lines["full"].count == 20
    assert lines["full"].mean == pytest.approx(full.mean())
    assert lines["full"].median == np.median(full)
    assert lines["full"].std == pytest.approx(full.std(ddof=1))
    assert lines["full"].interval[0] < full.mean() < lines["full"].interval[1]
    assert math.isnan(lines["full"].p)
    assert math.isnan(lines["full"].difference)


def test_the_smaller_p_is_doubled_when_two_methods_are_tested(methods):
    lines = [line for line in compare(methods, "full", ["dice"]) if line.method != "full"]
    first, second = sorted(lines, key=lambda line: line.p)
    assert first.p_holm == pytest.approx(2 * first.p)
    assert second.p_holm == pytest.approx(max(2 * first.p, second.p))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    corrected = holm([0.02, math.nan])
    assert corrected[0] == 0.02
    assert math.isnan(corrected[1])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p_values):
    corrected = holm(p_values)
    for index in np.argsort(p_values, kind="stable"):
        assert p_values[index] <= corrected[index] <= min(1.0, p_values[index] * len(p_values) + 1e-12)
    in_order = [corrected[index] for index in np.argsort(p_values, kind="stable")]
    assert in_order == sorted(in_order)


def test_equal_methods_do_not_differ():
    assert wilcoxon_p(np.zeros(5)) == 1.0
    assert math.isnan(wilcoxon_p(np.empty(0)))


def test_the_bootstrap_is_seeded_and_near_the_normal_interval():
    values = np.random.default_rng(0).normal(10, 2, 200)
    low, high = bootstrap_interval(values, seed=3)
    assert (low, high) == bootstrap_interval(values, seed=3)
    assert (low, high) != bootstrap_interval(values, seed=4)
    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert all(math.isnan(end) for end in bootstrap_interval(values[:1], seed=0))
    assert bootstrap_interval(np.full(4, 0.5), seed=0) == (0.5, 0.5)


def test_markdown_has_a_row_per_method_and_metric(methods):
    table = to_markdown(compare(methods, "full", ["dice", "fpv_ml"])).splitlines()
    assert len(table) == 2 + 6
    assert {line.count("|") for line in table} == {12}
    assert table[2].startswith("| Dice | full | 20 | 0.")
    assert table[2].endswith("| - | - | - | - |")


def test_latex_escapes_names_and_closes_the_tabular():
    lines = compare({"w/o_TAMW & 50%": scored([0.5, 0.6])}, "w/o_TAMW & 50%", ["dice"])
    table = to_latex(lines)
    assert r"w/o\_TAMW \& 50\%" in table
    assert r"95 \% CI" in table
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {10}
    assert table.startswith(r"\begin{tabular}{llrrrrrrrrr}")
    assert table.endswith("\\end{tabular}\n")


def test_csv_has_full_precision(methods):
    lines = compare(methods, "full", ["dice"])
    rows = list(csv.DictReader(to_csv(lines).splitlines()))
    assert float(rows[1]["p_holm"]) == lines[1].p_holm
    assert float(rows[0]["mean"]) == lines[0].mean
    assert rows[0]["p"] == ""


def test_command_line_compares_folders(tmp_path, capsys):
    for case in range(4):
        write(tmp_path / f"truth/{case}.nii.gz", ONE)
        write(tmp_path / f"good/{case}.mha", ONE)
        if case:
            write(tmp_path / f"bad/{case}.mha", TWO if case > 1 else EMPTY)
    outputs = [f"--{kind}={tmp_path}/table.{kind}" for kind in ("markdown", "csv", "latex")]
    arguments = ["--truth", f"{tmp_path}/truth", "--metrics", "dice", "fpv_ml"]
    arguments += ["--prediction", f"good={tmp_path}/good", "--prediction", f"bad={tmp_path}/bad"]
    assert main(["compare", *arguments, *outputs]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Scored bad: 4 cases; missing, counted as-empty: 0" in out
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == ["good", "bad"] * 2
    assert float(rows[1]["difference"]) == pytest.approx((0 + 0 + 2 * 2 / 3) / 4 - 1)
    assert (tmp_path / "table.markdown").read_text() in out
    assert "tabular" in (tmp_path / "table.latex").read_text()


@pytest.mark.parametrize(("metric", "asked"), [("dice", 0), ("hd95_mm", 1), ("surface_dice", 1)])
def test_surfaces_are_measured_where_they_are_compared(tmp_path, monkeypatch, metric, asked):
    measured = Mock(wraps=surface_distances)
    monkeypatch.setattr("evaluation.scoring.metrics.surface_distances", measured)
    for folder in ("truth", "mask"):
        write(tmp_path / folder / "a.mha", ONE)
    words = ["--truth", f"{tmp_path}/truth", "--prediction", f"one={tmp_path}/mask", "--metrics", metric]
    assert main(["compare", *words]) == 0
    assert measured.call_count == asked


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prediction", "folder"], "--prediction must be NAME=FOLDER"),
        (["--prediction", "a=x", "--prediction", "a=y"], "names a twice"),
        (["--prediction", "a=x", "--reference", "b"], "--reference must be one of a"),
        (["--prediction", "a=x", "--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_a_user_mistake_is_one_sentence(tmp_path, capsys, options, told):
    assert main(["compare", "--truth", str(tmp_path), *options]) == 2
    assert told in capsys.readouterr().err


def test_caption_says_which_cases_count_where() -> None:
    """Of methods that miss different cases, the difference is not that of the means."""
    lines = compare({"one": scored([0.8, 0.4]), "other": scored([0.6])}, "one", ["dice"])
    assert [(line.count, line.mean) for line in lines] == [(2, pytest.approx(0.6)), (1, 0.6)]
    assert lines[1].difference == pytest.approx(-0.2)
    text = caption("one", "III", 0)
    assert "means over each method's own n cases" in text
    assert "against one over the cases that both have" in text
