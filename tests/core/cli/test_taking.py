from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from smoothcache_core.cli.app import new_app
from smoothcache_core.cli.taking import taking
from smoothcache_core.errors import CommandError
from typer.testing import CliRunner


@dataclass(frozen=True, kw_only=True)
class Parcel:
    weight: Annotated[int, typer.Option(min=1, help="Weight.")]
    label: Annotated[list[str] | None, typer.Option("--mark", help="Label.")] = None
    fragile: bool = False

    def __post_init__(self) -> None:
        if self.weight > 9:
            raise CommandError(f"too heavy: {self.weight}")


def app(told: list[Any], **settings: Any) -> typer.Typer:
    def send(
        parcel: Parcel,
        *,
        to: Annotated[Path, typer.Argument(help="Place.")],
        times: int = 1,
    ) -> None:
        """Send it."""
        told.append((parcel, to, times))

    made = new_app("post", about="Posts.", examples=["send x"])
    made.callback()(lambda: None)
    made.command()(taking(send, Parcel, **settings))
    return made


def test_fields_are_options_beside_those_of_the_command():
    told: list[Any] = []
    words = ["send", "here", "--weight", "3", "--mark", "a", "--mark", "b", "--times", "2"]
    result = CliRunner().invoke(app(told), words)
    assert result.exit_code == 0, result.output
    assert told == [(Parcel(weight=3, label=["a", "b"]), Path("here"), 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight", "0"], "'--weight'"),
        ([], "Missing option '--weight'"),
        (["--weight", "10"], "post: too heavy: 10"),
    ],
)
def test_wrong_fields_end_in_one_line(words: list[str], message: str):
    told: list[Any] = []
    result = CliRunner().invoke(app(told), ["send", "here", *words])
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not told


def test_defaults_are_changed_for_one_command():
    told: list[Any] = []
    defaults = {"weight": 7, "times": 5}
    result = CliRunner().invoke(app(told, defaults=defaults), ["send", "there"])
    assert result.exit_code == 0, result.output
    assert told == [(Parcel(weight=7), Path("there"), 5)]


def test_fields_that_are_not_taken_keep_their_defaults():
    told: list[Any] = []
    post = app(told, only=["weight"])
    assert CliRunner().invoke(post, ["send", "x", "--weight", "1"]).exit_code == 0
    assert told == [(Parcel(weight=1), Path("x"), 1)]
    result = CliRunner().invoke(post, ["send", "x", "--weight", "1", "--fragile"])
    assert "No such option: --fragile" in result.stderr
