"""Help of the command lines of all modalities."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
import smoothcache_audio.cli
import smoothcache_core
import smoothcache_image.cli
import smoothcache_video.cli
from cyclopts import Argument
from kit.command_shell import said
from smoothcache_core.fills import FILLS
from smoothcache_core.sources import SOURCES

COMMANDS = (
    "demo",
    "calibrate",
    "transfer",
    "plan",
    "memory",
    "fit",
    "sample",
    "evaluate",
    "import",
    "export",
    "push",
    "train-router",
)
PROGRAMS = {
    "image": smoothcache_image.cli.app,
    "video": smoothcache_video.cli.app,
    "audio": smoothcache_audio.cli.app,
}
OWN = {"image": (), "video": (), "audio": ("judge",)}

modality = pytest.mark.parametrize("modality", PROGRAMS)
command = pytest.mark.parametrize(
    ("modality", "name"),
    [(modality, name) for modality in PROGRAMS for name in (*COMMANDS, *OWN[modality])],
)


def options_of(modality: str, name: str) -> Iterator[Argument]:
    app = PROGRAMS[modality].app
    with app.app_stack([name]):
        for argument in app[name].assemble_argument_collection():
            if argument.parse and not argument.children:
                yield argument


@command
def test_help_is_shown(modality: str, name: str):
    for words in ([], [name]):
        result = said(PROGRAMS[modality], [*words, "--help"])
        assert result.status == 0
        assert f"Usage: smoothcache-{modality} {' '.join(words)}".strip() in result.output
        assert re.search(r"Examples?:", result.output)


@command
def test_every_option_is_explained(modality: str, name: str):
    texts = {each.name: each.parameter.help or "" for each in options_of(modality, name)}
    assert texts
    assert all(text and text[0].isupper() and text.endswith(".") for text in texts.values()), texts


@command
def test_examples_name_options_that_exist(modality: str, name: str):
    known = {option for each in options_of(modality, name) for option in each.names}
    examples = PROGRAMS[modality].app[name].help_epilogue
    used = {word for word in str(examples).split() if re.match(r"-[-a-z]", word)}
    assert used <= known


@modality
def test_the_commands_are_those_that_are_tested_here(modality: str):
    offered = [name for name in PROGRAMS[modality].app if not name.startswith("-")]
    assert offered == [*COMMANDS, *OWN[modality]]


@modality
def test_no_command_shows_the_help(modality: str):
    result = said(PROGRAMS[modality], [])
    assert result.status == 2
    assert "Calibrate, plan, fit, sample and judge" in result.output
    assert not re.search(rf"^smoothcache-{modality}:", result.output, re.MULTILINE)


@modality
def test_the_version_is_that_of_the_packages(modality: str):
    result = said(PROGRAMS[modality], ["--version"])
    assert (result.status, result.output.strip()) == (0, smoothcache_core.__version__)


@modality
def test_completion_knows_commands_options_and_choices(modality: str):
    script = PROGRAMS[modality].app.generate_completion(shell="bash")
    assert all(word in script for word in (*COMMANDS, "--max-bytes", "bfloat16"))
    assert "--install-completion" in said(PROGRAMS[modality], ["--help"]).output


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("--target", ["auto", *(kind.name for kind in SOURCES)]),
        ("--fill", [rule.name for rule in FILLS]),
    ],
)
def test_targets_and_rules_are_those_of_the_planner(option: str, names: Sequence[str]):
    offered = said(PROGRAMS["image"], ["__complete", "plan", "c", option, ""]).output
    assert offered.splitlines()[2:] == names
    (plan,) = [each for each in options_of("image", "plan") if each.name == option]
    told = set(re.findall(r"'([-a-z0-9]+)'", plan.parameter.help or ""))
    assert told <= set(names)
    if option == "--target":
        assert told == set(names)
    refused = said(PROGRAMS["image"], ["plan", "c", "--compute", "0.5", option, "x"])
    assert refused.status == 2
    assert f'Invalid value "x" for {option}. Choose from: {", ".join(names)}.' in refused.errors


@modality
def test_help_does_not_load_torch(modality: str):
    code = (
        "import sys\n"
        f"from smoothcache_{modality}.cli import app\n"
        "app.run(['sample', '--help'])\n"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--schedule" in done.stdout
