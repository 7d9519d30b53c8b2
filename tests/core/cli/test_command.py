import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from kit.command_shell import Said, said
from smoothcache_audio.judge_command import Judge
from smoothcache_core.cli.command import Command, SamplingCommand
from smoothcache_core.cli.commands import COMMANDS, command_line
from smoothcache_core.cli.modality import Demo, Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.errors import CommandError

TOLD: list["Send"] = []


@dataclass(frozen=True, kw_only=True)
class Parcel(Source):
    """Something else to send than samples, with options of its own."""

    SHIPPED: ClassVar[Collection[str]] = ()
    STEPS: ClassVar[int] = 1
    WRITTEN: ClassVar[Collection[str]] = ("wrapping",)

    model: str = "box"
    weight: Annotated[PositiveInt, Parameter(help="Weight.")] = 1
    label: Annotated[tuple[str, ...], Parameter(name="--mark", help="Label.")] = ()
    fragile: bool = False
    wrapping: Annotated[str, Parameter(help="Wrapping.")] = "paper"

    def __post_init__(self) -> None:
        if self.weight > 9:
            raise CommandError(f"too heavy: {self.weight}")

    def sampler(self, *, steps: int) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Send(SamplingCommand):
    """Send {units}."""

    to: Annotated[Path, Parameter(help="Place.")] = field(kw_only=False)
    times: int = 1

    def run(self, modality: Modality) -> None:
        assert modality.command == "post"
        TOLD.append(self)


@dataclass(frozen=True, kw_only=True)
class Return(Send):
    """Send {units} back, which are heavier then."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"weight": 7}
    WRITES: ClassVar[bool] = True
    HIDDEN: ClassVar[Collection[str]] = ("fragile",)


@pytest.mark.parametrize("command", [*COMMANDS, Judge], ids=lambda command: command.__name__)
def test_the_work_of_a_command_is_a_function_of_it_and_the_modality(command: type[Command]):
    module, function = command.WORK.split(":")
    work = getattr(import_module(module), function)
    assert list(signature(work).parameters) == ["settings", "modality"]


def post(*words: object) -> Said:
    TOLD.clear()
    modality = Modality(
        command="post",
        models="parcels",
        units="parcels",
        source=Parcel,
        demo=Demo(opening="", title="", legend="", files={}, samples=1),
        judging=lambda *_: pytest.fail("nothing to judge"),
        save=lambda *_: pytest.fail("nothing to save"),
        commands=(Send, Return),
        examples={"send": ["send x"], "return": ["return x"]},
    )
    return said(command_line(modality), words)


def test_fields_are_options_beside_those_of_the_command():
    words = ("here", "--weight", 3, "--mark", "a", "--mark", "c", "--times", 2)
    result = post("send", *words)
    assert result.status == 0, result.output
    (sent,) = TOLD
    assert (sent.to, sent.times) == (Path("here"), 2)
    assert isinstance(sent.source, Parcel)
    assert (sent.source.weight, sent.source.label) == (3, ("a", "c"))
    assert (sent.source.model, sent.source.fragile) == ("box", False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("here", "--weight", 0), 'Invalid value "0" for --weight'),
        (("here", "--weight", 10), "post: too heavy: 10"),
        (("here", "--wait"), "Unknown option: --wait"),
        (("here", "there"), "there"),
        ((), "--to requires an argument"),
    ],
)
def test_what_is_wrong_ends_in_one_line(words: Sequence[object], message: str):
    result = post("send", *words)
    assert result.status == 2
    assert result.errors.count("\n") == 1
    assert result.errors.startswith("post: ")
    assert message in result.errors
    assert not TOLD


def test_of_an_option_given_twice_the_last_one_counts():
    assert post("send", "x", "--weight", 3, "--weight", 4).status == 0
    assert isinstance(TOLD[0].source, Parcel)
    assert TOLD[0].source.weight == 4


def test_defaults_are_changed_for_one_command():
    for command, weight in (("send", 1), ("return", 7)):
        assert post(command, "there").status == 0
        assert post(command, "there", "--mark", "a").status == 0
        assert isinstance(TOLD[0].source, Parcel)
        assert (TOLD[0].source.weight, TOLD[0].source.label) == (weight, ("a",))


def test_hidden_fields_are_no_options_and_keep_their_defaults():
    assert post("send", "x", "--fragile").status == 0
    assert isinstance(TOLD[0].source, Parcel)
    assert TOLD[0].source.fragile
    assert "Unknown option: --fragile" in post("return", "x", "--fragile").errors
    assert "fragile" not in post("return", "--help").output


def test_only_commands_that_write_samples_have_the_options_of_how():
    assert post("return", "x", "--wrapping", "foil").status == 0
    assert isinstance(TOLD[0].source, Parcel)
    assert TOLD[0].source.wrapping == "foil"
    assert "Unknown option: --wrapping" in post("send", "x", "--wrapping", "foil").errors


def test_the_help_of_a_command_is_its_docstring_and_examples():
    shown = post("return", "--help").output
    assert "Send parcels back, which are heavier then." in shown
    assert re.search(r"--weight.*\[default: 7\]", shown)
    assert shown.rstrip().endswith("Example:\n\n    post return x")
    assert "return" in post("--help").output
