"""Outputs that are kept on the CPU or in fewer bits: where, how many bytes, and what it does."""

import functools
from typing import Any

import pytest
import torch
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    attach,
    cached,
    calibrate,
    evaluate,
    fit,
    plan,
)
from smoothcache_core.errors import AttachError, ScheduleError
from smoothcache_core.outputs.parked import narrowed
from smoothcache_core.planning import Limits
from smoothcache_core.runtime.shelf import Line, Shelf
from smoothcache_core.schedule import Storage
from smoothcache_core.sources import stored
from smoothcache_core.sources.storing import rounding_error
from torch import Tensor, nn

STEPS, WIDTH = 8, 64
ON_CPU, HALF = Storage(place="cpu"), Storage(dtype="bfloat16")
ROUNDED = (HALF, Storage(dtype="float16", place="cpu"), Storage(dtype="float8_e4m3fn"))
TARGETS = ("denoiser", "guidance", "site", "block", "span")

pytestmark = pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")


class Pair(nn.Module):
    """Gives two tensors, and is called twice in an evaluation, as in chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> tuple[Tensor, None, Tensor]:
        return self.one(hidden).tanh(), None, self.two(hidden).sin()


class Block(nn.Module):
    in_place = False

    def __init__(self) -> None:
        super().__init__()
        self.attn = Pair()
        self.ff = nn.Sequential(nn.Linear(WIDTH, 24), nn.Tanh(), nn.Linear(24, WIDTH))

    def forward(self, hidden_states: Tensor, time: float) -> Tensor:
        halves = []
        for half in hidden_states.chunk(2, dim=1):
            one, _, two = self.attn(half)
            halves.append(half + 0.3 * (time * one + two))
        hidden_states = torch.cat(halves, dim=1)
        grown = self.ff(hidden_states)
        return hidden_states + (grown.mul_(0.5) if self.in_place else grown * 0.5)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, hidden_states: Tensor, timestep: float, label: Tensor) -> Tensor:
        hidden = hidden_states + 0.3 * label[:, None, None]
        for block in self.blocks:
            hidden = block(hidden, 0.2 + timestep)
        return hidden


ADAPTER = PatternAdapter(
    name="paired",
    patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.ff", "ff")),
    classes=("Denoiser",),
    guidance="cond-first",
)


def sampler_of(model: nn.Module) -> Sampler:
    def run(seed: int) -> Tensor:
        latent = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(seed))
        label = torch.tensor([1.0, 0.0])
        for step in range(STEPS):
            both = model(torch.cat((latent, latent)), 1 - step / STEPS, label)
            one, other = both.chunk(2)
            latent = latent - (other + 2.0 * (one - other)) / (2 * STEPS)
        return latent

    model.requires_grad_(False)
    return Sampler(model=model, adapter=ADAPTER, run=run, solver="euler")


@functools.cache
def calibration_of() -> Calibration:
    levels = ("parts", "blocks", "spans")
    return calibrate(sampler_of(Denoiser()), seeds=range(3), sites=levels, progress=False)


@functools.cache
def planned(target: str) -> Schedule:
    return plan(calibration_of(), compute=0.6, target=target)


def ran(schedule: Schedule, **how: Any) -> tuple[Tensor, Any]:
    """Return the final latent of a run by a schedule, which must leave nothing, and its counts."""
    sampler = sampler_of(Denoiser())
    with cached(sampler.model, ADAPTER, schedule, **how) as stats:
        latent = sampler.final_latent(7)
        assert torch.equal(sampler.final_latent(7), latent)
    assert (stats.bytes_held, stats.recomputed) == (0, 0)
    return latent, stats


@pytest.mark.parametrize("target", TARGETS)
def test_on_the_cpu_outputs_are_what_they_were(target: str):
    latent, stats = ran(planned(target))
    elsewhere, there = ran(planned(target), storage=ON_CPU)
    assert torch.equal(elsewhere, latent)
    assert there.bytes_peak == stats.bytes_peak == planned(target).predicted_bytes()


@pytest.mark.parametrize("storage", ROUNDED, ids=lambda each: each.dtype)
@pytest.mark.parametrize("target", TARGETS)
def test_bytes_and_errors_of_rounding_are_foretold(target: str, storage: Storage):
    schedule = plan(calibration_of(), compute=0.6, target=target, storage=storage)
    assert schedule.rows == planned(target).rows
    (exact, _), (latent, stats) = ran(planned(target)), ran(schedule)
    assert stats.bytes_peak == pytest.approx(schedule.predicted_bytes(), rel=0.02)
    assert schedule.predicted_bytes() <= planned(target).predicted_bytes() / 2
    error = float((latent - exact).norm() / exact.norm())
    added = rounding_error(calibration_of().of(schedule), schedule, storage)
    assert 0.2 < added / error < 5
    assert schedule.prediction is not None
    before = planned(target).prediction
    assert before is not None
    assert schedule.prediction.error == pytest.approx((before.error**2 + added**2) ** 0.5)
    assert schedule.prediction.bytes == schedule.predicted_bytes()


def test_evaluation_measures_what_rounding_does():
    exact = planned("site")
    policies = {
        "exact": exact,
        "float8": stored(calibration_of(), exact, Storage(dtype="float8_e4m3fn")),
    }
    sampler = sampler_of(Denoiser())
    report = evaluate(sampler, policies, seeds=range(50, 54), warmup=0, progress=False)
    one, other = report.row("exact"), report.row("float8")
    assert other.bytes_peak == pytest.approx(one.bytes_peak / 4, rel=0.02)
    assert other.rel_l2 != one.rel_l2
    assert other.prediction is not None
    assert one.prediction is not None
    assert other.prediction.error > one.prediction.error


@pytest.mark.parametrize("target", ["denoiser", "site", "span"])
def test_fits_keep_as_the_schedule_says(target: str):
    schedule = planned(target).changed(storage=HALF)
    fitted = fit(sampler_of(Denoiser()), schedule, seeds=range(20, 24))
    assert fitted.storage == HALF
    latent, stats = ran(fitted)
    assert stats.bytes_peak == fitted.predicted_bytes() < planned(target).predicted_bytes()
    assert latent.isfinite().all()


def test_a_cap_on_memory_counts_what_is_rounded():
    keeps = planned("site").predicted_bytes()
    limits = Limits(max_bytes=keeps // 2 + 1)
    how = {"compute": 0.6, "target": "site", "limits": limits}
    rounded = plan(calibration_of(), storage=HALF, **how)
    assert rounded.rows == planned("site").rows
    assert rounded.predicted_bytes() <= keeps // 2 + 1
    try:
        assert plan(calibration_of(), **how).rows != planned("site").rows
    except ScheduleError as error:
        assert "fits" in str(error) or "planned" in str(error)  # noqa: PT017


def test_schedules_say_how_outputs_are_kept(tmp_path: Any):
    schedule = planned("denoiser").changed(storage=Storage(place="cpu", dtype="float16"))
    path = schedule.save(tmp_path / "kept.json")
    assert Schedule.load(path) == schedule
    assert "storage" not in planned("denoiser").to_json()
    assert stored(calibration_of(), schedule, Storage()).storage is None


def test_an_attachment_keeps_all_schedules_alike():
    sampler = sampler_of(Denoiser())
    attachment = attach(sampler.model, ADAPTER, planned("site"), storage=HALF)
    sampler.final_latent(1)
    assert attachment.stats.bytes_peak == planned("site").predicted_bytes() // 2
    attachment.detach()
    left = vars(sampler.model.get_submodule("blocks.0.ff"))
    assert not [name for name in left if "smoothcache" in name]


def test_what_is_put_away_is_not_changed_in_place():
    sampler = sampler_of(Denoiser())
    for block in sampler.model.get_submodule("blocks").children():
        vars(block)["in_place"] = True
    schedule = planned("site").changed(storage=ON_CPU)
    with cached(sampler.model, ADAPTER, schedule) as stats:
        latents = [sampler.final_latent(7) for _ in range(2)]
    assert torch.equal(*latents)
    assert torch.equal(latents[0], ran(planned("site"))[0])
    assert stats.recomputed == 0


def test_schedules_of_one_attachment_may_keep_otherwise():
    sampler = sampler_of(Denoiser())
    exact, rounded = planned("site"), planned("site").changed(storage=HALF)
    attachment = attach(sampler.model, ADAPTER, exact)
    latents = []
    for schedule in (exact, rounded, exact):
        attachment.use(schedule)
        latents.append(sampler.final_latent(7))
    attachment.detach()
    assert torch.equal(latents[0], latents[2])
    assert not torch.equal(latents[0], latents[1])


def test_gradients_do_not_flow_through_what_is_put_away():
    with pytest.raises(AttachError, match="attach with differentiable=True or a storage, not both"):
        attach(Denoiser(), ADAPTER, planned("site"), differentiable=True, storage=HALF)
    wrong: Any = "cpu"
    with pytest.raises(AttachError, match="storage"):
        attach(Denoiser(), ADAPTER, planned("site"), storage=wrong)


def test_compiled_blocks_give_what_blocks_give():
    torch.compiler.reset()
    expected, _ = ran(planned("site").changed(storage=HALF))
    sampler = sampler_of(Denoiser())
    with cached(sampler.model, ADAPTER, planned("site"), storage=HALF):
        for block in sampler.model.get_submodule("blocks").children():
            block.compile(backend="eager")
        latent = sampler.final_latent(7)
    assert torch.allclose(latent, expected, atol=1e-6)


# ---------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_rounding_is_as_large_as_its_format_says(dtype: torch.dtype, scale: float):
    torch.manual_seed(0)
    tensor = scale * torch.randn(100, 100)
    small = narrowed(tensor, dtype)
    error = float((small.widened() - tensor).norm() / tensor.norm())
    name = str(dtype).removeprefix("torch.")
    told = Storage.of({"dtype": name}).rounding(4)
    if (dtype, scale) != (torch.float16, 1e-6):  # numbers below its smallest are not scaled
        assert error == pytest.approx(told, rel=0.15)
    assert small.widened().dtype == torch.float32


def test_what_is_narrow_already_is_kept_exactly():
    for tensor in (torch.randn(4).half(), torch.arange(4), torch.zeros(0), torch.zeros(3)):
        back = narrowed(tensor, torch.bfloat16).widened()
        assert torch.equal(back, tensor)
        assert back.dtype == tensor.dtype
        assert not len(tensor) or back.data_ptr() != tensor.data_ptr()
    assert torch.equal(narrowed(torch.zeros(3), torch.float8_e4m3fn).widened(), torch.zeros(3))
    assert Storage(dtype="float16").share(2) == 1.0
    assert Storage(dtype="float16").rounding(2) == 0.0
    assert Storage().share(4) == Storage(dtype="float16").share(None) == 1.0


def test_sites_of_another_data_type_than_the_latent_are_counted_as_they_are():
    class Mixed(Denoiser):
        def forward(self, hidden_states: Tensor, timestep: float, label: Tensor) -> Tensor:
            return super().forward(hidden_states.bfloat16(), timestep, label.bfloat16()).float()

    sampler = sampler_of(Mixed().bfloat16())
    known = calibrate(sampler, seeds=range(2), progress=False)
    for target, share in (("site", 1.0), ("denoiser", 0.5)):
        schedule = plan(known, compute=0.6, target=target)
        rounded = stored(known, schedule, HALF)
        with cached(sampler.model, ADAPTER, rounded) as stats:
            sampler.final_latent(7)
        assert stats.bytes_peak == rounded.predicted_bytes()
        assert rounded.predicted_bytes() == share * schedule.predicted_bytes()
        assert (rounding_error(known, schedule, HALF) > 0) == (share < 1)


def test_outputs_of_sites_come_back_one_ahead():
    shelf, sent = Shelf(ON_CPU), list[str]()
    line = Line(shelf)
    tensors = {path: shelf.parked([(torch.randn(3),)]) for path in "abc"}

    class Watched(Shelf):
        def on_the_way(self, tree: Any) -> Any:
            sent.append(next(path for path, each in tensors.items() if each is tree))
            return super().on_the_way(tree)

    line = Line(Watched(ON_CPU))
    orders = []
    for _ in range(2):
        line.begin()
        for path, each in tensors.items():
            line.expect(path, each)
        for path in "bac":
            before = len(sent)
            line.take(path)
            orders.append("".join(sent[before:]))
    assert orders == ["b", "a", "c", "ba", "c", ""]
