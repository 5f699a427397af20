from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from algorithm.errors import MissingInputError, UsageError
from algorithm.guidance.evidence import FEATURES, log_odds
from evaluation.interactive.fit import Example, add_arguments, fit, fit_rounds, run
from evaluation.interactive.network import Seen


def test_the_fit_finds_the_weights_that_made_the_examples() -> None:
    rng = np.random.default_rng(5)
    made = {True: rng.normal(size=len(FEATURES) + 1), False: rng.normal(size=len(FEATURES) + 1)}
    found = []
    for number in range(40):
        features = rng.normal(size=(600, len(FEATURES))) * rng.uniform(0.5, 2, len(FEATURES))
        tumour = number % 2 == 0
        chance = 1 / (1 + np.exp(-(features @ made[tumour][:-1] + made[tumour][-1])))
        found.append(Example(tumour, features, rng.random(600) < chance, worth=1e-4))
    weights = fit(found)

    for tumour in (True, False):
        fresh = rng.normal(size=(2000, len(FEATURES)))
        right = log_odds(fresh, made[tumour]) > 0
        assert np.mean((log_odds(fresh, weights.of(tumour=tumour)) > 0) == right) > 0.95


def test_worth_counts() -> None:
    rng = np.random.default_rng(6)
    zeros = np.zeros((100, len(FEATURES)))
    for dear in (True, False):  # of two that contradict each other, the dearer one decides
        found = [
            Example(
                tumour,
                zeros + rng.normal(size=zeros.shape) * 1e-3,
                np.full(100, wrong),
                9.0 if wrong == dear else 1.0,
            )
            for tumour in (True, False)
            for wrong in (True, False)
        ]
        assert ((log_odds(zeros[:1], fit(found).tumour) > 0) == dear).all()


@pytest.mark.parametrize(("kinds", "lacking"), [((), "tumour"), ((True,), "what was"), ((False,), "tumour")])
def test_nothing_to_learn_from_is_one_sentence(kinds: tuple[bool, ...], lacking: str) -> None:
    found = [Example(tumour, np.zeros((1, len(FEATURES))), np.ones(1, bool), 1.0) for tumour in kinds]
    with pytest.raises(MissingInputError, match=f"no case gives a scribble on {lacking}"):
        fit(found)


@pytest.mark.parametrize("wrong", [("--rounds", "0"), ("--repeats", "0"), ("--repeats", "-1")])
def test_neither_rounds_nor_games_are_left_out(tmp_path: Path, wrong: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=f"must be at least 1, got .*{wrong[1]}"):
        run(parsed("--cases", str(tmp_path), *wrong))


def test_cases_without_truth_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    for name in ("c", "p"):
        (tmp_path / f"{name}.nii.gz").touch()
    cases = tmp_path / "cases.csv"
    cases.write_text("case,ct,pet\na,c.nii.gz,p.nii.gz\n")
    with pytest.raises(MissingInputError, match="has a truth; give cases with one"):
        run(parsed("--cases", str(cases), "--weights", str(tmp_path / "none")))


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_rounds_learn_to_correct_a_shifted_mask() -> None:
    truth = np.zeros((12, 36, 36), dtype=bool)
    truth[2:10, 8:26, 8:26] = True
    shifted = np.roll(truth, 5, axis=2)
    suv = np.where(truth, 6.0, 1.0).astype(np.float32)
    probability = ndimage.gaussian_filter(shifted.astype(np.float32), 1)
    seen = Seen(shifted.astype(np.uint8), probability, suv, np.full(truth.shape, 40, np.float32), (4.0, 4.0, 3.0))
    weights = fit_rounds([(seen, truth)], rounds=2, repeats=1, seed=0)

    uptake = FEATURES.index("uptake")
    assert weights.tumour[uptake] > 0 or weights.background[uptake] > 0
    assert weights == fit_rounds([(seen, truth)], rounds=2, repeats=1, seed=0)
