"""The command ``rank``: tables and folders, what it prints and writes, and what users get wrong."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from evaluation.__main__ import main
from evaluation.scoring.ranking import SCHEMES, rank_submissions
from evaluation.scoring.submissions import read_submission

CASES = ("fdg_a", "fdg_b", "psma_a", "psma_b")
CENTRES = dict(zip(CASES, ("LMU", "UKT", "LMU", "UKT"), strict=True))
SHIFTS = {"good": 1, "bad": 3, "same": 1}


def ball(shift: int, number: int) -> np.ndarray:
    """A lesion that a submission's shift moves off its place; psma_b has none."""
    mask = np.zeros((8, 9, 10), np.uint8)
    if number < 3 or shift:
        mask[2:5, 2:6, 1 + shift : 4 + shift + number] = 1
    return mask


def write(path: Path, mask: np.ndarray, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Masks of three submissions, two of them equal, truths, and a table of cases."""
    for number, case in enumerate(CASES):
        write(tmp_path / f"truth/{case}.nii.gz", ball(0, number))
        for name, shift in SHIFTS.items():
            write(tmp_path / f"{name}/{case}.mha", ball(shift, number))
    table(
        tmp_path / "cases.csv",
        [{"case": case, "tracer": case.split("_")[0], "centre": CENTRES[case], "ct": "x"} for case in CASES],
    )
    return tmp_path


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """Tables of two submissions with a row per case and step; ``late`` finds the lesion two steps later."""
    for name, delay in (("early", 0), ("late", 2)):
        rows = []
        for case in CASES:
            for step in range(11):
                dice = 0.9 if step >= delay + 1 else 0.4
                rows.append(
                    {
                        "case": case,
                        "step": step,
                        "dice": "" if case == "psma_b" else dice,
                        "fpv_ml": 10 - step,
                        "fnv_ml": "" if case == "psma_b" else 1.0,
                        "lesion_f1": "" if case == "psma_b" else dice,
                        "truth_lesions": 0 if case == "psma_b" else 3,
                        "found_lesions": 0 if case == "psma_b" else 2,
                        "false_lesions": 1,
                    }
                )
        table(tmp_path / f"{name}.csv", rows)
        table(tmp_path / f"{name}_5.csv", [row for row in rows if row["step"] <= 5])
    table(
        tmp_path / "cases.csv",
        [
            {"case": case, "tracer": case.split("_")[0], "centre": CENTRES[case], "data_set": case.split("_")[0]}
            for case in CASES
        ],
    )
    return tmp_path


def rank(folder: Path, edition: str, names: list[str], *more: str) -> int:
    submissions = [word for name in names for word in ("--prediction", f"{Path(name).stem}={folder}/{name}")]
    return main(["rank", "--edition", edition, *submissions, *more])


@pytest.mark.parametrize("edition", ["I", "II", "III"])
def test_folders_and_tables_of_scores_rank_alike(cohort, edition, capsys):
    cases = ("--cases", f"{cohort}/cases.csv")
    for name in SHIFTS:
        scoring = ["--truth", f"{cohort}/truth", "--prediction", f"{cohort}/{name}", "--edition", edition]
        assert main(["score", *scoring, "--csv", f"{cohort}/{name}.csv"]) == 0
    truth = ("--truth", f"{cohort}/truth")
    assert rank(cohort, edition, list(SHIFTS), *truth, *cases, "--json", f"{cohort}/folders.json") == 0
    assert (
        rank(cohort, edition, [f"{name}.csv" for name in SHIFTS], *cases, "--json", f"{cohort}/tables.json") == 0
    )
    assert capsys.readouterr().err == ""
    content = json.loads((cohort / "folders.json").read_text())
    assert content == json.loads((cohort / "tables.json").read_text())
    assert [(one["submission"], one["rank"]) for one in content["submissions"]] == [
        ("good", 1),
        ("same", 1),
        ("bad", 3),
    ]
    assert content["weights"] == {"Dice": 0.5, "FPV": 0.25, "FNV": 0.25}
    assert len(content["submissions"][0]["subsets"]) == (4 if edition == "III" else 0)


def test_the_printed_table_and_the_csv_show_the_ranking(cohort, capsys):
    truth = ("--truth", f"{cohort}/truth", "--cases", f"{cohort}/cases.csv")
    assert rank(cohort, "III", ["bad", "good"], *truth, "--csv", f"{cohort}/ranking.csv") == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    head = next(index for index, line in enumerate(lines) if line[:1] == ["Rank"])
    assert lines[head + 1][:2] == ["1", "good"]
    assert lines[head + 2][:2] == ["2", "bad"]
    assert "Within psma, UKT:" in out
    rows = list(csv.DictReader((cohort / "ranking.csv").open()))
    cases = {name: read_submission(cohort / name, "III", cohort / "truth") for name in ("bad", "good")}
    subset_of = {case: f"{case.split('_')[0]}, {CENTRES[case]}" for case in CASES}
    for row, one in zip(rows, rank_submissions(cases, "III", subset_of), strict=True):
        assert (row["submission"], int(row["rank"])) == (one.name, one.final_rank)
        assert float(row["mean_rank"]) == one.mean_rank
        assert float(row["Dice"]) == one.values["Dice"]
        assert float(row["Dice rank"]) == one.ranks["Dice"]


def test_interactive_tables_are_ranked_by_areas(steps, capsys):
    cases = ("--cases", f"{steps}/cases.csv")
    assert rank(steps, "IV", ["late.csv", "early.csv"], *cases, "--json", f"{steps}/4.json") == 0
    best, second = json.loads((steps / "4.json").read_text())["submissions"]
    assert (best["submission"], second["submission"]) == ("early", "late")
    assert best["values"]["AUC-DSC"] == pytest.approx(0.4 / 2 + 9 * 0.9 + 0.9 / 2)
    assert second["values"]["AUC-DSC"] == pytest.approx(0.4 / 2 + 2 * 0.4 + 7 * 0.9 + 0.9 / 2)
    assert best["ranks"]["DSC last"] == second["ranks"]["DSC last"] == 1
    assert second["mean_rank"] == 1.25
    assert best["values"]["AUC-FPV"] == 50

    assert rank(steps, "V", ["late_5.csv", "early_5.csv"], *cases, "--json", f"{steps}/5.json") == 0
    best, second = json.loads((steps / "5.json").read_text())["submissions"]
    assert (best["submission"], second["rank"], second["mean_rank"]) == ("early_5", 2, 2)
    fdg, psma = 2 * 4 / (2 * 4 + 2 + 2), 2 * 2 / (2 * 2 + 2 + 1)
    assert best["pooled_lesion_f1"] == pytest.approx((fdg + psma) / 2)
    assert f"early_5: {(fdg + psma) / 2:.3f}" in capsys.readouterr().out


def test_masks_are_ranked_without_their_surfaces(cohort, monkeypatch):
    """No edition ranks them, and they take most of the time."""
    monkeypatch.delattr("evaluation.scoring.metrics.surface_distances")
    ranked = {measure.metric for scheme in SCHEMES.values() for measure in scheme.measures}
    assert ranked.isdisjoint({"hd95_mm", "surface_dice"})
    assert read_submission(cohort / "good", "III", cohort / "truth").keys() == set(CASES)


def test_folders_of_steps_are_scored_step_by_step(cohort):
    for step in range(6):
        for number, case in enumerate(CASES):
            write(cohort / f"loop/step_{step}/{case}.mha", ball(max(0, 2 - step), number))
    (cohort / "loop/step_1/fdg_a.mha").unlink()
    curve = read_submission(cohort / "loop", "V", cohort / "truth")
    assert curve["fdg_a"]["dice"][1:] == [0.0, 1.0, 1.0, 1.0, 1.0]  # a failed step counts 0 in V
    assert curve["psma_b"]["dice"] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert all(math.isnan(value) for value in curve["psma_b"]["lesion_f1"])


def test_hecktor_folders_are_ranked_by_the_mean(tmp_path, capsys):
    truth = np.zeros((6, 7, 8), np.uint8)
    truth[1:3, 1:3, 1:3], truth[4, 4:6, 4:6] = 1, 2
    swapped = np.where(truth, 3 - truth, 0).astype(np.uint8)
    for patient in ("CHUM-001", "CHUM-002"):
        write(tmp_path / f"truth/{patient}.nii.gz", truth)
        write(tmp_path / f"swapped/{patient}.nii.gz", swapped)
    write(tmp_path / "cropped/CHUM-001.nii.gz", truth[1:, 1:, 1:], origin=(2.0, 2.0, 3.0))
    files = ("--truth", f"{tmp_path}/truth", "--json", f"{tmp_path}/ranking.json")
    assert rank(tmp_path, "HECKTOR", ["swapped", "cropped"], *files) == 0
    best, second = json.loads((tmp_path / "ranking.json").read_text())["submissions"]
    assert best["values"] == pytest.approx({"GTVp": 2 * 8 / 24, "GTVn": 2 * 4 / 12, "mean": 2 / 3})
    assert (best["submission"], best["missing"]) == ("cropped", ["CHUM-002"])
    assert second["values"] == {"GTVp": 0.0, "GTVn": 0.0, "mean": 0.0}
    assert "Missing, counted as-empty, cropped: CHUM-002" in capsys.readouterr().out


class Words:
    """The words of a command on the tables of the fixture ``steps``, with room for one mistake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = list(csv.DictReader((folder / "late.csv").open()))
        self.listed = list(csv.DictReader((folder / "cases.csv").open()))
        self.last = [{key: row[key] for key in row if key != "step"} for row in self.rows if row["step"] == "10"]
        (folder / "empty").mkdir()

    def good(self, edition: str, *more: str) -> list[str]:
        return ["--edition", edition, "--prediction", f"early={self.folder}/early.csv", *more]

    def rows_of_4(self, rows: list[dict]) -> list[str]:
        """Edition IV with a second submission of these rows."""
        cases = ("--cases", f"{self.folder}/cases.csv")
        return self.good("IV", "--prediction", f"bad={table(self.folder / 'bad.csv', rows)}", *cases)

    def cases_of_4(self, listed: list[dict]) -> list[str]:
        """Edition IV with this table of cases."""
        return self.good("IV", "--cases", str(table(self.folder / "listed.csv", listed)))

    def one(self, edition: str, path: str, *more: str) -> list[str]:
        return ["--edition", edition, "--prediction", f"a={self.folder}/{path}", *more]

    def bytes_of_1(self, content: bytes) -> list[str]:
        (self.folder / "bytes.csv").write_bytes(content)
        return self.one("I", "bytes.csv")

    def two_of_1(self, first: list[dict], second: list[dict]) -> list[str]:
        tables = [table(self.folder / f"{name}.csv", rows) for name, rows in (("a", first), ("b", second))]
        return ["--edition", "I", "--prediction", f"a={tables[0]}", "--prediction", f"b={tables[1]}"]


def without(rows: list[dict], column: str) -> list[dict]:
    return [{key: row[key] for key in row if key != column} for row in rows]


MISTAKES = {
    "must be one of I, II, III, IV, V, HECKTOR, got 'VI'": lambda w: w.good("VI"),
    "edition IV ranks by subsets of tracer and centre; give a table": lambda w: w.good("IV"),
    "lacks the column tracer; its columns are case, centre, data_set": lambda w: w.cases_of_4(
        without(w.listed, "tracer")
    ),
    "lacks the column centre": lambda w: w.cases_of_4(without(w.listed, "centre")),
    "has the case fdg_a twice": lambda w: w.cases_of_4([*w.listed, w.listed[0]]),
    "gives no centre for fdg_a": lambda w: w.cases_of_4([{**w.listed[0], "centre": ""}]),
    "early lacks 1 of the listed cases (the first is fdg_z)": lambda w: w.cases_of_4(
        [*w.listed, {**w.listed[0], "case": "fdg_z"}]
    ),
    "there is no table of cases at": lambda w: w.good("IV", "--cases", f"{w.folder}/none.csv"),
    "has no step 7, but edition IV scores the steps 0 to 10": lambda w: w.rows_of_4(
        [row for row in w.rows if (row["case"], row["step"]) != ("fdg_b", "7")]
    ),
    "a step must be a whole number from 0 to 5, got '6'": lambda w: w.good("V"),
    "has the case fdg_a at step 4 twice": lambda w: w.rows_of_4([*w.rows, w.rows[4]]),
    "got 'first' for the case fdg_a": lambda w: w.rows_of_4([{**w.rows[0], "step": "first"}, *w.rows[1:]]),
    "has a column step, but edition I scores one prediction per case": lambda w: w.good("I"),
    "lacks the column step": lambda w: w.rows_of_4(w.last),
    "lacks the column fnv_ml": lambda w: w.rows_of_4(without(w.rows, "fnv_ml")),
    "lacks the column case": lambda w: w.rows_of_4(without(w.rows, "case")),
    "dice must be a finite number or empty, got 'high' for fdg_a": lambda w: w.rows_of_4(
        [{**w.rows[0], "dice": "high"}, *w.rows[1:]]
    ),
    "dice must be a finite number or empty, got 'inf' for fdg_a": lambda w: w.rows_of_4(
        [{**w.rows[0], "dice": "inf"}, *w.rows[1:]]
    ),
    "the submission b lacks 1 of the cases of a (fdg_a)": lambda w: w.two_of_1(w.last, w.last[1:]),
    "the submission a lacks 1 of the cases of b (fdg_a)": lambda w: w.two_of_1(w.last[1:], w.last),
    "b.csv has the case fdg_a twice": lambda w: w.two_of_1(w.last, [*w.last, w.last[0]]),
    "a.csv was scored by the rules of edition III, not I; score the masks again with --edition I": (
        lambda w: w.two_of_1([{**row, "edition": "III"} for row in w.last], w.last)
    ),
    "has no rows": lambda w: w.bytes_of_1(b"case,dice,fpv_ml,fnv_ml\n"),
    "bytes.csv has no rows": lambda w: w.bytes_of_1(b""),
    "cannot read the table": lambda w: w.bytes_of_1(b"case,dice\n\xff\xfe,1\n"),
    "a step must be a whole number": lambda w: w.rows_of_4([{**w.rows[0], "step": "9" * 5000}, *w.rows[1:]]),
    "there is no submission at /": lambda w: w.one("I", "x" * 300),
    "there is no submission at": lambda w: w.one("I", "none.csv"),
    "needs the true masks; give their folder (--truth)": lambda w: w.one("I", "empty"),
    "but there is no folder": lambda w: w.one("V", "empty", "--truth", f"{w.folder}/empty"),
    "the truth": lambda w: w.one("I", "empty", "--truth", f"{w.folder}/nowhere"),
    "must be NAME=FOLDER, got 'nothing'": lambda w: ["--prediction", "nothing"],
    "--prediction names early twice": lambda w: w.good("I", "--prediction", "early=again"),
    "give --truth": lambda w: w.good("HECKTOR"),
    "would overwrite an input": lambda w: w.good("V", "--csv", f"{w.folder}/early.csv"),
    "is a folder and is left as it is": lambda w: w.good("V", "--csv", f"{w.folder}/empty"),
    "cannot write": lambda w: w.good("IV", "--cases", f"{w.folder}/cases.csv", "--json", "/proc/no/file.json"),
}


def test_tables_of_an_edition_with_the_same_rules_are_taken(steps, capsys):
    words = Words(steps)
    of_two, of_one = ([{**row, "edition": edition} for row in words.last] for edition in ("II", "I"))
    assert main(["rank", *words.two_of_1(of_two, of_one)]) == 0


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_sentence(steps, words, capsys):
    assert main(["rank", *MISTAKES[words](Words(steps))]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1


def test_the_documentation_gives_the_weights_of_the_code():
    text = (Path(__file__).parents[3] / "docs/ranking.md").read_text(encoding="utf-8")
    for edition, scheme in SCHEMES.items():
        weights = ", ".join(f"{measure.label} {measure.weight:g}" for measure in scheme.measures)
        names = {"I": "I, II", "II": "I, II", "IV": "IV, task 1"}
        assert f"| {names.get(edition, edition)} | {weights} |" in text
