"""How is the code laid out: how many rooms, on how many floors, with which arrows between them?

    python3 tools/structure.py              the working tree
    python3 tools/structure.py 03d2839      a revision, to compare with

A room is a folder of a package, or a file that stands in no folder. An arrow is a room that imports
another; every import counts, wherever it stands in a file. A floor is the longest chain of imports
below a room: a room that imports none stands on floor 1, and rooms that import each other in a
circle stand on one floor. An arrow runs against the direction if it closes a circle of rooms: of
every circle the arrow with the fewest imports. Public names are those of a package's own `__all__`,
named are those of its folders. Of the whole repository the rooms are the packages. Standard library
and git only.
"""

import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Graph = dict[str, Counter[str]]
"""For each node the nodes that it imports, and how often."""


# ---------------------------------------------------------------------------- reading


def files_of(revision: str | None) -> dict[str, str]:
    """Return the Python files below packages/ and tools/ by their path, of a revision or of now.

    Raises:
        subprocess.CalledProcessError: There is no such revision.
    """
    wanted = ("packages", "tools")
    if revision is None:
        listed = _git("ls-files", "--cached", "--others", "--exclude-standard", "--", *wanted)
        names = listed.decode().splitlines()
        paths = [name for name in names if _is_source(name) and (ROOT / name).exists()]
        return {name: (ROOT / name).read_text() for name in paths}
    archive = io.BytesIO(_git("archive", "--format=tar", revision, *wanted))
    with tarfile.open(fileobj=archive) as tar:
        members = [each for each in tar.getmembers() if each.isfile() and _is_source(each.name)]
        return {each.name: _read(tar, each) for each in members}


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def _is_source(name: str) -> bool:
    return name.endswith((".py", ".pyi"))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    assert file is not None
    return file.read().decode()


# ---------------------------------------------------------------------------- packages


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package as it stands in the repository.

    Attributes:
        name: Its name in imports; `tools` or `tools.bench` for the tools.
        modules: Its files by their dotted names, `__init__` by that of its folder.
        lines: Lines of every file, by its dotted name.
        public: Names that it offers at its top.
        named: Names that its folders offer besides.
    """

    name: str
    modules: Mapping[str, ast.Module]
    lines: Mapping[str, int]
    public: int
    named: int

    def room(self, module: str) -> str | None:
        """Return the room of a module; None for the package's own `__init__` and strangers."""
        if not module.startswith(f"{self.name}."):
            return None
        return module.removeprefix(f"{self.name}.").split(".")[0]


def packages_of(files: Mapping[str, str]) -> list[Package]:
    """Return the packages of a repository: those of packages/, and tools; bench by itself."""
    homes = sorted({"/".join(path.split("/")[:4]) for path in files if _in_package(path)})
    named = {home: home.split("/")[-1] for home in homes} | {"tools": "tools"}
    if any(path.startswith("tools/bench/") for path in files):
        named["tools/bench"] = "tools.bench"
    return [_package(home, name, files, set(named) - {home}) for home, name in named.items()]


def _in_package(path: str) -> bool:
    return re.match(r"packages/\w+/src/\w+/", path) is not None


def _below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _package(home: str, name: str, files: Mapping[str, str], others: Iterable[str]) -> Package:
    deeper = [other for other in others if _below(other, home)]
    inside = {
        path: text
        for path, text in files.items()
        if _below(path, home) and not any(_below(path, other) for other in deeper)
    }
    python = [path for path in inside if path.endswith(".py")]  # a stub is no module of its own
    modules = {_dotted(path, home, name): path for path in python}
    return Package(
        name=name,
        modules={module: ast.parse(inside[path]) for module, path in modules.items()},
        lines={module: len(inside[path].splitlines()) for module, path in modules.items()},
        public=len(_offered(inside, home)),
        named=sum(
            len(_offered(inside, folder))
            for folder in sorted({path.rpartition("/")[0] for path in inside} - {home})
        ),
    )


def _dotted(path: str, home: str, name: str) -> str:
    parts = path.removeprefix(f"{home}/").removesuffix(".py").split("/")
    return ".".join([name, *(part for part in parts if part != "__init__")])


def _offered(files: Mapping[str, str], folder: str) -> list[str]:
    """Return the names in `__all__` of a folder's stub, of itself, or of its list of names.

    A stub without `__all__` offers what it imports.
    """
    for file in ("__init__.pyi", "__init__.py", "_public.py"):
        for node in ast.walk(ast.parse(files.get(f"{folder}/{file}", ""))):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                if names == ["__all__"]:
                    return [ast.literal_eval(each) for each in node.value.elts]
        if file.endswith(".pyi") and f"{folder}/{file}" in files:
            stub = ast.parse(files[f"{folder}/{file}"])
            froms = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
            return [alias.name for node in froms for alias in node.names]
    return []


# ---------------------------------------------------------------------------- imports


def imports_of(packages: Iterable[Package]) -> Graph:
    """Return which module imports which, over all packages."""
    known = {module for package in packages for module in package.modules}
    folders = {module.rpartition(".")[0] for module in known}
    return {
        module: Counter(
            found
            for name in _imported(module if module not in folders else f"{module}.", tree)
            if (found := _module(name, known)) is not None and found != module
        )
        for package in packages
        for module, tree in package.modules.items()
    }


