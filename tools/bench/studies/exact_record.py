"""How near to the exact solution does a run come, cached or not, at equal compute?

    python -m tools.bench exact image
    python -m tools.bench exact audio
    python -m tools.bench exact video

The plain run of 20 to 50 steps is itself away from the solution that its solver approximates.
Samples the shipped models by plans toward the plain run and toward the exact solution, by other
caches, and by other solvers with as many evaluations, each on the grid that is best for it; and
says how far all of them are from the plain run and from the exact solution of the same noise.
Writes a record into benchmarks/: a JSON file, tables and pictures. What is finished is kept, so a
study that was ended goes on; cases can be measured at the same time by several processes with
--case, and put together by one more run with all of them.
"""

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from smoothcache_core.evaluation.sheets import MAGNIFIED, PictureRow, sample_sheet
from smoothcache_core.files import write_atomically
from smoothcache_core.metrics import relative_l2
from torch import Tensor

from tools.bench.bench import CALIBRATION_SEED
from tools.bench.models.model import Modality
from tools.bench.policies import PLAIN, Policy
from tools.bench.records import Record, Row, grid, new_record
from tools.bench.studies.exact import Measured, Sampled, measure, of_halves
from tools.bench.studies.exact_settings import Settings
from tools.bench.studies.quality_record import predictions

QUESTION = "How near to the exact solution does a run come, cached or not, at equal compute?"
EXACT = "exact"
SHOWN_AT = 0.5
_COLUMNS = 6  # samples in a sheet
_DPI = 90  # of a sheet; its pictures are of few pixels

NOTES = (
    "exact_rel_l2 is the relative L2 distance of the final latents from the exact solution: what "
    "the probability flow from the same noise at the run's first timestep ends with, by "
    "DPM-Solver++ 3M in many evaluations, spaced half by time and half by log-SNR. rel_l2 is that "
    "from the plain run's final latents. Both are means over all samples, with the standard "
    "deviation of the means of the evaluation seeds as _spread. of_plain is exact_rel_l2 over that "
    "of the plain run: below 1, a run is nearer to the exact solution than the plain run is.",
    "doubt is the distance of the exact solution from that of half as many evaluations, on the "
    "choosing samples: what is smaller than that is not known.",
    "toward plain and toward exact are policies of this library with either aim, fitted after "
    "`fit`; predicted_error is what they promise of the distance from their aim, ratio that over "
    "the measured one.",
    "solver is another solver of diffusers in as many evaluations as the budget allows, on the "
    "grid, and with the order, that is nearest to the exact solution on the choosing samples; "
    "grids are uniform in time, in log-SNR (the same as exponential) and Karras', begin where the "
    "plain run does, and are not rounded. fewer-steps is the plain solver.",
    "evenly computes evenly spaced whole evaluations, and teacache those at which the changes that "
    "TeaCache's polynomial foretells add up to a threshold, frozen on the choosing samples; both "
    "reuse the denoiser's output or extrapolate it. Settings of all others are chosen on the "
    "choosing samples, too.",
)
HALF_NOTE = (
    "Rows with calibrated are judged on one half of the classes: plans calibrated on all classes, "
    "and on 8 samples of the other half."
)


def record(modality: Modality, settings: Settings) -> tuple[Record, bytes | None]:
    """Measure, and return the record with its pictures, if there are any."""
    rows: list[Row] = []
    refused: dict[tuple[str, str, str], list[float]] = {}
    doubts: dict[str, float] = {}
    pictures = None
    for found in measure(modality, settings):
        rows += rows_of(found)
        doubts[str(found.case)] = found.doubt
        for label, budget, reason in found.refused:
            refused.setdefault((str(found.case), label, reason), []).append(budget)
        if settings.pictures and pictures is None:
            pictures = drawn(found)
    if settings.half:
        rows += [row for found in of_halves(modality, settings) for row in rows_of(found)]
    made = to_record(modality, settings, rows, doubts, refused)
    return made, pictures


def to_record(
    modality: Modality,
    settings: Settings,
    rows: Sequence[Row],
    doubts: Mapping[str, float],
    refused: Mapping[tuple[str, str, str], Sequence[float]],
) -> Record:
    """Return the record of what was measured.

    Args:
        modality: The modality.
        settings: The settings.
        rows: Its rows.
        doubts: How exact the exact solutions are, by case.
        refused: Budgets by case, policy and reason.
    """
    return new_record(
        what="exact",
        modality=modality.name,
        question=QUESTION,
        packages=modality.packages,
        device=torch.device(settings.device),
        seeds={"calibration": [CALIBRATION_SEED], "evaluation": list(settings.seeds)},
        settings={
            "samples": f"{settings.samples} of each evaluation seed",
            "calibration samples": settings.calibration_samples,
            "choosing samples": settings.choosing_samples,
            "evaluations of the exact solution": settings.reference_steps,
            "dtype": "float32",
            **{f"doubt of {case}": doubt for case, doubt in doubts.items()},
        },
        rows=rows,
        notes=(*NOTES, *((HALF_NOTE,) if settings.half else ()), *modality.notes),
        refused=[
            {
                "case": case,
                "policy": label,
                "budgets": ", ".join(f"{budget:g}" for budget in budgets),
                "reason": reason,
            }
            for (case, label, reason), budgets in refused.items()
        ],
    )


