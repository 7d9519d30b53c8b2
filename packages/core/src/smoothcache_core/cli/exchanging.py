"""What the commands `import` and `export` do."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from smoothcache_core import Schedule
from smoothcache_core.cli.commands.exchange import Export, Import
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.known import ROUTER
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.shared import opened
from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import check_output, read_file, write_atomically

_MOST = 2**24  # bytes of a text file; lists over steps have hundreds


def import_file(settings: Import, modality: Modality) -> None:
    """Write the schedule that a file of another program says.

    Args:
        settings: The file, its format, and where to write.
        modality: Whose program this is.

    Raises:
        SmoothCacheError: The file is not what it is said to be, or nothing can be written there.
    """
    file = settings.file
    output = settings.output or file.with_name(f"{file.stem}-imported.json")
    refuse_existing([output], force=settings.force)
    check_output(output)
    schedule = _imported(settings)
    schedule.save(output)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{output}: {schedule!r}")
    console.print(f"Next: {modality.command} evaluate {output}")


def _imported(settings: Import) -> Schedule:
    if settings.format == ROUTER:
        from smoothcache_core.compat.routers import load_router

        return load_router(
            settings.file,
            threshold=settings.threshold,
            policy=settings.policy,
            components=settings.components,
        )
    if settings.format == "sd-cpp":  # the one that is no JSON
        text = read_file(settings.file, "list", ScheduleError, most=_MOST).decode(errors="replace")
        return Schedule.imported(text.strip().strip('"'), format="sd-cpp")
    return Schedule.load(settings.file, format=settings.format)


def export_file(settings: Export, modality: Modality) -> None:
    """Write a schedule as another program takes it, or print it.

    Args:
        settings: The schedule, the format, and where to write.
        modality: Whose program this is.

    Raises:
        SmoothCacheError: The format cannot say what the schedule says, or nothing can be written
            there.
    """
    del modality
    if settings.output is not None:
        refuse_existing([settings.output], force=settings.force)
        check_output(settings.output)
    text = _text(opened(settings.schedule, settings.speedup).exported(settings.format))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if settings.output is None:
        console.print(text, end="")
        return
    write_atomically(settings.output, text.encode())
    console.print(f"{settings.output}: written")


def _text(document: Any) -> str:
    return f"{document if isinstance(document, str) else json.dumps(document)}\n"
