"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
