from __future__ import annotations

import argparse
import base64
import math
from html.parser import HTMLParser

import pytest

from algorithm.errors import MissingInputError, UsageError
from evaluation.figures.cohort import CaseRow, add_arguments, main, page, read_rows

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "link", "img", "rect", "line"}


class Page(HTMLParser):
    """Collects tags and text, and fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


ROWS = [
    CaseRow("b<1>", {"dice": 0.5, "fnv_ml": 2.0, "hd95_mm": math.nan}, picture=PNG),
    CaseRow("a", {"dice": 0.9, "fnv_ml": math.nan, "hd95_mm": math.nan}),
    CaseRow("synthetic_c", {"dice": 0.1, "fnv_ml": 1.0, "hd95_mm": math.nan}, synthetic=True, picture=PNG),
    CaseRow("gone", {"dice": 0.0, "fnv_ml": 7.0, "hd95_mm": math.nan}, missing=True),
]


def test_the_page_needs_nothing_else():
    made = Page(page(ROWS, "T"))
    for _, attributes in made.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#"))
    assert "url(" not in page(ROWS, "T")
    assert "@import" not in page(ROWS, "T")


def test_names_and_title_are_escaped():
    text = page(ROWS, "<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "b<1>" not in text
    assert "b<1>" in Page(text).text


def test_every_case_has_a_row_and_every_picture_an_alternative_text():
    made = Page(page(ROWS, "T"))
    rows = [attributes for attributes in made.all("tr") if "data-picture" in attributes]
    assert [attributes["data-picture"] for attributes in rows] == [f"picture-{place}" for place in range(4)]
    pictures = made.all("img")
    assert len(pictures) == 2
    assert base64.b64decode(pictures[0]["src"].removeprefix("data:image/png;base64,")) == PNG
    assert pictures[0]["alt"] == "Error map of b<1>: Dice 0.5000, FNV ml 2.00"
    identities = [attributes["id"] for _, attributes in made.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert {link["href"][1:] for link in made.all("a")} <= set(identities)


def test_sortable_values_are_exact_and_undefined_ones_empty():
    values = [
        attributes["data-value"] for attributes in Page(page(ROWS, "T")).all("td") if "data-value" in attributes
    ]
    assert values[:6] == ["0.5", "2.0", "", "0.9", "", ""]
    assert "nan" not in Page(page(ROWS, "T")).text.lower()


def test_synthetic_cases_are_called_so_and_kept_apart():
    text = Page(page(ROWS, "T")).text
    assert "1 of the 4 cases are synthetic" in text
    assert "Over 3 cases" in text
    assert "Over 1 synthetic case" in text
    assert "0.4667" in text  # mean Dice of the three real cases alone
    assert "synthetic" not in Page(page(ROWS[:2], "T")).text


def test_missing_predictions_are_listed():
    assert "No prediction for gone" in Page(page(ROWS, "T")).text


def test_no_cases_and_no_defined_values_still_make_a_page():
    assert "There are no cases." in Page(page([], "T")).text
    only = Page(page([CaseRow("a", {"dice": math.nan})], "T")).text
    assert "0 of 1" in only
    assert "not defined" in only


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


def test_command_reads_scores_and_pictures(tmp_path, caplog):
    scores, pictures, out = tmp_path / "s.csv", tmp_path / "p", tmp_path / "c.html"
    scores.write_text("case,subset,missing,dice,hd95_mm,synthetic\nx,,0,0.75,,yes\ny,,1,0,,\n")
    pictures.mkdir()
    (pictures / "x.png").write_bytes(PNG)
    with caplog.at_level("INFO", logger="evaluation"):
        assert run("--scores", scores, "--pictures", pictures, "--title", "Mine", "--out", out) == 0
    assert caplog.messages == [f"wrote {out} with 2 cases"]
    first, second = read_rows(scores, pictures)
    assert (first.synthetic, first.missing, first.picture) == (True, False, PNG)
    assert (second.synthetic, second.missing, second.picture) == (False, True, None)
    assert first.values["dice"] == 0.75
    assert math.isnan(first.values["hd95_mm"])
    made = Page(out.read_text())
    assert "Mine" in made.text
    assert len(made.all("img")) == 1


def test_mistakes_are_sentences(tmp_path):
    scores = tmp_path / "s.csv"
    with pytest.raises(MissingInputError, match=r"cannot read the scores .*s\.csv"):
        read_rows(scores)
    scores.write_text("name,dice\na,1\n")
    with pytest.raises(UsageError, match="must have the column case"):
        read_rows(scores)
    scores.write_text("case,dice\na,good\n")
    with pytest.raises(UsageError, match="gives 'good' as the dice of a"):
        read_rows(scores)
    scores.write_text("case,dice\na,1e400\n")
    with pytest.raises(UsageError, match="gives '1e400' as the dice of a, which is not finite"):
        read_rows(scores)
    scores.write_text("dice,case\n0.5\n")
    with pytest.raises(UsageError, match="has a row without a case"):
        read_rows(scores)
    scores.write_text('case,dice\n"' + "a" * 200_000)
    with pytest.raises(MissingInputError, match="field larger than field limit"):
        read_rows(scores)
    scores.write_text("case,dice\na,1\n")
    with pytest.raises(MissingInputError, match="no folder of pictures"):
        read_rows(scores, tmp_path / "none")
