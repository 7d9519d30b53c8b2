"""What the command `memory` does."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from smoothcache_core import Calibration, Schedule
from smoothcache_core.adapters import Adapter
from smoothcache_core.adapters.levels import Level, level_of
from smoothcache_core.calibrating import cost_from_shapes
from smoothcache_core.cli.commands.memory import Memory
from smoothcache_core.cli.destinations import refuse_existing
from smoothcache_core.cli.loading import sampler_for, with_passes
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.tables import kept_line, print_table, shown_bytes
from smoothcache_core.errors import CommandError
from smoothcache_core.files import check_output
from smoothcache_core.schedule import Cost, Fingerprint
from smoothcache_core.schedule.cost_file import CostFile


def show_memory(settings: Memory, modality: Modality) -> None:
    """Say what every target would keep at a size, and what given schedules would.

    Args:
        settings: What to sample, and the files.
        modality: Whose program this is.

    Raises:
        CommandError: A schedule is of sites that nothing else is of.
        SmoothCacheError: The model or a file cannot be used.
    """
    if settings.output is not None:
        refuse_existing([settings.output], force=settings.force)
        check_output(settings.output)
    plans = {file: Schedule.load(file) for file in settings.schedules}
    known = None if settings.calibration is None else Calibration.load(settings.calibration)
    fingerprints = [each.fingerprint for each in plans.values()]
    if known is not None:
        fingerprints += [each.fingerprint for each in known.levels.values()]
    sampler = sampler_for(settings.source, plans)
    sampler.show_progress(False)
    first = fingerprints[0] if fingerprints else Fingerprint()
    taken = with_passes(sampler, first)
    console = Console(soft_wrap=True, highlight=False)
    costs: dict[Level, Cost] = {}
    with console.status("looking at shapes"):
        for level, adapter in _adapters(taken.adapter, fingerprints).items():
            own = taken.with_adapter(adapter)
            costs[level] = cost_from_shapes(own, seed=settings.source.seed)
    macs = next(iter(costs.values())).total
    console.print(f"One evaluation computes {macs:.3g} MACs. {kept_line(costs)}")
    if plans:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("schedule", no_wrap=True)
        table.add_column("kept", justify="right", no_wrap=True)
        for file, plan in plans.items():
            cost = costs.get(level_of(plan.fingerprint.adapter), costs["parts"])
            table.add_row(file.name, shown_bytes(plan.predicted_bytes(cost)))
        print_table(table, console)
    if settings.output is not None:
        CostFile(costs=tuple(costs.values())).save(settings.output)
        console.print(
            f"Written to {settings.output}. Next: {modality.command} plan CALIBRATION --at "
            f"{settings.output} --compute 0.5"
        )


def _adapters(adapter: Adapter, known: Iterable[Fingerprint]) -> dict[Level, Adapter]:
    """Return the adapter of each level of sites that files are of."""
    found: dict[Level, Adapter] = {"parts": adapter}
    for each in known:
        recorded, level = each.recorded_adapter, level_of(each.adapter)
        if level != "parts":
            if recorded is None:
                raise CommandError(f"a file is of {level}, but does not record which they are")
            found.setdefault(level, recorded)
    return found
