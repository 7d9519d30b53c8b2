"""The contract that every adapter of every modality package keeps, and the cases to try it on.

A test module subclasses `AdapterContract` and `GuidanceContract`, and has two fixtures: `case`,
each of its cases in turn, and `batched_case`, each whose adapter says how guidance is batched.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from kit.helpers import silent
from kit.hook_reference import assert_restored, counted, hooked, snapshot
from smoothcache_core import PatternAdapter, Schedule, SmoothCacheWarning, cached, calibrate
from smoothcache_core.adapters import Site
from smoothcache_core.adapters.sites import names_of
from smoothcache_core.errors import AdapterError
from smoothcache_core.outputs.latents import joined
from smoothcache_core.schedule import Fill
from smoothcache_core.sources import interval
from torch import Tensor, nn

EVALUATIONS = 4
BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny model of one adapter and how to call it.

    Attributes:
        adapter: Its adapter.
        build: Makes the model, before random weights.
        latent: Shape of one latent, without the batch dimension.
        timesteps: Values of the timestep, one per evaluation.
        conditions: Makes the other arguments of `forward`.
        listed: Whether the latent is a list of one tensor per row.
        guided: Whether both rows have the same latent, as the passes of guidance.
        further: Shapes of further latents, if the model takes several.
    """

    adapter: PatternAdapter
    build: Callable[[], nn.Module]
    latent: tuple[int, ...]
    timesteps: tuple[float, ...]
    conditions: Callable[[], dict[str, Any]]
    listed: bool = False
    guided: bool = False
    further: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        return self.adapter.name

    def model(self, seed: int = 0) -> nn.Module:
        """Return the model in float32 and eval mode, with no parameter left at zero."""
        torch.manual_seed(seed)
        model = self.build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        return model

    def evaluate(self, model: nn.Module, evaluation: int, seed: int = 0) -> Tensor:
        """Return the output of `model` at one evaluation of the run of `seed`."""
        return self.output_of(model(**self.arguments(evaluation, seed)))

    def output_of(self, result: Any) -> Tensor:
        """Return the prediction in what the model returns; of several latents all of it."""
        return joined(result) if self.further else output_of(result)

    def latent_of(self, arguments: Mapping[str, Any]) -> Tensor:
        """Return the latent among arguments, (rows, ...), or all of them as one."""
        found = [arguments[name] for name in names_of(self.adapter.latent)]
        if self.further:
            return joined(found)
        return torch.stack(found[0]) if self.listed else found[0]

    def arguments(self, evaluation: int, seed: int = 0) -> dict[str, Any]:
        """Return the arguments of one evaluation; the latent turns slowly during a run."""
        generator = torch.Generator().manual_seed(1000 + seed)
        turned = torch.tensor(0.3 * evaluation)
        latents: list[Any] = []
        for shape in (self.latent, *self.further):
            start, end = torch.randn(2, BATCH, *shape, generator=generator)
            latent = turned.cos() * start + turned.sin() * end
            if self.guided:  # both passes have the same latents
                latent = latent[:1].repeat(BATCH, *[1] * len(shape))
            latents.append(list(latent) if self.listed else latent)
        timestep = torch.full((BATCH,), self.timesteps[evaluation])
        torch.manual_seed(seed)
        return {
            **self.conditions(),
            **dict(zip(names_of(self.adapter.latent), latents, strict=True)),
            self.adapter.timestep: timestep,
        }

    @torch.no_grad()
    def run(self, model: nn.Module, seed: int = 0) -> list[Tensor]:
        """Return the outputs of a run of four evaluations."""
        return [self.evaluate(model, evaluation, seed) for evaluation in range(EVALUATIONS)]


def output_of(result: Any) -> Tensor:
    """Return the prediction in what a denoiser returns."""
    result = result[0] if isinstance(result, tuple) else result
    sample = result if isinstance(result, Tensor) else result.sample
    return sample if isinstance(sample, Tensor) else torch.stack(tuple(sample))


