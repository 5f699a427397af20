"""Synthetic whole-body PET/CT from organ maps: ``python -m synthesis`` makes a tree of studies."""
