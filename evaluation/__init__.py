"""Scoring per AutoPET edition, comparison tables, error maps and the hand-over: ``python -m evaluation``."""
