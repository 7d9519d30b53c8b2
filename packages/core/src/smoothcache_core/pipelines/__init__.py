"""Pipelines of other libraries, taken apart into what `calibrate` and `cached` need."""
