from __future__ import annotations

from typing import Any

import pytest

from algorithm.inference.case_run import Prediction
from algorithm.inference.predictor import Predictor


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> list[Prediction]:
    """Whatever predictors return while the test runs."""
    seen: list[Prediction] = []
    predict = Predictor.predict

    def recorded(self: Predictor, *arguments: Any, **options: Any) -> Prediction:
        seen.append(predict(self, *arguments, **options))
        return seen[-1]

    monkeypatch.setattr(Predictor, "predict", recorded)
    return seen
