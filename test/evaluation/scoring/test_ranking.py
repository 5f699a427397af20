"""Ranking, areas and HECKTOR's aggregate against plain transcriptions of their definitions on random cohorts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import stats

from algorithm.errors import GeometryError, InvalidImageError, UsageError
from evaluation.scoring.curves import area_under_curve
from evaluation.scoring.editions import RULES
from evaluation.scoring.hecktor import aggregated_dice, onto_truth, overlaps, rank_by_mean, read_labels
from evaluation.scoring.ranking import SCHEMES, pooled_lesion_f1, rank_submissions, ranks_of
from test.support import plain_ranking

COHORTS = 100
METRICS = ("dice", "fpv_ml", "fnv_ml", "lesion_f1")
SUBSETS = ("fdg, LMU", "fdg, UKT", "psma, LMU", "psma, UKT")


def random_cohort(seed: int, last_step: int) -> tuple[dict, dict]:
    """One to six submissions on one to twelve cases in one to four subsets.

    Every second cohort has coarse values, so that figures and mean ranks are often equal; a metric may be
    undefined for a case (for all submissions, as in tumour-free cases, or for one), and so for a whole subset.
    """
    rng = np.random.default_rng(seed)
    names = [f"s{index}" for index in range(rng.integers(1, 7))]
    cases = [f"case {index}" for index in range(rng.integers(1, 13))]
    coarse = seed % 2 == 0
    undefined = {case: rng.random(len(METRICS)) < rng.choice([0, 0.3, 0.8]) for case in cases}

    def curve(case: str) -> dict[str, list[float]]:
        values = {}
        for index, metric in enumerate(METRICS):
            drawn = rng.integers(0, 3, last_step + 1) / 2 if coarse else rng.random(last_step + 1)
            if undefined[case][index]:
                drawn = np.full(last_step + 1, np.nan)
            elif rng.random() < 0.05:
                drawn[rng.integers(last_step + 1)] = np.nan
            values[metric] = drawn.tolist()
        return values

    submissions = {name: {case: curve(case) for case in cases} for name in names}
    if len(names) > 2 and rng.random() < 0.5:
        submissions[names[-1]] = submissions[names[0]]
    chosen = SUBSETS[: rng.integers(1, 5)]
    return submissions, {case: str(rng.choice(chosen)) for case in cases}


def same(ours: float, plain: Fraction | None) -> bool:
    return math.isnan(ours) if plain is None else math.isclose(ours, plain, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize("edition", SCHEMES)
def test_ranking_equals_the_plain_definition(edition):
    plain = {
        "I": lambda submissions, _: plain_ranking.editions_1_and_2(submissions),
        "II": lambda submissions, _: plain_ranking.editions_1_and_2(submissions),
        "III": plain_ranking.edition_3,
        "IV": plain_ranking.edition_4,
        "V": lambda submissions, _: plain_ranking.edition_5(submissions),
    }[edition]
    ties = undefined = 0
    for seed in range(COHORTS):
        submissions, subset_of = random_cohort(seed, SCHEMES[edition].last_step)
        expected = plain(submissions, subset_of)
        standings = {one.name: one for one in rank_submissions(submissions, edition, subset_of)}
        for index, name in enumerate(submissions):
            one = standings[name]
            assert one.mean_rank == float(expected["mean_ranks"][index]), seed
            assert one.final_rank == expected["final"][index], seed
            for label, column in expected["values"].items():
                assert same(one.values[label], column[index]), (seed, label)
                undefined += column[index] is None
        ties += len(set(expected["final"])) < len(submissions)
    assert ties > 10  # the cohorts do hold what is hard
    assert undefined > 5


def test_the_order_of_submissions_and_cases_does_not_matter():
    for seed in range(20):
        submissions, subset_of = random_cohort(seed, 10)
        turned = {name: dict(reversed(list(cases.items()))) for name, cases in reversed(list(submissions.items()))}
        ranks = [
            {one.name: (one.final_rank, one.mean_rank) for one in rank_submissions(some, "IV", subset_of)}
            for some in (submissions, turned)
        ]
        assert ranks[0] == ranks[1]


@pytest.mark.parametrize("edition", SCHEMES)
def test_score_and_rank_agree_on_weights_and_steps(edition):
    scheme, rules = SCHEMES[edition], RULES[edition]
    assert {m.metric: m.weight for m in scheme.measures} == rules.ranked
    assert all(rules.ranked[m.metric] == m.weight for m in scheme.measures)
    assert scheme.last_step == rules.last_step
    assert (scheme.subsets != "pooled") == rules.by_subset


def test_weights_add_up_to_one():
    assert {
        edition: sum(m.weight for m in scheme.measures) for edition, scheme in SCHEMES.items()
    } == dict.fromkeys(SCHEMES, 1.0)


def test_edition_3_may_order_otherwise_than_edition_1():
    """Better by far in one subset does not make up for being worse in three."""

    def cases(dice: list[float]) -> dict:
        return {str(i): {"dice": [value], "fpv_ml": [0.0], "fnv_ml": [0.0]} for i, value in enumerate(dice)}

    submissions = {"even": cases([0.6, 0.6, 0.6, 0.1]), "one-sided": cases([0.5, 0.5, 0.5, 0.9])}
    subset_of = dict(zip("0123", SUBSETS, strict=True))
    assert rank_submissions(submissions, "I")[0].name == "one-sided"
    best = rank_submissions(submissions, "III", subset_of)[0]
    assert best.name == "even"
    assert best.ranks == {"Dice": 1.25, "FPV": 1.0, "FNV": 1.0}
    assert best.by_subset["psma, UKT"]["Dice"] == (0.1, 2)
    assert rank_submissions({name: at_all_steps(some, 11) for name, some in submissions.items()}, "IV", subset_of)[
        0
    ].values["AUC-DSC"] == pytest.approx(6.0)


def at_all_steps(cases: dict, steps: int) -> dict:
    return {case: {name: values * steps for name, values in curve.items()} for case, curve in cases.items()}


def test_ranks_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = rng.integers(0, 4, rng.integers(1, 9)) / 4
        assert ranks_of(values.tolist(), higher_is_better=False) == stats.rankdata(values, method="min").tolist()
        assert ranks_of(values.tolist(), higher_is_better=True) == stats.rankdata(-values, method="min").tolist()
    assert ranks_of([math.nan, 0.0, math.nan, 5.0], higher_is_better=False) == [3, 1, 3, 2]


def test_areas_are_those_of_numpy_and_of_the_definition():
    rng = np.random.default_rng(1)
    for steps in (1, 5, 10):
        for _ in range(100):
            values = rng.random(steps + 1).tolist()
            area = area_under_curve(values, steps)
            assert same(area, plain_ranking.trapezoid(values))
            assert area == pytest.approx(np.trapezoid(values), rel=1e-12)
            values[rng.integers(steps + 1)] = math.nan
            assert math.isnan(area_under_curve(values, steps))
    assert area_under_curve([1.0] * 11, 10) == 10
    assert area_under_curve([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], 5) == 4.5


@pytest.mark.parametrize(("values", "steps"), [([1.0] * 5, 5), ([1.0] * 7, 5), ([], 5), ([1.0], 0)])
def test_an_area_needs_one_value_per_step(values, steps):
    with pytest.raises(UsageError, match=str(len(values)) if steps else "at least one"):
        area_under_curve(values, steps)


def test_pooled_f1_equals_the_plain_definition():
    undefined = 0
    for seed in range(COHORTS):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, rng.choice([1, 2, 6]), (rng.integers(1, 10), 3))
        cases = [(str(rng.choice(["a", "b", "c"])), *map(int, row)) for row in counts]
        data_sets, found, missed, false = (list(column) for column in zip(*cases, strict=True))
        ours = pooled_lesion_f1(found, missed, false, data_sets)
        assert same(ours, plain_ranking.pooled_f1(cases)), seed
        undefined += math.isnan(ours)
    assert 0 < undefined < COHORTS


def labels(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.5, 3.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(spacing)
    return image


def random_labels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice(3, size=shape, p=rng.choice([[1, 0, 0], [0.6, 0.4, 0], [0.4, 0.3, 0.3], [0.9, 0, 0.1]]))


def test_hecktor_equals_the_plain_definition_and_simpleitk():
    undefined = 0
    for seed in range(COHORTS):
        rng = np.random.default_rng(seed)
        patients, measured, above = [], [], {1: 0.0, 2: 0.0}
        for _ in range(rng.integers(1, 5)):
            shape = tuple(rng.integers(2, 6, 3))
            spacing = tuple(rng.uniform(0.5, 4, 3).tolist())
            truth, prediction = random_labels(rng, shape), random_labels(rng, shape)
            patients.append((truth, prediction, spacing))
            images = labels(truth, spacing), labels(prediction, spacing)
            measured.append(overlaps(*images))
            judge = sitk.LabelOverlapMeasuresImageFilter()
            judge.Execute(*images)
            for name, label in (("GTVp", 1), ("GTVn", 2)):
                total = measured[-1][name].total_ml
                above[label] += judge.GetDiceCoefficient(label) * total if total else 0.0
        ours = aggregated_dice(measured)
        plain = plain_ranking.hecktor(patients)
        assert ours == pytest.approx(plain, rel=1e-9, nan_ok=True), seed
        for name, label in (("GTVp", 1), ("GTVn", 2)):
            total = sum(patient[name].total_ml for patient in measured)
            assert not total or ours[name] == pytest.approx(above[label] / total, rel=1e-9)
        undefined += math.isnan(ours["mean"])
    assert 0 < undefined < COHORTS


def test_a_hecktor_prediction_is_brought_onto_the_truths_grid():
    truth = labels(random_labels(np.random.default_rng(3), (6, 7, 8)) * 0 + 1)
    prediction = sitk.RegionOfInterest(truth, (4, 4, 4), (2, 2, 1))
    prediction.SetSpacing((1.0000009, 1.5, 3.0))
    moved = onto_truth(prediction, truth)
    array = sitk.GetArrayFromImage(moved)
    assert array.shape == (6, 7, 8)
    assert array.sum() == 64
    assert array[1:5, 2:6, 2:6].all()
    prediction.SetSpacing((1.000002, 1.5, 3.0))
    with pytest.raises(GeometryError, match=r"got 1\.000002 x 1\.5 x 3 mm"):
        onto_truth(prediction, truth)


def test_hecktor_knows_three_labels(tmp_path):
    sitk.WriteImage(labels(np.full((2, 2, 2), 3)), str(tmp_path / "a.nii.gz"))
    with pytest.raises(InvalidImageError, match=r"got 3 in .*a\.nii\.gz"):
        read_labels(tmp_path / "a.nii.gz")


def test_hecktor_ranks_by_the_mean_and_an_undefined_mean_comes_last():
    scores = {"none": math.nan, "low": 0.5, "high": 0.7, "equal": 0.7}
    standings = rank_by_mean({name: dict.fromkeys(("GTVp", "GTVn", "mean"), x) for name, x in scores.items()})
    assert [(one.name, one.final_rank) for one in standings] == [
        ("high", 1),
        ("equal", 1),
        ("low", 3),
        ("none", 4),
    ]


def test_submissions_must_be_comparable():
    one = {case: {metric: [0.5] for metric in METRICS} for case in "ab"}
    with pytest.raises(UsageError, match=r"Y lacks 1 of the cases of X \(b\)"):
        rank_submissions({"X": one, "Y": {"a": one["a"]}}, "I")
    with pytest.raises(UsageError, match=r"Y lacks 1 of the cases of X \(c\)"):
        rank_submissions({"Y": one, "X": {**one, "c": one["a"]}}, "I")
    with pytest.raises(UsageError, match="the case a of X has 1 predictions, but edition V scores 6"):
        rank_submissions({"X": one}, "V")
    with pytest.raises(UsageError, match=r"1 cases have none \(b\)"):
        rank_submissions({"X": one}, "III", {"a": "fdg, UKT"})
    with pytest.raises(UsageError, match="must be one of I, II, III, IV, V, got 'VI'"):
        rank_submissions({"X": one}, "VI")
    with pytest.raises(UsageError, match="no submission"):
        rank_submissions({}, "I")
    with pytest.raises(UsageError, match="X has no case"):
        rank_submissions({"X": {}}, "I")
