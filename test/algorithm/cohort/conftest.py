from __future__ import annotations

from pathlib import Path

import pytest

from algorithm.__main__ import main
from algorithm.job import Segmenter
from test.support.checkpoints import write_checkpoint
from test.support.trees import write_tree

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--no-html")
PATIENTS = ("anna", "bert", "carl")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"), *PATIENTS)


@pytest.fixture
def cohort(checkpoint):
    def call(cases: Path, out: Path, *more: object) -> int:
        return main(
            [str(each) for each in ("predict", "--cases", cases, out, "--weights", checkpoint, *QUICK, *more)]
        )

    return call


@pytest.fixture
def segmented(monkeypatch) -> list[str]:
    """The CTs that were segmented."""
    seen: list[str] = []
    segment = Segmenter.segment

    def noted(self, ct, pet, *arguments, **options):
        seen.append(ct.parent.parent.name)
        return segment(self, ct, pet, *arguments, **options)

    monkeypatch.setattr(Segmenter, "segment", noted)
    return seen
