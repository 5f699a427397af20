from __future__ import annotations

import dataclasses
from unittest.mock import Mock

import pytest

from algorithm.segmentation import EnsembleCase, segment_prepared
from test.support.checkpoints import random_network
from test.support.predictors import member_of


def test_an_observer_is_not_told_of_windows_of_several_sizes() -> None:
    volumes = member_of(random_network()).volumes
    larger = dataclasses.replace(volumes, patch=(32, 32, 24))
    box = tuple(slice(0, side) for side in volumes.ct.shape)
    predictor = Mock()

    with pytest.raises(
        ValueError, match=r"observed networks must share one patch, got \(32, 32, 16\), \(32, 32, 24\)"
    ):
        segment_prepared(predictor, EnsembleCase((volumes, larger), box, Mock()), observer=Mock())

    predictor.predict.assert_not_called()
