"""Sliding windows and flips over a network, on a device, within limits: knows nothing of images or files."""
