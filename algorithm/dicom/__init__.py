"""DICOM in: series, volumes, SUV. Needs pydicom (requirements-clinic.txt), which is imported on first use."""
