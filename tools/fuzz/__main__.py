"""Break schedules and calibrations at random, and see that the library refuses or masters them.

    python -m tools.fuzz --mutants 10000

Ends with status 1 if a mutant raised what is no error of this library, or was accepted and then
made trouble. With `--keep FOLDER` one of each sort is left there.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tools.fuzz.originals import originals
from tools.fuzz.trial import fuzzed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutants", type=int, default=10_000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for one mutant of each sort")
    given = parser.parse_args()
    start, wrong = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name:
        outcomes = fuzzed(originals(Path(name)), Path(name), given.mutants, given.seed)
    for kind, outcome in outcomes.items():
        print(f"{kind}: {given.mutants} mutants, {dict(sorted(outcome.counts.items()))}")
        for number, (what, content) in enumerate(outcome.wrong.items()):
            print(f"  {what}")
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{kind}-{number}").write_bytes(content)
        wrong += outcome.counts["wrong"]
    print(f"{time.perf_counter() - start:.0f} seconds")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
