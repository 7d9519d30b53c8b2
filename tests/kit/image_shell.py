"""Running the command line of the image package in tests."""

from typing import ClassVar

from kit.command_shell import STEPS as STEPS, CommandShell
from smoothcache_core.cli.app import CommandLine
from smoothcache_image.cli import app


class Shell(CommandShell):
    """Runs commands of `smoothcache-image` with one model in one folder."""

    APP: ClassVar[CommandLine] = app
