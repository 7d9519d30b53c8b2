"""Running the command line of the video package in tests."""

from typing import ClassVar

from kit.command_shell import STEPS as STEPS, CommandShell
from smoothcache_core.cli.app import CommandLine
from smoothcache_video.cli import app

PROMPTS = ("--prompt", "a seven moving left", "--prompt", "a fox")
SIZE = ("--frames", 3)


class Shell(CommandShell):
    """Runs commands of `smoothcache-video` with one model in one folder."""

    APP: ClassVar[CommandLine] = app
