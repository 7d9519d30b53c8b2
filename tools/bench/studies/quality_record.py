"""Which caching policy changes the samples least at equal compute?

    python -m tools.bench quality image --solver ddim --steps 50
    python -m tools.bench quality image --solver dpmsolver++ --steps 20
    python -m tools.bench quality image --model digits-flow --steps 50
    python -m tools.bench quality audio --solver dpmpp-3m-sde --steps 100
    python -m tools.bench quality audio --solver dpmpp-2m --steps 50
    python -m tools.bench quality video

Samples the trained model that is shipped under every policy at several compute budgets, from the
same noise, and compares what comes out with the plain run's samples. Writes a record into
benchmarks/: a JSON file, a table and a plot.

The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from smoothcache_core import Schedule
from smoothcache_core.files import write_atomically
from smoothcache_core.metrics import relative_l2
from smoothcache_core.schedule import Cost
from torch import Tensor
from tqdm import tqdm

from tools.bench.bench import CALIBRATION_SEED
from tools.bench.models.model import Modality
from tools.bench.policies import PLAIN, Policy
from tools.bench.records import Record, Row, grid, new_record
from tools.bench.studies.quality import Block, Measured, measure
from tools.bench.studies.quality_settings import Settings
from tools.bench.studies.tuning import NEAR

QUESTION = "Which policy changes the samples least at equal compute?"
_TINY = 1e-12
_PREDICTED = "schedules compute what they predict"

NOTES = (
    "compute is MACs over those of the plain run, counted while sampling by the calls of the "
    "layers, over the whole denoiser; budget is the compute that was asked for. What misses its "
    f"budget by more than {NEAR:g} has its compute beside its error.",
    "rel_l2 is the relative L2 distance of the final latents from the plain run's of the same "
    "noise and labels, mean over all samples; rel_l2_spread is the standard deviation of the means "
    "of the evaluation seeds. ode_rel_l2 is the same distance from a second-order solver of many "
    "evaluations: the plain run has an error of its own. Columns of_seeds have one value for each "
    "evaluation seed by itself; Frechet distances are the larger the fewer samples there are.",
    "seconds is the median time of one batch; speedup is the median of the plain run's time in the "
    "same block of runs over it; of_limit is speedup x compute, 1 if every MAC saved were time "
    "saved. A model this small is bound by what is around the MACs.",
    "Settings of peers were chosen on the calibration samples: thresholds by bisection, and of "
    "several options (MagCache's longest skip and retention, DBCache's warm-up, the spacing of "
    "fewer steps) those with the least error there.",
    "fora computes evenly spaced evaluations. fora+taylor is diffusers' TaylorSeer at the same "
    "evaluations on all sites: its own configuration knows whole intervals only, so its hooks are "
    "told when to compute.",
    "cache-dit is DBCache with the first block always computed, without and with its TaylorSeer "
    "calibrator.",
)


def record(modality: Modality, settings: Settings) -> Record:
    """Measure, and return the record."""
    return to_record(settings, measure(modality, settings))


def to_record(settings: Settings, measured: Measured) -> Record:
    """Return the record of what was measured, its rows sorted by budget, then by error."""
    rows = _rows(settings, measured)
    predicted = [row for row in rows if "predicted_compute" in row]
    exact = measured.exact is not None
    checks = dict(measured.checks)
    if predicted:
        checks[_PREDICTED] = all(
            math.isclose(row["predicted_compute"], row["compute"], rel_tol=1e-9)
            for row in predicted
        )
    return new_record(
        what="quality",
        modality=measured.bench.modality.name,
        question=QUESTION,
        packages=measured.bench.modality.packages,
        device=torch.device(settings.device),
        seeds={"calibration": [CALIBRATION_SEED], "evaluation": list(settings.seeds)},
        settings={
            "guidance": measured.bench.sampler.guidance,
            "samples": f"{settings.samples} of each evaluation seed",
            "calibration samples": settings.calibration_samples,
            "repeats": settings.repeats,
            "dtype": "float32",
            **({"evaluations of the exact solution": settings.reference_steps} if exact else {}),
        },
        rows=rows,
        notes=(*NOTES, *measured.bench.modality.notes),
        refused=measured.refused,
        checks=checks,
    )


# ---------------------------------------------------------------------------- rows


def _rows(settings: Settings, measured: Measured) -> list[Row]:
    every = [block for blocks in measured.blocks.values() for block in blocks]
    todo = [(PLAIN, 1.0, every)]
    todo += [
        (policy, budget, measured.blocks[budget])
        for budget, policies in measured.policies.items()
        for policy in policies
        if policy != PLAIN
    ]
    bar = tqdm(todo, desc="judging", disable=not settings.progress)
    judge = _Judge(settings, measured)
    rows = [_row(settings, measured, judge, *each) for each in bar]
    return sorted(rows, key=lambda row: (-row["budget"], row["rel_l2"]))


def _row(
    settings: Settings,
    measured: Measured,
    judge: "_Judge",
    policy: Policy,
    budget: float,
    blocks: Sequence[Block],
) -> dict[str, Any]:
    """Return the row of a policy; the plain one is given the blocks of all budgets."""
    cells = [block[policy.label] for block in blocks]
    compute = statistics.fmean(cell.compute for cell in cells)
    ratios = [
        plain / own
        for block in blocks
        for plain, own in zip(block[PLAIN.label].seconds, block[policy.label].seconds, strict=True)
    ]
    speedup = statistics.median(ratios)
    row: dict[str, Any] = {
        "modality": measured.bench.modality.name,
        "model": measured.bench.model,
        "full_size": False,
        "solver": measured.bench.solver.title,
        "evaluations": policy.evaluations or settings.steps,
        "budget": budget,
        "policy": policy.label,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        **judge.quality([cell.latents for cell in cells[: len(settings.seeds)]]),
        "seconds": statistics.median(second for cell in cells for second in cell.seconds),
        "speedup": speedup,
        "of_limit": speedup * compute,
    }
    peaks = [cell.bytes_peak for cell in cells if cell.bytes_peak is not None]
    if peaks:
        row["bytes_peak"] = max(peaks)
    return row | predictions(policy.schedule)


class _Judge:
    """Compares samples with the plain ones, with the exact ones, and with real ones."""

    def __init__(self, settings: Settings, measured: Measured) -> None:
        self._exact = measured.exact
        blocks = next(iter(measured.blocks.values()))
        self._plain = [block[PLAIN.label].latents for block in blocks]
        self._all_plain = torch.cat(self._plain)
        bench = measured.bench
        sampler = bench.of_batch(settings.samples)
        self._judged = bench.modality.judged(sampler, settings.seeds)
        self._of_seeds = [bench.modality.judged(sampler, [seed]) for seed in settings.seeds]
        self._spreads = {name: self._plain_of_seeds(name) for name in bench.modality.spreads}

    def quality(self, latents: Sequence[Tensor]) -> dict[str, Any]:
        """Return what is known of samples (samples, ...), one batch for each seed."""
        pairs = zip(self._plain, latents, strict=True)
        means = [float(relative_l2(one, other).mean()) for one, other in pairs]
        values = {"rel_l2": statistics.fmean(means)}
        if len(means) > 1:
            values["rel_l2_spread"] = statistics.stdev(means)
        every = torch.cat(list(latents))
        for name, metric in self._judged.metrics.items():
            values[name] = float(metric(self._all_plain, every).mean())
        if self._exact is not None:
            values["ode_rel_l2"] = float(relative_l2(torch.cat(list(self._exact)), every).mean())
        values |= {name: summary(every) for name, summary in self._judged.summaries.items()}
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        return known | self._off(known) | self._summaries_of_seeds(latents)

    def _plain_of_seeds(self, name: str) -> list[float]:
        """Return a summary of the plain samples of every seed."""
        pairs = zip(self._of_seeds, self._plain, strict=True)
        return [judged.summaries[name](batch) for judged, batch in pairs]

    def _off(self, known: Mapping[str, float]) -> dict[str, float]:
        """Return how far summaries are from the plain run's, over its spread between seeds."""
        found = {}
        for name, plain in self._spreads.items():
            spread = statistics.stdev(plain) if len(plain) > 1 else 0.0
            if spread and name in known:
                found[f"{name}_off"] = (known[name] - statistics.fmean(plain)) / spread
        return found

    def _summaries_of_seeds(self, latents: Sequence[Tensor]) -> dict[str, list[float]]:
        return {
            f"{name}_of_seeds": [
                float(f"{judged.summaries[name](batch):.4g}")
                for judged, batch in zip(self._of_seeds, latents, strict=True)
            ]
            for name in self._judged.summaries
        }


