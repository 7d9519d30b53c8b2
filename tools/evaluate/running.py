"""All of an evaluation: one modality after the other, then the report."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.ranks import Ranks, launched_ranks
from smoothcache_core.cli.tables import print_table
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.locking import locked

from tools.evaluate.record import save_record
from tools.evaluate.sections import Found, found_of
from tools.evaluate.settings import Settings
from tools.evaluate.tables import all_tables
from tools.evaluate.writing import FORMAT, NUMBERS, summary_of, write_all

_HEAD = 200  # characters of a report that hold its format


def evaluate_all(settings: Settings) -> bool:
    """Evaluate, and write the report; several processes share the work if a launcher started them.

    Args:
        settings: What was asked for.

    Returns:
        Whether all of it is in the report; True in all processes but the first.

    Raises:
        CommandError: The output folder is of something else, or another process writes to it.
        OutputError: The report cannot be written.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    check_output(settings.output, folder=True)
    with launched_ranks() as ranks, ExitStack() as stack:
        if ranks.first:
            stack.enter_context(locked(settings.output / "evaluation", CommandError))
            _refuse_others(settings)
        return _evaluated(settings, ranks)


def _refuse_others(settings: Settings) -> None:
    """Refuse a folder that holds something else than an evaluation."""
    report = settings.output / NUMBERS
    known = report.exists() and f'"{FORMAT}"' in report.read_text(errors="replace")[:_HEAD]
    if not known and not any(settings.output.glob("*/settings.json")):
        there = [each for each in settings.output.iterdir() if not each.name.startswith(".")]
        refuse_existing(there, force=settings.force)


def _evaluated(settings: Settings, ranks: Ranks) -> bool:
    console, start = Console(highlight=False, soft_wrap=True, quiet=not ranks.first), time.time()
    found = [found_of(kind, settings, ranks, console) for kind in settings.kinds]
    whole = [each for each in found if each is not None]
    if ranks.first:
        with console.status("writing the report"):
            page = write_all(whole, settings)
        _show(page, whole, settings, console, time.time() - start)
    ranks.wait()  # a process that ends, and fails at that, would end the one that writes
    return not ranks.first or not any(each.failed for each in whole)


def _show(
    page: Path, found: Sequence[Found], settings: Settings, console: Console, seconds: float
) -> None:
    """Say what came out and where it is."""
    for table in all_tables(found, settings.chosen_budgets):
        console.print(f"\n[bold]{table.caption}[/]")
        shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if index and not table.words else "left")
        for row in table.rows:
            shown.add_row(*row)
        print_table(shown, console)
    for line in summary_of(found):
        console.print(line.replace("`", ""))
    if settings.record:
        console.print(f"The record is {save_record(found)}.")
    console.print(f"Done in {seconds:.0f} s. Open {page}.")
