from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithm.cases import DataSet
from algorithm.errors import UsageError
from training.anatomies import leaders_of, split_anatomies
from training.cache import Cache, CachedCase
from training.crossvalidation import folds_of
from training.preparation import PreparedData, split_patients
from training.splits import (
    Split,
    choose_split,
    fold_split,
    nnunet_folds,
    paper_split,
    read_split,
    warn_of_differences,
    write_split,
)

patients = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=5, max_size=60, unique=True)


def test_the_paper_splits_60_20_20_in_sorted_order():
    split = paper_split(f"p{number:02}" for number in reversed(range(10)))

    assert split.train == ("p00", "p01", "p02", "p03", "p04", "p05")
    assert split.validation == ("p06", "p07")
    assert split.test == ("p08", "p09")


def test_both_tracers_of_autopet_iii_train_validate_and_test():
    names = [f"{tracer}_{number:02}" for tracer in ("fdg", "psma") for number in range(10)]
    split = paper_split(names)

    for role, count in ((split.train, 6), (split.validation, 2), (split.test, 2)):
        assert [name.split("_")[0] for name in role] == ["fdg"] * count + ["psma"] * count


@given(names=patients)
def test_every_patient_has_one_role(names):
    split = paper_split(names)

    assert sorted(split.train + split.validation + split.test) == sorted(names)


@given(names=patients, seed=st.integers(0, 10), folds=st.integers(2, 5))
def test_folds_hold_back_each_patient_once(names, seed, folds):
    splits = [fold_split(names, fold, folds, seed) for fold in range(folds)]

    assert sorted(name for split in splits for name in split.test) == sorted(names)
    assert all(sorted(split.train + split.test) == sorted(names) for split in splits)
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_patients():
    names = [f"p{number}" for number in range(20)]

    assert fold_split(names, 0, 5, seed=1) == fold_split(names[::-1], 0, 5, seed=1)
    assert fold_split(names, 0, 5, seed=1) != fold_split(names, 0, 5, seed=2)


def test_a_stored_split_comes_back(tmp_path):
    split = Split(("a", "b"), ("c",), ("d",))
    write_split(split, tmp_path / "split.json")

    assert read_split(tmp_path / "split.json") == split
    assert choose_split(str(tmp_path / "split.json"), ["a", "c", "x"]) == Split(("a",), ("c",), ())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("fold:5/5", "fold must lie between 0 and 4, got 5"),
        ("fold:0/9", "2 and the 6 patients (synthetic bodies of one anatomy count as one), got 9"),
        ("fold:one", "fold:K/N, for example fold:0/5, got 'fold:one'"),
        ("no/such/file.json", "cannot use no/such/file.json as a split"),
    ],
)
def test_a_wrong_rule_is_explained(rule, message):
    with pytest.raises(UsageError) as error:
        choose_split(rule, "abcdef")
    assert message in str(error.value)


def test_a_patient_with_two_roles_is_refused(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "test": ["b"]}))

    with pytest.raises(UsageError, match="names b more than once"):
        read_split(tmp_path / "split.json")


def test_nnunet_folds_become_patients(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["p1_a", "p1_b", "gone"], "val": ["p2_a"]}]))

    assert nnunet_folds(path, {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}) == [Split(("p1",), (), ("p2",))]


def test_nnunet_folds_that_separate_a_patient_are_refused(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["p1_a"], "val": ["p1_b"]}]))

    with pytest.raises(UsageError, match=r"splits_final.json separates .* p1 more than once"):
        nnunet_folds(path, {"p1_a": "p1", "p1_b": "p1"})


def test_who_has_no_role_and_who_is_unknown_is_said(tmp_path, caplog):
    path = tmp_path / "split.json"
    warn_of_differences(path, set("abcz"), set("abcdefghi"), "patients")
    assert caplog.messages == [
        f"6 patients have no role in {path} and are left out: d, e, f, g, h, ...",
        f"1 names in {path} are not among the patients: z",
    ]
    caplog.clear()
    warn_of_differences(path, set("ab"), set("ab"), "patients")
    assert caplog.messages == []


def bodies(*names):
    """Return cases in AutoPET's layout: PATIENT_STUDY."""
    made = [
        CachedCase(name, name.rpartition("_")[0], Path(), (1, 1, 1), (1.0, 1.0, 1.0), 1.0, "", "synth" in name)
        for name in names
    ]
    return Cache(tuple(made), ())


