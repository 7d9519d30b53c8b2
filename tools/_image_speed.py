"""Counting and timing of policies on the image model, for `bench_image.py`."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from _image_compile import TOLERANCE, measure_ways
from _image_peers import quiet
from _image_policies import PLAIN, Policy, policies
from _image_sampler import Sampler, Size, dit, sampling, shapes_of, sharing
from _records import Record, Row, command, commit, hardware, now, versions
from _side_by_side import Piece, Seconds, Verdict, judge, race
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from smoothcache_core import Cost, calibrate
from smoothcache_core._cost import flop_counter
from smoothcache_image import DIT
from tqdm import tqdm

PACKAGES = ("torch", "diffusers", "smoothcache-core", "dit-smoothcache", "cache-dit")
SEED = 0

SPEED_QUESTION = (
    "How much of its MAC saving does caching turn into time, against the plain model and peers?"
)
COMPILE_QUESTION = "What does caching do on a compiled model: graphs, breaks, outputs and time?"

SPEED_NOTES = (
    "speedup is the plain model's time over the policy's: one over the median of paired ratios, "
    "each of two times taken moments apart, weighted over the kinds of evaluation (same MACs, same "
    "kind); speedup_low and speedup_high are the 95 % bootstrap interval of it.",
    "compute is MACs over the plain model's, counted by torch's flop counter over the run of "
    "that very policy; of_limit is speedup x compute, 1 if every MAC saved were time saved.",
    "overhead is how much longer an evaluation takes that computes everything, over the plain "
    "model's: the cost of being wrapped, of deciding and of keeping outputs.",
    "seconds is speedup applied to the plain model's median; seconds_sum is the mere sum of all "
    "times of a run. The solver's step is left out where evaluations are timed one by one.",
    "The row of 24 of 50 has the pattern of SmoothCache's published schedule for alpha 0.18. "
    "Caches that decide by looking at the data are made to skip by that row; those that only know "
    "an interval skip every second evaluation (of_limit compares them).",
    "DiTTransformer2DModel offers none of diffusers' own caches (pyramid-attention-broadcast, "
    "first-block-cache, taylorseer, magcache, seacache, fastercache): it has no CacheMixin. Here "
    "the mixin is added to the class of a copy; the hooks are diffusers' own.",
    "Lines that a peer prints go nowhere, at the cost of formatting them.",
)

COMPILE_NOTES = (
    "regional: every block compiled by itself; whole: torch.compile(model), and the cache attached "
    "to what it returns.",
    "graphs and graph_breaks are torch's own counters over the first run; first_run_seconds is "
    "that run with all compilation in it, possibly from torch's cache on disk.",
    "speedup is over the plain model compiled in the same way, speedup_over_eager_plain over the "
    "plain model not compiled; of_limit is speedup x compute.",
    "rel_l2 is the relative L2 difference of the final latent from the same policy run eagerly.",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one benchmark.

    Attributes:
        size: Size of the model.
        evaluations: Evaluations of one run.
        rounds: Runs of every policy.
        device: Where.
        dtype: Data type of model and latent.
        piece: What is timed at once.
        only: Names of the policies to run, all if empty; the plain model always runs.
        progress: Show progress bars.
    """

    size: Size = field(default_factory=Size)
    evaluations: int = 50
    rounds: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    piece: Piece = "evaluation"
    only: Sequence[str] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        if self.evaluations < 4 or self.rounds < 1:
            raise ValueError(
                "evaluations must be at least 4 and rounds at least 1, "
                f"got {self.evaluations} and {self.rounds}"
            )
        known = {policy.name for policy in policies()}
        if unknown := set(self.only) - known:
            raise ValueError(f"no policy is called {sorted(unknown)}; there are {sorted(known)}")

    def chosen(self) -> list[Policy]:
        """Return the policies to run."""
        return [p for p in policies() if not self.only or p.name in {PLAIN.name, *self.only}]


# ---------------------------------------------------------------------------- counting


