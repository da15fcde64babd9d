"""Measuring a classifier as an OOD detector, and comparing several."""
