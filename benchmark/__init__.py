"""How fast and how large: the product against the published form (``python -m benchmark``).

Whatever is measured runs in a process of its own (:mod:`benchmark.process`), so that allocators, peaks of
memory and imports of one measurement never touch another. The parent process imports no torch.
"""

RELEASED_PATCH = (128, 128, 64)
"""In voxels, x, y, z: that of the authors' release."""