def count(
    model: DiTTransformer2DModel, policy: Policy, evaluations: int, *, progress: bool = False
) -> list[int]:
    """Return the MACs of every evaluation of a real run under `policy`.

    A policy that does not look at the data runs on shapes alone, which takes no time.
    """
    copy = sharing(model) if policy.looks_at_data else shapes_of(model)
    macs = []
    with sampling(copy, policy, evaluations, seed=SEED) as sampler:
        steps = range(evaluations)
        for step in tqdm(steps, desc=f"counting {policy.name}", disable=not progress, leave=False):
            with sampler.around(step), flop_counter() as counter:
                sampler.evaluate(step)
            macs.append(counter.get_total_flops() // 2)
            sampler.advance(step)
    return macs


def count_all(
    model: DiTTransformer2DModel, settings: Settings
) -> tuple[dict[Policy, list[int]], list[Row]]:
    """Return the MACs of the policies that work, and why the others do not."""
    counted: dict[Policy, list[int]] = {}
    refused: list[Row] = []
    for policy in settings.chosen():
        slow = settings.progress and policy.looks_at_data
        try:
            with quiet():
                counted[policy] = count(model, policy, settings.evaluations, progress=slow)
        except Exception as error:
            if policy.ours or policy.name == PLAIN.name:
                raise
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            refused.append({"policy": policy.name, "setting": policy.setting, "reason": reason})
    return counted, refused


def cost_of(model: DiTTransformer2DModel) -> Cost:
    """Return what the sites cost, by calibrating one evaluation; predictions are made from it."""
    copy = sharing(model)
    with sampling(copy, PLAIN, 4, seed=SEED) as sampler:
        return calibrate(
            copy,
            DIT,
            lambda seed: sampler.evaluate(0),
            seeds=[SEED],
            max_lag=1,
            progress=False,
        ).cost


# ---------------------------------------------------------------------------- timing


@torch.no_grad()
def measure_speed(settings: Settings) -> Record:
    """Time all policies and return the record."""
    model = dit(settings.size, device=settings.device, dtype=settings.dtype, seed=SEED)
    _say_budget(settings, _warm_up(model))
    counted, refused = count_all(model, settings)
    cost = cost_of(model)
    with ExitStack() as stack:
        samplers = {
            policy: stack.enter_context(
                sampling(sharing(model), policy, settings.evaluations, seed=SEED)
            )
            for policy in counted
        }
        seconds = _race(samplers, settings)
        rows = [
            _row(settings, policy, samplers[policy], counted, seconds, cost) for policy in counted
        ]
        checks = _checks(samplers)
    return _record(
        "speed",
        SPEED_QUESTION,
        settings,
        rows=rows,
        refused=refused,
        checks=checks,
        notes=SPEED_NOTES,
    )


@torch.no_grad()
def measure_compile(settings: Settings, *, backend: str = "inductor") -> Record:
    """Run the plain model and this library's cache compiled in each way; return the record."""
    model = dit(settings.size, device=settings.device, dtype=settings.dtype, seed=SEED)
    keys = (PLAIN.key, "smoothcache (attn1, ff)")
    chosen = [policy for policy in policies() if policy.key in keys]
    rows = measure_ways(
        model,
        {policy: count(model, policy, settings.evaluations) for policy in chosen},
        backend=backend,
        rounds=settings.rounds,
        piece=settings.piece,
        seed=SEED,
        progress=settings.progress,
    )
    about: dict[str, Any] = {"modality": "image", "model": settings.size.name}
    about |= {"full_size": settings.size == Size(), "solver": "DDIM"}
    about |= {"evaluations": settings.evaluations}
    rows = [about | dict(row) for row in rows]
    tolerance = TOLERANCE[settings.dtype]
    checks = {
        "no graph breaks (fullgraph=True)": not any(row["graph_breaks"] for row in rows),
        f"rel_l2 at most {tolerance:g} in every row": all(r["rel_l2"] <= tolerance for r in rows),
    }
    return _record(
        "compile", COMPILE_QUESTION, settings, rows=rows, checks=checks, notes=COMPILE_NOTES
    )


def _warm_up(model: DiTTransformer2DModel) -> float:
    """Return the seconds of a plain evaluation, after two that load code and touch all weights."""
    with sampling(sharing(model), PLAIN, 4, seed=SEED) as sampler:
        seconds = race(
            {"plain": sampler},
            evaluations=3,
            rounds=1,
            piece="evaluation",
            device=model.device,
            seed=SEED,
            progress=False,
        )
    return float(seconds["plain"][0, -1])


def _say_budget(settings: Settings, seconds: float) -> None:
    """Print how long it will take, at two thirds of the plain model's time per policy."""
    if not settings.progress:
        return
    chosen = settings.chosen()
    rounds = settings.rounds + (settings.piece == "run")
    runs = rounds * len(chosen) + sum(policy.looks_at_data for policy in chosen)
    minutes = runs * settings.evaluations * seconds * 2 / 3 / 60
    print(
        f"{seconds:.3g} s for a plain evaluation: about {minutes:.0f} minutes for {runs} runs of "
        f"{settings.evaluations} evaluations, some of them cached",
        file=sys.stderr,
    )


def _race(samplers: Mapping[Policy, Sampler], settings: Settings) -> dict[str, Seconds]:
    """Time the samplers; whole runs get one unrecorded round first."""
    runs = {policy.key: sampler for policy, sampler in samplers.items()}
    rounds = settings.rounds + (settings.piece == "run")
    with quiet():
        seconds = race(
            runs,
            evaluations=settings.evaluations,
            rounds=rounds,
            piece=settings.piece,
            device=settings.device,
            seed=SEED,
            progress=settings.progress,
        )
    return {key: times[-settings.rounds :] for key, times in seconds.items()}


def _row(
    settings: Settings,
    policy: Policy,
    sampler: Sampler,
    counted: Mapping[Policy, Sequence[int]],
    seconds: Mapping[str, Seconds],
    cost: Cost,
) -> Row:
    macs, all_macs = counted[policy], counted[PLAIN]
    kinds = macs if settings.piece == "evaluation" else [sum(macs)]
    full = all_macs[0] if settings.piece == "evaluation" else sum(all_macs)
    verdict = judge(seconds[policy.key], seconds[PLAIN.key], kinds)
    compute = sum(macs) / sum(all_macs)
    schedule, stats = sampler.attached.schedule, sampler.attached.stats
    row: dict[str, Any] = {
        "modality": "image",
        "model": settings.size.name,
        "full_size": settings.size == Size(),
        "solver": "DDIM",
        "evaluations": settings.evaluations,
        "policy": policy.name,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        **_times(verdict, compute),
    }
    if full in verdict.ratios and policy != PLAIN:
        row["overhead"] = verdict.ratios[full] - 1.0
    if schedule is not None and stats is not None:
        row["predicted_compute"] = schedule.compute_fraction(cost)
        row["bytes_peak"] = stats.bytes_peak
    return row


def _times(verdict: Verdict, compute: float) -> Row:
    return {
        "seconds": verdict.seconds,
        "speedup": 1.0 / verdict.relative,
        "speedup_low": 1.0 / verdict.high,
        "speedup_high": 1.0 / verdict.low,
        "of_limit": compute / verdict.relative,
        "seconds_sum": verdict.seconds_sum,
    }


def _checks(samplers: Mapping[Policy, Sampler]) -> dict[str, bool]:
    """Compare final latents that must be equal bit for bit."""
    latents = {policy.key: sampler.latent.nan_to_num() for policy, sampler in samplers.items()}
    pairs = {
        "smoothcache (all computed)": PLAIN.key,
        "dit-smoothcache (attn1)": "smoothcache (attn1)",
        "dit-smoothcache (attn1, ff)": "smoothcache (attn1, ff)",
    }
    return {
        f"{one} gives the sample of {other} bit for bit": torch.equal(latents[one], latents[other])
        for one, other in pairs.items()
        if one in latents and other in latents
    }


def _record(what: str, question: str, settings: Settings, **measured: Any) -> Record:
    return Record(
        what=what,
        modality="image",
        question=question,
        command=command(),
        date=now(),
        hardware=hardware(settings.device),
        versions=versions(*PACKAGES),
        commit=commit(),
        seeds={"calibration": [], "evaluation": [SEED]},
        settings={
            "dtype": str(settings.dtype).removeprefix("torch."),
            "batch": "2 (one image, both conditioning passes)",
            "rounds": settings.rounds,
            "timed": f"each {settings.piece}, in lockstep, order shuffled",
            "weights": "random",
        },
        **measured,
    )
