"""H2ASeg PET/CT tumour segmentation as a grand-challenge algorithm."""

__version__ = "0.2.0"