def same(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Return whether two runs are equal bit by bit."""
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


ROW = (1, 0, 0, 1)


def kinds(sites: Sequence[Site]) -> list[str]:
    return list(dict.fromkeys(site.kind for site in sites))


def schedule_of(sites: Sequence[Site], row: Sequence[int] = ROW) -> Schedule:
    return Schedule(evaluations=len(row), rows={kind: tuple(row) for kind in kinds(sites)})


class AdapterContract:
    """What holds for every case.

    Attributes:
        find: The package's search among its adapters.
    """

    find: Callable[[nn.Module], PatternAdapter]

    def test_site_keys_name_one_module_each(self, case: Case):
        sites = case.adapter.sites(case.model())
        assert len({site.path for site in sites}) == len(sites)
        assert len({(site.kind, site.block) for site in sites}) == len(sites)
        assert not {site.path for site in sites} & {site.kind for site in sites}

    def test_sites_are_all_that_the_patterns_can_mean(self, case: Case):
        model = case.model()
        modules = dict(model.named_modules())
        expected = set()
        for pattern in case.adapter.patterns:
            blocks = modules[pattern.path.partition(".*")[0]]
            paths = {pattern.path.replace("*", name) for name, _ in blocks.named_children()}
            assert paths & modules.keys() or getattr(pattern, "optional", False)
            expected |= paths & modules.keys()
        assert {site.path for site in case.adapter.sites(model)} == expected

    def test_adapter_is_found_by_the_class(self, case: Case):
        assert self.find(case.model()) is case.adapter

    def test_adapter_is_found_under_compile(self, case: Case):
        compiled = torch.compile(case.model(), backend="eager")
        assert self.find(compiled) is case.adapter  # pyright: ignore[reportArgumentType] torch's stub says a function

    def test_wrong_model_is_refused(self, case: Case):
        wrong = nn.ModuleDict({"mid": nn.Linear(1, 1)})
        with pytest.raises(
            AdapterError, match=rf"{case.name!r} found nothing at .*its children.*'mid'"
        ):
            case.adapter.sites(wrong)

    def test_outputs_are_not_trivial(self, case: Case):
        outputs = case.run(case.model())
        assert all(output.isfinite().all() and output.std() > 1e-3 for output in outputs)
        assert not any(torch.equal(one, other) for one, other in pairwise(outputs))

    def test_computing_everything_is_bit_identical(self, case: Case):
        model = case.model()
        plain = case.run(model)
        everything = interval(1, evaluations=EVALUATIONS, kinds=kinds(case.adapter.sites(model)))
        with (
            pytest.warns(SmoothCacheWarning, match="computes everything"),
            cached(model, case.adapter, everything) as stats,
        ):
            outputs = case.run(model)
        assert same(outputs, plain)
        assert stats.reuse_fraction == 0.0

    def test_wrapped_sites_that_compute_are_bit_identical(self, case: Case):
        model = case.model()
        plain = case.run(model)
        with cached(model, case.adapter, schedule_of(case.adapter.sites(model))):
            outputs = case.run(model)
        assert torch.equal(outputs[0], plain[0])
        assert torch.equal(outputs[3], plain[3])

    def test_reuse_equals_the_reference(self, case: Case):
        model = case.model()
        sites = case.adapter.sites(model)
        plain = case.run(model)
        with hooked(model, sites, ROW) as reference:
            expected = case.run(model)
        with cached(model, case.adapter, schedule_of(sites)):
            outputs = case.run(model)
        assert all(len(hook.reused) == 2 for hook in reference)
        assert same(outputs, expected)
        assert not torch.equal(outputs[2], plain[2])

    def test_each_kind_alone_equals_the_reference(self, case: Case):
        model = case.model()
        sites = case.adapter.sites(model)
        for kind in kinds(sites):
            of_kind = [site for site in sites if site.kind == kind]
            with hooked(model, of_kind, ROW):
                expected = case.run(model)
            with cached(model, case.adapter, schedule_of(of_kind)) as stats:
                outputs = case.run(model)
            assert same(outputs, expected), kind
            assert stats.reused == {site.path: 2 for site in of_kind}

    def test_modules_run_as_often_as_planned(self, case: Case):
        model = case.model()
        sites = case.adapter.sites(model)
        with counted(model, sites) as plain:
            case.run(model)
        with (
            counted(model, sites) as calls,
            cached(model, case.adapter, schedule_of(sites)) as stats,
        ):
            case.run(model)
        assert {path for path, _ in plain} == {site.path for site in sites}
        assert {key: 2 * times for key, times in calls.items()} == dict(plain)
        assert stats.computed == stats.reused == {site.path: 2 for site in sites}
        assert stats.evaluations == EVALUATIONS
        assert stats.runs == 1

    def test_nobody_writes_into_cached_outputs(self, case: Case):
        """That a model does so is told, by a warning, and what was kept is computed anew."""
        model = case.model()
        sites = [site for site in case.adapter.sites(model) if site.target == "output"]
        with cached(model, case.adapter, schedule_of(case.adapter.sites(model))) as stats:
            case.run(model)
        assert stats.recomputed == 0
        assert all(stats.reused[site.path] == 2 for site in sites)

    def test_runs_do_not_see_each_other(self, case: Case):
        model = case.model()
        schedule = schedule_of(case.adapter.sites(model))
        with cached(model, case.adapter, schedule):
            alone = case.run(model, seed=1)
        with cached(model, case.adapter, schedule) as stats:
            runs = [case.run(model, seed) for seed in (0, 1, 0)]
        assert stats.runs == 3
        assert same(runs[2], runs[0])
        assert same(runs[1], alone)
        assert not same(runs[1], runs[0])
        assert stats.bytes_held == 0

    def test_computing_every_evaluation_and_pass_is_bit_identical(self, case: Case):
        model = case.model()
        plain, before = case.run(model), snapshot(model)
        everything = (1,) * EVALUATIONS
        schedule = Schedule(
            evaluations=EVALUATIONS, rows={"denoiser": everything, "guidance": everything}
        )
        with (
            pytest.warns(SmoothCacheWarning, match="computes everything"),
            cached(model, case.adapter, schedule),
        ):
            assert same(case.run(model), plain)
        assert_restored(model, before)

    @torch.no_grad()
    def test_skipped_evaluations_equal_computing_by_hand(self, case: Case):
        model = case.model()
        outputs = [case.evaluate(model, evaluation) for evaluation in (0, 1)]
        latent = case.latent_of(case.arguments(2))
        filled = 1.5 * outputs[1] - 0.75 * outputs[0]
        filled[:, : latent.shape[1]] += 0.25 * latent
        fill = Fill(terms={2: (1.5, -0.75)}, inputs={2: 0.25})
        schedule = Schedule(evaluations=3, rows={"denoiser": (1, 1, 0)}, fills={"denoiser": fill})
        with cached(model, case.adapter, schedule) as stats:
            given = [case.evaluate(model, evaluation) for evaluation in range(3)]
        assert same(given, [*outputs, filled])
        assert stats.reused == {"denoiser": 1}

    def test_model_is_restored(self, case: Case):
        model = case.model()
        plain = case.run(model)
        before = snapshot(model)
        with cached(model, case.adapter, schedule_of(case.adapter.sites(model))):
            case.run(model)
            assert snapshot(model) != before
        assert_restored(model, before)
        assert same(case.run(model), plain)

    def test_model_is_restored_after_an_exception(self, case: Case):
        model = case.model()
        case.run(model)
        before = snapshot(model)
        sites = case.adapter.sites(model)

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt("out of patience")

        def interrupted_run() -> None:
            with cached(model, case.adapter, schedule_of(sites)):
                case.evaluate(model, 0)
                handle = model.get_submodule(sites[-1].path).register_forward_pre_hook(fail)
                try:
                    case.evaluate(model, 1)
                finally:
                    handle.remove()

        with pytest.raises(KeyboardInterrupt, match="out of patience"):
            interrupted_run()
        assert_restored(model, before)

    def test_a_run_after_a_failed_call_starts_afresh(self, case: Case):
        model = case.model()
        sites = case.adapter.sites(model)
        with cached(model, case.adapter, schedule_of(sites)):
            expected = case.run(model)
            case.evaluate(model, 0, seed=1)
            with pytest.raises(TypeError, match="nonsense"):
                model(**case.arguments(1), nonsense=True)
            outputs = case.run(model)
        assert same(outputs, expected)

    def test_calibration_measures_every_site(self, case: Case):
        model = case.model()
        before = snapshot(model)
        sampler = silent(model, lambda seed: case.run(model, seed), adapter=case.adapter)
        calibration = calibrate(sampler, seeds=[0], max_lag=2, progress=False)
        assert_restored(model, before)
        errors = calibration.mean()
        assert calibration.sites == case.adapter.sites(model)
        assert errors.shape == (len(calibration.sites), 1, 2, EVALUATIONS)
        for lag in (1, 2):
            measured = errors[:, 0, lag - 1, : EVALUATIONS - lag]
            assert np.isfinite(measured).all()
            assert (measured > 0).all()
        assert all(cost.macs > 0 and cost.bytes > 0 for cost in calibration.cost.sites)
        assert 0 < sum(cost.macs for cost in calibration.cost.sites) < calibration.cost.total
        assert calibration.fingerprint.timesteps == pytest.approx(case.timesteps)


def half_of(value: Any, row: int) -> Any:
    """Return the arguments for one row of a batch of two."""
    if isinstance(value, dict):
        return {key: half_of(item, row) for key, item in value.items()}
    if isinstance(value, list | Tensor):
        return value[row : row + 1]
    return value


class GuidanceContract:
    """What holds for every case whose guidance is batched."""

    @torch.no_grad()
    def test_skipping_the_unconditional_pass_equals_computing_by_hand(self, batched_case: Case):
        case = dataclasses.replace(batched_case, guided=True)
        model, outputs = case.model(), []
        row = 0 if case.adapter.guidance == "cond-first" else 1
        difference = torch.zeros(0)
        for evaluation in range(EVALUATIONS):
            if ROW[evaluation]:
                outputs.append(case.evaluate(model, evaluation))
                difference = outputs[-1][row] - outputs[-1][1 - row]
            else:
                arguments = half_of(case.arguments(evaluation), row)
                conditional = case.output_of(model(**arguments))[0]
                pair = (conditional, conditional - difference)
                outputs.append(torch.stack(pair if row == 0 else pair[::-1]))
        schedule = Schedule(evaluations=EVALUATIONS, rows={"guidance": ROW})
        with cached(model, case.adapter, schedule) as stats:
            assert same(case.run(model), outputs)
        assert stats.reused == {"guidance": 2}
