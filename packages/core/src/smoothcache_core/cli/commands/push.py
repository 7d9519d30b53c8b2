"""The command `push`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from cyclopts import Parameter

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import Command


@dataclass(frozen=True, kw_only=True)
class Push(Command):
    """Share schedules: put them into a repository of the model hub, with a card. Needs no model.

    Others take them by the name of the repository and a speed-up. A folder that evaluate wrote
    brings the errors that were measured, and its pictures. Sign in with: hf auth login.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.pushing:push_to_repository"

    repository: Annotated[
        str,
        Parameter(
            group=opt.ARGUMENTS,
            help="Repository, as 'user/model-smoothcache'; made if it is not there.",
        ),
    ] = field(kw_only=False)
    sources: Annotated[
        tuple[Path, ...],
        Parameter(
            group=opt.ARGUMENTS,
            help="Schedules of one model, or a folder: of schedules, of a report that evaluate "
            "wrote, or one that was shared before.",
        ),
    ] = field(kw_only=False)
    base_model: Annotated[
        str | None,
        Parameter(
            group=opt.FILES,
            help="Model that they are for, as on the model hub, for the card: "
            "'facebook/DiT-XL-2-256'.",
        ),
    ] = None
    private: Annotated[bool, Parameter(group=opt.FILES, help="Make a new repository private.")] = (
        False
    )
    revision: Annotated[
        str | None,
        Parameter(group=opt.FILES, help="Branch to commit to; made if it is not there."),
    ] = None
    message: Annotated[str | None, Parameter(group=opt.FILES, help="First line of the commit.")] = (
        None
    )
    pull_request: Annotated[
        bool, Parameter(group=opt.FILES, help="Open a pull request in place of committing.")
    ] = False
    output: Annotated[
        Path | None,
        opt.output_option(
            "Folder to write what would be pushed into, and push nothing: it is used like a "
            "repository, and needs no network.",
            folder=True,
        ),
    ] = None
    force: opt.Force = False
