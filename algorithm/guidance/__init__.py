"""Corrections by a reader's scribbles, without retraining: the mask follows the points and what they tell."""

from algorithm.guidance.edit import Guided, guide

__all__ = ["Guided", "guide"]
