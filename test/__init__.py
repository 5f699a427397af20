"""Tests, oracles, generators of synthetic data and benchmarks."""
