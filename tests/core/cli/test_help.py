"""Help of the command lines of all modalities."""

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
import smoothcache_audio._cli
import smoothcache_image._cli
import typer
from typer.core import TyperCommand
from typer.testing import CliRunner

COMMANDS = ("demo", "calibrate", "transfer", "plan", "fit", "sample", "evaluate")
APPS = {"image": smoothcache_image._cli.app, "audio": smoothcache_audio._cli.app}

modality = pytest.mark.parametrize("modality", APPS)


def command_of(modality: str, name: str) -> TyperCommand:
    group = typer.main.get_command(APPS[modality])
    return group.commands[name]  # pyright: ignore[reportAttributeAccessIssue] a group


@modality
@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)])
def test_help_is_shown(modality: str, words: Sequence[str]):
    result = CliRunner().invoke(APPS[modality], [*words, "--help"])
    assert result.exit_code == 0
    assert f"Usage: smoothcache-{modality} {' '.join(words)}".strip() in result.output
    assert re.search(r"Examples?:", result.output)


@modality
@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(modality: str, name: str):
    texts = {each.name: getattr(each, "help", "") for each in command_of(modality, name).params}
    assert texts
    assert all(text and text[0].isupper() and text.endswith(".") for text in texts.values()), texts


@modality
@pytest.mark.parametrize("name", COMMANDS)
def test_examples_name_options_that_exist(modality: str, name: str):
    command = command_of(modality, name)
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in str(command.epilog).split() if re.match(r"-[-a-z]", word)}
    assert used <= known


@modality
def test_no_command_shows_the_help(modality: str):
    result = CliRunner().invoke(APPS[modality], [])
    assert result.exit_code == 2
    assert "Calibrate, plan, fit, sample and judge" in result.output
    assert not re.search(rf"^smoothcache-{modality}:", result.output, re.MULTILINE)


@modality
def test_help_does_not_load_torch(modality: str):
    code = (
        "import sys\n"
        f"from smoothcache_{modality}._cli import app\n"
        "try: app(['sample', '--help'])\n"
        "finally: assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
