from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from algorithm.cases import COLUMNS, LAYOUTS, Case, Layout, find_cases, list_cases, read_table, tracer_of
from algorithm.errors import MissingInputError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_studies_and_jobs_are_found_below_a_folder(tmp_path):
    touch(tmp_path / "p1" / "s1" / "CTres.nii.gz", tmp_path / "p1" / "s1" / "SUV.nii.gz")
    touch(*(tmp_path / "p2" / "s1" / f"{name}.nii.gz" for name in ("CTres", "SUV", "SEG")))
    touch(tmp_path / "only_pet" / "SUV.nii.gz")
    touch(
        tmp_path / "synthetic_job" / "images" / "ct" / "1.mha",
        tmp_path / "synthetic_job" / "images" / "pet" / "2.mha",
    )
    first, second, job = list_cases(tmp_path)
    assert (first.name, first.truth, first.synthetic) == ("p1_s1", None, False)
    assert (second.name, second.truth) == ("p2_s1", tmp_path / "p2" / "s1" / "SEG.nii.gz")
    assert (job.name, job.ct.name, job.pet.name, job.synthetic) == ("synthetic_job", "1.mha", "2.mha", True)


def test_a_single_study_is_named_after_its_folder(tmp_path):
    touch(tmp_path / "case" / "CTres.nii.gz", tmp_path / "case" / "SUV.nii.gz")
    assert [case.name for case in list_cases(tmp_path / "case")] == ["case"]


def test_a_table_names_files_beside_it(tmp_path):
    touch(tmp_path / "c.mha", tmp_path / "p.mha")
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,ct,pet,truth,synthetic\nb,c.mha,p.mha,,yes\na,c.mha,p.mha,p.mha,\n", encoding="utf-8-sig"
    )
    first, second = list_cases(table)
    assert first == Case("a", tmp_path / "c.mha", tmp_path / "p.mha", tmp_path / "p.mha", synthetic=False)
    assert second.truth is None
    assert second.title == "b (synthetic)"


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("case,ct\na,c.mha\n", UsageError, "lacks the column pet"),
        ("case,ct,pet\n", UsageError, "has no rows"),
        ("case,ct,pet\na/b,c.mha,c.mha\n", UsageError, "called 'a/b', which cannot name a file"),
        ("case,ct,pet\na,c.mha,\n", UsageError, "gives no pet for a;"),
        (
            "case,ct,pet\na,c.mha,q.mha\n",
            MissingInputError,
            r"names the pet .*q\.mha of case a, which is not there",
        ),
        ("case,ct,pet\na,c.mha,c.mha\na,c.mha,c.mha\n", UsageError, "has the case a twice"),
    ],
)
def test_mistakes_in_a_table_are_sentences(tmp_path, text, error, sentence):
    touch(tmp_path / "c.mha")
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(error, match=sentence):
        list_cases(tmp_path / "cases.csv")


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(MissingInputError, match="there are no cases at"):
        list_cases(tmp_path / "none")
    with pytest.raises(MissingInputError, match="found no case in"):
        list_cases(tmp_path)


def test_one_name_tells_tracer_and_patient():
    case = Case("psma_95b833d4_2018-04-16", Path("ct"), Path("pet"))
    assert (case.tracer, case.patient) == ("psma", "psma_95b833d4")
    told = Case("psma_95b833d4_2018-04-16", Path("ct"), Path("pet"), tracer="fdg", patient="7")
    assert (told.tracer, told.patient) == ("fdg", "7")
    assert Case("CHUM-001", Path("ct"), Path("pet")).patient == "CHUM-001"
    assert (tracer_of("fdgetc"), tracer_of("FDG_1")) == (None, "fdg")


def test_one_table_says_all_that_is_known_of_a_case(tmp_path):
    touch(tmp_path / "c.mha", tmp_path / "p.mha")
    row = "x,c.mha,p.mha,p.mha,7,PSMA,UKT,first,small,no,kept aside"
    (tmp_path / "cases.csv").write_text(
        f"case,ct,pet,truth,patient,tracer,centre,data_set,subset,synthetic,notes\n{row}\n"
    )
    (case,) = list_cases(tmp_path / "cases.csv")
    assert (case.patient, case.tracer, case.centre, case.data_set, case.subset, case.synthetic) == (
        "7", "psma", "UKT", "first", "small", False,
    )  # fmt: skip
    assert find_cases(tmp_path / "cases.csv").cases == (case,)
    assert list(read_table(tmp_path / "cases.csv")["x"]) == list(COLUMNS)


def test_listed_cases_without_truth_are_named_where_one_is_needed(tmp_path):
    touch(tmp_path / "c.mha", tmp_path / "p.mha")
    table = tmp_path / "cases.csv"
    table.write_text("case,ct,pet,truth\na,c.mha,p.mha,\nb,c.mha,p.mha,p.mha\n")
    found = find_cases(table)
    assert (found.layout, found.folder, [case.name for case in found.cases]) == ("csv", tmp_path, ["b"])
    assert [(each.name, each.reason) for each in found.skipped] == [("a", "the list names no truth")]


def test_every_layout_can_be_asked_for():
    assert get_args(Layout) == tuple(LAYOUTS)


def test_studies_of_every_layout_are_listed_with_and_without_truth(tmp_path):
    files = ("imagesTr/fdg_1_x_0000", "imagesTr/fdg_1_x_0001", "imagesTr/h__CT", "imagesTr/h__PT", "labelsTr/h")
    touch(*(tmp_path / f"{name}.nii.gz" for name in files))
    first, second = list_cases(tmp_path)
    assert (first.name, first.patient, first.truth) == ("fdg_1_x", "fdg_1", None)
    assert (second.name, second.truth, second.truth_on_own_grid) == ("h", tmp_path / "labelsTr/h.nii.gz", True)


def test_a_pair_that_is_left_out_is_said(tmp_path, caplog):
    touch(tmp_path / "a/s/CTres.nii.gz", tmp_path / "a/s/SUV.nii.gz", tmp_path / "b/s/SUV.nii.gz")
    with caplog.at_level("INFO", logger="algorithm"):
        assert [case.name for case in list_cases(tmp_path)] == ["a_s"]
    assert "left out b_s: no CTres.nii.gz" in caplog.text


def test_two_studies_of_one_name_are_refused(tmp_path):
    for folder in ("a_b/c", "a/b_c"):
        touch(*(tmp_path / folder / f"{name}.nii.gz" for name in ("CTres", "SUV", "SEG")))
    for read in (list_cases, find_cases):
        with pytest.raises(UsageError, match="several cases called a_b_c"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("record", "synthetic"),
    [
        ('{"synthetic": true, "lesions": []}', True),
        ('{"iou": 0.1}', False),
        ("[]", False),
        ("{", False),
        (None, False),
    ],
)
def test_a_body_is_synthetic_by_its_record_whatever_its_name(tmp_path: Path, record: str | None, synthetic: bool):
    study = tmp_path / "psma_more_0000/anatomy"
    study.mkdir(parents=True)
    for name in ("CTres", "SUV", "SEG"):
        (study / f"{name}.nii.gz").touch()
    if record is not None:
        (study / "lesions.json").write_text(record)
    (case,) = find_cases(tmp_path).cases
    assert (case.name, case.patient, case.synthetic) == ("psma_more_0000_anatomy", "psma_more_0000", synthetic)
