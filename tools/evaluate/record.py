"""The record of an evaluation, which README quotes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoothcache_core.reports import ReportRow

from tools.bench.records import FOLDER, Record, Row, new_record
from tools.evaluate.policies import POLICIES
from tools.evaluate.preparing import Entry
from tools.evaluate.sections import Found
from tools.evaluate.tables import row_of

QUESTION = "Which policy errs least at equal compute, over image, video and audio?"

NOTES = (
    "compute is MACs over those of the plain run, by the schedule; budget is the compute that was "
    "asked for. rel_l2 is the relative L2 distance of the final latents from the plain run's of "
    "the same noise, mean over all samples; low and high are the ends of its 95 % bootstrap "
    "interval.",
    "predicted is the error that the schedule promised from calibration samples alone; of fitted "
    "schedules it was measured on them.",
    "seconds is the median time of one batch; plain runs and those of policies were made one after "
    "the other, by processes of one thread each, so they tell orders of magnitude only.",
)


def record_of(founds: Sequence[Found]) -> Record:
    """Return the record of what was found."""
    first = next(found for found in founds if found.subject is not None)
    assert first.subject is not None
    size = first.subject.size
    return new_record(
        what="evaluation",
        modality=" and ".join(found.kind.name for found in founds),
        question=QUESTION,
        packages=("torch", "diffusers", "stable-audio-tools", "smoothcache-core"),
        seeds={"calibration": list(size.calibration_seeds), "evaluation": list(size.seeds)},
        settings={"samples of a seed": _samples(founds)},
        rows=[row for found in founds for row in _rows(found)],
        notes=(*NOTES, *(f"{name}: {POLICIES[name].title}" for name in _policies(founds))),
        refused=[_refused(found, e) for found in founds for e in found.entries if not e.made],
    )


def _samples(founds: Sequence[Found]) -> str:
    sizes = {found.kind.name: found.subject.size for found in founds if found.subject is not None}
    return ", ".join(
        f"{name} {size.samples} (calibration {size.calibration_samples})"
        for name, size in sizes.items()
    )


def _policies(founds: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(entry.policy for found in founds for entry in found.entries))


def _rows(found: Found) -> Sequence[Row]:
    pairs = [(entry, row_of(found, entry)) for entry in found.entries]
    plain = [] if found.report is None else [_row(found, None, found.report.row("plain"))]
    return plain + [_row(found, entry, row) for entry, row in pairs if row is not None]


def _row(found: Found, entry: Entry | None, row: ReportRow) -> dict[str, Any]:
    assert found.subject is not None
    made: dict[str, Any] = {
        "modality": found.kind.name,
        "model": found.subject.source.model,
        "solver": row.solver,
        "evaluations": row.evaluations,
        "budget": 1.0 if entry is None else entry.budget,
        "policy": "plain" if entry is None else entry.policy,
        "ours": entry is not None and entry.ours,
        "compute": row.compute,
        "rel_l2": row.rel_l2,
        "low": row.rel_l2_low,
        "high": row.rel_l2_high,
        "predicted": None if row.prediction is None else row.prediction.error,
        "accuracy": row.accuracy,
        "seconds": row.seconds,
        "speedup": row.speedup,
    }
    return {key: value for key, value in made.items() if value is not None}


def _refused(found: Found, entry: Entry) -> Row:
    return {
        "modality": found.kind.name,
        "policy": entry.policy,
        "budget": entry.budget,
        "reason": entry.reason,
    }


def save_record(founds: Sequence[Found], folder: Path = FOLDER) -> Path:
    """Write the record and its table; return the path of the JSON file."""
    return record_of(founds).save(folder)
