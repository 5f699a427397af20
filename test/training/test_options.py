from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from algorithm.errors import UsageError
from algorithm.parser import Parser
from training.command_line import REQUIRED, add_options, option, options_from
from training.options import CleanupOptions, CrossValidationOptions, FitOptions, ResamplingOptions, parsed_as
from training.recipe import Augmentation, Recipe

NEEDED = ["--cases", "a", "--cache", "c", "--out", "o"]


def parse(kind, words):
    parser = Parser()
    add_options(parser, kind)
    return parsed_as(kind, parser.parse_with_environment(words))


def test_what_the_command_line_leaves_out_is_the_dataclasses_default():
    options = parse(FitOptions, NEEDED)
    training = options.training

    assert training.recipe == Recipe()
    assert training.recipe.augmentation == Augmentation()
    assert (training.data.cases, training.data.out) == ((Path("a"),), Path("o"))
    assert training.running.time_budget == math.inf
    assert training.network.without == ()
    assert options.split == "paper"


def test_options_become_typed_values():
    words = [*NEEDED, "--cases", "b", "--share", "1", "2", "--patch", "32", "64", "48", "--without", "tamw"]
    words += ["--rotation", "5", "--ema-decay", "0.5", "--init", "x.json", "--folds", "3", "--flips", "8"]
    options = parse(CrossValidationOptions, words)
    training = options.training

    assert training.data.cases == (Path("a"), Path("b"))
    assert training.data.share == (1.0, 2.0)
    assert training.network.patch == (32, 64, 48)
    assert (training.network.architecture.mcsa, training.network.architecture.tamw) == (True, False)
    assert training.recipe.augmentation.rotation_deg == 5.0
    assert training.recipe.ema_decay == 0.5
    assert training.network.init == Path("x.json")
    assert (options.folds, options.flips) == (3, (8,))


@pytest.mark.parametrize(("optimiser", "rate"), [("adamw", 4e-4), ("released", 1e-4)])
def test_each_optimiser_has_its_own_learning_rate(optimiser, rate):
    assert parse(FitOptions, [*NEEDED, "--optimiser", optimiser]).training.recipe.learning_rate == rate
    given = [*NEEDED, "--optimiser", optimiser, "--learning-rate", "0.5"]
    assert parse(FitOptions, given).training.recipe.learning_rate == 0.5


def test_the_old_spelling_of_cases_is_understood():
    assert parse(FitOptions, ["--data", "a", *NEEDED[2:]]) == parse(FitOptions, NEEDED)
    assert parse(ResamplingOptions, ["--data", "a", "--spacing", "4", "4", "4"]).cases == Path("a")


def test_grids_come_from_the_command_line_or_the_environment(monkeypatch):
    both = ["--spacing", "4", "4", "4", "--spacing", "5", "5", "6"]
    assert parse(ResamplingOptions, ["--cases", "a", *both]).spacing == ((4.0, 4.0, 4.0), (5.0, 5.0, 6.0))
    monkeypatch.setenv("H2ASEG_SPACING", "4 4 5")
    assert parse(ResamplingOptions, ["--cases", "a"]).spacing == ((4.0, 4.0, 5.0),)
    assert parse(FitOptions, NEEDED).training.network.spacing == (4.0, 4.0, 5.0)


def test_nothing_can_change_the_options():
    options = parse(FitOptions, NEEDED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.training.running.time_budget = 1.0


def test_a_value_that_the_dataclass_refuses_is_a_usage_error():
    @dataclasses.dataclass(frozen=True)
    class Positive:
        number: int = option(REQUIRED, "Above 0.")

        def __post_init__(self) -> None:
            if self.number <= 0:
                raise ValueError(f"number must be above 0, got {self.number}")

    assert options_from(Positive, {"number": 1}).number == 1
    with pytest.raises(UsageError, match="number must be above 0, got 0"):
        options_from(Positive, {"number": 0})


def test_a_switch_is_off_until_it_is_given():
    words = ["--weights", "w.json", "--cases", "c", "--out", "o.csv"]
    assert parse(CleanupOptions, words).write is False
    assert parse(CleanupOptions, [*words, "--write"]).write is True
