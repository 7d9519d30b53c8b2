"""Blocks and spans of blocks: measured beside parts, planned, applied, and kept in files."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from smoothcache_core import Calibration, PatternAdapter, Sampler, SitePattern, calibrate, plan
from smoothcache_core.adapters.levels import Level
from smoothcache_core.calibrating import transfer
from smoothcache_core.errors import CalibrationError, ScheduleError
from smoothcache_core.planning import Limits, Planner
from smoothcache_core.runtime import cached
from torch import Tensor, nn

WIDTH, STEPS = 6, 8
LEVELS: tuple[Level, ...] = ("parts", "blocks", "spans")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.ff = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, WIDTH))

    def forward(self, hidden_states: Tensor, gate: float) -> Tensor:
        hidden_states = hidden_states + gate * self.attn(hidden_states)
        return hidden_states + gate * self.ff(hidden_states)


class Denoiser(nn.Module):
    """Four blocks of one list; or two lists of four, whose blocks take turns."""

    def __init__(self, *, turns: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.others = nn.ModuleList(Block() for _ in range(4)) if turns else None

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        for index, block in enumerate(self.blocks):
            hidden_states = block(hidden_states, 0.2 + timestep / 8)
            if self.others is not None:
                hidden_states = self.others[index](hidden_states, 0.2)
        return hidden_states


ADAPTER = PatternAdapter(
    name="levelled",
    patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.ff", "ff")),
    classes=("Denoiser",),
)


def sampler_of(model: nn.Module, **changes: Any) -> Sampler:
    def run(seed: int) -> Tensor:
        latent = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(seed))
        for step in range(STEPS):
            latent = latent - model(latent, 1 - step / STEPS) / STEPS
        return latent

    model.requires_grad_(False)
    known = {"adapter": ADAPTER, "solver": "euler", "samples": 2}
    return Sampler(model=model, run=run, **{**known, **changes})


@functools.cache
def calibration_of(levels: tuple[Level, ...] = LEVELS, *, turns: bool = False) -> Calibration:
    sampler = sampler_of(Denoiser(turns=turns))
    return calibrate(sampler, seeds=(0, 1), max_lag=4, sites=levels, progress=False)


def test_every_level_is_measured_as_by_itself():
    known = calibration_of()
    assert [*known.levels] == ["parts", "blocks", "spans"]
    for level in LEVELS:
        alone = calibration_of((level,))
        assert alone.coarser == ()
        assert replace(known.levels[level], coarser=()) == alone
    kinds = {level: each.kinds for level, each in known.levels.items()}
    assert kinds == {"parts": ("attn", "ff"), "blocks": ("blocks",), "spans": ("blocks_span",)}


def test_coarser_sites_keep_less_and_all_that_is_kept_is_foretold():
    known, model = calibration_of(), Denoiser()
    sampler, held = sampler_of(model), []
    plain = sampler.final_latent(7)
    for target in ("site", "block", "span"):
        schedule = plan(known, compute=0.6, target=target)
        with cached(model, ADAPTER, schedule) as stats:
            latent = sampler.final_latent(7)
        assert stats.bytes_peak == schedule.predicted_bytes()
        assert (stats.bytes_held, stats.recomputed) == (0, 0)
        assert 0 < (latent - plain).norm() < 0.2 * plain.norm()
        held.append(stats.bytes_peak)
    assert held[0] > held[1] > held[2]
    assert torch.equal(sampler.final_latent(7), plain)


def test_auto_takes_coarser_sites_where_parts_do_not_fit():
    known = calibration_of()
    keeps = {t: plan(known, compute=0.6, target=t).predicted_bytes() for t in ("site", "block")}
    chosen = [
        Planner(known, limits=Limits(max_bytes=size)).candidates(0.6)
        for size in (None, keeps["site"] - 1, keeps["block"] - 1)
    ]
    assert all({"block", "span"} & set(each) for each in chosen)
    sizes = [max(p.predicted_bytes() for p in each.values()) for each in chosen]
    assert sizes[1] < keeps["site"]
    assert sizes[2] < keeps["block"]


@pytest.mark.parametrize("turns", [False, True])
def test_spans_cross_lists_that_take_turns(turns: bool):
    known = calibration_of(("spans",), turns=turns)
    paths = [site.paths for site in known.sites]
    if turns:
        assert paths == [(f"blocks.{n}", f"others.{n}") for n in range(4)]
    else:
        assert paths == [("blocks.0", "blocks.1"), ("blocks.2", "blocks.3")]
    model = Denoiser(turns=turns)
    sampler = sampler_of(model)
    schedule = plan(known, compute=0.7, target="span")
    with cached(model, ADAPTER, schedule) as stats:
        sampler.final_latent(7)
    assert stats.bytes_peak == schedule.predicted_bytes()
    assert stats.recomputed == 0


def test_an_all_compute_schedule_of_spans_changes_nothing():
    model = Denoiser(turns=True)
    sampler = sampler_of(model)
    plain = sampler.final_latent(3)
    schedule = plan(calibration_of(turns=True), compute=0.9, target="span")
    rows = {key: (1,) * STEPS for key in schedule.rows}
    computed = schedule.changed(rows=rows, fills={}, prediction=None, solver_steps=None)
    with pytest.warns(match="nothing will be reused"), cached(model, ADAPTER, computed):
        assert torch.equal(sampler.final_latent(3), plain)
    assert type(model.blocks[0]) is Block


def test_files_hold_all_levels(tmp_path: Path):
    known = calibration_of()
    path = known.save(tmp_path / "levels.safetensors")
    assert Calibration.load(path) == known
    assert Calibration.load(path) != replace(known, coarser=())
    schedule = plan(Calibration.load(path), compute=0.6, target="block")
    assert schedule == plan(known, compute=0.6, target="block")
    assert known.of(schedule).level == "blocks"


def test_a_file_is_continued_with_the_same_levels_only(tmp_path: Path):
    path = tmp_path / "levels.safetensors"
    sampler = sampler_of(Denoiser())
    how = {"max_lag": 4, "checkpoint": path, "progress": False, "sensitivity": [0]}
    calibrate(sampler, seeds=[0], sites=("parts", "blocks"), **how)
    with pytest.raises(CalibrationError, match=r"its sites are \['parts', 'blocks'\] instead of"):
        calibrate(sampler, seeds=[0, 1], **how)
    done = calibrate(sampler, seeds=[0, 1], sites=("parts", "blocks"), **how)
    whole = calibrate(
        sampler, seeds=[0, 1], sites=("blocks", "parts"), **{**how, "checkpoint": None}
    )
    assert done.seeds == (0, 1)
    assert done.coarser[0].seeds == (0, 1)
    assert done == whole


def test_merging_wants_the_same_levels():
    sampler = sampler_of(Denoiser())
    other = calibrate(sampler, seeds=[5], max_lag=4, progress=False)
    with pytest.raises(CalibrationError, match=r"sites are \['parts'\] instead of"):
        Calibration.merge(calibration_of(), other)


def test_all_levels_are_transferred():
    model = Denoiser()

    def run(seed: int) -> Tensor:
        latent = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(seed))
        for step in range(10):
            latent = latent - model(latent, 1 - step / 10) / 10
        return latent

    moved = transfer(calibration_of(), replace(sampler_of(model), run=run))
    assert [*moved.levels] == [*LEVELS]
    assert {each.evaluations for each in moved.levels.values()} == {10}
    assert plan(moved, compute=0.7, target="block").evaluations == 10


def test_what_was_not_measured_is_told():
    with pytest.raises(ScheduleError, match=r"of parts, not of spans; .* sites=\('spans',\)"):
        plan(calibration_of(("parts",)), compute=0.6, target="span")
    with pytest.raises(ScheduleError, match="this calibration is of blocks, not of parts"):
        plan(calibration_of(("blocks",)), compute=0.6, target="site")
    wrong: Any = ("sublayers",)
    with pytest.raises(CalibrationError, match=r"sites are some of \['parts', 'blocks', 'spans'\]"):
        calibrate(sampler_of(Denoiser()), seeds=[0], sites=wrong)
