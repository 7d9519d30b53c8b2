import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "packages" / "core" / "src" / "smoothcache_core"
COMMAND_LINE = {"cyclopts", "rich", "smoothcache_core.cli"}
MODEL_LIBRARIES = {"accelerate", "diffusers", "timm", "torchaudio", "torchvision", "transformers"}


def python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_packages(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in plain + named}


def test_names_of_core_load_no_model_library_and_no_command_line():
    loaded = python("import sys; from smoothcache_core import *; print(*sys.modules)").split()
    assert "smoothcache_core.schedule.schedule" in loaded
    assert not (MODEL_LIBRARIES | COMMAND_LINE) & set(loaded)


def test_commands_of_core_load_no_torch():
    loaded = python("import sys, smoothcache_core.cli.commands; print(*sys.modules)").split()
    assert "cyclopts" in loaded
    assert not {"torch", "numpy", "matplotlib"} & set(loaded)


@pytest.mark.parametrize(
    "names",
    [
        "smoothcache_core.planning, smoothcache_core.sources, smoothcache_core.reports",
        "smoothcache_core.adapters, smoothcache_core.schedule, smoothcache_core.fills",
    ],
)
def test_planning_loads_no_torch(names: str):
    code = f"import sys, {names}; from smoothcache_core import plan, Calibration, Schedule"
    loaded = python(f"{code}; print(*sys.modules)").split()
    assert "smoothcache_core.planning.plan" in loaded
    assert not {"torch", "scipy", "matplotlib"} & set(loaded)


def test_importing_core_leaves_cuda_alone():
    code = "import torch; from smoothcache_core import *; print(torch.cuda.is_initialized())"
    assert python(code).strip() == "False"


def test_names_of_core_are_loaded_when_used():
    code = """
import smoothcache_core
assert "Schedule" in dir(smoothcache_core) and smoothcache_core.__version__
assert smoothcache_core.Schedule.__module__ == "smoothcache_core.schedule.schedule"
try: smoothcache_core.nothing
except AttributeError as error: print(error)
"""
    assert python(code).strip() == "No smoothcache_core attribute nothing"


@pytest.mark.parametrize("file", sorted(CORE.rglob("*.py")), ids=lambda file: file.stem)
def test_core_source_imports_no_model_library(file: Path):
    assert not MODEL_LIBRARIES & imported_packages(file)


@pytest.mark.parametrize("name", ["core", "image", "video", "audio"])
def test_every_package_imports_without_a_warning(name: str):
    assert python(f"import smoothcache_{name} as p; print(p.__version__)").strip()


def test_import_directions_hold():
    report = python("from importlinter.cli import lint_imports; print(lint_imports(no_cache=True))")
    assert report.splitlines()[-1] == "0", report
