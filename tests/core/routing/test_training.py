"""Learned routers: what changes is computed, what does not is reused, nothing else is touched."""

import pickle
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.helpers import anatomy
from kit.ranks import WORLD, Ranks, launched
from kit.routing import ADAPTER, STEPS, Drifting, sampler_of, train_in_a_group
from smoothcache_core import PatternAdapter, Sampler
from smoothcache_core.adapters import Site
from smoothcache_core.compat.routers import load_router
from smoothcache_core.errors import RouterError, ScheduleError
from smoothcache_core.routing import Routers, RouterSettings, load_routers, train_router
from smoothcache_core.schedule.cost import Cost, SiteCost
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SETTINGS = RouterSettings(updates=200, learning_rate=0.2, sparsity=0.02, refresh=100)


def trained(model: nn.Module | None = None, **given: Any) -> Routers:
    given = {"evaluations": STEPS, "progress": False, "settings": SETTINGS} | given
    return train_router(sampler_of(model or Drifting()), **given)


@pytest.fixture(scope="module")
def routers() -> Routers:
    return trained()


@pytest.mark.parametrize("proxy", ["leave-one-out", "cumulative", "none"])
def test_what_changes_is_computed_and_what_does_not_is_reused(proxy: Any):
    settings = RouterSettings(
        updates=200, learning_rate=0.2, sparsity=0.02, refresh=100, proxy=proxy
    )
    rows = trained(settings=settings).schedule(threshold=0.1).rows
    assert rows["still"] == (1, 0, 0, 0, 0, 0)
    assert sum(rows["lively"]) > STEPS / 2


def test_straight_through_learns_it_too():
    settings = RouterSettings(
        updates=300, learning_rate=0.2, sparsity=0.02, straight_through=True, proxy="none"
    )
    rows = trained(settings=settings).schedule(threshold=0.1).rows
    assert sum(rows["still"]) < sum(rows["lively"])


def test_with_alternate_decisions_every_other_evaluation_is_computed():
    settings = RouterSettings(updates=60, learning_rate=0.5, sparsity=1.0, decides="alternate")
    rows = trained(settings=settings).schedule(threshold=0.5).rows
    numbers = [STEPS - 1 - e for e in range(STEPS)]
    assert all(rows["still"][e] for e in range(STEPS) if numbers[e] % 2)
    assert rows["still"].count(0) == sum(e > 0 and numbers[e] % 2 == 0 for e in range(STEPS))


