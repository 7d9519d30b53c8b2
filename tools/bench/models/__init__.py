"""Models that are measured: the shipped small ones, and full-size ones with random weights."""
