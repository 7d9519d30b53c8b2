"""The contract that every adapter of the image package keeps."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smoothcache_image
import torch
from image_models import CASES, EVALUATIONS, Case, DiT, output_of, same, sd3
from image_reference import assert_restored, counted, hooked, snapshot
from smoothcache_core import (
    AdapterError,
    Fill,
    Schedule,
    Site,
    SmoothCacheWarning,
    attach,
    cached,
    calibrate,
    interval,
)
from smoothcache_image import ADAPTERS, FACEBOOK_DIT, FLUX, LUMINA2, SD3, Z_IMAGE, adapter_for
from torch import Tensor, nn

ROW = (1, 0, 0, 1)
FLUX_CASE = next(case for case in CASES if case.adapter is FLUX)

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def kinds(sites: Sequence[Site]) -> list[str]:
    return list(dict.fromkeys(site.kind for site in sites))


def schedule_of(sites: Sequence[Site], row: Sequence[int] = ROW) -> Schedule:
    return Schedule(evaluations=len(row), rows={kind: tuple(row) for kind in kinds(sites)})


# ---------------------------------------------------------------------------- sites


def test_every_adapter_is_tested():
    assert [case.adapter for case in CASES] == list(ADAPTERS)
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)


def test_every_adapter_is_public():
    public = [getattr(smoothcache_image, name) for name in smoothcache_image.__all__]
    assert all(any(adapter is value for value in public) for adapter in ADAPTERS)


@every_case
def test_site_keys_name_one_module_each(case: Case):
    sites = case.adapter.sites(case.model())
    assert len({site.path for site in sites}) == len(sites)
    assert len({(site.kind, site.block) for site in sites}) == len(sites)
    assert not {site.path for site in sites} & {site.kind for site in sites}


@every_case
def test_sites_are_all_that_the_patterns_can_mean(case: Case):
    model = case.model()
    modules = dict(model.named_modules())
    expected = set()
    for pattern in case.adapter.patterns:
        blocks = modules[pattern.path.partition(".*")[0]]
        paths = {pattern.path.replace("*", name) for name, _ in blocks.named_children()}
        assert paths & modules.keys()
        expected |= paths & modules.keys()
    assert {site.path for site in case.adapter.sites(model)} == expected


def test_sd3_skips_what_a_block_does_not_have():
    kinds_of_blocks = {(site.kind, site.block) for site in SD3.sites(sd3())}
    assert ("attn2", 0) in kinds_of_blocks
    assert ("attn2", 1) not in kinds_of_blocks
    assert ("ff_context", 1) in kinds_of_blocks
    assert ("ff_context", 2) not in kinds_of_blocks


def test_sd3_without_dual_attention_has_no_attn2():
    assert kinds(SD3.sites(sd3(dual_attention_layers=()))) == ["attn", "ff", "ff_context"]


@pytest.mark.parametrize("adapter", [LUMINA2, Z_IMAGE], ids=lambda adapter: adapter.name)
def test_context_refiners_depend_on_the_text_alone(adapter: Any):
    case = next(case for case in CASES if case.adapter is adapter)
    model = case.model()
    outputs: list[Tensor] = []
    refiner = model.get_submodule("context_refiner.1")
    refiner.register_forward_hook(lambda *call: outputs.append(call[-1]))
    case.run(model)
    assert len(outputs) == EVALUATIONS
    assert same(outputs, outputs[:1] * EVALUATIONS)


# ---------------------------------------------------------------------------- finding an adapter


@every_case
def test_adapter_is_found_by_the_class(case: Case):
    assert adapter_for(case.model()) is case.adapter


@every_case
def test_adapter_is_found_under_compile(case: Case):
    compiled = torch.compile(case.model(), backend="eager")
    assert adapter_for(compiled) is case.adapter  # pyright: ignore[reportArgumentType] torch's stub says a function


def test_adapter_is_found_by_a_base_class():
    model = FLUX_CASE.model()
    model.__class__ = type("Sharded", (type(model),), {})
    assert adapter_for(model) is FLUX


def test_unknown_class_gets_the_known_ones_and_a_way_out():
    with pytest.raises(AdapterError, match=r"no adapter for 'Linear'.*'DiT'.*PatternAdapter\("):
        adapter_for(nn.Linear(1, 1))


@every_case
def test_wrong_model_is_refused(case: Case):
    wrong = nn.ModuleDict({"mid": nn.Linear(1, 1)})
    with pytest.raises(
        AdapterError, match=rf"{case.name!r} found nothing at .*its children.*'mid'"
    ):
        case.adapter.sites(wrong)


def test_foreign_adapter_is_refused_before_anything_is_changed():
    model = FLUX_CASE.model()
    before = snapshot(model)
    with pytest.raises(AdapterError, match="'facebook-dit' found nothing at"):
        attach(model, FACEBOOK_DIT, Schedule(evaluations=4, rows={"attn": ROW}))
    assert_restored(model, before)


# ---------------------------------------------------------------------------- outputs


@every_case
def test_outputs_are_not_trivial(case: Case):
    outputs = case.run(case.model())
    assert all(output.isfinite().all() and output.std() > 1e-3 for output in outputs)
    assert not any(torch.equal(one, other) for one, other in pairwise(outputs))


@every_case
def test_computing_everything_is_bit_identical(case: Case):
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


@every_case
def test_wrapped_sites_that_compute_are_bit_identical(case: Case):
    model = case.model()
    plain = case.run(model)
    with cached(model, case.adapter, schedule_of(case.adapter.sites(model))):
        outputs = case.run(model)
    assert torch.equal(outputs[0], plain[0])
    assert torch.equal(outputs[3], plain[3])


@every_case
def test_reuse_equals_the_reference(case: Case):
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


@every_case
def test_each_kind_alone_equals_the_reference(case: Case):
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


@every_case
def test_modules_run_as_often_as_planned(case: Case):
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


@every_case
def test_nobody_writes_into_cached_outputs(case: Case):
    model = case.model()
    sites = [site for site in case.adapter.sites(model) if site.target == "output"]
    given: dict[str, list[tuple[Tensor, ...]]] = {site.path: [] for site in sites}
    copies: dict[str, list[Tensor]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(*call: Any) -> None:
            tensors = call[-1] if isinstance(call[-1], tuple) else (call[-1],)
            given[path].append(tensors)
            copies.setdefault(path, [tensor.clone() for tensor in tensors])

        return hook

    with cached(model, case.adapter, schedule_of(case.adapter.sites(model))):
        for site in sites:
            model.get_submodule(site.path).register_forward_hook(note(site.path))
        case.run(model)
    for path, (stored, *reused, computed) in given.items():
        for tensors in (stored, *reused):
            assert [t.data_ptr() for t in tensors] == [t.data_ptr() for t in stored], path
            assert same(tensors, copies[path]), path
        assert len(reused) == 2
        assert not same(computed, stored), path


@every_case
def test_runs_do_not_see_each_other(case: Case):
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


@torch.no_grad()
def test_a_delta_on_unchanged_inputs_gives_the_computed_output():
    model = FLUX_CASE.model()
    nn.init.zeros_(model.get_parameter("time_text_embed.timestep_embedder.linear_2.weight"))
    arguments = FLUX_CASE.arguments(0)
    plain = model(**arguments).sample
    with cached(model, FLUX, Schedule(evaluations=3, rows={"single": (1, 0, 0)})) as stats:
        for timestep in (1.0, 0.6, 0.2):
            arguments["timestep"] = torch.full_like(arguments["timestep"], timestep)
            torch.testing.assert_close(model(**arguments).sample, plain)
    assert stats.reused == {f"single_transformer_blocks.{block}": 2 for block in range(3)}


# ---------------------------------------------------------------------------- guidance

BATCHED = [case for case in CASES if case.adapter.guidance is not None]
every_batched_case = pytest.mark.parametrize("case", BATCHED, ids=lambda case: case.name)


def half_of(value: Any, row: int) -> Any:
    """Return the arguments for one row of a batch of two."""
    if isinstance(value, dict):
        return {key: half_of(item, row) for key, item in value.items()}
    if isinstance(value, list | Tensor):
        return value[row : row + 1]
    return value


@every_batched_case
@torch.no_grad()
def test_skipping_the_unconditional_pass_equals_computing_by_hand(case: Case):
    model, outputs = case.model(), []
    row = 0 if case.adapter.guidance == "cond-first" else 1
    difference = torch.zeros(0)
    for evaluation in range(EVALUATIONS):
        if ROW[evaluation]:
            outputs.append(case.evaluate(model, evaluation))
            difference = outputs[-1][row] - outputs[-1][1 - row]
        else:
            arguments = half_of(case.arguments(evaluation), row)
            conditional = output_of(model(**arguments))[0]
            pair = (conditional, conditional - difference)
            outputs.append(torch.stack(pair if row == 0 else pair[::-1]))
    schedule = Schedule(evaluations=EVALUATIONS, rows={"guidance": ROW})
    with cached(model, case.adapter, schedule) as stats:
        assert same(case.run(model), outputs)
    assert stats.reused == {"guidance": 2}


@every_case
def test_computing_every_evaluation_and_pass_is_bit_identical(case: Case):
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


@every_case
@torch.no_grad()
def test_skipped_evaluations_equal_computing_by_hand(case: Case):
    model, latents = case.model(), case.adapter.latent
    outputs = [case.evaluate(model, evaluation) for evaluation in (0, 1)]
    latent = case.arguments(2)[latents]
    latent = torch.stack(latent) if isinstance(latent, list) else latent
    filled = 1.5 * outputs[1] - 0.75 * outputs[0]
    filled[:, : latent.shape[1]] += 0.25 * latent
    fill = Fill(terms={2: (1.5, -0.75)}, inputs={2: 0.25})
    schedule = Schedule(evaluations=3, rows={"denoiser": (1, 1, 0)}, fills={"denoiser": fill})
    with cached(model, case.adapter, schedule) as stats:
        given = [case.evaluate(model, evaluation) for evaluation in range(3)]
    assert same(given, [*outputs, filled])
    assert stats.reused == {"denoiser": 1}


# ---------------------------------------------------------------------------- restoring


@every_case
def test_model_is_restored(case: Case):
    model = case.model()
    plain = case.run(model)
    before = snapshot(model)
    with cached(model, case.adapter, schedule_of(case.adapter.sites(model))):
        case.run(model)
        assert snapshot(model) != before
    assert_restored(model, before)
    assert same(case.run(model), plain)


@every_case
def test_model_is_restored_after_an_exception(case: Case):
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


@every_case
def test_a_run_after_a_failed_call_starts_afresh(case: Case):
    model = case.model()
    sites = case.adapter.sites(model)
    with cached(model, case.adapter, schedule_of(sites)):
        expected = case.run(model)
        case.evaluate(model, 0, seed=1)
        with pytest.raises(TypeError, match="nonsense"):
            model(**case.arguments(1), nonsense=True)
        outputs = case.run(model)
    assert same(outputs, expected)


# ---------------------------------------------------------------------------- calibrating


@every_case
def test_calibration_measures_every_site(case: Case):
    model = case.model()
    before = snapshot(model)
    calibration = calibrate(
        model,
        case.adapter,
        lambda seed: case.run(model, seed),
        seeds=[0],
        max_lag=2,
        progress=False,
    )
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


# ---------------------------------------------------------------------------- facebook's DiT


def facebook_dit() -> nn.Module:
    """Return a tiny model of the real class, from the folder that holds its `models.py`."""
    folder = os.getenv("FACEBOOK_DIT_SOURCE")
    if folder is None:
        pytest.skip("FACEBOOK_DIT_SOURCE does not name a folder with facebookresearch/DiT")
    spec = importlib.util.spec_from_file_location("facebook_dit", Path(folder) / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.DiT(input_size=8, hidden_size=16, depth=2, num_heads=2, num_classes=10)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("build", [DiT, facebook_dit], ids=["clean-room", "real"])
@torch.no_grad()
def test_forward_with_cfg_is_counted_and_cached(build: Callable[[], nn.Module]):
    model = build()
    before = snapshot(model)
    assert adapter_for(model) is FACEBOOK_DIT
    sites = FACEBOOK_DIT.sites(model)
    assert [site.path for site in sites] == [
        f"blocks.{block}.{part}" for part in ("attn", "mlp") for block in range(2)
    ]

    def sample() -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        latent = torch.randn(1, 4, 8, 8, generator=generator).repeat(2, 1, 1, 1)
        outputs = []
        for timestep in (999, 666, 333, 0):
            moment, labels = torch.tensor([timestep] * 2), torch.tensor([3, 10])
            outputs.append(model.forward_with_cfg(latent, moment, labels, 4.0))  # pyright: ignore[reportCallIssue] torch's stub types attributes as tensors
            latent = latent - 0.1 * outputs[-1][:, :4]
        return outputs

    with counted(model, sites) as plain_calls:
        plain = sample()
    with hooked(model, sites, ROW):
        expected = sample()
    with counted(model, sites) as calls, cached(model, FACEBOOK_DIT, schedule_of(sites)) as stats:
        outputs, again = sample(), sample()
    assert stats.evaluations == 2 * EVALUATIONS
    assert stats.runs == 2
    assert calls == plain_calls
    assert same(outputs, expected)
    assert same(again, outputs)
    assert not same(outputs, plain)
    assert_restored(model, before)
