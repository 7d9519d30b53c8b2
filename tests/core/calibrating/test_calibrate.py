"""Recording a calibration: what is measured, what it costs, what is refused."""

import gc
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from kit.helpers import (
    ADAPTER,
    DELTA,
    STEPS,
    ContextToy,
    DeltaToy,
    Toy,
    anatomy,
    assert_followed,
    noise,
    places,
    sample,
    schedule_of,
    silent,
    solve,
)
from numpy.typing import NDArray
from smoothcache_core import Adapter, Calibration, PatternAdapter, SitePattern, cached, calibrate
from smoothcache_core.errors import AttachError, CalibrationError
from smoothcache_core.sources import smooth
from torch import Tensor, nn
from torch.nn import functional

N = len(STEPS)
PAIR = ("cond", "uncond")
SAMPLER = {"branches", "samples", "scheduler", "solver"}


def assert_close(actual: NDArray[np.float64], expected: Any) -> None:
    """Sums are in float32, errors are rounded to multiples of 2^-32."""
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=2.0**-33)


def record(
    toy: nn.Module,
    sampler: Callable[[int], object] | None = None,
    *,
    adapter: Adapter = ADAPTER,
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> Calibration:
    of_sampler = {key: settings.pop(key) for key in SAMPLER & settings.keys()}
    known = silent(toy, sampler or runs(toy), adapter=adapter, **of_sampler)
    settings = {"max_lag": 3, "sensitivity": 0, "progress": False} | settings
    return calibrate(known, seeds=seeds, **settings)


def runs(toy: Any, **settings: Any) -> Callable[[int], list[Tensor]]:
    """Return a sampler of `toy` whose runs are alike, signatures of calls included."""

    def run(seed: int) -> list[Tensor]:
        toy.journal.call = -1
        return sample(toy, latent=noise(seed), **settings)

    return run


def random_toy(**options: Any) -> ContextToy:
    toy = ContextToy(**options)
    for parameter in toy.parameters():
        nn.init.normal_(parameter)
    return toy


# ---------------------------------------------------------------------------- numbers


class Emitter(nn.Module):
    """Its only site gives one number after the other, whatever it is given."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.site = nn.Linear(1, 1, bias=False)
        self.numbers = numbers

    def forward(self, hidden_states: Tensor, timestep: int) -> Tensor:
        return self.site(torch.full_like(hidden_states, self.numbers[timestep]))

    def run(self, seed: int) -> None:
        del seed
        nn.init.ones_(self.site.weight)
        for timestep in range(len(self.numbers)):
            self(torch.ones(1, 2, 1), timestep)


EMITTED = PatternAdapter(name="emitter", patterns=(SitePattern("site", "site"),))


def emitted(*numbers: float, max_lag: int = 1) -> Calibration:
    toy = Emitter(*numbers)
    return record(toy, toy.run, adapter=EMITTED, max_lag=max_lag)


def test_the_worked_example_is_planned_as_published():
    calibration = emitted(10.0, 10.5, 20.0, 10.2, 10.3, 30.0, 10.1, 10.2, max_lag=3)
    assert smooth(calibration, alpha=0.06).rows == {"site": (1, 0, 0, 0, 1, 0, 0, 1)}
    assert smooth(calibration, alpha=0.06, strict=True).rows == {"site": (1, 0, 1, 1, 0, 1, 1, 1)}
    assert_close(calibration.mean()[0, 0, 2, 0], 0.2 / 10.2)


@pytest.mark.parametrize(
    ("numbers", "errors"),
    [
        ((0.0, 0.0, 0.0), [0.0, 0.0]),
        ((0.0, 5.0, 5.0), [1.0, 0.0]),
        ((5.0, 0.0, 0.0), [np.inf, 0.0]),
        ((4.0, 2.0, -2.0), [1.0, 2.0]),
        ((17.0, 1.0, 1.0 / 32), [16.0, np.inf]),
    ],
    ids=["nothing", "from nothing", "to nothing", "halves", "far too much"],
)
def test_errors_have_a_meaning_everywhere(numbers: tuple[float, ...], errors: list[float]):
    assert emitted(*numbers).mean()[0, 0, 0, :2].tolist() == errors


def test_outputs_may_be_changed_after_they_were_given():
    toy = Emitter(1.0, 4.0, 4.0)
    toy.register_forward_hook(lambda *call: call[2].zero_())  # it is the very output of the site
    with torch.no_grad():
        errors = record(toy, toy.run, adapter=EMITTED).mean()[0, 0, 0, :2]
    assert errors.tolist() == [0.75, 0.0]


def test_a_run_of_one_evaluation_has_no_errors():
    calibration = emitted(3.0, max_lag=2)
    assert np.isnan(calibration.mean()).all()
    assert smooth(calibration, alpha=1.0).rows == {"site": (1,)}


def outputs_of(toy: nn.Module, run: Callable[[int], object], seed: int) -> dict[str, list[Any]]:
    """Return what every site gives at every call of a plain run."""
    outputs: dict[str, list[Any]] = defaultdict(list)
    handles = [
        toy.get_submodule(site.path).register_forward_hook(
            lambda *call, path=site.path: outputs[path].append(call[2])
        )
        for site in ADAPTER.sites(toy)
    ]
    run(seed)
    for handle in handles:
        handle.remove()
    return outputs


def flat(output: Any, rows: slice = slice(None)) -> NDArray[np.float64]:
    parts = output if isinstance(output, tuple) else (output,)
    chosen = [part[rows].detach().double().numpy().ravel() for part in parts if part is not None]
    return np.concatenate(chosen)


def by_definition(outputs: Sequence[NDArray[np.float64]], max_lag: int) -> NDArray[np.float64]:
    """Return the errors of equation 4 in float64, (lags, evaluations)."""
    errors = np.full((max_lag, len(outputs)), np.nan)
    for lag in range(1, max_lag + 1):
        for i in range(len(outputs) - lag):
            later = outputs[i + lag]
            errors[lag - 1, i] = np.abs(outputs[i] - later).sum() / np.abs(later).sum()
    return errors


@pytest.mark.parametrize("options", [{}, {"pair": True}], ids=["tensor", "tuple"])
@pytest.mark.parametrize("max_lag", [1, 3, 5, 9])
def test_errors_are_those_of_the_definition(options: dict[str, Any], max_lag: int):
    toy = random_toy(**options)
    calibration = record(toy, max_lag=max_lag)
    outputs = outputs_of(toy, runs(toy), 0)
    for index, site in enumerate(calibration.sites):
        expected = by_definition([flat(o) for o in outputs[site.path]], max_lag)
        assert_close(calibration.mean()[index, 0], expected)


@pytest.mark.parametrize("announce", [False, True], ids=["declared", "announced"])
def test_branches_are_measured_apart(announce: bool):
    toy = random_toy()
    run = runs(toy, branches=PAIR, announce=announce)
    calibration = record(toy, run, branches=() if announce else PAIR)
    outputs = outputs_of(toy, run, 0)
    assert calibration.branches == PAIR
    assert calibration.evaluations == N
    for index, site in enumerate(calibration.sites):
        for number in range(2):
            expected = by_definition([flat(o) for o in outputs[site.path][number::2]], 3)
            assert_close(calibration.mean()[index, number], expected)


def test_a_branch_that_pauses_is_compared_across_the_pause():
    toy = random_toy()

    def run(seed: int) -> None:
        toy.journal.call = -1
        for number, step in enumerate(STEPS):
            branches = PAIR if number in (0, 1, 3) else PAIR[:1]
            sample(toy, [step], latent=noise(seed) + number, branches=branches, announce=True)

    missing = np.isnan(record(toy, run, max_lag=2).mean())[:, 1]
    assert (~missing[:, 0, 0]).all()  # 0 and 1
    assert (~missing[:, 1, 1]).all()  # 1 and 3
    assert missing.sum() == missing.size - 2 * len(ADAPTER.sites(toy))


def test_chunks_are_one_output():
    whole, chunked = random_toy(), random_toy(chunks=3)
    chunked.load_state_dict(whole.state_dict())
    assert_close(record(whole).mean(), record(chunked).mean())


def test_samples_are_averaged_one_by_one_with_both_halves_of_guidance():
    """Sample s of two has the rows s and s + 2 of a batch that guidance repeats."""
    toy = random_toy()

    def run(seed: int) -> None:
        toy.journal.call = -1
        for number, step in enumerate(STEPS):
            toy.forward_with_cfg(noise(seed, (4, 3, 4)) * (1 + number), step)

    calibration = record(toy, run, samples=2, seeds=(0, 1))
    errors = []
    for seed in (0, 1):
        outputs = outputs_of(toy, run, seed)
        for first in (0, 1):
            rows = slice(first, None, 2)
            errors.append(
                [
                    by_definition([flat(o, rows) for o in outputs[site.path]], 3)
                    for site in calibration.sites
                ]
            )
    assert calibration.samples == 4
    assert calibration.seeds == (0, 1)
    assert_close(calibration.mean()[:, 0], np.mean(errors, axis=0))
    deviation = np.std(errors, axis=0, ddof=1)
    np.testing.assert_allclose(calibration.spread()[:, 0], deviation, rtol=1e-3, atol=1e-5)


def test_runs_never_mix():
    toy = random_toy()
    whole = record(toy, seeds=(0, 1, 2))
    apart = [record(toy, seeds=(seed,)) for seed in (2, 0, 1)]
    assert whole == Calibration.merge(*apart)
    assert whole.totals.tobytes() == sum(part.totals for part in apart).tobytes()  # pyright: ignore[reportAttributeAccessIssue]


def test_deltas_are_measured_where_the_block_changes_its_input():
    toy = DeltaToy()

    def run(seed: int) -> None:
        for value in (5.0, 2.0, 1.0):
            toy(torch.full((1, 1), value + seed), value)

    errors = record(toy, run, adapter=DELTA).mean()[0, 0, 0, :2]
    # deltas (2x, 2x), so that |o_i - o_{i+1}| / |o_{i+1}| is that of the inputs
    assert errors.tolist() == [1.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_data_type_is_measured_in_float32(dtype: torch.dtype):
    toy = random_toy().to(dtype)

    def run(seed: int) -> list[Tensor]:
        toy.journal.call = -1
        return sample(toy, latent=noise(seed, dtype=dtype))

    calibration = record(toy, run)
    outputs = outputs_of(toy, run, 0)
    for index, site in enumerate(calibration.sites):
        expected = by_definition([flat(o) for o in outputs[site.path]], 3)
        assert_close(calibration.mean()[index, 0], expected)
    assert calibration.fingerprint.dtype == str(dtype).removeprefix("torch.")


# ---------------------------------------------------------------------------- side effects


def test_the_model_is_computed_as_it_is_and_left_as_it_was():
    toy = random_toy(pair=True, chunks=3)
    plain, before, seen = runs(toy)(0), anatomy(toy), []
    record(toy, lambda seed: seen.append(runs(toy)(seed)))
    assert all(map(torch.equal, seen[0], plain))
    assert anatomy(toy) == before


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["blocks.1.ff", "blocks.0.attn"])
def test_an_exception_leaves_nothing_behind(where: str):
    toy = random_toy()
    before = anatomy(toy)

    def kill(*_: object) -> None:
        if toy.journal.call == 2:
            raise Killed

    handle = toy.get_submodule(where).register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        record(toy)
    handle.remove()
    assert anatomy(toy) == before
    assert record(toy) == record(toy)


def test_references_on_the_cpu_give_the_same():
    toy = random_toy(pair=True)
    assert record(toy, references="cpu") == record(toy, references="device")


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_every_gradient_mode_gives_the_same(mode: Callable[[], Any]):
    toy = random_toy()
    expected = record(toy)

    def run(seed: int) -> None:
        with mode():
            runs(toy)(seed)

    assert record(toy, run) == expected


@pytest.mark.parametrize("max_lag", [1, 2, 4])
@pytest.mark.parametrize("references", ["device", "cpu"])
def test_no_more_than_max_lag_outputs_of_a_site_are_kept(
    max_lag: int, references: Literal["device", "cpu"]
):
    toy, tokens, kept = random_toy(blocks=1), 17, []

    def run(seed: int) -> None:
        latent = noise(seed, (1, tokens, 4))
        with torch.no_grad():
            for step in STEPS:
                toy(latent, step)
                kept.append(living(tokens) - 1)  # less the latent

    record(toy, run, max_lag=max_lag, references=references)
    assert kept == [2 * min(evaluation + 1, max_lag) for evaluation in range(N)]
    assert living(tokens) == 0


def living(tokens: int) -> int:
    tensors = [item for item in gc.get_objects() if type(item) is Tensor and item.dim() == 3]
    return len({tensor.data_ptr() for tensor in tensors if tensor.shape[1] == tokens})


# ---------------------------------------------------------------------------- cost


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("chunks", [1, 3])
def test_linear_layers_cost_what_they_multiply(mode: Callable[[], Any], chunks: int):
    toy = random_toy(chunks=chunks)

    def run(seed: int) -> None:
        with mode():
            runs(toy)(seed)

    cost = record(toy, run).cost
    assert [site.macs for site in cost.sites] == [2 * 3 * 4 * 4] * 4
    assert [site.bytes for site in cost.sites] == [2 * 3 * 4 * 4] * 4
    assert [(s.path, s.kind, s.block) for s in cost.sites] == [
        (s.path, s.kind, s.block) for s in ADAPTER.sites(toy)
    ]
    assert cost.total == 4 * 2 * 3 * 4 * 4
    assert cost.fraction() == 1.0
    assert cost.fraction("ff") == 0.5


def test_all_branches_of_an_evaluation_are_counted():
    toy = random_toy(pair=True)
    one = record(toy).cost
    two = record(toy, runs(toy, branches=PAIR), branches=PAIR).cost
    assert two.total == 2 * one.total
    assert [site.macs for site in two.sites] == [2 * site.macs for site in one.sites]
    assert [site.bytes for site in one.sites] == [2 * (3 + 1) * 4 * 4] * 2 + [2 * 3 * 4 * 4] * 2


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, tokens, width = hidden.shape
        parts = self.inward(hidden).reshape(batch, tokens, 3, 2, width // 2).unbind(2)
        mixed = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        return self.outward(mixed.transpose(1, 2).reshape(batch, tokens, width))


class AttentionToy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.site = nn.Linear(4, 8), SelfAttention()

    def forward(self, hidden_states: Tensor, timestep: float) -> Tensor:
        return self.site(self.embed(hidden_states)) * timestep


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_attention_is_counted_on_the_cpu(mode: Callable[[], Any]):
    toy = AttentionToy()

    def run(seed: int) -> None:
        with mode():
            for step in STEPS:
                toy(noise(seed, (3, 5, 4)), step)

    cost = record(toy, run, adapter=EMITTED).cost
    layers, attention = 3 * 5 * 8 * (24 + 8), 2 * (3 * 2 * 5 * 5 * 4)
    assert cost.sites[0].macs == layers + attention
    assert cost.total == layers + attention + 3 * 5 * 4 * 8
    assert cost.sites[0].bytes == 3 * 5 * 8 * 4


# ---------------------------------------------------------------------------- provenance


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers
def test_a_calibrated_schedule_fits_what_it_was_made_for():
    """From a solver of two evaluations a step to a cached run, without a warning."""
    toy, scheduler = Toy(), HeunDiscreteScheduler()

    def run(seed: int) -> None:
        solve(toy, scheduler, N, seed=seed)

    calibration = record(toy, run, seeds=(5, 3), scheduler=scheduler)
    fingerprint = calibration.fingerprint
    assert (fingerprint.model_class, fingerprint.adapter) == ("Toy", "toy")
    assert (fingerprint.evaluations, fingerprint.branches) == (2 * N - 1, ())
    assert fingerprint.timesteps == tuple(scheduler.timesteps.tolist())
    assert (fingerprint.latent_shape, fingerprint.dtype) == ((3, 4), "float32")
    assert str(fingerprint.solver).startswith("HeunDiscreteScheduler(")
    assert {"torch", "diffusers", "smoothcache-core"} <= set(fingerprint.versions)
    assert "set_timesteps" not in vars(scheduler)

    schedule = smooth(calibration, alpha=1.0, max_lag=2)
    toy.journal.__init__()
    with cached(toy, ADAPTER, schedule, scheduler=scheduler) as stats:
        run(7)
        run(8)
    assert stats.reuse_fraction > 0.3
    assert schedule.source.seeds == (3, 5)
    assert_followed(toy, schedule, places(0, 1, evaluations=2 * N - 1))


def test_a_solver_may_be_named():
    assert record(random_toy(), solver="Euler").fingerprint.solver == "Euler"


# ---------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kill_at", [0, 4, N + 3, 2 * N + 1])
def test_an_interrupted_calibration_continues_as_if_it_had_not_been(kill_at: int, tmp_path: Path):
    toy, done, calls = random_toy(), [], [0]
    checkpoint = tmp_path / "calibration"
    expected = record(toy, seeds=(0, 1, 2), samples=2)

    def kill(*_: object) -> None:
        calls[0] += 1
        if calls[0] == kill_at + 1:
            raise Killed

    def run(seed: int) -> None:
        runs(toy)(seed)
        done.append(seed)

    def start() -> Calibration:
        return record(toy, run, seeds=(0, 1, 2), samples=2, checkpoint=checkpoint)

    handle = toy.blocks[1].register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        start()
    handle.remove()
    known = Calibration.load(checkpoint).seeds if checkpoint.exists() else ()
    done.clear()
    assert start() == expected
    assert done == [0, *range(len(known), 3)]  # first one evaluation, to see what a run is
    assert Calibration.load(checkpoint) == expected
    done.clear()
    assert start() == expected
    assert (done, toy.journal.call) == ([0], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_lag": 2}, "max_lag is 3 instead of 2"),
        ({"solver": "Heun"}, "solver is None instead of 'Heun'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
):
    toy, checkpoint = random_toy(), tmp_path / "calibration"
    record(toy, checkpoint=checkpoint)
    content = checkpoint.read_bytes()
    with pytest.raises(CalibrationError, match=f"cannot continue .*{message}"):
        record(toy, lambda seed: pytest.fail("ran"), seeds=(1,), checkpoint=checkpoint, **change)
    with pytest.raises(CalibrationError, match="config_hash is"):
        record(Toy(blocks=1), lambda seed: None, seeds=(1,), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == content


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("path", ["blocks.1.ff", "blocks.0.ff", "blocks.1.attn"])
@pytest.mark.parametrize(("number", "evaluation"), [(np.nan, 0), (np.nan, 3), (np.inf, 3)])
def test_what_is_not_a_number_is_refused_by_the_name_of_its_site(
    number: float, evaluation: int, path: str
):
    toy = random_toy()

    def spoil(module: nn.Module, arguments: Any, keywords: Any) -> Any:
        if toy.journal.call == evaluation:
            arguments = tuple(argument * number for argument in arguments)
            keywords = {name: argument * number for name, argument in keywords.items()}
        return arguments, keywords

    toy.get_submodule(path).register_forward_pre_hook(spoil, with_kwargs=True)
    message = f"'{path}' gave NaN or infinity at evaluation {evaluation};"
    with pytest.raises(CalibrationError, match=message):
        record(toy)


def test_a_solver_that_depends_on_the_data_is_refused():
    toy = random_toy()

    def run(seed: int) -> None:
        runs(toy, timesteps=STEPS[: N - seed])(seed)

    with pytest.raises(CalibrationError, match="had 5 evaluations, the one before 6"):
        record(toy, run, seeds=(0, 1))


def test_a_sampler_that_runs_twice_is_refused():
    toy = random_toy()
    before = anatomy(toy)
    with pytest.raises(CalibrationError, match=r"must run the sampler once.* after 6 evaluations"):
        record(toy, lambda seed: [runs(toy)(seed), runs(toy)(seed)])
    assert anatomy(toy) == before


def test_a_sampler_that_calls_another_model_is_refused():
    with pytest.raises(CalibrationError, match="`run` never called the ContextToy"):
        record(random_toy(), runs(random_toy()))


def test_a_site_that_is_never_called_is_refused():
    toy = random_toy()
    toy.blocks[1].spare = nn.Identity()
    adapter = PatternAdapter(
        name="x", patterns=(SitePattern("blocks.1.spare", "spare"), *ADAPTER.patterns)
    )
    with pytest.raises(CalibrationError, match=r"'blocks.1.spare' \(1 of 5 sites\) is never"):
        record(toy, adapter=adapter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ()}, r"distinct seeds, got \[\]"),
        ({"seeds": (1, 2, 1)}, r"distinct seeds, got \[1, 2, 1\]"),
        ({"max_lag": 0}, "max_lag must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(settings: dict[str, Any], message: str):
    with pytest.raises(CalibrationError, match=message):
        record(random_toy(), lambda seed: pytest.fail("ran"), **settings)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(CalibrationError, match="cannot be divided into 3 samples"):
        record(random_toy(), samples=3)


def test_an_output_that_cannot_be_measured_is_refused():
    toy = Emitter(1.0, 2.0)
    toy.site.forward = lambda hidden: {"hidden": hidden}  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(CalibrationError, match="'site' gives a dict; only a tensor or a tuple"):
        record(toy, toy.run, adapter=EMITTED)


@pytest.mark.parametrize("part", ["", "blocks.1"])
def test_a_compiled_model_is_refused(part: str):
    toy = random_toy()
    compiled: Any = torch.compile(random_toy(), backend="eager")
    toy.get_submodule(part).compile(backend="eager")
    with pytest.raises(CalibrationError, match="ContextToy is compiled; calibrate first"):
        record(toy)
    with pytest.raises(CalibrationError, match="is compiled"):
        record(compiled, lambda seed: None)


def test_a_cached_model_is_refused():
    toy = random_toy()
    with cached(toy, ADAPTER, schedule_of()):
        with pytest.raises(AttachError, match="a cache is attached to this ContextToy already"):
            record(toy)
        sample(toy)