def test_the_model_and_random_numbers_are_left_as_they_were():
    model = Drifting()
    before, state = anatomy(model), torch.get_rng_state()
    weights = [parameter.clone() for parameter in model.parameters()]
    trained(model)
    assert anatomy(model) == before
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(map(torch.equal, weights, model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_sampler_may_run_in_any_mode(mode: Callable[[], Any]):
    settings = RouterSettings(updates=10, proxy="none")
    made = train_router(
        sampler_of(Drifting(), mode=mode), settings, evaluations=STEPS, progress=False
    )
    assert all(torch.isfinite(p).all() for p in made.parameters())


class Checkpointing(Drifting):
    """Recomputes its parts in the backward pass, as stable-audio-tools' transformer does."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        given = x.requires_grad_() if torch.is_grad_enabled() else x
        parts = self.still, self.lively
        made: list[Any] = [checkpoint(part, given, t, use_reentrant=False) for part in parts]
        return 0.1 * x + made[0] + made[1]


def test_gradients_are_those_of_a_model_that_recomputes_nothing():
    settings = RouterSettings(updates=30, learning_rate=0.2, proxy="none")
    one, other = (
        trained(model, settings=settings).parameters() for model in (Drifting(), Checkpointing())
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_exactly_as_many_updates_are_made_as_asked_for():
    seen: list[int] = []
    settings = RouterSettings(updates=13, proxy="none")
    trained(settings=settings, log=lambda update, numbers: seen.append(update))
    assert seen == list(range(1, 14))


def test_only_the_routers_of_an_evaluation_move():
    start = Routers(STEPS, ADAPTER.sites(Drifting()), seed=0)
    made = trained(settings=RouterSettings(updates=1, proxy="none"))
    moved = [
        not torch.equal(one, other)
        for one, other in zip(start.parameters(), made.parameters(), strict=True)
    ]
    assert moved.count(True) == 1
    assert moved[STEPS - 2]  # evaluation 1; the first one computes everything


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path):
    whole = trained(settings=RouterSettings(updates=40, refresh=10))
    trained(settings=RouterSettings(updates=20, refresh=10), checkpoint=tmp_path / "r.pt")
    rest = trained(settings=RouterSettings(updates=40, refresh=10), checkpoint=tmp_path / "r.pt")
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_is_one_of_the_projects_that_this_follows(routers: Routers, tmp_path: Path):
    settings = RouterSettings(updates=20)
    made = trained(settings=settings, checkpoint=tmp_path / "r.pt")
    schedule = load_router(tmp_path / "r.pt", threshold=0.4, components=("still", "lively"))
    assert [*schedule.rows.values()] == [*made.schedule(threshold=0.4).rows.values()]
    again = load_routers(tmp_path / "r.pt", ADAPTER.sites(Drifting()))
    assert again.schedule(threshold=0.4) == made.schedule(threshold=0.4)


# ---------------------------------------------------------------------------- what is cut from it


@pytest.mark.parametrize("compute", [0.3, 0.5, 0.75, 1.0])
def test_a_schedule_is_cut_from_the_scores_at_any_compute(routers: Routers, compute: float):
    schedule = routers.schedule(compute=compute)
    kept = [entry for row in schedule.rows.values() for entry in row]
    assert compute - 0.1 <= sum(kept) / len(kept) <= compute
    threshold = schedule.source.settings["threshold"]
    assert isinstance(threshold, float)
    assert schedule.rows == routers.schedule(threshold=threshold).rows


def test_where_costs_are_known_compute_is_of_their_macs():
    made = Routers(STEPS, ADAPTER.sites(Drifting()), seed=3)
    sites = tuple(
        SiteCost(path=path, kind=path, block=0, macs=macs, bytes=4)
        for path, macs in (("still", 10), ("lively", 80))
    )
    schedule = made.schedule(compute=0.5, cost=Cost(total=100, sites=sites))
    assert 0.3 < schedule.compute_fraction() <= 0.5
    assert schedule.rows != made.schedule(compute=0.5).rows


def test_what_cannot_be_cut_is_refused():
    alike = Routers(STEPS, ADAPTER.sites(Drifting()))
    for parameter in alike.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(RouterError, match=r"all scores are alike \(0.5\)"):
        alike.schedule(compute=0.5)
    alternate = Routers(STEPS, ADAPTER.sites(Drifting()), decides="alternate")
    with pytest.raises(RouterError, match=r"0.500 is computed where nothing is decided"):
        alternate.schedule(compute=0.4)
    wrong: dict[str, list[dict[str, Any]]] = {
        "either a threshold": [{}, {"threshold": 0.1, "compute": 0.5}],
        "is in": [{"threshold": 1.0}, {"compute": 0.0}, {"compute": 1.5}],
    }
    for said, tries in wrong.items():
        for given in tries:
            with pytest.raises(RouterError, match=said):
                alike.schedule(**given)


# ---------------------------------------------------------------------------- several processes


@pytest.fixture(scope="module")
def ranks() -> Generator[Ranks]:
    with launched() as started:
        yield started


def test_two_ranks_train_as_one_with_the_same_batch(ranks: Ranks, tmp_path: Path):
    jobs = [{"file": tmp_path / "group", "rank": rank, "world": WORLD} for rank in range(WORLD)]
    one, other = ranks.run(train_in_a_group, *jobs)
    assert one == other
    model = Drifting()

    def both(seed: int) -> Tensor:
        noises = [
            torch.randn(2, 4, generator=torch.Generator().manual_seed(WORLD * seed + rank))
            for rank in range(WORLD)
        ]
        latent = torch.cat(noises)
        with torch.no_grad():
            for step in range(STEPS):
                latent = latent - model(latent, torch.tensor(1 - step / STEPS)) / STEPS
        return latent

    sampler = Sampler(model=model, adapter=ADAPTER, run=both, samples=4, solver="euler")
    settings = RouterSettings(updates=12, proxy="none", learning_rate=0.1)
    alone = train_router(sampler, settings, evaluations=STEPS, progress=False)
    for parameter, found in zip(alone.parameters(), one, strict=True):
        torch.testing.assert_close(parameter, torch.tensor(found), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- what is refused


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("__import__('pathlib').Path('owned').touch()",)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.pt"
    trained(settings=RouterSettings(updates=2, proxy="none"), checkpoint=path)
    with pytest.raises(RouterError, match=r"sparsity is 0.5 instead of 0.001"):
        trained(settings=RouterSettings(updates=4, proxy="none", sparsity=0.5), checkpoint=path)
    with pytest.raises(RouterError, match="not those of this model"):
        trained(settings=RouterSettings(updates=4, proxy="none"), checkpoint=path, evaluations=5)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(RouterError, match="no training of routers"):
        trained(checkpoint=path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("evaluations", [STEPS - 1, STEPS + 1])
def test_another_number_of_evaluations_is_refused(evaluations: int):
    settings = RouterSettings(updates=50, proxy="none")
    with pytest.raises(RouterError, match="evaluations"):
        trained(settings=settings, evaluations=evaluations)


def test_spans_of_blocks_are_refused():
    class Spans(PatternAdapter):
        def sites(self, model: nn.Module) -> tuple[Site, ...]:
            del model
            return (Site(path="b.0", kind="b", block=0, target="delta", inputs=("x",), last="b.1"),)

    adapter = Spans(name="d", patterns=(), latent="x", timestep="t")
    with pytest.raises(RouterError, match="a span of several"):
        train_router(sampler_of(Drifting(), adapter=adapter), evaluations=STEPS, progress=False)


def test_a_model_without_sites_is_refused():
    adapter = PatternAdapter(name="whole", patterns=(), latent="x", timestep="t")
    with pytest.raises(RouterError, match="0 sites"):
        train_router(sampler_of(Drifting(), adapter=adapter), evaluations=STEPS, progress=False)


def test_weights_need_a_final_latent():
    model = Drifting()
    whole = sampler_of(model)

    def run(seed: int) -> None:
        whole.run(seed)

    sampler = Sampler(model=model, adapter=ADAPTER, run=run, samples=2)
    with pytest.raises(RouterError, match="train with proxy='none'"):
        train_router(sampler, evaluations=STEPS, progress=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"updates": 0}, "updates is at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"threshold": 1.0}, "threshold is in"),
        ({"refresh": 0}, "refresh is at least 1"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(RouterError, match=said):
        RouterSettings(**given)


def test_routers_of_another_model_are_refused(tmp_path: Path):
    torch.save({"0.prob": torch.ones(3), "1.prob": torch.ones(3)}, tmp_path / "r.pt")
    with pytest.raises(RouterError, match="router of another model"):
        load_routers(tmp_path / "r.pt", ADAPTER.sites(Drifting()))
    with pytest.raises(ScheduleError, match="cannot be read"):
        load_routers(tmp_path / "none.pt", ADAPTER.sites(Drifting()))
