from __future__ import annotations

from pathlib import Path

import pytest

from algorithm.errors import MissingInputError, UsageError
from evaluation.cases import Case, list_cases


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
        ("case,ct,pet\n", MissingInputError, "found no case"),
        ("case,ct,pet\na/b,c.mha,c.mha\n", UsageError, "called 'a/b', which cannot name a file"),
        ("case,ct,pet\na,c.mha,\n", UsageError, "gives no pet for case a"),
        (
            "case,ct,pet\na,c.mha,q.mha\n",
            MissingInputError,
            r"names the pet .*q\.mha of case a, which is not there",
        ),
        ("case,ct,pet\na,c.mha,c.mha\na,c.mha,c.mha\n", UsageError, "several cases called a"),
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
