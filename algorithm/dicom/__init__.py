"""DICOM in: series, volumes, SUV. pydicom is imported on first use."""
