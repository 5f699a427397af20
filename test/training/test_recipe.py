from __future__ import annotations

import math

import pytest

from training.recipe import Augmentation, Recipe


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"gamma": 0.5}, {"scaling": 1.0}])
def test_augmentation_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"probability": 2.0}, "augment must lie between 0 and 1, got 2.0"),
        ({"tumour_free": 2.0}, "clear-tumour must lie between 0 and 1, got 2.0"),
        ({"rotation_deg": math.inf}, "rotation must be at least 0 and finite, got inf"),
        ({"misalignment_voxels": -1}, "misalignment must be at least 0 and finite, got -1"),
        ({"gamma": math.inf}, "gamma must be at least 1 and finite, got inf"),
    ],
)
def test_augmentation_that_makes_no_sense_is_called_as_its_option_is(wrong, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        Augmentation(**wrong)


@pytest.mark.parametrize("wrong", [{"hard_voxels": 0.0}, {"hard_voxels": 1.5}, {"ema_decay": 1.0}, {"steps": 0}])
def test_a_recipe_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_the_cosine_rises_and_falls_to_zero():
    rates = [Recipe(steps=100, warm_up=10, learning_rate=1.0).learning_rate_at(step) for step in range(100)]

    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_the_released_rate_shrinks_by_one_percent_per_epoch():
    recipe = Recipe(optimiser="released", learning_rate=1e-4, steps_per_epoch=7)

    assert recipe.learning_rate_at(6) == 1e-4
    assert recipe.learning_rate_at(7 * 200) == pytest.approx(1e-4 * 0.99**200)


def test_flips_are_as_many_as_the_mirrored_axes_have() -> None:
    assert Augmentation().possible([1, 8]) == (1, 8)
    assert Augmentation(flip_axes=("x",)).possible([1, 2, 8]) == (1, 2)
    assert Augmentation(flip=0.0).possible([1, 8]) == (1,)
