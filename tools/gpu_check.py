"""One command for a machine with one H100 or H200: what does caching do there?

    python tools/gpu_check.py                      ends within eight minutes
    python tools/gpu_check.py --wheels wheels      with packages that the machine lacks
    python tools/gpu_check.py --small              on the CPU, tiny models: does it run to its end?

Compares what the small trained models of all modalities give on the GPU and on the CPU, runs the
tests that need a GPU, then full-size models with random weights in bfloat16 (DiT-XL/2, STDiT3-XL/2,
Stable Audio Open), and writes records into benchmarks/: `tools/bench/studies/gpu.py` says what of.
A part that fails is named in its record, and the rest goes on; records are written after every
part. It needs no network and no installation of this repository.

What such a machine has: Python 3.12, torch 2.11, transformers and accelerate. What it lacks is
carried as wheels in one folder, made where there is a network, by `pip download --no-deps
--only-binary=:all: --python-version 3.12 --dest wheels PACKAGE==VERSION`, versions as in
requirements.lock: this repository's own four (`make build`, then copy dist/*.whl), diffusers,
pydantic with pydantic-core, annotated-types and typing-inspection, safetensors, scipy, matplotlib,
lazy-loader, cyclopts with rich-rst, docstring-parser and attrs; for Stable Audio Open stable-audio-
tools, k-diffusion and what `pip show` says that these need; of requirements-bench.lock dit-
smoothcache and cache-dit; for the tests pytest, pytest-xdist, hypothesis, timm. Whatever is still
missing is named in the record. Keep one version of each.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def installed(wheels: Path, folder: Path) -> None:
    """Unpack wheels into a folder, and import from there first."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    pip += ["--no-compile", "--no-cache-dir", "--target", str(folder)]
    subprocess.run([*pip, *map(str, sorted(wheels.glob("*.whl")))], check=True)
    sys.path.insert(0, str(folder))


def check(options: argparse.Namespace) -> None:
    """Measure, and write the records."""
    from tools.bench.studies.gpu import Settings, measure

    # torchsde remarks on times that differ by rounding, once for each noise that is drawn
    warnings.filterwarnings("ignore", "Should have t[ab]", UserWarning)
    device = options.device or ("cpu" if options.small else "cuda")
    settings = Settings(
        minutes=options.minutes, device=device, small=options.small, tests=not options.no_tests
    )
    written: dict[tuple[str, str], Path] = {}
    for record in measure(settings):  # after every part, so that nothing is lost if it breaks off
        key = record.what, record.modality
        written[key] = record.save(options.output, instead=written.get(key))
        done, failed = len(record.rows), len(record.refused)
        print(f"{written[key].name}: {done} rows, {failed} not measured", flush=True)
    for path in written.values():
        print(path.with_suffix(".md").read_text())


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="ends within so many")
    parser.add_argument("--small", action="store_true", help="tiny models, on the CPU")
    parser.add_argument("--device", help="cuda, or cpu with --small")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="of the records")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        if options.wheels:
            installed(options.wheels, Path(folder))
        check(options)


if __name__ == "__main__":
    main()
