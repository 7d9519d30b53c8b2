"""Running the command line of the audio package in tests."""

from typing import ClassVar

from kit.command_shell import STEPS as STEPS, CommandShell
from smoothcache_audio.cli import app
from smoothcache_core.cli.app import CommandLine


class Shell(CommandShell):
    """Runs commands of `smoothcache-audio` with one model in one folder."""

    APP: ClassVar[CommandLine] = app
