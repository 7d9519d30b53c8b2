"""What does caching do on a GPU: time, memory, device synchronisations, eagerly and compiled?

First whether the small trained models of all modalities give what they give on the CPU, see
`gpu_quality.py`. Then DiT-XL/2 at 256 and 512 pixels, STDiT3-XL/2 and Stable Audio Open's
transformer, weights random, in bfloat16, guidance in one batch: the plain model, this library by
sites and by whole evaluations, and other people's caches; eagerly, compiled block by block,
compiled as a whole, and as CUDA graphs. What is most worth knowing goes first. Every measurement
looks at the clock before it begins; what does not fit, and what fails, is named in the record with
its reason. Records are handed on whenever there is more to say, so that what breaks off loses
nothing.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from smoothcache_core.schedule import Cost

from tools.bench.policies import PLAIN
from tools.bench.records import REPOSITORY, Record, Row, new_record
from tools.bench.studies import gpu_quality
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
MODALITIES = ("image", "video", "audio")
PACKAGES = ("torch", "triton", "diffusers", "stable-audio-tools", "smoothcache-core")
_STEPS, _FEW = 20, 4  # of the trained models, and of a small check
_SEEDS = (1000, 1001)  # as `evaluate` begins with
_COMPARISON = 10.0  # seconds that must be left before a trained model is loaded and compared
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


@dataclass
class _State:
    """What is known so far: findings, models and what was not measured, by names of testbeds."""

    found: dict[str, Findings] = field(default_factory=dict[str, Findings])
    prepared: dict[str, tuple[Any, Cost]] = field(default_factory=dict[str, tuple[Any, Cost]])
    missing: list[Row] = field(default_factory=list[Row])


def measure(settings: Settings) -> Iterator[Record]:
    """Measure as much as there is time for, and yield records whenever there is more to say.

    Args:
        settings: The settings.

    Yields:
        Records of a modality; a later one of the same `what` and modality replaces the earlier.
    """
    clock = Clock(end=time.monotonic() + 60.0 * settings.minutes)
    for modality in MODALITIES:
        yield _quality(settings, modality, clock)
    tests = _tests(settings, clock)
    state = _State()
    for name, way in cases(list(testbeds(small=settings.small)), small=settings.small):
        try:
            with clock.interrupting(), torch.no_grad():
                _measure_one(settings, name, way, state, clock)
        except OutOfTimeError:
            state.missing.append(_not_run(name, way, "not run: the time was up"))
        yield _speed(settings, name.split()[0], state, tests)


def _measure_one(settings: Settings, name: str, way: Way, state: _State, clock: Clock) -> None:
    """Measure one case; what cannot be built or measured is noted."""
    if clock.left() < PATIENCE[way]:
        left = max(clock.left(), 0.0)
        state.missing.append(_not_run(name, way, f"not run: {left:.0f} s were left"))
        return
    try:
        if name not in state.found:
            testbed = testbeds(small=settings.small)[name]()
            model = testbed.subject.build(torch.device(settings.device), settings.dtype)
            state.prepared[name] = model, cost_of(testbed.subject, model)
            state.found[name] = Findings(testbed=testbed)
        measure_case(state.found[name], *state.prepared[name], way, clock)
    except Exception as error:
        state.missing.append(_not_run(name, way, reason(error)))


def _quality(settings: Settings, modality: str, clock: Clock) -> Record:
    """Return the record of what the trained model of a modality gives on the device."""
    rows: list[Row] = []
    refused: list[Row] = []
    if clock.left() < _COMPARISON:
        why = f"not run: {max(clock.left(), 0.0):.0f} s were left"
    else:
        why = _compared(settings, modality, rows, clock)
    if why:
        refused.append({"policy": "all", "setting": modality, "reason": why})
    return new_record(
        what="devices",
        modality=modality,
        question=gpu_quality.QUESTION,
        packages=PACKAGES,
        device=torch.device(settings.device),
        seeds={"calibration": [], "evaluation": list(_SEEDS)},
        settings={"dtype": "float32", "noise": "drawn on the CPU"},
        rows=rows,
        refused=refused,
        notes=gpu_quality.NOTES,
        checks={"the device gives what the CPU gives": all(r["agrees"] for r in rows)}
        if rows
        else {},
    )


def _compared(settings: Settings, modality: str, rows: list[Row], clock: Clock) -> str:
    """Add the rows of a modality; return why there are none."""
    steps = _FEW if settings.small else _STEPS
    seeds = _SEEDS[:1] if settings.small else _SEEDS
    try:
        with clock.interrupting(), torch.no_grad():
            trained = gpu_quality.TRAINED[modality]()
            rows += gpu_quality.compared(trained, device=settings.device, steps=steps, seeds=seeds)
    except OutOfTimeError:
        return "not run: the time was up"
    except Exception as error:
        return reason(error)
    return ""


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


def _speed(settings: Settings, modality: str, state: _State, tests: str) -> Record:
    """Return the record of a modality with all that is known so far."""
    known = state.found.values()
    mine = [each for each in known if each.testbed.subject.modality == modality]
    refused = [row for each in mine for row in each.refused]
    refused += [row for row in state.missing if row["setting"].startswith(modality)]
    return _record(settings, modality, mine, [r for e in mine for r in e.rows], refused, tests)


def _record(
    settings: Settings,
    modality: str,
    mine: Sequence[Findings],
    rows: Sequence[Row],
    refused: Sequence[Row],
    tests: str,
) -> Record:
    known = {each.testbed.subject.model: each.testbed.subject.batch for each in mine}
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
        packages=(*PACKAGES, "dit-smoothcache", "cache-dit"),
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