def predictions(schedule: Schedule | None) -> dict[str, float]:
    """Return what a schedule promises."""
    if schedule is None:
        return {}
    found: dict[str, float] = {}
    if isinstance(schedule.cost, Cost):
        found["predicted_compute"] = schedule.compute_fraction()
    if schedule.prediction is not None:
        promised = schedule.prediction.model_dump(exclude_none=True)
        found |= {f"predicted_{name}": value for name, value in promised.items()}
    return found


# ---------------------------------------------------------------------------- table and plot


def save(record: Record, folder: Path) -> Path:
    """Write the record, its table with the errors over budgets first, and the plot."""
    path = record.save(folder)
    text = to_markdown(record, plot=path.with_suffix(".png").name)
    write_atomically(path.with_suffix(".md"), text.encode())
    picture = io.BytesIO()
    trade_off(record.rows).savefig(picture, format="png", dpi=120)
    write_atomically(path.with_suffix(".png"), picture.getvalue())
    return path


def to_markdown(record: Record, *, plot: str) -> str:
    """Return the record as Markdown, with the errors over budgets before all numbers."""
    before, after = record.to_markdown().split(f"{record.question}\n", 1)
    parts = [
        record.question,
        "Relative L2 distance of the final sample from the plain run's, by compute budget:",
        pivot(record.rows),
        f"![Error over compute]({plot})",
        "All numbers:",
    ]
    return before + "\n\n".join(parts) + "\n" + after


