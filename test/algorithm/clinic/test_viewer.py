"""The page in a real browser: it sorts, the viewer goes where a row says, and without WebGL the pictures stay."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.clinic.page import write_page
from algorithm.lesions import measure_burden
from test.support.browser import chromium
from test.support.clinic_case import page_input

pytestmark = pytest.mark.slow


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the page did not get there in time")


def opened(browser: Any, path: Path) -> str:
    """Open a page, scroll to the viewer and return how it ended up: ready or none."""
    browser.get(path.as_uri())
    browser.execute_script("document.getElementById('viewer').scrollIntoView()")
    state = "return document.documentElement.dataset.viewer"
    return str(wait_for(lambda: (s := browser.execute_script(state)) in ("ready", "none") and s))


def complaints(browser: Any) -> list[str]:
    return [each["message"] for each in browser.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]


def crosshair(browser: Any) -> list[float]:
    script = "const nv = window.reportViewer.nv; return [...nv.frac2mm(nv.scene.crosshairPos)].slice(0, 3)"
    return [float(each) for each in browser.execute_script(script)]


def click(browser: Any, selector: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]);"
        "e.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))",
        selector,
    )


def column(browser: Any, key: str) -> list[float]:
    script = "return [...document.querySelectorAll(`td[data-key=${arguments[0]}]`)].map(e => e.dataset.value)"
    return [float(each) for each in browser.execute_script(script, key)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, page_input())
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, page: Path) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        assert opened(driver, page) == "ready"
        yield driver


def test_it_opens_without_a_complaint(browser: Any) -> None:
    assert complaints(browser) == []


@pytest.mark.parametrize("number", [3, 1, 4, 2])
def test_a_row_takes_the_viewer_to_its_lesion(browser: Any, number: int) -> None:
    lesion = page_input().burden.lesions[number - 1]

    click(browser, f"tr[data-lesion='{number}'] td")

    left, posterior, superior = lesion.hottest_mm
    assert crosshair(browser) == pytest.approx([-left, -posterior, superior], abs=1.6)  # half a voxel of 3 mm
    marked = "return [...document.querySelectorAll('tr.on')].map(e => e.dataset.lesion)"
    assert browser.execute_script(marked) == [str(number)]
    reading = browser.execute_script("return document.getElementById('reading').textContent")
    assert "in a lesion" in reading
    assert complaints(browser) == []


def test_an_outline_in_a_picture_takes_the_viewer_there_too(browser: Any) -> None:
    click(browser, ".pair svg g.lesion[data-lesion='2'] path")

    left, posterior, superior = page_input().burden.lesions[1].hottest_mm
    assert crosshair(browser) == pytest.approx([-left, -posterior, superior], abs=1.6)


def test_the_viewer_shows_the_suv_and_hu_of_the_images(browser: Any) -> None:
    lesion = page_input().burden.lesions[0]

    click(browser, "tr[data-lesion='1'] td")

    reading = browser.execute_script("return document.getElementById('reading').textContent")
    suv, hu = (float(part.split()[-1 if "SUV" in part else 0]) for part in reading.split(" · ")[:2])
    assert suv == pytest.approx(lesion.suv_max, abs=0.6)  # resampled to 3 mm
    assert hu == pytest.approx(40, abs=8)


def test_it_opens_with_the_levels_of_the_pictures(browser: Any) -> None:
    levels = browser.execute_script("return window.reportViewer.nv.volumes.map(v => [v.cal_min, v.cal_max])")

    assert levels == [[-160, 240], [0, 10], [0, 1]]


def test_the_canvas_shows_something(browser: Any, tmp_path: Path) -> None:
    canvas = browser.find_element("id", "canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    (tmp_path / "canvas.png").write_bytes(base64.b64decode(canvas.screenshot_as_base64))

    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "canvas.png"))).astype(int)

    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert (pixels.max(axis=-1) > 60).mean() > 0.1
    assert ((red - blue) > 60).sum() > 50  # the PET's colours
    assert ((blue > 200) & (green > 180) & (red < 160)).sum() > 20  # outlines and crosshair


@pytest.mark.parametrize("key", ["suv_max", "mtv_ml", "longest_diameter_mm", "number"])
def test_headings_sort_down_then_up(browser: Any, key: str) -> None:
    before = column(browser, key)
    at = browser.execute_script(
        "return [...document.querySelector('tbody tr').cells].findIndex(c => c.dataset.key === arguments[0])", key
    )
    heading = f"th:nth-child({at + 1}) button"

    click(browser, heading)
    once = column(browser, key)
    click(browser, heading)
    twice = column(browser, key)

    assert sorted(once) == sorted(twice) == sorted(before)
    assert once in (sorted(before), sorted(before, reverse=True))
    assert twice == once[::-1]
    order = browser.execute_script(f"return document.querySelector('th:nth-child({at + 1})').ariaSort")
    assert order == ("descending" if twice == sorted(before, reverse=True) else "ascending")


def test_every_control_works_without_a_complaint(browser: Any) -> None:
    for plane in ("axial", "coronal", "sagittal", "all"):
        click(browser, f"[data-plane={plane}]")
    for window in range(1, 4):
        click(browser, f"[data-window]:nth-child({window})")
    levels = browser.execute_script("const v = window.reportViewer.nv.volumes[0]; return [v.cal_min, v.cal_max]")
    assert levels == [-450, 1000]
    browser.execute_script(
        "for (const [id, value] of [['pet-top', 5], ['pet-opacity', 30]]) {"
        "  const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event('input')); }"
    )
    assert browser.execute_script("return window.reportViewer.nv.volumes[1].cal_max") == 5
    click(browser, "#show-lesions")
    assert browser.execute_script("return window.reportViewer.nv.volumes[2].opacity") == 0
    click(browser, "tbody tr:nth-child(2) td")
    for button, row in (("#next", 3), ("#next", 4), ("#next", 1), ("#previous", 4)):
        click(browser, button)
        assert (
            browser.execute_script(f"return document.querySelector('tbody tr:nth-child({row})').className") == "on"
        )
    assert complaints(browser) == []


def test_nothing_is_fetched(browser: Any) -> None:
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")

    assert [each for each in fetched if not each.startswith(("data:", "blob:"))] == []


def test_without_webgl_the_pictures_stay(page: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile", webgl=False) as plain:
        assert opened(plain, page) == "none"

        shown = "return getComputedStyle(document.querySelector(arguments[0])).display"
        assert plain.execute_script("return document.getElementById('no-viewer').hidden") is False
        assert plain.execute_script(shown, ".stage") == "none"
        sizes = plain.execute_script("return [...document.querySelectorAll('svg')].map(e => e.clientWidth)")
        assert len(sizes) == 2 + 4
        assert min(sizes) > 100
        click(plain, "tr[data-lesion='2'] td")
        assert plain.execute_script("return document.querySelector('tr.on').dataset.lesion") == "2"
        assert complaints(plain) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_and_dark(browser: Any, scheme: str) -> None:
    how = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", how)

    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    level = np.mean([int(each) for each in colour[4:-1].split(",")])
    assert level > 200 if scheme == "light" else level < 60


def test_it_prints_on_a4(browser: Any) -> None:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})

    pdf = base64.b64decode(printed["data"])
    assert b"/MediaBox [0 0 595" in pdf or b"/MediaBox [0 0 594" in pdf
    assert 1 <= pdf.count(b"/Type /Page\n") <= 2


@pytest.mark.data
def test_a_real_patient(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sts" / "STS_002" / "pet-ct"
    ct, pet, seg = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("CTres", "SUV", "SEG"))
    burden = measure_burden(sitk.GetArrayFromImage(seg), pet)
    write_page(tmp_path / "report.html", page_input(ct=ct, pet=pet, burden=burden))

    with chromium(tmp_path / "profile") as browser:
        assert opened(browser, tmp_path / "report.html") == "ready"

        left, posterior, superior = burden.lesions[0].hottest_mm
        assert crosshair(browser) == pytest.approx([-left, -posterior, superior], abs=2.8)
        assert column(browser, "suv_max") == [burden.lesions[0].suv_max]
        assert complaints(browser) == []
