"""The report: JSON, Markdown and a page across modalities, and a folder of its own for each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from smoothcache_core.cli.evaluating import SHEET, sampling_command, typed
from smoothcache_core.files import write_atomically
from smoothcache_core.reports.names import schedule_files
from smoothcache_core.reports.page import Media, Page, Section, Table, section_of, write_page
from smoothcache_core.reports.page.points import headline_of
from smoothcache_core.reports.text import counted, markdown_table

from tools.bench.ranking import standings
from tools.evaluate.policies import POLICIES
from tools.evaluate.preparing import name_of
from tools.evaluate.sections import Found, pictured
from tools.evaluate.settings import Settings
from tools.evaluate.subject import Subject
from tools.evaluate.tables import all_tables, cells_of

FORMAT = "smoothcache-evaluation"
TITLE = "One evaluation over image, video and audio"
_MORE = ("clips.gif", "waveforms.png")  # what modalities draw beside their sheet
TEXT, NUMBERS = "report.md", "report.json"


def write_all(founds: Sequence[Found], settings: Settings) -> Path:
    """Write the report of every modality, then that across them.

    Args:
        founds: What was found of each.
        settings: What was asked for.

    Returns:
        The file to open.

    Raises:
        OutputError: A file cannot be written.
    """
    founds = [_shown(found, settings) for found in founds]
    output, tables = settings.output, all_tables(founds, settings.chosen_budgets)
    for found in founds:
        _write_modality(found, settings)
    content = json.dumps(values_of(founds, settings), indent=2, allow_nan=False) + "\n"
    write_atomically(output / NUMBERS, content.encode())
    write_atomically(output / TEXT, to_markdown(founds, settings, tables).encode())
    return _write_page(founds, settings, tables)


def _shown(found: Found, settings: Settings) -> Found:
    """Return what was found, with samples made for pages once, of the policies of one budget.

    What the page recommends is shown too, if it is of another budget.
    """
    if found.evaluation is None:
        return found
    names = [name_of(policy, found.least_budget) for policy in settings.chosen_policies]
    best = headline_of(found.evaluation.report.rows, {}, {})
    names += [] if best is None else [best.policy]
    few = pictured(found.evaluation.judging, names)
    made = few.comparisons(found.evaluation.report)
    judging = replace(few, comparisons=lambda report: made)
    return replace(found, evaluation=replace(found.evaluation, judging=judging))


def _write_modality(found: Found, settings: Settings) -> None:
    """Write the report folder of a modality."""
    if found.evaluation is None or found.subject is None:
        return
    title = f"{found.subject.source.model}, plain, and at {found.least_budget:g} of the compute"
    found.evaluation.write(
        settings.output / found.kind.name,
        calibration=found.calibration,
        title=title,
        command=_command(found.subject),
    )


def _command(subject: Subject) -> str:
    return sampling_command(subject.source, subject.modality)


# ---------------------------------------------------------------------------- for programs


def values_of(founds: Sequence[Found], settings: Settings) -> dict[str, Any]:
    """Return the report as JSON values."""
    cells = cells_of(founds)
    by_budget = {f"{b:g}": standings(cells, b) for b in settings.chosen_budgets}
    return {
        "format": FORMAT,
        "version": 1,
        "budgets": list(settings.chosen_budgets),
        "policies": {name: POLICIES[name].title for name in settings.chosen_policies},
        "standings": [asdict(each) for each in standings(cells)],
        "standings_by_budget": {b: [asdict(each) for each in of] for b, of in by_budget.items()},
        "modalities": {found.kind.name: _values(found) for found in founds},
    }


def _values(found: Found) -> dict[str, Any]:
    report = None if found.report is None else json.loads(found.report.to_json())
    return {
        "model": found.model or (found.subject.source.model if found.subject else ""),
        "missing": found.missing,
        "remarks": list(found.remarks),
        "entries": [asdict(entry) for entry in found.entries],
        "report": report,
    }


# ---------------------------------------------------------------------------- for readers


def to_markdown(founds: Sequence[Found], settings: Settings, tables: Sequence[Table]) -> str:
    """Return the report as Markdown, with what stands in the folders of the modalities linked."""
    parts = [f"# {TITLE}", *summary_of(founds), *(_table(table) for table in tables)]
    for found in founds:
        parts.append(f"## {found.kind.name.capitalize()}")
        parts += [found.missing] if found.missing else list(found.remarks)
        if found.subject is not None and found.report is not None:
            folder = found.kind.name
            model, steps = found.subject.source.model, found.subject.sampler.steps
            parts.append(
                f"{model}, {steps} steps, {counted(found.report.num_samples, 'sample')}: "
                f"[all numbers, pictures and files]({folder}/{TEXT})."
            )
            parts.append(f"![{model}]({folder}/samples.png)")
    return "\n\n".join(parts) + "\n"


def summary_of(founds: Sequence[Found]) -> list[str]:
    """Return what came out, a sentence or two."""
    ranked = standings(cells_of(founds))
    done = [found.kind.name for found in founds if found.report is not None]
    if not ranked:
        return ["Nothing could be measured; see below why."]
    best, *others = ranked
    text = f"Over {_listed(done)}, `{best.policy}` errs least at equal compute"
    other = next((each for each in others if not each.ours), None)
    if other is not None:
        text += (
            f"; the best policy of others, `{other.policy}`, errs {other.ratio / best.ratio:.2g} "
            "times as much (geometric mean)"
        )
    return [f"{text}."]


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _table(table: Table) -> str:
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(filter(None, (f"## {table.caption}", markdown_table(table), notes)))


def _write_page(founds: Sequence[Found], settings: Settings, tables: Sequence[Table]) -> Path:
    page = Page(
        title=TITLE,
        summary=summary_of(founds),
        sections=[_section(found, settings.output) for found in founds],
        tables=tables,
        notices=[f"{found.kind.name}: {found.missing}" for found in founds if found.missing],
        files={NUMBERS: "all numbers, for programs", TEXT: "this report as Markdown"},
    )
    return write_page(page, settings.output)


def _section(found: Found, output: Path) -> Section:
    """Return the section of a modality, with the files that its folder has."""
    name, title = found.kind.name, found.kind.name.capitalize()
    if found.evaluation is None or found.subject is None:
        return Section(name=name, title=title, folder=name, notices=[found.missing])
    report, schedules = found.evaluation.report, found.evaluation.schedules
    command, model = _command(found.subject), found.subject.source.model
    pictures = (file for file in (SHEET, *_MORE) if (output / name / file).exists())
    return section_of(
        report,
        name=name,
        title=f"{title}: {model}, {found.subject.sampler.steps} steps",
        folder=name,
        schedules=schedules,
        calibration=found.calibration,
        comparisons=found.evaluation.judging.comparisons(report),
        pictures=[Media(file=file, alt=f"{title}: {Path(file).stem}") for file in pictures],
        explanations=found.evaluation.judging.about,
        lines={
            policy: typed(command, output / name / file)
            for policy, file in schedule_files(schedules).items()
        },
        notices=found.remarks,
    )
