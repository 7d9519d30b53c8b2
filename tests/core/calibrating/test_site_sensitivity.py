"""How much an error of one site's output moves the denoiser's output."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import anatomy
from kit.planning import MIXTURE, Mixture, OneStep, Passes, ToySampler
from smoothcache_core import Calibration, PatternAdapter, SitePattern, calibrate
from smoothcache_core.adapters import Site
from smoothcache_core.calibrating.site_sensitivity import BLOCKS, measure_influence
from smoothcache_core.calibrating.solver_response import measure_response
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.sampling.recording import record
from torch import Tensor, nn

STEPS = 6
GAINS = (1.0, -0.5, 0.125)


def calibration_of(
    sampler: ToySampler, adapter: PatternAdapter = MIXTURE, **more: Any
) -> Calibration:
    settings = {"seeds": (0, 1), "max_lag": 3, "progress": False}
    return calibrate(sampler.value(adapter), **settings | more)


def influence_of(calibration: Calibration) -> Influence:
    assert not calibration.remark
    assert calibration.influence is not None
    return calibration.influence


# ---------------------------------------------------------------------------- what is measured


def test_the_influence_of_a_summand_is_its_gain():
    sampler = ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS))
    calibration = calibration_of(sampler)
    influence = influence_of(calibration)
    values = influence.values(calibration.sites)
    expected = np.broadcast_to(np.abs(GAINS)[:, None], (3, STEPS))
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert influence.counts.tolist() == [[0, 2, 2, 2, 2, 2]] * 3


@pytest.mark.parametrize("passes", ["batched", "sequential"])
def test_guidance_weights_what_a_site_does_in_both_passes(passes: Passes):
    sampler = ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS), passes, scale=3.0)
    outputs: list[Tensor] = []
    calibration = calibration_of(sampler, seeds=(0,))
    values = influence_of(calibration).values(calibration.sites)
    assert isinstance(sampler.model, Mixture)
    for index, part in enumerate(sampler.model.parts):
        outputs.clear()
        handle = part.register_forward_hook(lambda *call: outputs.append(call[2]))
        sampler(0)
        handle.remove()
        both = torch.stack(outputs).reshape(STEPS, 2, -1)
        change = both.diff(dim=0)
        guided = 3.0 * change[:, 0] - 2.0 * change[:, 1]
        size = change.square().mean(dim=(1, 2)).sqrt()
        expected = abs(GAINS[index]) * guided.square().mean(dim=1).sqrt() / size
        np.testing.assert_allclose(values[index, 1:], expected, rtol=1e-4)


class Chained(nn.Module):
    """Sites one after the other, one of them called for halves of the latent, one giving a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.halved = nn.Linear(4, 4), nn.Linear(4, 4)
        self.pair = Pair()

    def forward(self, hidden_states: Tensor, timestep: Any, label: Any = None) -> Tensor:
        del label
        hidden = self.first(hidden_states * (1.0 + 0.2 * float(timestep)))
        hidden = torch.cat([self.halved(part) for part in hidden.chunk(2, dim=-2)], dim=-2)
        one, other = self.pair(hidden)
        return 0.5 * one + 0.25 * other


class Pair(nn.Module):
    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return hidden.sin(), hidden.cos()


CHAINED = PatternAdapter(
    name="chained",
    patterns=tuple(SitePattern(name, name) for name in ("first", "halved", "pair")),
)


@torch.no_grad()
def test_replacing_an_output_by_its_predecessor_is_what_is_measured():
    model = Chained()
    sampler = ToySampler(model, lambda: OneStep(STEPS), shape=(2, 4))
    calibration = calibration_of(sampler, CHAINED, seeds=(0,))
    values = influence_of(calibration).values(calibration.sites)
    latents: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda *call: latents.append(call[1][0]))
    sampler(0)
    handle.remove()
    for index, name in enumerate(("first", "halved", "pair")):
        site = model.get_submodule(name)
        for i in range(1, STEPS):
            old = _calls(model, site, latents[i - 1], i - 1)
            new = _calls(model, site, latents[i], i)
            plain = model(latents[i], i)
            feeder = iter(old)
            handle = site.register_forward_hook(lambda *_, feeder=feeder: next(feeder))
            moved = model(latents[i], i) - plain
            handle.remove()
            change = _flat(new) - _flat(old)
            expected = moved.square().mean().sqrt() / change.square().mean().sqrt()
            assert values[index, i] == pytest.approx(float(expected), rel=1e-4), (name, i)


def _calls(model: nn.Module, site: nn.Module, latent: Tensor, timestep: int) -> list[Any]:
    outputs: list[Any] = []
    handle = site.register_forward_hook(lambda *call: outputs.append(call[2]))
    model(latent, timestep)
    handle.remove()
    return outputs


def _flat(outputs: Sequence[Any]) -> Tensor:
    parts = [part for o in outputs for part in (o if isinstance(o, tuple) else (o,))]
    return torch.cat([part.flatten() for part in parts])


# ---------------------------------------------------------------------------- interpolation


