"""Bodies differ as the style says, and what is benign is never in the mask."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk

from synthesis.benign import FDG, add_benign
from synthesis.scan import SyntheticBody, synthesise
from synthesis.style import Style, draw_style
from test.support.anatomy import schematic_map

COARSE = (10.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def organs() -> sitk.Image:
    return schematic_map()


def body(organs: sitk.Image, style: Style, seed: int = 3, lesions: int = 0) -> SyntheticBody:
    return synthesise(organs, "fdg", seed, spacing=COARSE, lesions=lesions, style=style)


def upright(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def test_styles_come_as_often_as_they_should():
    drawn = [draw_style(np.random.default_rng(seed)) for seed in range(600)]
    share = Counter()
    for style in drawn:
        share["mirrored"] += style.mirrored
        share["legs"] += style.more_leg_mm > 0
        share["part"] += style.view != (0.0, 1.0)
        share["prosthesis"] += style.prosthesis
    for name, wanted in (("mirrored", 0.5), ("legs", 0.35), ("part", 0.25), ("prosthesis", 0.05)):
        assert abs(share[name] / 600 - wanted) < 0.06, name
    assert 0.09 < np.median([style.noise for style in drawn]) < 0.11
    assert 4.5 <= min(style.fwhm_mm for style in drawn) < max(style.fwhm_mm for style in drawn) <= 9


def test_sides_are_exchanged(organs):
    plain, other = (upright(body(organs, Style(mirrored=mirrored)).organs) for mirrored in (False, True))
    assert np.array_equal(plain, other[:, :, ::-1])
    assert not np.array_equal(plain, other)


def test_legs_are_appended_below(organs):
    plain, longer = body(organs, Style()), body(organs, Style(more_leg_mm=300))
    added = len(upright(longer.ct)) - len(upright(plain.ct))
    assert added == 30
    legs = upright(longer.ct)[:20]
    assert (legs > -200).mean() > 0.02
    assert not upright(longer.organs)[:added].any()


def test_a_part_of_the_height_is_seen(organs):
    whole, part = body(organs, Style()), body(organs, Style(view=(0.25, 0.75)))
    slices = len(upright(whole.ct))
    first = round(0.25 * slices)
    cut = upright(whole.ct)[first : round(0.75 * slices)]
    assert np.array_equal(upright(part.ct), cut)
    z = sitk.DICOMOrient(part.ct, "LPS").GetOrigin()[2] - sitk.DICOMOrient(whole.ct, "LPS").GetOrigin()[2]
    assert z == pytest.approx(10.0 * first)


def test_the_anatomy_is_stretched_on_the_same_grid(organs):
    plain, wide = body(organs, Style()), body(organs, Style(stretch=(1.1, 1.0, 1.0)))
    assert wide.ct.GetSpacing() == plain.ct.GetSpacing()
    ml = [int((upright(each.organs) > 0).sum()) for each in (plain, wide)]
    assert ml[1] / ml[0] == pytest.approx(1.1, abs=0.03)


def test_noise_blur_and_calibration_show(organs):
    quiet, loud = (upright(body(organs, Style(noise=level)).suv) for level in (0.01, 0.3))
    liver = upright(body(organs, Style()).organs) == 3
    assert loud[liver].std() > 2 * quiet[liver].std()
    twice = upright(body(organs, Style(noise=0.01, calibration=1.15)).suv)
    assert twice[liver].mean() / quiet[liver].mean() == pytest.approx(1.15, abs=0.02)
    sharp, dull = (upright(body(organs, Style(noise=0.01, fwhm_mm=width)).suv) for width in (4.5, 9.0))
    assert dull.max() < sharp.max()


def test_a_prosthesis_is_metal(organs):
    metal = upright(body(organs, Style(prosthesis=True)).ct)
    assert metal.max() > 2000 > upright(body(organs, Style()).ct).max()


def test_the_organ_maps_grid_stays_where_none_is_given(organs):
    kept = synthesise(organs, "fdg", 5, spacing=None, style=Style(more_leg_mm=300, view=(0.0, 0.5)))
    assert kept.ct.GetSize() == organs.GetSize()


def test_benign_uptake_is_added_but_never_marked(organs, monkeypatch):
    every = {name: (1.0, draw) for name, (_, draw) in FDG.items()}
    plain = body(organs, Style(noise=0.01))
    monkeypatch.setattr("synthesis.benign.FDG", every)
    full = body(organs, Style(noise=0.01))
    assert {"reactive nodes", "womb", "urine on the skin", "thymus"} <= set(full.benign)
    assert not upright(full.seg).any()
    assert (upright(full.suv) > upright(plain.suv) + 1).sum() > 20
    assert add_benign.__doc__


def test_muscles_differ_between_bodies_and_sides(organs):
    ratios = []
    for seed in range(8):
        one = body(organs, Style(noise=0.01), seed)
        suv, hu = upright(one.suv), upright(one.ct)
        low = slice(0, 12)
        muscle = (hu[low] > 20) & (hu[low] < 90)
        middle = suv.shape[2] // 2
        left, right = (
            suv[low][:, :, part][muscle[:, :, part]] for part in (slice(0, middle), slice(middle, None))
        )
        ratios.append(np.median(left) / np.median(right))
    assert np.std(np.log(ratios)) > 0.02
