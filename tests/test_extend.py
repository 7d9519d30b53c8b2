"""docs/extend.md, followed to the letter in a copy of the packages: every section works as it says.

Fences of the page say what to do with them: `new=PATH` is a new file, `file=PATH` a change of one
(lines that begin with `+` are added, with `-` removed, the others are there already), `try` is run
where it stands, beside a file `calibration.safetensors`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extend.md"
FENCE = re.compile(r"^```(\w+) (new|file|try)(?:=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "dist")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fences(section: str) -> Iterator[tuple[str, str, str]]:
    for _, what, path, text in FENCE.findall(section):
        yield what, path, text


def changed(content: str, change: str) -> str:
    """Return the content with a change made at the only place that it fits."""
    lines = [(line[:1], line[1:]) for line in change.splitlines()]
    before = "".join(f"{text}\n" for sign, text in lines if sign != "+")
    after = "".join(f"{text}\n" for sign, text in lines if sign != "-")
    assert content.count(before) == 1, f"fits {content.count(before)} times:\n{before}"
    return content.replace(before, after)


def followed(section: str, folder: Path) -> None:
    """Make the changes of a section in a copy of the packages, and try them."""
    shutil.copytree(ROOT / "packages", folder / "packages", ignore=IGNORED)
    shutil.copy(ROOT / "tests" / "golden" / "ddim.safetensors", folder / "calibration.safetensors")
    for what, path, text in fences(section):
        target = folder / path
        if what == "new":
            assert not target.exists(), path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        elif what == "file":
            target.write_text(changed(target.read_text(), text))
        else:
            run(text, folder)


def run(code: str, folder: Path) -> None:
    paths = [str(path) for path in (folder / "packages").glob("*/src")]
    first = f"import sys; sys.path[:0] = {paths}\n"  # before the packages that are installed
    command = [sys.executable, "-W", "error", "-c", first + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sections())
def test_a_section_works_as_it_says(name: str, tmp_path: Path):
    assert any(what == "try" for what, _, _ in fences(sections()[name])), "nothing is tried"
    followed(sections()[name], tmp_path)


def test_a_change_that_fits_nowhere_fails():
    with pytest.raises(AssertionError, match="fits 0 times"):
        changed("a = 1\nb = 2\n", " a = 2\n+c = 3\n")
    assert changed("a = 1\nb = 2\n", " a = 1\n-b = 2\n+c = 3\n") == "a = 1\nc = 3\n"
