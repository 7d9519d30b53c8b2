import subprocess
from collections import Counter

import pytest

from tools.structure import (
    COLUMNS,
    against,
    circles_of,
    figures,
    files_of,
    floors_of,
    imports_of,
    packages_of,
    report,
    rooms_of,
    whole,
)

CORE, IMAGE = "packages/core/src/c", "packages/image/src/i"
FILES = {
    f"{CORE}/__init__.py": "",
    f"{CORE}/__init__.pyi": "from .plan import plan\n__all__ = ['plan', 'Schedule']\n",
    f"{CORE}/errors.py": "import os\n",
    f"{CORE}/schedule/__init__.py": "from c.schedule.cost import Cost\n__all__ = ['Cost']\n",
    f"{CORE}/schedule/cost.py": "from c.errors import Wrong\nfrom .limits import most\n",
    f"{CORE}/schedule/limits.py": "def most():\n    from c.schedule.cost import Cost\n",
    f"{CORE}/plan.py": "from c.schedule import Cost\nimport c.errors\n",
    f"{IMAGE}/__init__.py": "from c import plan\n",
    f"{IMAGE}/__init__.pyi": "from .x import x as x\n",
    "tools/__init__.py": "",
    "tools/one.py": "from i import x\n",
    "tools/bench/__init__.py": "",
    "tools/bench/run.py": "import tools.bench.other\n",
    "tools/bench/other.py": "",
}


def row(values: list[object]) -> dict[str, object]:
    return dict(zip(COLUMNS, values, strict=True))


def test_rooms_are_folders_and_files_that_stand_in_none():
    packages = packages_of(FILES)
    assert [package.name for package in packages] == ["c", "i", "tools", "tools.bench"]
    core, _, tools, _ = packages
    imports = imports_of(packages)
    rooms = rooms_of(core, imports)
    assert {room: set(arrows) for room, arrows in rooms.items()} == {
        "errors": set(), "schedule": {"errors"}, "plan": {"errors", "schedule"}
    }  # fmt: skip
    assert floors_of(rooms) == {"errors": 1, "schedule": 2, "plan": 3}
    assert set(rooms_of(tools, imports)) == {"one"}


def test_figures_count_circles_of_files_and_offered_names():
    packages = packages_of(FILES)
    imports = imports_of(packages)
    found = row(figures(packages[0], imports))
    assert found | {"files": 6, "lines": 9, "rooms": 3, "floors": 3, "arrows": 3} == found
    assert found | {"against": 0, "circles": 1, "public": 2, "named": 1} == found
    every = row(whole(packages, imports))
    assert every | {"files": 12, "rooms": 4, "floors": 3, "arrows": 2, "circles": 1} == every
    assert every | {"public": 3, "named": 1, "against": 0} == every


def test_the_arrow_of_fewest_imports_runs_against_the_direction():
    graph = {"a": Counter(b=3), "b": Counter(c=1, a=2), "c": Counter(), "d": Counter(a=1)}
    assert circles_of(graph) == [{"a", "b"}]
    assert against(graph) == [("b", "a")]
    assert floors_of(graph) == {"a": 3, "b": 2, "c": 1, "d": 4}


def test_the_report_names_what_is_wrong():
    text = report(FILES)
    assert "circle: c.schedule.cost <-> c.schedule.limits" in text
    assert "plan          3      1  errors schedule" in text


def test_files_of_a_revision_and_of_now_are_read():
    assert "tools/structure.py" in files_of(None)
    if subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("there is no repository")
    core = [path for path in files_of("HEAD") if path.startswith("packages/core/src/")]
    assert len(core) > 50


def test_nothing_has_a_circle_or_an_arrow_against_the_direction():
    packages = packages_of(files_of(None))
    imports = imports_of(packages)
    found = [row(figures(package, imports)) for package in packages]
    assert {each["package"] for each in found} >= {"smoothcache_core", "tools", "tools.bench"}
    wrong = [each["package"] for each in found if each["circles"] or each["against"]]
    assert wrong == []
