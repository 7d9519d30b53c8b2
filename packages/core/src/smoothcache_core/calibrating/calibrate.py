"""Calibration: run the unmodified sampler and measure what caching needs to know."""

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from smoothcache_core.adapters.compiled import denoiser, is_compiled
from smoothcache_core.adapters.levels import Level
from smoothcache_core.arguments import check_kind
from smoothcache_core.calibrating.continuing import continued
from smoothcache_core.calibrating.levels import (
    LevelRecorder,
    check_levels,
    check_same_levels,
    samplers_of,
)
from smoothcache_core.calibrating.probe import Probe, sampler_fingerprint
from smoothcache_core.calibrating.progress import counting_calls
from smoothcache_core.calibrating.sharded import shared_out
from smoothcache_core.calibration.calibration import Calibration
from smoothcache_core.errors import CalibrationError
from smoothcache_core.files import check_output
from smoothcache_core.locking import locked
from smoothcache_core.sampling.finer_run import check_finer
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.sampling.seeding import checked_seeds
from smoothcache_core.schedule.provenance import Aim

logger = logging.getLogger(__name__)

PLANNING_LAG = 12
"""Largest lag that is measured by default. A fill of two outputs looks back twice as far
as it skips, so plans of sites skip up to half as many evaluations in a row; every lag more keeps
another copy of all outputs of sites while calibrating."""


def calibrate(
    sampler: Sampler,
    *,
    seeds: Iterable[int],
    max_lag: int = PLANNING_LAG,
    sensitivity: int | Collection[int] = 2,
    references: Literal["device", "cpu"] = "device",
    checkpoint: str | Path | None = None,
    progress: bool = True,
    sharded: bool = False,
    sites: Sequence[Level] = ("parts",),
    reference: Aim = "plain",
) -> Calibration:
    """Measure how the outputs of a model change during a run, and what errors in them would do.

    For every site: the relative L1 error between evaluations i and i + k (SmoothCache's), and the
    inner products of its outputs, k = 0..max_lag. For the run as a whole: how the solver answers to
    the denoiser's outputs, and how the denoiser answers to errors of its latent (see `Dynamics`).
    Every evaluation is computed, and the model is restored.

    Example:
        A denoiser of two layers, and Euler's method of 8 steps:

        >>> import torch
        >>> from torch import nn
        >>> from smoothcache_core import PatternAdapter, Sampler, SitePattern, calibrate, plan
        >>> class Denoiser(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        ...     def forward(self, hidden_states: torch.Tensor, timestep: float) -> torch.Tensor:
        ...         for block in self.blocks:
        ...             hidden_states = hidden_states + block(hidden_states).tanh()
        ...         return hidden_states * timestep
        >>> model = Denoiser().requires_grad_(False)
        >>> adapter = PatternAdapter(name="mine", patterns=(SitePattern("blocks.*", "block"),))
        >>> def run(seed: int) -> torch.Tensor:
        ...     latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        ...     for step in range(8):
        ...         latent = latent - model(latent, 1 - step / 8) / 8
        ...     return latent
        >>> sampler = Sampler(model=model, adapter=adapter, run=run, solver="euler", samples=2)
        >>> calibration = calibrate(sampler, seeds=range(4), progress=False)
        >>> calibration.samples, calibration.evaluations, len(calibration.sites)
        (8, 8, 2)
        >>> schedule = plan(calibration, compute=0.5)

    Args:
        sampler: How a run is made. Its model is not compiled, unless it has no sites. Where `run`
            returns no final latent, the calibration remarks so: what the last evaluation does to it
            is then not known.
        seeds: One run each. Keep them apart from the seeds you evaluate with.
        max_lag: Largest lag, at least 1; plans of sites skip up to half as many evaluations in a
            row. Memory: one copy of all site outputs per lag.
        sensitivity: How many of the first seeds, or which seeds, to measure sensitivities with. At
            up to 6 evaluations the output is perturbed and the run is continued, which costs about
            3 extra runs per seed; and the outputs of up to 8 sites of each kind are replaced in
            turn, which costs up to 6 x (8 per kind + 1) extra evaluations. `plan` needs at least 1,
            the published rules none.
        references: Where earlier outputs are kept: on the model's `"device"` (fast), or on the
            `"cpu"`, which bounds device memory to one output at a time.
        checkpoint: File that is saved after every run, and continued from if it exists. What it
            was measured on is compared with this sampler first, by one evaluation of the model; a
            file of anything else is refused, and so is one that another process writes. With
            `sharded` it is written by rank 0 at the end; until then each rank saves every run in a
            file beside it, `name.rank0-of-2.safetensors` for `name.safetensors`, and all that is
            there is continued from, however many ranks it is of.
        progress: Show a progress bar; of several ranks, that of rank 0.
        sharded: Share the seeds out among the ranks of `torch.distributed`: called by every rank
            with the same arguments and a model of its own, rank r of n takes `seeds[r::n]`, and all
            return the same calibration, exactly that of one process with as many threads, as sums
            over runs are exact. The ranks are those of the default process group; if there is none,
            but torchrun or `accelerate launch` started the processes, one of gloo is made for the
            time of the call. A process by itself calibrates by itself.
        sites: What is measured, and can be planned: the `"parts"` that the adapter names, the
            deltas of whole `"blocks"`, or of `"spans"` of blocks that are skipped together. Coarser
            sites keep less and err more. Each costs a plain run per seed, and its share of replaced
            outputs; they are measured one after the other, so that memory holds copies of one.
        reference: What samples shall come near to: the `"plain"` run; or `"exact"`, which also
            measures the exact solution that the solver comes near to, so that can be planned for as
            well, `plan(..., toward="exact")`. That needs `Sampler.finer`, which pipelines of
            diffusers have, and costs about 13 plain runs per seed. Not to be confused with
            `references`.

    Returns:
        The calibration of all runs, those of `checkpoint` included.

    Raises:
        AdapterError: Blocks or spans are asked for, and the model has none.
        CalibrationError: The settings are wrong, the runs differ in their evaluations (a solver
            whose evaluations depend on the data has no static schedule), or outputs are not finite.
            Or the exact solution is asked for where there is none, as the solver adds noise, clips
            or rescales, or where finer runs are not much nearer to it than the plain run.
            With `sharded`: this happened on a rank (all ranks raise, and name it), a rank ended,
            the ranks have different seeds, or files were made with other settings.
        OutputError: `checkpoint` cannot be written; raised before anything is sampled.
        SamplerError: `run` returns something else than the final latent or None; or the exact
            solution is asked for, and there is no `finer`, or no final latent.
    """
    check_kind(sampler, Sampler, name="sampler", error=CalibrationError)
    seeds = checked_seeds(seeds, "calibration", CalibrationError)
    if checkpoint is not None:
        check_output(checkpoint)
    check_levels(sites)
    _check_reference(sampler, reference, sensitivity)
    how = {"sensitivity": sensitivity, "checkpoint": checkpoint, "progress": progress}
    with sampler.around():
        samplers = samplers_of(sampler, sites)
        probe = Probe(samplers[0], seeds)  # for all files that are continued
        run = partial(_calibrated, samplers, probe, max_lag=max_lag, references=references,
            exact=reference == "exact",
        )  # fmt: skip
        if sharded:
            return shared_out(run, seeds=seeds, **how)
        with locked(checkpoint, CalibrationError):
            return run(seeds=seeds, **how)


