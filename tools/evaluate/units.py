"""One measured run, in one file: a policy at a budget from one seed, a batch of samples.

The final latents are written first, then the file that names them. So what is there is whole, and a
run that was broken off goes on with what is missing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors, save as save_tensors
from smoothcache_core.cli.ranks import Ranks
from smoothcache_core.documents import read_document
from smoothcache_core.errors import EvaluationError, SmoothCacheError
from smoothcache_core.evaluation.runs import run_of
from smoothcache_core.evaluation.tally import Policy, Run
from smoothcache_core.files import read_file, write_atomically
from smoothcache_core.reports.rows import PLAIN
from smoothcache_core.runtime import CacheStats
from tqdm import tqdm

from tools.evaluate.folders import Workplace, digest_of
from tools.evaluate.subject import Subject

_WARMUP_STEPS = 2  # some solvers make no single step
_MOST = 2**40  # bytes of latents


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A run to measure, or one that was.

    Attributes:
        policy: What is run.
        seed: From which seed.
        fingerprint: What decides on its numbers, as a hash.
    """

    policy: Policy
    seed: int
    fingerprint: str


def units_of(subject: Subject, policies: Sequence[Policy]) -> list[Unit]:
    """Return the runs of all policies from all seeds, seed by seed."""
    digest = subject.place.digest
    return [
        Unit(policy=policy, seed=seed, fingerprint=digest_of([digest, _told(policy), seed]))
        for seed in subject.size.seeds
        for policy in policies
    ]


def _told(policy: Policy) -> list[Any]:
    """Return what a policy does: not what it promises, which depends on the clock too."""
    told = {"prediction", "cost", "source", "fingerprint", "solver_steps"}
    schedule = policy.schedule and policy.schedule.model_dump(mode="json", exclude=told)
    return [schedule, policy.evaluations]


def measure(subject: Subject, units: Sequence[Unit], ranks: Ranks) -> None:
    """Make the runs whose files are not there; processes share them.

    Raises:
        CommandError: Another process ended.
    """
    place = subject.place
    own = [unit for unit in ranks.share(units) if kept(place, unit) is None]
    if own:
        warm = replace(subject.sampler, steps=min(_WARMUP_STEPS, subject.sampler.steps))
        warm(own[0].seed)
    bar = tqdm(own, desc=f"{subject.kind.name}: sampling", unit="run", disable=not ranks.first)
    for unit in bar:
        bar.set_postfix_str(unit.policy.name)
        try:
            run = run_of(subject.sampler, unit.policy, unit.seed)
        except SmoothCacheError as error:
            _write(place, unit, {"failed": f"{type(error).__name__}: {error}"})
        else:
            keep(place, unit, run)
    ranks.wait()


# ---------------------------------------------------------------------------- files


def keep(place: Workplace, unit: Unit, run: Run) -> None:
    """Write a run, its latents first."""
    content = save_tensors({"latents": run.latents.cpu().contiguous()})
    latents = _file(place, unit).with_suffix(".safetensors")
    write_atomically(latents, content)
    found = {
        "seconds": run.seconds,
        "stats": asdict(run.stats),
        "latents": latents.name,
        "latents_hash": hashlib.sha256(content).hexdigest(),
    }
    _write(place, unit, found)


def kept(place: Workplace, unit: Unit) -> Run | str | None:
    """Return a run that was measured, the reason why it failed, or None if it has to be made."""
    file = _file(place, unit)
    if not file.exists():
        return None
    try:
        found = read_document(file, "run", EvaluationError)
        if found["fingerprint"] != unit.fingerprint:
            return None
        return found["failed"] if "failed" in found else _run(file, found)
    except (EvaluationError, KeyError, TypeError):
        return None  # half a file of another program; it is measured anew


def _run(file: Path, found: Mapping[str, Any]) -> Run | None:
    content = read_file(file.with_name(found["latents"]), "latents", EvaluationError, most=_MOST)
    if hashlib.sha256(content).hexdigest() != found["latents_hash"]:
        return None
    return Run(
        latents=load_tensors(content)["latents"],
        seconds=found["seconds"],
        stats=CacheStats(**found["stats"]),
    )


def _file(place: Workplace, unit: Unit) -> Path:
    return place.unit(unit.policy.name, unit.seed)


def _write(place: Workplace, unit: Unit, found: Mapping[str, Any]) -> None:
    told = {"policy": unit.policy.name, "seed": unit.seed, "fingerprint": unit.fingerprint}
    text = json.dumps({**told, **found}, indent=2) + "\n"
    write_atomically(_file(place, unit), text.encode())


def runs_of(
    place: Workplace, units: Sequence[Unit]
) -> tuple[dict[int, dict[str, Run]], dict[str, str]]:
    """Return the runs by seed and policy, and why policies failed, by their names.

    A policy that failed from one seed has no runs at all.

    Raises:
        EvaluationError: A run is not there, or the plain one failed.
    """
    runs: dict[int, dict[str, Run]] = {}
    failed: dict[str, str] = {}
    for unit in units:
        found = kept(place, unit)
        if found is None:
            raise EvaluationError(f"{str(_file(place, unit))!r} is gone; start again")
        if isinstance(found, str):
            failed.setdefault(unit.policy.name, found)
        else:
            runs.setdefault(unit.seed, {})[unit.policy.name] = found
    if PLAIN in failed:
        raise EvaluationError(f"the plain run failed: {failed[PLAIN]}")
    return {
        seed: {name: run for name, run in of_seed.items() if name not in failed}
        for seed, of_seed in runs.items()
    }, failed
