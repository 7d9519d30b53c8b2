"""Set the project up in .venv and run one of its commands.

    python3 run.py demo [image] [options]   the small image demo, into demo-output/
    python3 run.py demo video [options]     the small video demo, into demo-output/video/
    python3 run.py demo audio [options]     the small audio demo, into demo-output/audio/
    python3 run.py evaluate [--quick]       one evaluation over image, video and audio, as a page
    python3 run.py test [pytest options]    the tests
    python3 run.py lint                     format, lint, types, import directions
    python3 run.py check                    lint, then the tests
    python3 run.py env                      only set up

It needs a Python with pip, or uv on the PATH, and writes only here and to the installers' caches.
.venv gets what requirements.lock says, hash by hash, and is left alone while it is up to date.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

if not (3, 11) <= sys.version_info[:2] <= (3, 14):  # those that the locked torch is built for
    sys.exit(f"run.py: needs Python 3.11 to 3.14; {sys.executable} is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
MEMBERS = [ROOT / "packages" / name for name in ("core", "image", "video", "audio")]
VENV = ROOT / ".venv"
STAMP = VENV / "made-by-run.py"
PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()  # not that of .venv

TEST = ["python", "-m", "pytest", "--numprocesses", "auto", "--maxprocesses", "4"]
LINT = [["ruff", "format", "--check"], ["ruff", "check"], ["pyright"], ["lint-imports"]]
DROPPED = ("PIP_", "UV_", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH")  # not handed on, except
KEPT = ("PIP_CERT", "PIP_INDEX_URL", "PIP_PROXY", "UV_CACHE_DIR", "UV_DEFAULT_INDEX")


def environment() -> dict[str, str]:
    """Returns the user's environment, less what could change which packages are used."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT or not k.startswith(DROPPED)}
    settings = {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore", "PIP_USER": "0"}
    path = os.pathsep.join([str(VENV / "bin"), str(VENV / "Scripts"), kept.get("PATH", os.defpath)])
    return {**kept, **settings, "UV_SYSTEM_CERTS": "1", "PATH": path, "VIRTUAL_ENV": str(VENV)}


def program(folder: Path, name: str) -> str | None:
    """Returns the path of a program that is installed under the folder, on any system."""
    return shutil.which(name, path=os.pathsep.join([str(folder / "bin"), str(folder / "Scripts")]))


def step(problem: str, *command: str | Path) -> None:
    """Runs one step of the installation; where it fails, ends with the problem and what to do."""
    if subprocess.call(command, cwd=ROOT, env=environment()):
        sys.exit(f"run.py: {problem}; the cause is above. When it is mended, run this again")


def find_uv() -> str:
    """Returns uv in the locked version, installed into .tools if it is not there yet."""
    pin = re.search(r"^uv==(\S+)(?s:.*?)(?=^\S)", LOCK.read_text(), re.MULTILINE)
    if not pin:
        sys.exit(f"run.py: {LOCK} does not pin uv; get the file back from git")
    folder = ROOT / ".tools" / f"uv-{pin[1]}"
    if program(folder, "uv") is None:
        pip = [PYTHON, "-m", "pip"]
        if subprocess.run([*pip, "--version"], capture_output=True, env=environment()).returncode:
            return shutil.which("uv") or sys.exit(f"run.py: install pip for {PYTHON}, or uv")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pin.txt").write_text(pin[0])
        pip += ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        step("pip got no uv", *pip, "--requirement", folder / "pin.txt", "--target", folder)
    return program(folder, "uv") or sys.exit(f"run.py: there is no uv in {folder}; remove it")


def set_up() -> None:
    """Makes .venv what the lock says, unless it is already."""
    files = [LOCK, *(member / "pyproject.toml" for member in MEMBERS)]
    for file in files:
        if not file.exists():
            sys.exit(f"run.py: stays in the repository it came with; there is no {file}")
    place = f"{VENV} {PYTHON} {sys.hexversion:x}"
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    before = STAMP.read_text().split("\n") if STAMP.exists() else []
    if before == [place, content]:
        return
    if VENV.exists() and not before:
        sys.exit(f"run.py: {VENV} is not of its making; remove it or move it away")
    uv, options = find_uv(), ["--no-config", "--quiet", "--python"]
    if before[:1] != [place]:
        print("run.py: setting up .venv; the first time, torch is downloaded", file=sys.stderr)
        step("uv could not make .venv", uv, "venv", "--clear", *options, PYTHON, VENV)
    STAMP.write_text(f"{place}\nunfinished")
    # compiled once: where Python may not write, every start would compile torch and diffusers anew
    sync = [uv, "pip", "sync", *options, VENV, "--compile-bytecode", "--require-hashes", LOCK]
    step("the locked packages could not be installed (network? disk?)", *sync)
    editables = [word for member in MEMBERS for word in ("--editable", member)]
    pip = [uv, "pip", "install", *options, VENV, "--no-deps", "--no-build-isolation"]
    step("the packages of this repository could not be installed", *pip, *editables)
    STAMP.write_text(f"{place}\n{content}")


def main() -> int:
    """Returns the exit status of the command that was asked for."""
    name, *options = sys.argv[1:] or ["help"]
    named = name == "demo" and options[:1] in (["image"], ["video"], ["audio"])
    shown = options.pop(0) if named else "image"
    folder = "demo-output" if shown == "image" else f"demo-output/{shown}"
    demo = [f"smoothcache-{shown}", "demo", *(options or ["--output", folder])]
    test = [*TEST, *options]
    evaluate = ["python", "-m", "tools.evaluate", *options]
    commands = {"demo": [demo], "evaluate": [evaluate], "test": [test], "lint": LINT}
    commands |= {"check": [*LINT, test], "env": []}
    if name not in commands:
        print(__doc__)
        return 0 if name in ("help", "-h", "--help") else 2
    set_up()
    status = 0
    for first, *rest in commands[name]:
        found = program(VENV, first) or sys.exit(f"run.py: .venv has no {first}; remove .venv")
        if len(commands[name]) > 1:
            print("$", first, *rest, flush=True)
        alone = {"OMP_NUM_THREADS": "1"} if TEST[0] == first else {}  # test processes share cores
        status |= subprocess.call([found, *rest], cwd=ROOT, env=environment() | alone)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