def _calibrated(
    samplers: Sequence[Sampler],
    probe: Probe,
    *,
    seeds: Iterable[int],
    max_lag: int,
    sensitivity: int | Collection[int],
    references: Literal["device", "cpu"],
    exact: bool,
    checkpoint: str | Path | None,
    progress: bool,
) -> Calibration:
    """Calibrate in this process."""
    todo = list(seeds)
    _check_lag(max_lag)
    sampler = samplers[0]
    _check_eager(sampler)
    fingerprint = sampler_fingerprint(sampler)
    chosen = _chosen(sensitivity, todo)
    done = continued(
        checkpoint, sampler, fingerprint, probe, seeds=todo, max_lag=max_lag, chosen=chosen,
        exact=exact,
    )  # fmt: skip
    if done is not None and checkpoint is not None:
        check_same_levels(done, samplers, checkpoint)
    if checkpoint is not None:
        look = probe.look(done and done.fingerprint)
        fingerprint = fingerprint.changed(sampling=look.sampling)
    remaining = [seed for seed in todo if done is None or seed not in done.seeds]
    levels = LevelRecorder(samplers, max_lag, fingerprint, references, chosen, exact=exact)
    with (
        tqdm(remaining, desc="calibrating", unit="run", disable=not progress) as bar,
        counting_calls(sampler.model, bar),
    ):
        for seed in bar:
            part = levels.run(seed)
            done = part if done is None else Calibration.merge(done, part)
            if checkpoint is not None:
                done.save(checkpoint)
    assert done is not None
    return done


def _check_reference(sampler: Sampler, reference: str, sensitivity: int | Collection[int]) -> None:
    """Refuse to measure an exact solution where that is impossible."""
    if reference not in ("plain", "exact"):
        raise CalibrationError(f"reference is 'plain' or 'exact', got {reference!r}")
    if reference == "exact" and not sensitivity:
        raise CalibrationError(
            'reference="exact" is for plans by predicted errors, which need sensitivities; '
            "calibrate with sensitivity=2"
        )
    if reference == "exact":
        check_finer(sampler)


def _check_lag(max_lag: int) -> None:
    if max_lag < 1:
        raise CalibrationError(f"max_lag must be at least 1, got {max_lag}")


def _check_eager(sampler: Sampler) -> None:
    """Refuse a compiled model whose sites are to be measured."""
    inside = denoiser(sampler.model)
    if is_compiled(sampler.model) and sampler.adapter.sites(inside):
        raise CalibrationError(
            f"this {type(inside).__name__} is compiled; calibrate first, then compile (with an "
            "adapter without sites it may be compiled)"
        )


def _chosen(sensitivity: int | Collection[int], seeds: Sequence[int]) -> set[int]:
    """Return the seeds to measure sensitivities with."""
    if not isinstance(sensitivity, int):
        given = list(sensitivity)
        return set(checked_seeds(given, "sensitivity", CalibrationError) if given else ())
    if sensitivity < 0:
        raise CalibrationError(f"sensitivity is a number of seeds, at least 0, got {sensitivity}")
    return set(seeds[:sensitivity])
