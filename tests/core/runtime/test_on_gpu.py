"""What only a GPU can tell of a schedule at work."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from smoothcache_core import PatternAdapter, Schedule, SitePattern, cached
from smoothcache_core.schedule import Fill, Storage
from torch import Tensor, nn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:the schedule:smoothcache_core.SmoothCacheWarning"),
]
N, DEVICE = 8, "cuda"
ADAPTER = PatternAdapter(name="layers", patterns=(SitePattern("blocks.*", "block"),))
HALF = (1, 0) * (N // 2)


class Layers(nn.Module):
    """A denoiser of four residual layers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))

    def forward(self, hidden_states: Tensor, timestep: Any) -> Tensor:
        for block in self.blocks:
            hidden_states = hidden_states + block(hidden_states).tanh()
        return hidden_states * timestep


def schedules() -> dict[str, Schedule]:
    skipped = [i for i, computed in enumerate(HALF) if not computed]
    fill = Fill(terms={i: (1.5, -0.5) if i > 1 else (1.0,) for i in skipped})
    return {
        "sites": Schedule(evaluations=N, rows={"block": HALF}),
        "sites, filled": Schedule(evaluations=N, rows={"block": HALF}, fills={"block": fill}),
        "evaluations": Schedule(evaluations=N, rows={"denoiser": HALF}, fills={"denoiser": fill}),
    }


def run(model: nn.Module, latent: Tensor) -> Tensor:
    for step in range(N):
        latent = latent - model(latent, 1 - step / N) / N
    return latent


@pytest.fixture
def model() -> nn.Module:
    return Layers().to(DEVICE, torch.bfloat16).requires_grad_(False)


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(4, 64, device=DEVICE, dtype=torch.bfloat16)


@contextmanager
def no_waiting() -> Generator[None]:
    """Make every call an error that waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_schedule_that_skips_nothing_gives_the_plain_sample(model: nn.Module, latent: Tensor):
    plain = run(model, latent)
    with cached(model, ADAPTER, Schedule(evaluations=N, rows={"block": (1,) * N})):
        assert torch.equal(run(model, latent), plain)


@pytest.mark.parametrize("name", schedules())
def test_no_schedule_waits_for_the_device(model: nn.Module, latent: Tensor, name: str):
    with cached(model, ADAPTER, schedules()[name]) as stats:
        run(model, latent)
        with no_waiting():
            run(model, latent)
    assert stats.bytes_peak > 0


@pytest.mark.parametrize("name", schedules())
def test_outputs_in_the_memory_of_the_cpu_come_back_as_they_were(
    model: nn.Module, latent: Tensor, name: str
):
    with cached(model, ADAPTER, schedules()[name]) as stats:
        expected = run(model, latent)
    with cached(model, ADAPTER, schedules()[name], storage=Storage(place="cpu")) as there:
        assert torch.equal(run(model, latent), expected)
        with no_waiting():
            again = run(model, latent)
    assert torch.equal(again, expected)
    assert there.bytes_peak == stats.bytes_peak
    assert there.bytes_held == 0


@pytest.mark.parametrize("name", schedules())
def test_a_schedule_does_what_it_does_on_the_cpu(name: str):
    model, latent = Layers().requires_grad_(False), torch.randn(4, 64)
    with cached(model, ADAPTER, schedules()[name]):
        expected = run(model, latent)
    model = model.to(DEVICE)
    with cached(model, ADAPTER, schedules()[name]):
        found = run(model, latent.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
