"""The interactive editions' loop (autoPET IV task 1 and V) played against a segmentation, and what it scores."""
