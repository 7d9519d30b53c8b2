"""Outputs of modules: tensors and tuples of them, nested as those of UNets' blocks are."""

from typing import Any

import pytest
import torch
from kit.helpers import silent
from smoothcache_core import PatternAdapter, Schedule, SitePattern, cached, calibrate
from smoothcache_core.errors import AttachError
from smoothcache_core.outputs.tensors import (
    blended,
    cloned,
    detached,
    flat,
    is_flat,
    is_output,
    map_tensors,
    nbytes,
    rebuilt,
    version,
)
from smoothcache_core.schedule import Fill, Storage
from smoothcache_core.wrapping.site_modules import combined
from torch import Tensor, nn

ONE, TWO, THREE = (torch.full((2,), float(n)) for n in (1, 2, 3))
NESTED = (ONE, (TWO, None, (THREE,)))


def test_what_an_output_is():
    assert all(map(is_output, (ONE, (), (ONE, None), NESTED)))
    assert not any(map(is_output, (None, [ONE], (ONE, [TWO]), (ONE, ("a",)), {"a": ONE})))
    assert all(map(is_flat, (ONE, (ONE, None))))
    assert not any(map(is_flat, (NESTED, [ONE])))


def test_nested_tensors_are_in_order_and_counted():
    assert flat(NESTED) == (ONE, TWO, THREE)
    assert nbytes(NESTED) == 3 * 2 * 4


def test_structure_is_kept():
    doubled = map_tensors(lambda tensor: 2 * tensor, NESTED)
    mixed = blended([doubled, NESTED], (1.0, -1.0))
    assert repr(mixed) == repr(NESTED)
    assert repr(combined(torch.sub, doubled, NESTED)) == repr(NESTED)
    assert repr(combined(torch.add, NESTED, flat(NESTED))) == repr(doubled)
    assert repr(rebuilt(NESTED, iter(flat(doubled)))) == repr(doubled)


def test_copies_share_nothing_and_changes_inside_are_seen():
    inner = torch.ones(2, requires_grad=True) * 1.0
    output = (ONE, (inner,))
    copy = cloned(output)
    assert all(
        a is not b and torch.equal(a, b) for a, b in zip(flat(copy), flat(output), strict=True)
    )
    assert not any(tensor.requires_grad for tensor in flat(detached(output)))
    before = version(output)
    inner.add_(1.0)
    assert version(output) == before + 1


# ---------------------------------------------------------------------------- a denoiser of such


class Down(nn.Module):
    """Gives hidden states and residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> Any:
        first = self.linear(hidden)
        second = first.tanh()
        return second, (first, second)


class UNet(nn.Module):
    """Two blocks down, whose residuals are added on the way up.

    Attributes:
        changes: Whether a residual is changed in place.
    """

    changes = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.ModuleList([Down(), Down()])

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        hidden = hidden_states + timestep
        residuals: list[Tensor] = []
        for block in self.down:
            hidden, more = block(hidden)
            residuals.extend(more)
        if self.changes:
            residuals[0].mul_(2.0)
        for residual in residuals[::-1]:
            hidden = hidden + residual
        return hidden + hidden_states


ADAPTER = PatternAdapter(name="unet", patterns=(SitePattern("down.*", "down"),))
STEPS = (3.0, 2.0, 1.0, 0.5)
LINE = Fill(terms={2: (1.5, -0.5), 3: (2.0, -1.0)})
STORAGES = (None, Storage(place="cpu"), Storage(dtype="bfloat16"))


def schedule(**changes: Any) -> Schedule:
    return Schedule(evaluations=4, rows={"down": (1, 1, 0, 0)}, **changes)


@torch.no_grad()
def run(model: Any, seed: int = 0) -> list[Tensor]:
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
    return [model(latent * (1 + 0.1 * n), timestep) for n, timestep in enumerate(STEPS)]


def by_hand(model: UNet, made: Schedule) -> list[Tensor]:
    """Return the outputs of a run whose blocks are filled by a plain loop."""
    outputs, known = [], []
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    for evaluation, timestep in enumerate(STEPS):
        present = latent * (1 + 0.1 * evaluation)
        given: list[Any] = []
        if made.rows["down"][evaluation]:
            hidden = present + timestep
            for block in model.down:
                given.append(block(hidden))
                hidden = given[-1][0]
            known.insert(0, given)
        else:
            weights = made.fill(ADAPTER.sites(model)[0]).terms.get(evaluation, (1.0,))
            given = [
                blended([each[n] for each in known[: len(weights)]], weights)
                for n in range(len(model.down))
            ]
        hidden = given[-1][0]
        for residual in [each for _, residuals in given for each in residuals][::-1]:
            hidden = hidden + residual
        outputs.append(hidden + present)
    return outputs


@pytest.mark.parametrize("fills", [{}, {"down": LINE}], ids=["reuse", "line"])
@torch.no_grad()
def test_nested_outputs_are_reused_and_combined(fills: Any):
    model, made = UNet(), schedule(fills=fills)
    with cached(model, ADAPTER, made) as stats:
        outputs, again = run(model), run(model)
    assert all(map(torch.equal, outputs, by_hand(model, made)))
    assert all(map(torch.equal, outputs, again))
    assert stats.reused == {"down.0": 4, "down.1": 4}


@pytest.mark.parametrize("storage", STORAGES[1:], ids=repr)
def test_nested_outputs_are_put_away(storage: Storage):
    model = UNet()
    with cached(model, ADAPTER, schedule()):
        plain = run(model)
    with cached(model, ADAPTER, schedule(), storage=storage) as stats:
        outputs = run(model)
    torch.testing.assert_close(outputs, plain, rtol=0.0, atol=0.05 if storage.dtype else 0.0)
    assert stats.bytes_peak == 2 * 3 * (2 * 4) * (2 if storage.dtype else 4)


def test_a_residual_that_is_changed_in_place_is_computed_anew():
    model, changing = UNet(), UNet()
    changing.changes = True
    with (
        pytest.warns(UserWarning, match="modifies the output of 'down.0' in place"),
        cached(changing, ADAPTER, schedule()) as stats,
    ):
        run(changing)
    assert stats.recomputed > 0
    with cached(model, ADAPTER, schedule()) as stats:
        run(model)
    assert stats.recomputed == 0


def test_compiled_models_give_the_same():
    model = UNet()
    with cached(model, ADAPTER, schedule(fills={"down": LINE})):
        expected = run(model)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    with cached(compiled, ADAPTER, schedule(fills={"down": LINE})):
        torch.testing.assert_close(run(compiled), expected)


def test_errors_are_of_all_tensors():
    model = UNet()
    sampler = silent(model, lambda seed: run(model, seed), adapter=ADAPTER, samples=2)
    calibration = calibrate(sampler, seeds=[0], max_lag=1, progress=False)
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old, new = (flat(model.down[0](latent * (1 + 0.1 * n) + STEPS[n])) for n in (0, 1))
    changes = [(a - b).abs().sum(dim=1) for a, b in zip(old, new, strict=True)]
    difference = torch.stack(changes).sum(dim=0)
    expected = difference / torch.stack([b.abs().sum(dim=1) for b in new]).sum(dim=0)
    measured = calibration.mean()[0, 0, 0, 0]
    assert measured == pytest.approx(expected.mean().item(), rel=1e-5)
    assert calibration.cost.sites[0].bytes == 3 * 2 * 4 * 4


def test_what_is_no_output_is_refused():
    class Listing(Down):
        def forward(self, hidden: Tensor) -> Any:
            second, residuals = super().forward(hidden)
            return second, list(residuals)

    model = UNet()
    model.down[0] = Listing()
    model.forward = lambda hidden_states, timestep: model.down[0](hidden_states)[0]
    adapter = PatternAdapter(name="x", patterns=(SitePattern("down.0", "down"),))
    with (
        pytest.raises(AttachError, match=r"'down.0' gives a tuple; only a tensor or a tuple"),
        cached(model, adapter, schedule()),
    ):
        run(model)
