import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure
from smoothcache_core.reports import save_figure


def test_saved_figure_is_a_png_of_its_size(tmp_path: Path):
    figure = Figure(figsize=(2.0, 1.0))
    path = save_figure(figure, tmp_path / "new" / "figure.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert [int.from_bytes(content[16:20]), int.from_bytes(content[20:24])] == [260, 130]
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_matplotlib_is_loaded_when_drawing_and_pyplot_never():
    code = """
import sys
from smoothcache_core import Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.reports import skip_map
print("matplotlib" in sys.modules)
skip_map(Schedule(evaluations=2, rows={"a": (1, 0)}), [Site(path="a", kind="a", block=0)])
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