@pytest.mark.parametrize("rule", ["paper", "fold:0/3", "fold:2/3"])
def test_bodies_of_one_anatomy_have_one_role(rule):
    cache = bodies(*(f"synthetic_{number:04}_anatomy{number % 5}" for number in range(20)))
    split = split_anatomies(cache, lambda names: choose_split(rule, names))
    anatomy = {case.patient: case.name.rpartition("_")[2] for case in cache.cases}
    roles = [{anatomy[name] for name in role} for role in (split.train, split.validation, split.test)]
    assert sorted(split.patients) == sorted(anatomy)
    assert sum(len(role) for role in roles) == 5
    assert roles[0]
    assert roles[2]


def test_patients_and_bodies_of_their_own_anatomies_are_split_as_ever():
    for cache in (
        bodies(*(f"p{number:02}_study" for number in range(10))),
        bodies(*(f"synthetic_{number:04}_a{number}" for number in range(10))),
    ):
        names = [case.patient for case in cache.cases]
        assert split_anatomies(cache, paper_split) == paper_split(names)


def folders(*caches):
    """Return data folders of these cases."""
    datasets = tuple(DataSet(Path(f"nowhere/{number}"), "autopet", (), ()) for number, _ in enumerate(caches))
    return PreparedData(datasets, caches, (1.0,) * len(caches))


def roles_of(split):
    names = ("train", "validation", "test")
    return {patient: name for name in names for patient in getattr(split, name)}


def made_of(anatomies, *numbers):
    """Return bodies of these numbers, the anatomies taken in turn."""
    named = [(f"synthetic_{number:04}", anatomies[number % len(anatomies)]) for number in numbers]
    return Cache(
        tuple(
            CachedCase(
                f"{patient}_{anatomy}", patient, Path(), (1, 1, 1), (1.0, 1.0, 1.0), 1.0, "", synthetic=True
            )
            for patient, anatomy in named
        ),
        (),
    )


PATIENTS = bodies(*(f"PETCT_{number:010x}_study" for number in range(10)))
ANATOMIES = {
    "fdg_0000000000_01-01-2003-NA": "PETCT_0000000000",
    "fdg_0000000003_01-01-2003-NA": "PETCT_0000000003",
    "PETCT_0000000009_study": "PETCT_0000000009",
    "psma_0000000004_2018-01-01": "synthetic_0003",  # nobody's here
}
LEADERS = list(ANATOMIES.values())


@pytest.mark.parametrize("rule", ["paper", "fold:0/5", "fold:3/5", "all"])
def test_a_body_has_the_role_of_the_patient_that_it_was_made_of(rule):
    made = [made_of(list(ANATOMIES), *numbers) for numbers in (range(8), range(8, 12))]
    roles = roles_of(split_patients(folders(PATIENTS, *made), rule, 0))
    alone = roles_of(split_patients(folders(PATIENTS), rule, 0))
    assert {patient: roles[patient] for patient in alone} == alone
    assert len(roles) == 22
    for number in range(12):
        assert roles[f"synthetic_{number:04}"] == roles[LEADERS[number % 4]]
    assert roles["synthetic_0003"] == "train"


@pytest.mark.parametrize("rule", ["paper", "fold:1/3"])
def test_bodies_of_one_anatomy_have_one_role_across_folders(rule):
    made = [made_of("abcde", *numbers) for numbers in (range(10, 20), range(10))]
    roles = roles_of(split_patients(folders(*made), rule, 0))
    assert len(roles) == 20
    for number in range(5):
        assert len({roles[f"synthetic_{each:04}"] for each in range(number, 20, 5)}) == 1
    assert set(roles.values()) >= {"train", "test"}


def test_bodies_of_both_studies_of_a_patient_have_one_role():
    made = made_of(("fdg_0a_2003", "fdg_0a_2004", "psma_0a_2004"), *range(3))
    assert list(leaders_of(made.cases).values()) == ["synthetic_0000", "synthetic_0000", "synthetic_0002"]


def test_no_body_of_a_held_back_patient_trains_a_fold():
    made = made_of(list(ANATOMIES), *range(12))
    names = {case.patient for case in made.cases}
    splits = folds_of(folders(PATIENTS, made), 5, 0)
    for split in splits:
        assert not names & set(split.test)
        left_out = {f"synthetic_{number:04}" for number in range(12) if LEADERS[number % 4] in split.test}
        assert set(split.train) & names == names - left_out
    assert sum(len(split.test) for split in splits) == 10

    for split in folds_of(
        folders(made, PATIENTS), 3, 0
    ):  # where bodies are held back, their patients do not train
        assert ("PETCT_0000000003" in split.train) is ("synthetic_0001" not in split.test)


def test_bodies_of_one_anatomy_are_known_in_a_folder_further_down():
    made = made_of(("fdg_0a_2003", "fdg_0b_2003"), *range(4))
    deeper = [dataclasses.replace(case, name=f"bodies_{case.name}") for case in made.cases]
    assert leaders_of(deeper) == leaders_of(made.cases)
    assert len(set(leaders_of(deeper).values())) == 2
