"""Does a GPU give what the CPU gives? The small trained models, plain and by schedules, on both.

Every modality's shipped model samples the same seeds in float32 on the CPU and on the device, with
noise drawn on the CPU: plain, by a schedule of its sites, and by one of whole evaluations. Neither
schedule needs a calibration. Compared are the plain final latents, and the errors that the
schedules make against the plain run of the same place.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from smoothcache_core import Schedule
from smoothcache_core.adapters import DENOISER
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.sampling import ConditionedSampler
from smoothcache_core.schedule import Fill
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tools.bench.baselines.peers import quiet
from tools.bench.policies import evenly_spaced
from tools.bench.records import Row

QUESTION = "Does the device give what the CPU gives: plain latents, and the errors of schedules?"

LATENTS = 1e-3
"""Largest relative L2 distance of plain final latents, device to CPU. Float32 rounds differently
from kernel to kernel, by some 1e-7 an operation, which a run of 20 evaluations makes 1e-5 or so."""

ERRORS = 0.05
"""Largest relative difference of a schedule's error, device to CPU. Errors are 0.01 and more, so
that the rounding above is a hundredth of one at most; a cache at fault changes them by more."""

NOTES = (
    "error_cpu and error_device are the mean relative L2 distances of the final latents under the "
    "policy from the plain ones of the same place; latents_apart is that of the plain final "
    "latents of the device from those of the CPU.",
    f"agrees: latents at most {LATENTS:g} apart, and errors at most {ERRORS:.0%} apart.",
    "The schedules compute every second evaluation, of all sites together or of the denoiser, and "
    "are not planned: what is asked is whether both places do the same, not how well.",
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A small trained model.

    Attributes:
        model: Its name.
        title: Its solver, for readers.
        load: Loads it in float32 for a number of steps and onto a device.
        samples: Samples of one run.
    """

    model: str
    title: str
    load: Callable[[int, str], Any]
    samples: int


def _image() -> Trained:
    from tools.bench.models.image import IMAGE

    return Trained(
        model="digits",
        title="DDIM",
        load=lambda steps, device: IMAGE.load("digits", "ddim", steps, device),
        samples=8,
    )


def _video() -> Trained:
    from tools.bench.models.video import SOLVER, TITLE, VIDEO

    return Trained(
        model="moving-digits",
        title=TITLE,
        load=lambda steps, device: VIDEO.load("moving-digits", SOLVER, steps, device),
        samples=4,
    )


def _audio() -> Trained:
    from tools.bench.models.audio import audio

    load = audio().load
    return Trained(
        model="spoken-digits",
        title="DPM-Solver++ 2M",
        load=lambda steps, device: load("spoken-digits", "dpmpp-2m", steps, device),
        samples=4,
    )


TRAINED: Mapping[str, Callable[[], Trained]] = {"image": _image, "video": _video, "audio": _audio}
"""The models by their modality; each is imported only when it is measured."""


def compared(trained: Trained, *, device: str, steps: int, seeds: Sequence[int]) -> list[Row]:
    """Sample a model on the CPU and on a device; return a row for each policy.

    Args:
        trained: The model.
        device: Where to compare the CPU with.
        steps: Steps of the solver.
        seeds: Seeds of the runs.
    """
    places = {
        place: replace(trained.load(steps, place), samples=trained.samples)
        for place in dict.fromkeys(("cpu", device))
    }
    schedules = _schedules(places["cpu"])
    latents = {
        (place, name): _latents(sampler, schedule, seeds)
        for place, sampler in places.items()
        for name, schedule in ({"plain": None} | schedules).items()
    }
    apart = _apart(latents[device, "plain"], latents["cpu", "plain"])
    rows: list[Row] = []
    for name in ("plain", *schedules):
        on_cpu, on_device = (
            _apart(latents[place, name], latents[place, "plain"]) for place in ("cpu", device)
        )
        same = apart <= LATENTS and abs(on_device - on_cpu) <= ERRORS * on_cpu
        rows.append(
            {
                "model": trained.model,
                "solver": trained.title,
                "evaluations": steps,
                "samples": trained.samples * len(seeds),
                "policy": name,
                "latents_apart": apart,
                "error_cpu": on_cpu,
                "error_device": on_device,
                "agrees": same,
            }
        )
    return rows


def _schedules(sampler: ConditionedSampler) -> dict[str, Schedule]:
    """Return schedules of half of the evaluations, of all sites and of the denoiser."""
    evaluations = sampler.evaluations or sampler.steps
    row = evenly_spaced(evaluations, 0.5)
    kinds: Any = dict.fromkeys((site.kind for site in sampler.adapter.sites(sampler.model)), row)
    skipped = [i for i, computed in enumerate(row) if not computed and sum(row[:i]) > 1]
    line = Fill(terms=dict.fromkeys(skipped, (2.0, -1.0)))  # through the two computed last
    return {
        "sites, reused": Schedule(evaluations=evaluations, rows=kinds),
        "whole evaluations, extrapolated": Schedule(
            evaluations=evaluations, rows={DENOISER.kind: row}, fills={DENOISER.kind: line}
        ),
    }


def _latents(
    sampler: ConditionedSampler, schedule: Schedule | None, seeds: Sequence[int]
) -> Tensor:
    """Return the final latents of some seeds, (samples, ...), on the CPU."""
    sampler.show_progress(False)
    around = nullcontext() if schedule is None else cached_sampler(sampler, schedule)
    with quiet(), _exact(), DrawnOnCpu(), around:
        return torch.cat([sampler(seed).cpu() for seed in seeds])


def _exact() -> Any:
    """Return what convolutions are exact in: CUDA would round their inputs to ten bits."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the mean relative L2 distance of samples."""
    distance = (one - other).flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1)
    return float(distance.mean())


class DrawnOnCpu(TorchFunctionMode):
    """Noise is drawn on the CPU, wherever it is asked for: devices have generators of their own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw on the CPU what `torch.randn` is to draw elsewhere, and move it there."""
        options = dict(kwargs or {})
        if func is not torch.randn or options.get("device") is None:
            return func(*args, **options)
        place = options.pop("device")
        return func(*args, **options).to(place)
