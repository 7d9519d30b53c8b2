"""What holds for every denoiser that nobody knows, and the row of it in `docs/models.md`."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from kit.denoisers import Denoiser
from kit.hook_reference import Snapshot, counted, snapshot
from smoothcache_core import PatternAdapter, Schedule, cached, calibrate, plan
from smoothcache_core.discovering import Structure, structure_of
from torch import Tensor, nn

ROW = (1, 0, 0, 1)

_RUNS = 8  # at most

_RENEWED = {"rope"}  # modules whose buffers a model makes anew in every call (OmniGen)

_ENTRIES = 64  # of all latents, from which coefficients can be told


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What was found of a denoiser that keeps the contract.

    Attributes:
        sites: Number of sites found by structure.
        share: The part of the multiply-accumulates that they do.
        whole: Whether whole evaluations were calibrated, planned and skipped as planned; else they
            are skipped by hand, as its output is not like its latent, or that is tiny.
    """

    sites: int
    share: float
    whole: bool


def keeps_contract(denoiser: Denoiser) -> Kept:
    """Return what was found of a denoiser, after checking everything that must hold."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of diffusers, and ours: that is what the schedules are like
        model = denoiser.model()
        found = _found(denoiser, model)
        if found.shares:
            _computes_everything(denoiser, model, found.adapter)
            _skips_sites(denoiser, model, found.adapter)
        return Kept(
            sites=len(found.adapter.sites(model)),
            share=sum(found.shares.values()),
            whole=_skips_evaluations(denoiser, model),
        )


def _found(denoiser: Denoiser, model: nn.Module) -> Structure:
    denoiser.run(model, 0, 2)  # some keep what they work out in their first run
    before, run = snapshot(model), partial(denoiser.run, model)
    found = structure_of(model, run, latent=denoiser.latent, timestep=denoiser.timestep)
    _assert_restored(model, before)
    return found


def _computes_everything(denoiser: Denoiser, model: nn.Module, adapter: PatternAdapter) -> None:
    plain, before = denoiser.run(model, 0, 4), snapshot(model)
    kinds = {site.kind for site in adapter.sites(model)}
    with cached(model, adapter, Schedule(evaluations=4, rows=dict.fromkeys(kinds, (1,) * 4))):
        same = denoiser.run(model, 0, 4)
    _assert_restored(model, before)
    assert all(torch.equal(one, other) for one, other in zip(plain, same, strict=True))


def _skips_sites(denoiser: Denoiser, model: nn.Module, adapter: PatternAdapter) -> None:
    sites = adapter.sites(model)
    schedule = Schedule(evaluations=4, rows={site.path: ROW for site in sites})
    with counted(model, sites) as plain:
        denoiser.run(model, 0, 4)
    before = snapshot(model)
    with counted(model, sites) as calls, cached(model, adapter, schedule) as stats:
        latent = denoiser.run(model, 0, 4)
    _assert_restored(model, before)
    halved = {path for (path, index), times in plain.items() if 2 * calls[path, index] == times}
    assert halved == {site.path for site in sites}  # a block may call a layer of a site by itself
    assert all(times <= plain[key] for key, times in calls.items())
    assert stats.computed == stats.reused
    assert stats.reused.keys() == {site.path for site in sites}
    assert all(each.isfinite().all() for each in latent)


def _skips_evaluations(denoiser: Denoiser, model: nn.Module) -> bool:
    adapter = denoiser.adapter(model)
    sampler = denoiser.sampler(model, adapter)
    entries = sampler.final_latent(0).numel()
    seeds = range(2, 3 + min(_ENTRIES // entries, _RUNS))
    calibration = calibrate(sampler, seeds=seeds, sensitivity=1, progress=False)
    row = (1, 0) * (calibration.evaluations // 2)
    schedule = Schedule(evaluations=calibration.evaluations, rows={"denoiser": row})
    planned = calibration.dynamics is not None and entries * len(seeds) >= _ENTRIES
    if planned:
        schedule = plan(calibration, compute=0.6, target="denoiser")
    plain, before, calls = sampler.final_latent(1), snapshot(model), list[Any]()
    handle = model.register_forward_pre_hook(lambda *_: calls.append(None))
    with cached(model, adapter, schedule):
        latent = sampler.final_latent(1)
    handle.remove()
    assert len(calls) <= calibration.evaluations
    _assert_restored(model, before)
    assert _error(latent, plain) < 1.0
    return planned


def _assert_restored(model: nn.Module, before: Snapshot) -> None:
    after = snapshot(model)
    for name in _RENEWED & after.keys():
        after[name], before[name] = (*after[name][:2], {}), (*before[name][:2], {})
    assert after == before


def _error(latent: Tensor, plain: Tensor) -> float:
    return float((latent - plain).norm() / plain.norm())
