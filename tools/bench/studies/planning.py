"""How long does it take to plan a long run of a large model?

    python -m tools.bench planning

No model is loaded: planning needs a calibration only, so one is made up here, from smooth random
curves for the outputs of all sites and of the denoiser. Its errors and inner products are those of
these curves, and its run is one of a solver that takes equal steps, so it is as consistent as one
that was measured. Writes a record into benchmarks/.
"""

import itertools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from smoothcache_core import Calibration, Schedule, plan
from smoothcache_core.adapters import Site
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.calibration.quantised import quantised, quantised_squares
from smoothcache_core.calibration.response import Response
from smoothcache_core.fills import linear
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.planning import Limits, Planner
from smoothcache_core.schedule import Cost, Fingerprint, SiteCost
from smoothcache_core.sources import plan_sites
from tqdm import tqdm

from tools.bench.records import Record, Row, new_record

Array = NDArray[np.float64]
Way = Callable[..., Schedule]
"""Takes a calibration and `compute`."""
Made = TypeVar("Made")

QUESTION = "How long does it take to plan a long run of a large model?"
NOTES = (
    "No model is loaded. The calibration is made of smooth random curves, so errors that are "
    "predicted from it mean nothing; what a plan costs depends on the sizes above all.",
    "seconds is from the calibration to one schedule, nothing of earlier plans being remembered; "
    "the front has schedules of whole evaluations, of these and unconditional passes, of sites and "
    "of SmoothCache's rule, for 11 compute fractions.",
    "computed is the share of the MACs that the schedule computes, rows is how many distinct rows "
    "its sites or evaluations have.",
    "peak_mib is the most memory that the process held until then, Python and torch included.",
)
KINDS = {"attn": 3_000_000, "ff": 8_000_000}
"""MACs of a site, by its kind."""
OUTSIDE = 0.05
"""MACs outside of all sites, over those of the sites."""
GUIDANCE = 1.5
SEED = 0
FRONT = "front of all targets"
_ENTRIES = 16  # of one site's output
_LATENT = 4096  # entries: more than there are vectors, as in a real latent
_WAVES = 6
_ROUGH = 0.003


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of what is planned.

    Attributes:
        evaluations: Evaluations of the run, at least 3.
        blocks: Blocks of the model, each with one site of every kind.
        max_lag: The largest lag calibrated.

    Raises:
        ValueError: A number is too small.
    """

    evaluations: int = 100
    blocks: int = 250
    max_lag: int = 12

    def __post_init__(self) -> None:
        for name, least in {"evaluations": 3, "blocks": 1, "max_lag": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def sites(self) -> int:
        """Number of sites."""
        return self.blocks * len(KINDS)


# ---------------------------------------------------------------------------- a calibration


def made_up(size: Size) -> Calibration:
    """Return a calibration with sensitivities, of no model."""
    generator = np.random.default_rng(SEED)
    sites = tuple(
        Site(path=f"blocks.{block}.{kind}", kind=kind, block=block)
        for block in range(size.blocks)
        for kind in KINDS
    )
    outputs = curves(generator, (size.sites, _ENTRIES), size.evaluations)
    errors = errors_of(outputs, size.max_lag)
    return Calibration(
        sites=sites,
        branches=("",),
        totals=quantised(errors),
        squares=quantised_squares(errors),
        samples=1,
        seeds=(SEED,),
        fingerprint=Fingerprint(evaluations=size.evaluations),
        cost=cost_of(sites),
        products=cut(products_of(outputs, size.max_lag)),
        dynamics=dynamics_of(generator, size.evaluations),
        influence=influence_of(generator, size),
    )


def curves(generator: np.random.Generator, shape: tuple[int, ...], evaluations: int) -> Array:
    """Return random curves over the evaluations, smooth but for a little noise, (*shape, E)."""
    wave = np.arange(_WAVES)
    phases = generator.uniform(0.0, 2.0 * np.pi, (*shape, _WAVES))
    sizes = generator.normal(size=(*shape, _WAVES)) / (1.0 + wave) ** 2
    smooth = np.zeros((*shape, evaluations))
    for number in wave:
        turns = np.pi * number * np.linspace(0.0, 1.0, evaluations)
        smooth += sizes[..., number, None] * np.cos(turns + phases[..., number, None])
    return smooth + _ROUGH * generator.normal(size=smooth.shape)


def errors_of(outputs: Array, max_lag: int) -> Array:
    """Return the relative L1 errors of outputs (sites, n, E), (sites, 1, lags, E)."""
    sites, _, evaluations = outputs.shape
    errors = np.full((sites, 1, max_lag, evaluations), np.nan)
    for lag in range(1, min(max_lag + 1, evaluations)):
        before, after = outputs[..., :-lag], outputs[..., lag:]
        changed = np.abs(before - after).sum(axis=1)
        errors[:, 0, lag - 1, :-lag] = changed / np.abs(after).sum(axis=1)
    return errors


def products_of(outputs: Array, max_lag: int) -> Array:
    """Return the mean inner products of outputs (sites, n, E), (sites, E, lags + 1)."""
    sites, _, evaluations = outputs.shape
    products = np.zeros((sites, evaluations, max_lag + 1))
    for lag in range(min(max_lag + 1, evaluations)):
        before, after = outputs[..., : evaluations - lag], outputs[..., lag:]
        products[:, lag:, lag] = (before * after).mean(axis=1)
    return products


def cost_of(sites: Sequence[Site]) -> Cost:
    """Return what the sites cost, and a little more for the denoiser."""
    costs = [
        SiteCost(path=site.path, kind=site.kind, block=site.block, macs=KINDS[site.kind], bytes=64)
        for site in sites
    ]
    inside = sum(cost.macs for cost in costs)
    return Cost(total=round(inside * (1.0 + OUTSIDE)), sites=tuple(costs), output_bytes=64)


def influence_of(generator: np.random.Generator, size: Size) -> Influence:
    """Return the influence of every site at every evaluation, smooth over evaluations."""
    values = np.exp(0.5 * curves(generator, (size.sites,), size.evaluations)) / size.sites
    return Influence(totals=cut(values), counts=np.ones(values.shape, dtype=np.int64))


def dynamics_of(generator: np.random.Generator, evaluations: int) -> Dynamics:
    """Return what would be learned of a guided run in equal steps: x[i + 1] = x[i] - y[i] / E."""
    step = 1.0 / evaluations
    conditional, apart = (curves(generator, (_LATENT,), evaluations).T for _ in range(2))
    outputs = np.stack([conditional, conditional + 0.2 * apart], axis=1)
    weights = np.tile([GUIDANCE, 1.0 - GUIDANCE], (evaluations, 1))
    moves = -step * np.einsum("ep,epn->en", weights, outputs)
    latents = generator.normal(size=_LATENT) + np.cumsum([np.zeros(_LATENT), *moves], axis=0)
    vectors = np.concatenate([latents, *outputs.transpose(1, 0, 2)])
    gain = np.tile(np.linspace(0.2, 1.0, evaluations)[:, None], 2)
    kept = np.cumprod(1.0 - step * gain[:0:-1, 0])[::-1]  # of a change, by the later steps
    effects = step * np.append(kept, 1.0) / np.sqrt(np.mean(latents[-1] ** 2))
    return Dynamics(
        gram=cut(vectors @ vectors.T / _LATENT),
        samples=1,
        response=Response(
            matrix=-step * np.tri(evaluations),
            weights=weights,
            residual=0.0,
        ),
        response_seed=SEED,
        sum_dx2=cut(np.ones(evaluations)),
        sum_dxdy=cut(gain),
        sum_dy2=cut(gain**2),
        effects=cut(effects),
        effect_counts=np.ones(evaluations, dtype=np.int64),
        conditional=0,
        seconds=0.01,
    )


# ---------------------------------------------------------------------------- measuring


def ways() -> dict[str, Way]:
    """Return what is timed, by its name."""
    return {
        "sites": partial(plan, target="site"),
        "sites, at most 8 rows": partial(plan, target="site", limits=Limits(max_rows=8)),
        "sites, least largest effect": partial(plan_sites, fill=linear(3), objective="minimax"),
        "kinds": partial(plan, target="kind"),
        "all sites alike": partial(plan, target="evaluation"),
        "whole evaluations": partial(plan, target="denoiser"),
        "whole evaluations and unconditional passes": partial(plan, target="guidance"),
    }


def measure(
    size: Size, computes: Sequence[float], *, front: bool = True, progress: bool = True
) -> Record:
    """Time all plans, and return the record.

    Args:
        size: Of what is planned.
        computes: Compute fractions.
        front: Also time one front.
        progress: Show a progress bar.
    """
    calibration = made_up(size)
    rows: list[Row] = []
    kept = True
    todo = list(itertools.product(ways().items(), computes))
    for (name, way), compute in tqdm(todo, unit="plan", disable=not progress):
        seconds, schedule = timed(partial(way, calibration, compute=compute))
        kept = kept and schedule.compute_fraction() <= compute + 1e-9
        rows.append(row_of(name, compute, seconds, schedule))
    if front:
        seconds, points = timed(lambda: Planner(calibration).front())
        rows.append({"what": FRONT, "seconds": seconds, "plans": len(points)} | peak())
    return new_record(
        what="planning",
        modality="synthetic",
        question=QUESTION,
        packages=("numpy", "torch", "smoothcache-core"),
        seeds={"calibration": [SEED]},
        settings={
            "evaluations": size.evaluations, "sites": size.sites, "largest lag": size.max_lag
        },
        rows=rows,
        notes=NOTES,
        checks={"no plan computes more than it may": kept},
    )  # fmt: skip


def timed(make: Callable[[], Made]) -> tuple[float, Made]:
    """Return the seconds that making something takes, and what was made."""
    start = time.perf_counter()
    made = make()
    return time.perf_counter() - start, made


def row_of(name: str, compute: float, seconds: float, schedule: Schedule) -> Row:
    """Return a row of the record."""
    return {
        "what": name,
        "compute": compute,
        "seconds": seconds,
        "plans": 1,
        "computed": schedule.compute_fraction(),
        "rows": len(set(schedule.rows.values())),
    } | peak()


def peak() -> dict[str, int]:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)}


@dataclass(frozen=True, kw_only=True)
class Settings(Size):
    """Settings of the study.

    Attributes:
        computes: Compute fractions.
    """

    computes: Annotated[Sequence[float], Parameter(name="--compute")] = (0.5, 0.25)


def record(settings: Settings) -> Record:
    """Time all plans, and return the record."""
    return measure(settings, settings.computes)
