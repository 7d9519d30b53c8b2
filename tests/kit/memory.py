"""What is kept of a small model, foretold and measured, target by target."""

from typing import Any

import torch
from kit.adapter_contract import Case, output_of
from smoothcache_core import Calibration, Sampler, cached, calibrate, plan
from smoothcache_core.adapters.sites import names_of
from smoothcache_core.calibrating import cost_from_shapes
from torch import Tensor, nn

EVALUATIONS, SCALE, COMPUTE = 6, 3.0, 0.65
TARGETS = ("denoiser", "guidance", "site", "kind", "block", "span")


def guided_sampler(case: Case, model: nn.Module, shape: tuple[int, ...] | None = None) -> Sampler:
    """Return Euler's method with batched guidance on the model of a case.

    Args:
        case: Says how the model is called.
        model: Its model.
        shape: Shape of one latent; that of the case if not given.
    """
    size = shape or case.latent
    first, last = case.timesteps[0], case.timesteps[-1]

    def run(seed: int) -> Tensor:
        latent = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(0)
        conditions = case.conditions()
        (name,) = names_of(case.adapter.latent)
        for step in range(EVALUATIONS):
            timestep = torch.full((2,), first + (last - first) * step / EVALUATIONS)
            both: dict[str, Any] = {name: latent.repeat(2, *[1] * len(size))}
            output = output_of(model(**conditions, **both, **{case.adapter.timestep: timestep}))
            one, other = output[:, : size[0]].chunk(2)
            if case.adapter.guidance == "uncond-first":
                one, other = other, one
            latent = latent + (other + SCALE * (one - other)) / (4 * EVALUATIONS)
        return latent

    return Sampler(model=model, adapter=case.adapter, run=run, solver="euler")


def calibrated(sampler: Sampler) -> Calibration:
    """Return a calibration of parts, blocks and spans."""
    levels = ("parts", "blocks", "spans")
    return calibrate(sampler, seeds=(0, 1), sensitivity=1, sites=levels, progress=False)


def at_size_of(calibration: Calibration, sampler: Sampler) -> Calibration:
    """Return a calibration for the size of another sampler, which is not run."""
    recorded = [each.fingerprint.recorded_adapter for each in calibration.coarser]
    adapters = [sampler.adapter, *(each for each in recorded if each is not None)]
    return calibration.at(*(cost_from_shapes(sampler.with_adapter(each)) for each in adapters))


def check_kept(sampler: Sampler, calibration: Calibration) -> dict[str, int]:
    """Run a schedule of every target; what is kept must be what was foretold, and is left after.

    Returns:
        The most bytes that each target kept.
    """
    plain, peaks = sampler.final_latent(9), dict[str, int]()
    for target in TARGETS:
        schedule = plan(calibration, compute=COMPUTE, target=target)
        with cached(sampler.model, sampler.adapter, schedule) as stats:
            sampler.final_latent(9)
        assert stats.bytes_peak == schedule.predicted_bytes() > 0, target
        assert schedule.prediction is not None
        assert schedule.prediction.bytes == stats.bytes_peak
        assert (stats.bytes_held, stats.recomputed) == (0, 0), target
        peaks[target] = stats.bytes_peak
    assert torch.equal(sampler.final_latent(9), plain)
    return peaks
