"""Run one command of the benchmarks."""

from tools.bench.cli import main

if __name__ == "__main__":
    main()
