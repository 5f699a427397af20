"""Bundles that a third party can repeat and verify."""
