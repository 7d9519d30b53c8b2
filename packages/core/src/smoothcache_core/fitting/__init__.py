"""Improving a schedule on the trajectory that the cached run really takes."""
