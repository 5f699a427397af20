"""Training H2ASeg: data sets, preprocessing once, the loop, cross-validation (``python -m training --help``)."""
