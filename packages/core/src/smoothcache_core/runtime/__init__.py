"""A schedule at work on a live model. Knows no calibration."""
