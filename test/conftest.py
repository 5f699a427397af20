"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from algorithm.checks.contract import Checks

ROOT = Path(__file__).resolve().parent.parent

# `pytest --hypothesis-profile thorough` looks at ten times as many examples as the suite does.
settings.register_profile("thorough", max_examples=1000)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real patients; the test is skipped where there is none."""
    named = os.environ.get("H2ASEG_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not (folder / "sts").is_dir():
        pytest.skip(f"no real patients in {folder}; name their folder in H2ASEG_DATA")
    return folder


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images pass that show no body: the checks of the input contract find nothing while the test runs."""
    monkeypatch.setattr(Checks, "on", lambda self, name: False)