def pivot(rows: Sequence[Row]) -> str:
    """Return the errors as a Markdown table of policies and budgets, the best policies first."""
    lines = _lines(rows)
    budgets = sorted({row["budget"] for line in lines.values() for row in line}, reverse=True)
    best = {budget: _best(rows, budget) for budget in budgets}
    cells = []
    for label in sorted(lines, key=lambda label: _standing(lines[label], best)):
        by_budget = {row["budget"]: row for row in lines[label]}
        shown = [_error(by_budget.get(budget), best[budget]) for budget in budgets]
        cells.append([_emphasised(label, lines[label]), *shown])
    titles = ["policy", *(f"{budget:g}" for budget in budgets)]
    return grid(titles, cells, right=range(1, len(titles)))


def _best(rows: Sequence[Row], budget: float) -> float:
    """Return the least error of the rows that keep to a budget, or of all if none does."""
    of_budget = [row for row in rows if row["budget"] == budget and row["policy"] != PLAIN.label]
    met = [row for row in of_budget if _keeps_to_budget(row)]
    return min(row["rel_l2"] for row in met or of_budget)


def _keeps_to_budget(row: Row) -> bool:
    return row["compute"] <= row["budget"] + NEAR


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of every policy but the plain one."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row["policy"] != PLAIN.label:
            lines.setdefault(row["policy"], []).append(row)
    return lines


def _standing(line: Sequence[Row], best: Mapping[float, float]) -> float:
    """Return how much larger the errors of a policy are than the best ones, in the mean."""
    met = [row for row in line if _keeps_to_budget(row)] or line
    return statistics.fmean(
        math.log(max(row["rel_l2"], _TINY) / max(best[row["budget"]], _TINY)) for row in met
    )


def _emphasised(label: str, line: Sequence[Row]) -> str:
    return f"**{label}**" if line[0]["ours"] else label


def _error(row: Row | None, best: float) -> str:
    if row is None:
        return "-"
    text = f"{row['rel_l2']:.2g}"
    text = f"**{text}**" if row["rel_l2"] == best else text
    off = abs(row["compute"] - row["budget"]) > NEAR
    return f"{text} (at {row['compute']:.2f})" if off else text


def trade_off(rows: Sequence[Row]) -> Figure:
    """Draw error over compute, one line for each policy; this library's are thick."""
    lines = _lines(rows)
    best = {row["budget"]: 1.0 for line in lines.values() for row in line}
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.subplots()
    order = sorted(lines, key=lambda label: -_standing(lines[label], best))
    for index, label in enumerate(order):
        line = sorted(lines[label], key=lambda row: row["compute"])
        ours = line[0]["ours"]
        axes.errorbar(
            [row["compute"] for row in line],
            [row["rel_l2"] for row in line],
            yerr=[row.get("rel_l2_spread", 0.0) for row in line],
            label=label,
            color=colormaps["tab20"](index % 20),
            linewidth=3.2 if ours else 1.2,
            marker="o" if ours else ".",
            elinewidth=0.8,
            zorder=3 if ours else 2,
        )
    for row in rows:
        if row["policy"] == PLAIN.label and "ode_rel_l2" in row:
            label = "plain, from the exact solution"
            axes.axhline(row["ode_rel_l2"], color="#606060", linestyle=":", label=label)
    axes.set_yscale("log")
    axes.set_xlabel("compute, fraction of the plain run's MACs")
    axes.set_ylabel("relative L2 distance from the plain samples")
    axes.grid(which="both", color="#e6e6e6", linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure
