from __future__ import annotations

import itertools

import numpy as np
import pytest

from algorithm.clinic.numbers import place_numbers
from algorithm.clinic.pictures import Outline


def boxes(*frames: tuple[float, float, float, float]) -> list[Outline]:
    return [Outline(number, "", "", frame) for number, frame in enumerate(frames, start=1)]


def test_a_number_stands_beside_its_lesion() -> None:
    (number,) = place_numbers(boxes((40, 40, 50, 52)), 100, 100, 5, most=10)

    assert number.number == 1
    assert number.leader is None
    assert not (40 < number.x < 50 and 40 < number.y < 52)
    assert 40 - 8 < number.x < 50 + 8
    assert 40 - 8 < number.y < 52 + 8


@pytest.mark.parametrize("seed", range(4))
def test_numbers_do_not_cover_each_other_and_stay_inside(seed: int) -> None:
    corners = np.random.default_rng(seed).uniform(0, 180, (40, 2))
    lesions = boxes(*((float(x), float(y), float(x) + 8, float(y) + 8) for x, y in corners))

    numbers = place_numbers(lesions, 200, 200, 6, most=60)

    assert len(numbers) > 25
    for one, other in itertools.combinations(numbers, 2):
        assert abs(one.x - other.x) > 6 * 0.6 or abs(one.y - other.y) >= 6 - 1e-9
    assert all(0 < each.x < 200 and 0 < each.y < 200 for each in numbers)


def test_where_it_is_crowded_a_line_leads_to_the_lesion() -> None:
    numbers = place_numbers(boxes(*[(50, 50, 52, 52)] * 30), 100, 100, 5, most=30)

    led = [each for each in numbers if each.leader is not None]
    assert led
    for each in led:
        assert each.leader is not None
        assert 50 <= each.leader[0] <= 52
        assert 50 <= each.leader[1] <= 52


def test_only_the_first_are_numbered() -> None:
    lesions = boxes(*((x, 50, x + 4, 54) for x in range(10, 190, 20)))

    assert [each.number for each in place_numbers(lesions, 200, 100, 5, most=3)] == [1, 2, 3]
