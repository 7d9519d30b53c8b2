"""Benchmarks: policies side by side, studies of one question each, and their records.

python -m tools.bench --help
"""
