"""What the tests of a case's passes share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from algorithm.inference import budget, case_run, passes
from test.support.predictors import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as a case's passes and budget see it."""
    clock = Clock()
    for module in (case_run, passes, budget):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock
