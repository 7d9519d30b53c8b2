"""What an evaluation costs, from shapes: as it is measured, and nothing is computed."""

from typing import Any

import pytest
import torch
from kit.helpers import ADAPTER, STEPS, Toy, sample, silent
from smoothcache_core import PatternAdapter, Sampler, SitePattern, calibrate
from smoothcache_core.calibrating import cost_from_shapes
from smoothcache_core.errors import CalibrationError
from torch import Tensor, nn


class Plain(nn.Module):
    """A denoiser of tokens, without anything that looks at numbers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.remembered: list[Tensor] = []

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        del timestep
        for block in self.blocks:
            hidden_states = hidden_states + block(hidden_states).tanh()
        self.remembered.append(hidden_states)
        return hidden_states


PLAIN = PatternAdapter(name="plain", patterns=(SitePattern("blocks.*", "block"),))


def sampler_of(
    model: nn.Module, shape: tuple[int, ...] = (2, 5, 8), branches: tuple[str, ...] = ()
) -> Sampler:
    def run(seed: int) -> Tensor:
        latent = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for step in STEPS:
            for _ in branches or ("",):
                latent = latent - model(latent, step) / 8
        return latent

    return Sampler(
        model=model, adapter=PLAIN, run=run, solver="euler", samples=shape[0], branches=branches
    )


@pytest.mark.parametrize("branches", [(), ("cond", "uncond")])
@pytest.mark.parametrize("shape", [(2, 5, 8), (1, 40, 8)])
def test_it_is_what_calibration_measures(shape: tuple[int, ...], branches: tuple[str, ...]):
    sampler = sampler_of(Plain(), shape, branches)
    known = calibrate(sampler, seeds=[0], max_lag=1, sensitivity=0, progress=False).cost
    assert cost_from_shapes(sampler) == known
    assert known.total > 0 < known.output_bytes


def test_the_denoiser_is_not_called_and_remembers_nothing():
    model = Plain()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cost_from_shapes(sampler_of(model))
    assert model.remembered == []
    assert type(model) is Plain
    assert "forward" not in vars(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(type(p) is nn.Parameter for p in model.parameters())


def test_no_weights_are_needed():
    with torch.device("meta"):
        large = Plain(width=4096)
    latents = torch.empty(2, 10**6, 4096, device="meta")  # 32 GiB, if it were there
    call = Sampler(model=large, adapter=PLAIN, run=lambda seed: large(latents, 1.0))
    cost = cost_from_shapes(call)
    assert cost.kept_bytes("block") == 3 * 2 * 10**6 * 4096 * 4
    assert cost.total == 3 * 2 * 10**6 * 4096**2


def test_sizes_are_those_of_the_second_pass_too():
    one, two = sampler_of(Plain()), sampler_of(Plain(), branches=("cond", "uncond"))
    assert cost_from_shapes(two).output_bytes == 2 * cost_from_shapes(one).output_bytes


def test_a_model_that_looks_at_numbers_is_told_in_one_line():
    class Curious(Plain):
        def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
            return super().forward(hidden_states * float(hidden_states.max()), timestep)

    with pytest.raises(CalibrationError, match="Curious cannot be called with shapes alone"):
        cost_from_shapes(sampler_of(Curious()))


def test_a_run_that_never_calls_the_model_is_refused():
    sampler = Sampler(model=Plain(), adapter=PLAIN, run=lambda seed: torch.zeros(1, 2))
    with pytest.raises(CalibrationError, match="never called the Plain"):
        cost_from_shapes(sampler)


def test_an_error_of_the_sampler_is_its_own():
    def run(seed: int) -> Tensor:
        raise ZeroDivisionError("of the sampler")

    with pytest.raises(ZeroDivisionError, match="of the sampler"):
        cost_from_shapes(Sampler(model=Plain(), adapter=PLAIN, run=run))


def test_a_calibration_is_planned_for_another_size():
    model = Plain()
    known = calibrate(sampler_of(model), seeds=[0, 1], max_lag=3, progress=False)
    large = known.at(cost_from_shapes(sampler_of(model, (2, 50, 8))))
    assert large.cost.kept_bytes() == 10 * known.cost.kept_bytes()
    assert large.kept_bytes()["denoiser"] == 10 * known.kept_bytes()["denoiser"]
    assert large.dynamics is not None
    assert known.dynamics is not None
    assert large.dynamics.seconds == pytest.approx(10 * known.dynamics.seconds)
    with pytest.raises(CalibrationError, match="not of the sites that were calibrated"):
        known.at(known.cost.changed(sites=()))


def test_numbers_of_the_kit_are_needed_by_toys():
    toy = Toy()
    with pytest.raises(CalibrationError, match="Toy cannot be called with shapes alone"):
        cost_from_shapes(silent(toy, lambda seed: sample(toy)))
    assert toy.journal.call == -1
    assert ADAPTER.sites(toy)