def filled(known: dict[tuple[int, int], float], sites: Sequence[Site]) -> np.ndarray:
    """Return the values where only `known`, by site and evaluation, was measured, once each."""
    totals, counts = np.zeros((len(sites), STEPS)), np.zeros((len(sites), STEPS), dtype=np.int64)
    for (site, evaluation), value in known.items():
        totals[site, evaluation], counts[site, evaluation] = value, 1
    return Influence(totals=cut(totals), counts=counts).values(sites)


def sites_of(*kinds: str, blocks: Sequence[int] | None = None) -> list[Site]:
    numbers = blocks or range(len(kinds))
    pairs = zip(kinds, numbers, strict=True)
    return [Site(path=f"{i}", kind=kind, block=b) for i, (kind, b) in enumerate(pairs)]


def test_what_is_not_measured_is_interpolated_geometrically():
    values = filled({(0, 1): 1.0, (0, 5): 16.0}, sites_of("attn"))
    np.testing.assert_allclose(values, [[1.0, 1.0, 2.0, 4.0, 8.0, 16.0]])
    values = filled({(0, 2): 1.0, (2, 2): 9.0, (2, 3): 9.0}, sites_of("attn", "attn", "attn"))
    np.testing.assert_allclose(values[1], 3.0)


def test_kinds_are_interpolated_apart_and_unknown_ones_taken_for_the_output():
    values = filled({(0, 2): 5.0, (3, 2): 7.0}, sites_of("attn", "ff", "norm", "ff", "attn"))
    assert values[:, 2].tolist() == pytest.approx([5.0, 7.0, 1.0, 7.0, 5.0])


def test_blocks_of_several_lists_are_interpolated_in_their_order():
    """Block numbers start anew in every list of blocks."""
    sites = sites_of(*["attn"] * 6, blocks=(0, 1, 2, 0, 1, 2))
    values = filled({(0, 2): 1.0, (5, 2): 32.0}, sites)
    np.testing.assert_allclose(values[:, 2], 2.0 ** np.arange(6))


def test_only_some_blocks_of_many_are_measured():
    gains = [2.0 ** (-index / 4) for index in range(3 * BLOCKS)]
    sampler = ToySampler(Mixture(gains, STEPS), lambda: OneStep(STEPS))
    calibration = calibration_of(sampler, seeds=(0,), sensitivity=1)
    influence = influence_of(calibration)
    measured = np.flatnonzero(influence.counts.any(axis=1))
    assert len(measured) == BLOCKS
    assert (measured[0], measured[-1]) == (0, len(gains) - 1)
    values = influence.values(calibration.sites)
    np.testing.assert_allclose(values[:, 1], gains, rtol=1e-4)


# ---------------------------------------------------------------------------- sums


def test_merging_adds_and_a_file_keeps_everything():
    sampler = ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS))
    parts = [influence_of(calibration_of(sampler, seeds=(seed,))) for seed in (0, 1, 2)]
    forward, backward = Influence.merge(parts), Influence.merge(parts[::-1])
    assert (forward.totals == backward.totals).all()
    assert forward.counts.tolist() == [[0, 3, 3, 3, 3, 3]] * 3
    back = Influence.from_arrays(forward.arrays())
    assert back is not None
    assert (back.totals == forward.totals).all()
    assert (back.counts == forward.counts).all()
    assert Influence.from_arrays({}) is None


def test_a_site_that_does_not_change_tells_nothing():
    sampler = ToySampler(Mixture(GAINS, STEPS), lambda: OneStep(STEPS))
    assert isinstance(sampler.model, Mixture)
    still = sampler.model.parts[1]
    vars(still)["slopes"].zero_()
    vars(still)["offsets"][:] = 1.0
    influence = influence_of(calibration_of(sampler))
    assert influence.counts[1].tolist() == [0] * STEPS
    assert influence.counts[0].tolist() == [0, 2, 2, 2, 2, 2]


# ---------------------------------------------------------------------------- side effects


def test_the_model_is_left_as_it_was_and_not_called_where_nothing_is_measured():
    model = Mixture(GAINS, STEPS)
    sampler = ToySampler(model, lambda: OneStep(STEPS)).value()
    plain = record(sampler, 0)
    response = measure_response(sampler, plain)
    products, sites = np.ones((3, STEPS, 4)), MIXTURE.sites(model)
    model.forget()
    before = anatomy(model)
    nothing = measure_influence(sampler, plain, response, sites, products, [])
    assert anatomy(model) == before
    assert not nothing.counts.any()
    measure_influence(sampler, plain, response, sites, products, [2, 3])
    assert model.calls == 2 * (3 + 1)
    model.forget()
    assert anatomy(model) == before


def test_what_is_not_finite_is_told_in_a_line_and_leaves_nothing():
    model = Mixture(GAINS, STEPS)
    sampler = ToySampler(model, lambda: OneStep(STEPS)).value()
    plain = record(sampler, 0)
    response = measure_response(sampler, plain)
    model.forget()
    before, before_gains = anatomy(model), model.gains
    model.gains = (torch.inf, *GAINS[1:])
    products = np.zeros((3, STEPS, 4))
    products[..., 0] = 1.0
    with pytest.raises(CalibrationError, match=r"with an older output of a site: .*not finite"):
        measure_influence(sampler, plain, response, MIXTURE.sites(model), products, [1])
    model.forget()
    vars(model)["gains"] = before_gains
    assert anatomy(model) == before
