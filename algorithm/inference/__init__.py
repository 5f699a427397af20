"""Sliding windows and flips over a network: knows nothing of images or files."""