# ---------------------------------------------------------------------------- rows


def rows_of(measured: Measured) -> list[Row]:
    """Return the rows of a case, by budget and then by distance from the exact solution."""
    judge = _Judge(measured)
    solution = Sampled(
        policy=Policy(name=EXACT, setting="-", attach=PLAIN.attach),
        budget=1.0,
        latents=measured.exact,
        compute=math.nan,
    )
    every = [measured.plain, solution, *measured.sampled]
    rows = [judge.row(each) for each in every]
    return sorted(rows, key=lambda row: (-row["budget"], row["exact_rel_l2"]))


class _Judge:
    """Compares samples with the plain ones, with the exact ones, and with real ones."""

    def __init__(self, measured: Measured) -> None:
        self._of = measured
        sampler = measured.bench.of_batch(len(measured.exact[0]))
        self._judged = measured.bench.modality.judged(sampler, measured.seeds)
        self._plain = torch.cat(list(measured.plain.latents))
        self._plain_distance, _ = _distance(measured.exact, measured.plain.latents)

    def row(self, sampled: Sampled) -> dict[str, Any]:
        """Return the row of a policy at a budget."""
        of, policy = self._of, sampled.policy
        row: dict[str, Any] = {
            "model": of.bench.model,
            "full_size": False,
            "solver": of.bench.solver.title,
            "evaluations": policy.evaluations or of.case.steps,
            "plain_evaluations": of.case.steps,
            "guidance": of.case.guidance,
            **({"calibrated": of.calibrated} if of.calibrated else {}),
            "budget": sampled.budget,
            "policy": policy.label,
            "setting": policy.setting,
            "ours": policy.ours,
        }
        if math.isfinite(sampled.compute):
            row["compute"] = sampled.compute
        row |= self._distances(sampled.latents)
        return row | self._promise(sampled, row) | self._quality(torch.cat(list(sampled.latents)))

    def _distances(self, latents: Sequence[Tensor]) -> dict[str, float]:
        exact, exact_spread = _distance(self._of.exact, latents)
        plain, plain_spread = _distance(self._of.plain.latents, latents)
        return {
            "exact_rel_l2": exact,
            "exact_rel_l2_spread": exact_spread,
            "of_plain": exact / self._plain_distance,
            "rel_l2": plain,
            "rel_l2_spread": plain_spread,
        }

    def _promise(self, sampled: Sampled, row: Row) -> dict[str, float]:
        known = predictions(sampled.policy.schedule)
        if "predicted_error" not in known:
            return {}
        aim = "exact_rel_l2" if "exact" in sampled.policy.name else "rel_l2"
        kept = ("predicted_error", "predicted_low", "predicted_high")
        found = {name: known[name] for name in kept if name in known}
        return found | {"ratio": known["predicted_error"] / row[aim]} if row[aim] else found

    def _quality(self, every: Tensor) -> dict[str, float]:
        found = {n: float(m(self._plain, every).mean()) for n, m in self._judged.metrics.items()}
        found |= {name: summary(every) for name, summary in self._judged.summaries.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _distance(aim: Sequence[Tensor], latents: Sequence[Tensor]) -> tuple[float, float]:
    """Return the mean relative L2 distance, and the spread of the means of seeds."""
    pairs = zip(aim, latents, strict=True)
    means = [float(relative_l2(one, other).mean()) for one, other in pairs]
    return statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else 0.0


# ---------------------------------------------------------------------------- what is shown


def save(made: tuple[Record, bytes | None], folder: Path) -> Path:
    """Write the record, its tables with distances over budgets first, and the pictures."""
    record, pictures = made
    path = record.save(folder)
    before, after = record.to_markdown().split(f"{record.question}\n", 1)
    parts = [record.question, *tables(record.rows)]
    if pictures is not None:
        write_atomically(path.with_suffix(".png"), pictures)
        parts.append(f"![Samples and what they lack]({path.with_suffix('.png').name})")
    text = before + "\n\n".join([*parts, "All numbers:"]) + "\n" + after
    write_atomically(path.with_suffix(".md"), text.encode())
    return path


def tables(rows: Sequence[Row]) -> list[str]:
    """Return a title and a Markdown table of distances for every case."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        keys = ("model", "solver", "plain_evaluations", "guidance", "calibrated")
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    parts = []
    for (model, solver, steps, guidance, calibrated), here in found.items():
        about = f"{model}, {solver}, {steps} evaluations, guidance {guidance:g}"
        also = f"; calibrated on {calibrated}, judged on other classes" if calibrated else ""
        parts += [f"**{about}**{also}: distance from the exact solution, by compute", pivot(here)]
    return parts


def pivot(rows: Sequence[Row]) -> str:
    """Return distances from the exact solution as a table of policies and budgets."""
    lines: dict[str, dict[float, Row]] = {}
    for row in rows:
        if row["policy"] != EXACT:
            lines.setdefault(row["policy"], {})[row["budget"]] = row
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    best = {b: min(_value(line[b]) for line in lines.values() if b in line) for b in budgets}
    cells = []
    for label, line in sorted(lines.items(), key=lambda item: _standing(item[1], best)):
        ours = next(iter(line.values()))["ours"]
        shown = [_cell(line.get(budget), best[budget]) for budget in budgets]
        cells.append([f"**{label}**" if ours else label, *shown])
    titles = ["policy", *(f"{budget:g}" for budget in budgets)]
    return grid(titles, cells, right=range(1, len(titles)))


def _value(row: Row) -> float:
    return row["exact_rel_l2"]


def _standing(line: Mapping[float, Row], best: Mapping[float, float]) -> float:
    return statistics.fmean(math.log(_value(row) / best[b]) for b, row in line.items())


def _cell(row: Row | None, best: float) -> str:
    if row is None:
        return "-"
    return f"**{_value(row):.3g}**" if _value(row) == best else f"{_value(row):.3g}"


# ---------------------------------------------------------------------------- pictures


@dataclass(frozen=True, kw_only=True)
class _Line:
    """Samples that are drawn, and how they are called."""

    name: str
    latents: Tensor
    distance: float


def drawn(measured: Measured) -> bytes:
    """Return a sheet as PNG: samples, and how they differ from the exact solution, magnified."""
    bench = measured.bench
    sampler = bench.of_batch(len(measured.exact[0]))
    exact = bench.modality.pictured(sampler, measured.exact[0])[:_COLUMNS]
    rows = [PictureRow(name="exact", remark="", pictures=exact)]
    for line in _lines(measured):
        pictures = bench.modality.pictured(sampler, line.latents)[:_COLUMNS]
        apart = (pictures - exact).abs().mul(MAGNIFIED).clamp(max=1.0)
        about = f"distance {line.distance:.2g}"
        rows.append(PictureRow(name=line.name, remark=about, pictures=pictures))
        rows.append(PictureRow(name="", remark=f"|difference| x {MAGNIFIED}", pictures=apart))
    conditions = sampler.conditions_of(measured.seeds[0])[:_COLUMNS]
    captions = _told_apart([sampler.label(each) for each in conditions])
    picture = io.BytesIO()
    title = f"{bench.model}, {bench.solver.title}, {measured.case.steps} evaluations"
    sheet = sample_sheet(rows, captions=captions, title=title)
    sheet.savefig(picture, format="png", dpi=_DPI)
    return picture.getvalue()


def _told_apart(labels: Sequence[str]) -> list[str]:
    """Return labels without the parts that all of them have, such as one length of all sounds."""
    parts = [label.split(", ") for label in labels]
    shared = set(parts[0]).intersection(*parts)
    own = [", ".join(part for part in each if part not in shared) for each in parts]
    return [short or label for short, label in zip(own, labels, strict=True)]


def _lines(measured: Measured) -> list[_Line]:
    """Return the plain run, and ours with either aim, fitted if there is such a one."""
    budgets = {each.budget for each in measured.sampled}
    at = min(budgets - {1.0}, key=lambda budget: abs(budget - SHOWN_AT), default=1.0)
    wanted = [("toward plain", at), ("toward exact", at), ("toward exact", 1.0)]
    found = [("plain", measured.plain)]
    known = {(each.policy.name, each.budget): each for each in measured.sampled}
    for aim, budget in dict.fromkeys(wanted):
        names = [name for name in (f"{aim}, fitted", aim) if (name, budget) in known]
        found += [(f"{name}, {budget:g}", known[name, budget]) for name in names[:1]]
    return [
        _Line(name=n, latents=s.latents[0], distance=_distance(measured.exact, s.latents)[0])
        for n, s in found
    ]
