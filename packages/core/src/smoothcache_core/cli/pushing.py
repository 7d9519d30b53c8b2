"""What the command `push` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from smoothcache_core import Schedule
from smoothcache_core.cli.commands.push import Push
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.tables import show_schedules
from smoothcache_core.errors import CommandError
from smoothcache_core.reports import front_of_report
from smoothcache_core.schedule import Front
from smoothcache_core.schedule.sharing.hub import Upload, is_repository
from smoothcache_core.schedule.sharing.index import INDEX


def push_to_repository(settings: Push, modality: Modality) -> None:
    """Put schedules into a repository of the model hub, or into a folder, and show them.

    Args:
        settings: The schedules, and where to.
        modality: Whose program this is; the card shows its lines.

    Raises:
        CommandError: The name is no repository's, or there are no schedules.
        SmoothCacheError: A file cannot be read, or nothing can be written there.
    """
    repository, output = settings.repository, settings.output
    if not is_repository(repository):
        raise CommandError(
            f"a repository has a name like 'user/model-smoothcache', got {repository!r}"
        )
    if output is not None:
        refuse_existing([output], force=settings.force)
    found = front_of(settings.sources)
    front = replace(
        found, base_model=settings.base_model or found.base_model, package=modality.command
    )
    console = Console(soft_wrap=True, highlight=False)
    if output is not None:
        front.save_pretrained(output)
        done, named = f"Written to {output}; nothing was pushed.", str(output)
    else:
        with console.status(f"pushing to {repository}"):
            address = front.push_to_hub(repository, **_options(settings))
        done, named = f"Pushed to {address}.", repository
    show_schedules(front.schedules, console)
    console.print(done)
    console.print(f"Next: {modality.command} sample --schedule {named} --speedup 2")


def _options(settings: Push) -> Upload:
    options: Upload = {"revision": settings.revision, "create_pr": settings.pull_request}
    if settings.private:  # else as the account is set up
        options["private"] = True
    if settings.message is not None:
        options["commit_message"] = settings.message
    return options


def front_of(sources: Sequence[Path]) -> Front:
    """Return the schedules that files, or a folder, hold.

    Raises:
        CommandError: There are none, or two files of one name, or a folder beside something else.
        SmoothCacheError: One of them cannot be read.
    """
    folders = [each for each in sources if each.is_dir()]
    if folders:
        if len(sources) > 1:
            raise CommandError(f"give schedules, or one folder; got {[str(s) for s in sources]}")
        return _front_of_folder(folders[0])
    names = [file.stem for file in sources]
    if not names or len(set(names)) < len(names):
        raise CommandError(f"give schedules of different file names, got {names}")
    return Front(schedules={file.stem: Schedule.load(file) for file in sources})


def _front_of_folder(folder: Path) -> Front:
    if (folder / INDEX).exists():
        pictures = {each.name: each.read_bytes() for each in sorted(folder.glob("*.png"))}
        return replace(Front.from_pretrained(folder), pictures=pictures)
    if (folder / "report.json").exists():
        return front_of_report(folder)
    files = [file for file in sorted(folder.glob("*.json")) if not file.match("*.v1.json")]
    if not files:
        raise CommandError(f"{str(folder)!r} holds no schedules (*.json)")
    return Front(schedules={file.stem: Schedule.load(file) for file in files})
