"""Judging: every schedule beside the plain run, on the same seeds."""
