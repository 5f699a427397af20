from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.clinic import page as module
from algorithm.clinic.page import COLUMNS, write_page
from algorithm.errors import InstallationError, OutputError
from algorithm.lesions import measure_burden
from test.support.clinic_case import page_input, synthetic_case


class Cells(HTMLParser):
    """Collects the table's cells (key, value, text), the totals, and every attribute that fetches something."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, tuple[str, str]]] = []
        self.totals: dict[str, str] = {}
        self.fetched: list[str] = []
        self._at: tuple[str, str] | None = None
        self._total: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        self.fetched += [named[key] for key in ("src", "href", "srcset", "data", "action") if key in named]
        if tag == "tr" and "data-lesion" in named:
            self.rows.append({})
        if tag == "td" and "data-key" in named:
            self._at = named["data-key"], named["data-value"]
        if "data-total" in named:
            self._total = named["data-total"]

    def handle_data(self, data: str) -> None:
        if self._at is not None:
            self.rows[-1][self._at[0]] = self._at[1], data.strip()
            self._at = None
        if self._total is not None:
            self.totals[self._total] = data.strip()
            self._total = None


def parsed(path: Path) -> Cells:
    cells = Cells()
    cells.feed(path.read_text(encoding="utf-8"))
    return cells


def test_its_numbers_are_those_of_the_json_report(tmp_path: Path) -> None:
    page = page_input()
    write_page(tmp_path / "report.html", page, viewer=False)
    told = {
        "lesions": [dataclasses.asdict(each) for each in page.burden.lesions],
        "totals": dataclasses.asdict(page.burden.totals),
    }
    (tmp_path / "report.json").write_text(json.dumps(told))

    cells, report = parsed(tmp_path / "report.html"), json.loads((tmp_path / "report.json").read_text())

    assert len(cells.rows) == len(report["lesions"]) == 4
    for row, lesion in zip(cells.rows, report["lesions"], strict=True):
        assert set(row) == {column.key for column in COLUMNS}
        for column in COLUMNS:
            value, text = row[column.key]
            assert float(value) == lesion[column.key]
            assert text == format(lesion[column.key], column.form)
    totals = report["totals"]
    assert cells.totals == {
        "Lesions": "4",
        "MTV": f"{totals['mtv_ml']:.1f}",
        "TLG": f"{totals['tlg_g']:.1f}",
        "SUVmax": "21.00",
        "SUVpeak": f"{totals['suv_peak']:.2f}",
        "Dmax": f"{totals['dmax_mm']:.0f}",
    }


def test_it_says_who_how_and_that_it_is_research(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", page_input(), viewer=False)

    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    for said in (
        "Phantom^Synthetic",
        "/somewhere/SYN-001/pet.nii.gz",
        "sha256 abab",
        "Units are BQML.",
        "11.2 s: read 1.2 s, predict 10.0 s",
        "the CT was resampled onto the PET&#39;s grid",
        "Research software",
        "not for diagnosis",
    ):
        assert said in text


def test_anonymous_says_nothing_of_the_patient(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", page_input(), viewer=False, anonymous=True)

    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "Phantom" not in text
    assert "SYN-001" not in text
    assert "sha256 abab" in text


def test_names_that_are_not_utf_8_cost_no_page(tmp_path: Path) -> None:
    page = dataclasses.replace(page_input(), notes=("M\udcfcller.dcm was left out",))
    write_page(tmp_path / "report.html", page, viewer=False)
    assert "M\\udcfcller.dcm was left out" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script><img src=x onerror=y>\"'&"
    texts: dict[str, Any] = {
        "patient": ((evil, evil),),
        "files": ((evil, evil),),
        "method": ((evil, evil),),
        "seconds": {evil: 1.0},
        "suv": (evil,),
        "notes": (evil,),
        "software": evil,
        "created": evil,
    }

    write_page(tmp_path / "report.html", page_input(**texts), viewer=False)

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert('x')" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 12


@pytest.mark.parametrize("viewer", [True, False])
def test_it_needs_nothing_from_outside(tmp_path: Path, viewer: bool) -> None:
    write_page(tmp_path / "report.html", page_input(), viewer=viewer)

    cells = parsed(tmp_path / "report.html")

    assert cells.fetched
    assert all(each.startswith("data:image/png;base64,") for each in cells.fetched)
    assert "default-src 'none'" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_without_viewer_it_is_small(tmp_path: Path) -> None:
    write_page(tmp_path / "with.html", page_input())
    write_page(tmp_path / "without.html", page_input(), viewer=False)

    assert (tmp_path / "without.html").stat().st_size < 1_500_000
    assert (tmp_path / "with.html").stat().st_size < 15_000_000
    assert "niivue" not in (tmp_path / "without.html").read_text(encoding="utf-8").replace("= niivue;", "")


@pytest.mark.slow
def test_a_whole_body_of_noise_stays_below_15_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (326, 200, 200)
    hu = sitk.GetImageFromArray(rng.normal(0, 300, shape).astype(np.int16))
    pet = sitk.GetImageFromArray(rng.gamma(2, 1, shape).astype(np.float32))
    for image in (hu, pet):
        image.SetSpacing((2.04, 2.04, 3.0))
    mask = np.zeros(shape, np.uint8)
    mask[10:310:12, 20:180:16, 20:180:16] = 1
    burden = measure_burden(mask, pet)

    write_page(tmp_path / "report.html", page_input(ct=hu, pet=pet, burden=burden))

    assert (tmp_path / "report.html").stat().st_size < 15_000_000
    assert len(parsed(tmp_path / "report.html").rows) == len(burden.lesions) == 2500


def test_no_lesion_is_said(tmp_path: Path) -> None:
    _, pet, mask = synthetic_case()

    write_page(tmp_path / "report.html", page_input(burden=measure_burden(mask * 0, pet)))

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No lesion was found." in text
    assert parsed(tmp_path / "report.html").totals["SUVmax"] == "\N{EN DASH}"
    assert '<table id="lesions">' not in text


def test_the_data_block_is_json_and_cannot_end_the_script(tmp_path: Path) -> None:
    page = page_input()
    write_page(tmp_path / "report.html", page, viewer=False)

    block = re.search(r'id="data">(.*?)</script>', (tmp_path / "report.html").read_text(encoding="utf-8"))

    assert block is not None
    first = json.loads(block[1])["lesions"][0]
    left, posterior, superior = page.burden.lesions[0].hottest_mm
    assert first == {"number": 1, "ras": [-left, -posterior, superior]}


def test_the_same_case_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, page_input())

    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NIIVUE", tmp_path / "niivue.js")

    with pytest.raises(InstallationError, match=r"niivue\.js is missing"):
        write_page(tmp_path / "report.html", page_input())
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"cannot write"):
        write_page(tmp_path / "file" / "report.html", page_input(), viewer=False)


def test_the_page_does_not_need_torch() -> None:
    code = "import sys, algorithm.clinic.page; print('torch' in sys.modules, 'jinja2' in sys.modules)"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["False", "False"]
