"""Docstrings say what a reader needs, and their examples run."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import smoothcache_core
import torch
from smoothcache_core import PatternAdapter, Sampler, SitePattern, calibrate, plan
from torch import nn

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("packages/*/src/**/*.py"))
FACE = "smoothcache_core"
NAMESPACES = [
    f"smoothcache_core.{name}"
    for name in (
        "adapters",
        "calibrating",
        "evaluation",
        "fills",
        "fitting",
        "metrics",
        "pipelines",
        "planning",
        "reports",
        "runtime",
        "sampling",
        "schedule",
        "sources",
    )
]
STATES_A_VALUE = re.compile(r"\(.+\)|`.+`|\d|\"")
SECTION = re.compile(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def described(docstring: str | None) -> dict[str, str]:
    """Return the arguments and attributes of a docstring with what it says of them."""
    sections = SECTION.findall(inspect.cleandoc(docstring or ""))
    return {
        name: " ".join(text.split())
        for section in sections
        for name, text in ENTRY.findall(section)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_argument_is_described_in_two_words(path: Path):
    found = [
        f"{node.name}: {name}: {text}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for name, text in described(ast.get_docstring(node)).items()
        if len(text.split()) <= 2 and (text.startswith("See ") or not STATES_A_VALUE.search(text))
    ]
    assert found == []


# ---------------------------------------------------------------------------- the public face


def public(module: str) -> list[tuple[str, Any]]:
    """Return the classes and functions that a module lists or, without a list, defines."""
    page = importlib.import_module(module)
    names = getattr(page, "__all__", None) or [
        name
        for name, value in vars(page).items()
        if name[0] != "_" and getattr(value, "__module__", "") == module
    ]
    values = [(name, getattr(page, name)) for name in names]
    return [(n, v) for n, v in values if inspect.isclass(v) or inspect.isfunction(v)]


FACES = {
    f"{value.__module__}.{name}": value
    for module in (FACE, *NAMESPACES)
    for name, value in public(module)
}


def parameters(function: Any) -> list[str]:
    """Return the names of a function's parameters, without those of a method's owner."""
    variadic = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.name not in ("self", "cls") and p.kind not in variadic]


def fields(owner: type) -> list[str]:
    """Return what a class is made of: its fields, or the parameters of its constructor."""
    if issubclass(owner, BaseException):
        return []
    if hasattr(owner, "model_fields"):
        return list(owner.model_fields)
    if dataclasses.is_dataclass(owner):
        return [field.name for field in dataclasses.fields(owner)]
    return parameters(owner) if "__init__" in vars(owner) else []


def methods(owner: type) -> Iterator[Any]:
    """Yield the public methods of a class."""
    for name, member in vars(owner).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield function


def of_bases(value: Any) -> set[str]:
    """Return what the docstrings of a function, or of a class and its bases, describe."""
    owners = value.__mro__ if inspect.isclass(value) else (value,)
    return {name for owner in owners for name in described(owner.__doc__)}


@pytest.mark.parametrize("name", sorted(FACES))
def test_every_public_parameter_is_described(name: str):
    value = FACES[name]
    wanted = [(value, fields(value) if inspect.isclass(value) else parameters(value))]
    if inspect.isclass(value):
        wanted += [(method, parameters(method)) for method in methods(value)]
    missing = [
        (function.__qualname__, parameter)
        for function, names in wanted
        for parameter in names
        if parameter not in of_bases(function)
    ]
    assert missing == []


@pytest.mark.parametrize("name", smoothcache_core.__all__)
def test_every_name_at_the_top_has_an_example(name: str):
    value = getattr(smoothcache_core, name)
    if not (inspect.isclass(value) and issubclass(value, Exception)):
        docstring = value.__doc__ or ""
        assert "Example:" in docstring
        assert ">>>" in docstring


# ---------------------------------------------------------------------------- examples


class Denoiser(nn.Module):
    """The denoiser of two layers that the examples share."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, hidden_states: torch.Tensor, timestep: float) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = hidden_states + block(hidden_states).tanh()
        return hidden_states * timestep


def toy() -> dict[str, Any]:
    """Return what examples take for granted: a model, its sampler, a calibration and a plan."""
    torch.manual_seed(0)
    model = Denoiser().requires_grad_(False)
    adapter = PatternAdapter(
        name="toy", patterns=(SitePattern("blocks.*", "block"),), classes=("Denoiser",)
    )

    def run(seed: int) -> torch.Tensor:
        latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for step in range(8):
            latent = latent - model(latent, 1 - step / 8) / 8
        return latent

    sampler = Sampler(model=model, adapter=adapter, run=run, solver="euler", samples=2)
    calibration = calibrate(sampler, seeds=range(8), progress=False)
    return {
        "model": model,
        "adapter": adapter,
        "run": run,
        "sampler": sampler,
        "calibration": calibration,
        "schedule": plan(calibration, compute=0.5),
    }


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    names = {name.rpartition(".")[2]: value for name, value in FACES.items()}
    sites = smoothcache_core.adapters
    constants = {"DENOISER": sites.DENOISER, "GUIDANCE": sites.GUIDANCE}
    return {**names, **constants, "torch": torch, "nn": nn, "dataclasses": dataclasses, **toy()}


def examples() -> list[doctest.DocTest]:
    """Return the examples of the public face, methods included."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test for name, value in FACES.items() for test in finder.find(value, name, globs={}) if test
    ]
    return [test for test in found if test.examples]


@pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_examples_run(
    example: doctest.DocTest,
    known: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    example.globs = dict(known)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)
