"""Does everything work on the oldest and on the newest torch that we claim to support?

    .venv/bin/python tools/torch_range.py [pytest options]

Makes a throw-away environment with this Python, installs the four packages, and runs the tests:
once with the lowest versions that the packages ask for, once with the newest there are.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = "2.6.0", "2.15.0"
MEMBERS = [ROOT / "packages" / name for name in ("core", "image", "video", "audio")]


def status(torch: str, resolution: str, options: list[str]) -> int:
    """Returns the exit status of the tests on one version of torch."""
    with tempfile.TemporaryDirectory() as folder:
        uv = [sys.executable, "-m", "uv"]
        python = ["--no-config", "--quiet", "--python"]
        subprocess.run([*uv, "venv", *python, sys.executable, folder], check=True)
        choice = ["--no-sources", "--resolution", resolution, f"torch=={torch}"]
        wanted = [*choice, "--group", "test", *MEMBERS]
        subprocess.run([*uv, "pip", "install", *python, folder, *wanted], cwd=ROOT, check=True)
        subprocess.run([*uv, "pip", "freeze", *python, folder], check=True)
        interpreter = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        return subprocess.run([interpreter, "-m", "pytest", *options], cwd=ROOT).returncode


if __name__ == "__main__":
    oldest = status(OLDEST, "lowest-direct", sys.argv[1:])
    newest = status(NEWEST, "highest", sys.argv[1:])
    print(f"torch {OLDEST}: exit {oldest}\ntorch {NEWEST}: exit {newest}")
    sys.exit(oldest or newest)