def _imported(module: str, tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports; the name of a folder ends with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                above = ".".join(module.split(".")[: -node.level])
                start = f"{above}.{start}".rstrip(".")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _module(name: str, known: set[str]) -> str | None:
    """Return the module that an imported name belongs to; a plain name may be a file of tools."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        start = ".".join(parts[:end])
        for candidate in (start, f"tools.{start}"):
            if candidate in known and candidate != "tools":
                return candidate
    return None


def rooms_of(package: Package, imports: Graph) -> Graph:
    """Return which room of a package imports which."""
    rooms: Graph = {}
    for module in package.modules:
        room = package.room(module)
        if room is not None:
            arrows = rooms.setdefault(room, Counter())
            for target, count in imports[module].items():
                other = package.room(target) if target in package.modules else None
                if other not in (None, room):
                    arrows[str(other)] += count
    return rooms


# ---------------------------------------------------------------------------- graphs


def circles_of(graph: Graph) -> list[set[str]]:
    """Return the sets of nodes that import each other, in a circle or in more than one."""
    below = {node: _reachable(graph, node) for node in graph}
    found: list[set[str]] = []
    for node in graph:
        circle = {other for other in below[node] if node in below.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = set(graph.get(todo.pop(), ())) - seen
        seen |= new
        todo += new
    return seen


def against(graph: Graph) -> list[tuple[str, str]]:
    """Return the arrows without which no circle is left: of each circle that of fewest imports."""
    left = {node: Counter(arrows) for node, arrows in graph.items()}
    removed: list[tuple[str, str]] = []
    while circles := circles_of(left):
        inside = min(circles, key=len)
        arrows = [(one, other) for one in inside for other in left[one] if other in inside]
        one, other = min(arrows, key=lambda arrow: (left[arrow[0]][arrow[1]], *arrow))
        del left[one][other]
        removed.append((one, other))
    return removed


def floors_of(graph: Graph) -> dict[str, int]:
    """Return the floor of every node, from 1; without the arrows that run against the direction."""
    wrong = set(against(graph))
    floors: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in floors:
            below = [floor(other) for other in graph.get(node, ()) if (node, other) not in wrong]
            floors[node] = 1 + max(below, default=0)
        return floors[node]

    for node in graph:
        floor(node)
    return floors


# ---------------------------------------------------------------------------- what is shown

COLUMNS = (
    *("package", "files", "lines", "median", "largest", "rooms", "floors", "arrows"),
    *("against", "circles", "public", "named"),
)


def figures(package: Package, imports: Graph) -> list[object]:
    """Return a row of the table: circles are of files, arrows and floors of rooms."""
    rooms = rooms_of(package, imports)
    lines = list(package.lines.values())
    return [
        package.name,
        len(lines),
        sum(lines),
        round(statistics.median(lines)),
        max(lines),
        *_shape(rooms),
        len(circles_of(_inside(package, imports))),
        package.public,
        package.named,
    ]


def _shape(rooms: Graph) -> list[int]:
    """Return rooms, floors, arrows, and arrows against the direction."""
    arrows = sum(len(arrows) for arrows in rooms.values())
    return [len(rooms), max(floors_of(rooms).values(), default=0), arrows, len(against(rooms))]


def whole(packages: Sequence[Package], imports: Graph) -> list[object]:
    """Return the row of the repository, whose rooms are its packages."""
    homes = {module: package.name for package in packages for module in package.modules}
    rooms: Graph = {package.name: Counter() for package in packages}
    for module, arrows in imports.items():
        for target, count in arrows.items():
            if homes[target] != homes[module]:
                rooms[homes[module]][homes[target]] += count
    lines = [count for package in packages for count in package.lines.values()]
    return [
        "all",
        len(lines),
        sum(lines),
        round(statistics.median(lines)),
        max(lines),
        *_shape(rooms),
        len(circles_of(imports)),
        sum(package.public for package in packages),
        sum(package.named for package in packages),
    ]


def _inside(package: Package, imports: Graph) -> Graph:
    """Return the imports of a package's files among themselves."""
    return {
        module: Counter({k: v for k, v in imports[module].items() if k in package.modules})
        for module in package.modules
    }


def table(rows: Iterable[Iterable[object]]) -> str:
    """Return rows in aligned columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if cells[-1][i].isdigit() else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def report(files: Mapping[str, str]) -> str:
    """Return all figures of a repository: a row for each package, then the files of every room."""
    packages = packages_of(files)
    imports = imports_of(packages)
    rows = [figures(package, imports) for package in packages]
    parts = [table([COLUMNS, *rows, whole(packages, imports)])]
    return "\n\n".join([*parts, *(described(package, imports) for package in packages)])


def described(package: Package, imports: Graph) -> str:
    """Return the rooms of a package, the lowest floor first, and what is wrong with them."""
    rooms = rooms_of(package, imports)
    files = Counter(room for module in package.modules if (room := package.room(module)))
    floors = floors_of(rooms)
    order = sorted(rooms, key=lambda room: (floors[room], room))
    rows = [(room, floors[room], files[room], " ".join(sorted(rooms[room]))) for room in order]
    circles = circles_of(_inside(package, imports))
    return "\n".join(
        [
            package.name,
            table([("room", "floor", "files", "imports"), *rows]),
            *(f"circle: {' <-> '.join(sorted(circle))}" for circle in circles),
            *(f"against the direction: {one} -> {other}" for one, other in against(rooms)),
        ]
    )


if __name__ == "__main__":
    print(report(files_of(sys.argv[1] if len(sys.argv) > 1 else None)))
