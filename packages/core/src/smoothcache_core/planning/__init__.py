"""The dial: from a calibration and a budget to the best schedule."""
