"""Putting code around a live model, and taking it off exactly."""
