"""What does caching do on a GPU: time, memory, device synchronisations, eagerly and compiled?

DiT-XL/2 at 256 and 512 pixels and Stable Audio Open's transformer, weights random, in bfloat16,
guidance in one batch: the plain model, this library by sites and by whole evaluations, and other
people's caches; eagerly, compiled block by block, compiled as a whole, and as CUDA graphs. What is
most worth knowing goes first. Every measurement looks at the clock before it begins; what does not
fit, and what fails, is named in the record with its reason.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from smoothcache_core.schedule import Cost

from tools.bench.policies import PLAIN
from tools.bench.records import REPOSITORY, Record, Row, new_record
from tools.bench.studies.gpu_runs import (
    PATIENCE,
    Clock,
    Findings,
    OutOfTimeError,
    measure_case,
    reason,
)
from tools.bench.studies.gpu_testbeds import Way, cases, testbeds
from tools.bench.studies.speed import SEED, cost_of

QUESTION = "What does caching do on a GPU: time, memory, device synchronisations, compiled or not?"
NOTES = (
    "milliseconds is the time of one evaluation, the solver's step with it; seconds that of a run. "
    "speedup is over the plain model compiled in the same way: one over the median of paired "
    "ratios of whole runs in lockstep; speedup_low and speedup_high are its 95 % bootstrap "
    "interval. of_limit is speedup x compute, 1 if every MAC saved were time saved.",
    "compiled: eager; regional, every block by itself; whole, the model; graphs, the model with "
    'mode="reduce-overhead", which replays CUDA graphs.',
    "overhead of the policy that computes everything is how much longer its evaluations take than "
    "the plain model's, here in whole runs.",
    "compute is MACs over the plain model's, counted by the calls of the layers in an eager run.",
    "bytes_peak is the most that this library's cache held, predicted_bytes what the schedule says "
    "of it before; peak_over_start is what a run allocates on the device beyond what was there.",
    "syncs_per_evaluation counts calls that wait for the device while the denoiser is called "
    "(torch.cuda.set_sync_debug_mode), without the solver's step.",
    "first_run_seconds is a run with all compilation in it; graphs and graph_breaks are torch's "
    "own counters over it. rel_l2 is the relative L2 difference of the final latent from the same "
    "policy run eagerly.",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the check.

    Attributes:
        minutes: It ends within so many.
        device: cuda or cpu.
        small: Tiny models and few evaluations, to see that it runs to its end.
        tests: Also run the tests that need a GPU, if the device is one.
    """

    minutes: float = 8.0
    device: str = "cuda"
    small: bool = False
    tests: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """Data type of models and latents."""
        return torch.float32 if self.small else torch.bfloat16


@torch.no_grad()
def measure(settings: Settings) -> list[Record]:
    """Measure as much as there is time for, and return a record of every modality.

    Args:
        settings: The settings.
    """
    clock = Clock(end=time.monotonic() + 60.0 * settings.minutes)
    tests = _tests(settings, clock)
    found: dict[str, Findings] = {}
    missing: list[Row] = []
    prepared: dict[str, tuple[Any, Cost]] = {}
    todo = cases(list(testbeds(small=settings.small)), small=settings.small)
    try:
        with clock.interrupting():
            while todo:
                name, way = todo[0]
                _measure_one(settings, name, way, found, prepared, missing, clock)
                todo.pop(0)
    except OutOfTimeError:
        missing += [_not_run(name, way, "not run: the time was up") for name, way in todo]
    return _records(settings, found, missing, tests)


def _measure_one(
    settings: Settings,
    name: str,
    way: Way,
    found: dict[str, Findings],
    prepared: dict[str, tuple[Any, Cost]],
    missing: list[Row],
    clock: Clock,
) -> None:
    """Measure one case; what cannot be built or measured is noted."""
    if clock.left() < PATIENCE[way]:
        missing.append(_not_run(name, way, f"not run: {max(clock.left(), 0.0):.0f} s were left"))
        return
    try:
        if name not in found:
            testbed = testbeds(small=settings.small)[name]()
            model = testbed.subject.build(torch.device(settings.device), settings.dtype)
            prepared[name] = model, cost_of(testbed.subject, model)
            found[name] = Findings(testbed=testbed)
        measure_case(found[name], *prepared[name], way, clock)
    except Exception as error:
        missing.append(_not_run(name, way, reason(error)))


def _not_run(name: str, way: Way, reason: str) -> Row:
    return {"compiled": way, "policy": "all", "setting": name, "reason": reason}


def _tests(settings: Settings, clock: Clock) -> str:
    """Run the tests that need a GPU; return what they said at the end."""
    if not (settings.tests and settings.device.startswith("cuda")):
        return "not run"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=clock.left() / 4
        )
    except subprocess.TimeoutExpired as error:
        return f"not ended within {error.timeout:.0f} s"
    return ((done.stdout or done.stderr).strip().splitlines() or ["nothing was said"])[-1]


def _records(
    settings: Settings, found: Mapping[str, Findings], missing: Sequence[Row], tests: str
) -> list[Record]:
    """Return a record of every modality of which there is something to say."""
    made: list[Record] = []
    for modality in ("image", "audio"):
        mine = [each for each in found.values() if each.testbed.subject.modality == modality]
        refused = [row for each in mine for row in each.refused]
        refused += [row for row in missing if row["setting"].startswith(modality)]
        rows = [row for each in mine for row in each.rows]
        if rows or refused:
            made.append(_record(settings, modality, mine, rows, refused, tests))
    return made


def _record(
    settings: Settings,
    modality: str,
    mine: Sequence[Findings],
    rows: Sequence[Row],
    refused: Sequence[Row],
    tests: str,
) -> Record:
    known = {each.testbed.subject.model: each.testbed.subject.batch for each in mine}
    packages = ("torch", "triton", "diffusers", "stable-audio-tools", "smoothcache-core")
    ours = [row for row in rows if row["ours"]]
    checks = {"schedules keep the bytes that they predict": _all_equal(ours)} if ours else {}
    waits = [row["syncs_per_evaluation"] for row in ours if "syncs_per_evaluation" in row]
    if waits:
        plain = {
            (row["model"], row["compiled"]): row["syncs_per_evaluation"]
            for row in rows
            if row["policy"] == PLAIN.name
        }
        checks["no cache of ours waits for the device more often than the plain model"] = all(
            row["syncs_per_evaluation"] <= plain[row["model"], row["compiled"]] for row in ours
        )
    overheads = [
        row["overhead"] for row in ours if "overhead" in row and row["compiled"] == "eager"
    ]
    shown = [f"{overhead:.2%}" for overhead in overheads]
    return new_record(
        what="gpu",
        modality=modality,
        question=QUESTION,
        packages=(*packages, "dit-smoothcache", "cache-dit"),
        device=torch.device(settings.device),
        seeds={"calibration": [], "evaluation": [SEED]},
        settings={
            "dtype": str(settings.dtype).removeprefix("torch."),
            "batch": "; ".join(f"{model}: {batch}" for model, batch in known.items()),
            "timed": "whole runs, in lockstep, order shuffled",
            "weights": "random",
            "minutes": settings.minutes,
            "gpu_tests": tests,
            "overhead of an all-compute schedule, eager": ", ".join(shown) or "not known",
        },
        rows=rows,
        refused=refused,
        notes=NOTES,
        checks=checks,
    )


def _all_equal(ours: Sequence[Row]) -> bool:
    return all(row["bytes_peak"] == row["predicted_bytes"] for row in ours)
