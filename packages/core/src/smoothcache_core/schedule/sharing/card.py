"""The card of a shared folder: its README.md, as the model hub shows it."""

import json
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from smoothcache_core.schedule.content import Content
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import described
from smoothcache_core.schedule.sharing.hub import LIBRARY, is_repository
from smoothcache_core.schedule.sharing.index import Entry, Estimate, Index

CARD = "README.md"
"""Name of the card's file."""

_WHOLE = 2.0  # speed-up from which whole numbers are fine enough to ask for


def card(
    index: Index,
    schedules: Mapping[str, Content],
    *,
    where: str,
    package: str | None,
    pictures: Sequence[str],
) -> str:
    """Return the card of a shared folder, Markdown with YAML before it.

    Args:
        index: The index of the folder.
        schedules: Its schedules by name.
        where: The repository or the folder, as a user types it.
        package: The package whose lines are shown; the lines of core if None.
        pictures: Names of PNG files that are shown.
    """
    first = next(iter(schedules.values()))
    environment = Environment(
        loader=PackageLoader("smoothcache_core"), undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("card.md").render(
        yaml=_metadata(index, package),
        model=index.base_model or first.fingerprint.model_class or "a diffusion transformer",
        table=_table(index, schedules),
        measured=_how_measured(index),
        facts=_facts(first, first.fingerprint),
        where=where,
        repository=is_repository(where),
        speedup=_fastest(index),
        name=index.schedules[0].name,
        package=package,
        base_model=index.base_model,
        pictures=pictures,
    )


def _metadata(index: Index, package: str | None) -> list[str]:
    """Return lines of YAML; text in JSON's quotes is text in YAML's."""
    kind = () if package is None else (package,)
    tags = [LIBRARY, *kind, "caching", "diffusion", "acceleration"]
    base = [] if index.base_model is None else [f"base_model: {json.dumps(index.base_model)}"]
    relation = ["base_model_relation: adapter"] if base else []  # the model itself stays as it is
    return [*base, *relation, f"library_name: {LIBRARY}", f"tags: {json.dumps(tags)}"]


def _table(index: Index, schedules: Mapping[str, Content]) -> list[str]:
    """Return the lines of a Markdown table, without columns that nothing is known of."""
    columns: dict[str, list[str]] = {
        "schedule": [f"[{entry.name}]({entry.file})" for entry in index.schedules],
        "compute": [_number(entry.compute, ".3f") for entry in index.schedules],
        "speed-up by MACs": [_number(entry.speedup, ".2f", "x") for entry in index.schedules],
        "error is from": [_aim(schedules[entry.name]) for entry in index.schedules],
        "predicted error": [_shown(entry.predicted) for entry in index.schedules],
        "measured error (95 %)": [_shown(entry.measured) for entry in index.schedules],
        "measured speed-up": [_timed(entry) for entry in index.schedules],
        "made by": [_cell(described(schedules[each.name].source)) for each in index.schedules],
    }
    kept = {title: cells for title, cells in columns.items() if any(cells)}
    ends = ("schedule", "made by")
    rule = ["---" if title in ends else "---:" for title in kept]
    rows = zip(*kept.values(), strict=True)
    lines = [list(kept), rule, *([cell or "-" for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _aim(schedule: Content) -> str:
    """Return what errors are distances from, where that is not the plain run."""
    return "exact solution" if schedule.toward == "exact" else ""


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _shown(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.error:.2g}"
    return f"{estimate.error:.2g} ({estimate.low:.2g} to {estimate.high:.2g})"


def _timed(entry: Entry) -> str:
    return "" if entry.measured is None else _number(entry.measured.speedup, ".2f", "x")


def _how_measured(index: Index) -> str:
    """Return what errors were measured on, and where seconds were."""
    known = [entry.measured for entry in index.schedules if entry.measured is not None]
    if not known:
        return ""
    samples = sorted({each.samples for each in known})
    devices = sorted({each.device for each in known if each.device is not None})
    where = f"; seconds on {', '.join(devices)}" if devices else ""
    return f"{' and '.join(map(str, samples))} samples{where}"


def _facts(schedule: Content, about: Fingerprint) -> list[tuple[str, str]]:
    """Return what the schedules are for, as far as it is known."""
    guidance = ", ".join(f"{name} {value:g}" for name, value in (about.guidance or {}).items())
    shape = None if about.latent_shape is None else " x ".join(map(str, about.latent_shape))
    known = {
        "model class": about.model_class,
        "solver": about.solver,
        "evaluations of one run": str(schedule.evaluations),
        "guidance": guidance or None,
        "latent": shape,
        "data type": about.dtype,
        "calibrated with seeds": ", ".join(map(str, schedule.source.seeds)) or None,
        "versions": ", ".join(f"{name} {value}" for name, value in about.versions.items()) or None,
    }
    return [(name, _cell(value)) for name, value in known.items() if value is not None]


def _cell(text: str) -> str:
    """Return text that means nothing in Markdown or HTML, and stays within its cell."""
    for character in "\\`*_[]|<>":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _fastest(index: Index) -> str | None:
    """Return the largest speed-up there is, as a user may ask for it: 4 where 4.19 is there.

    It is cut off to whole numbers from 2 on, so that of several that are nearly as fast the one of
    the least error is taken.
    """
    known = [entry.speedup for entry in index.schedules if entry.speedup is not None]
    if not known:
        return None
    most = max(known)
    return f"{int(most)}" if most >= _WHOLE else f"{int(most * 10) / 10:g}"
