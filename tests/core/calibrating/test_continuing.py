"""A calibration file is continued, or returned as it is, only for what it was measured on."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from kit.helpers import ADAPTER, STEPS, Toy, noise
from smoothcache_core import Calibration, PatternAdapter, Sampler, SitePattern, calibrate
from smoothcache_core.calibrating.probe import probed
from smoothcache_core.calls.guidance import announcing_guidance
from smoothcache_core.errors import CalibrationError, SmoothCacheError
from smoothcache_core.locking import locked
from torch import Tensor, nn


def toy_of(seed: int = 0) -> Toy:
    toy = Toy()
    torch.manual_seed(seed)
    for parameter in toy.parameters():
        nn.init.normal_(parameter)
    return toy


class Counted:
    """A sampler of a toy that counts what the model is asked for.

    Attributes:
        evaluations: Evaluations that the model made.
    """

    def __init__(
        self,
        *,
        weights: int = 0,
        steps: tuple[float, ...] = STEPS,
        size: int = 3,
        device: bool = False,
        guidance: float | None = None,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        self.toy = toy_of(weights).to(dtype)
        self.evaluations = 0
        self._steps, self._size, self._guidance = steps, size, guidance
        self._dtype = dtype
        self.toy.blocks[0].register_forward_pre_hook(self._count)
        self.sampler = Sampler(
            model=self.toy, adapter=ADAPTER, run=self.run, **{"samples": 2, **settings}
        )

    def _count(self, *_: object) -> None:
        self.evaluations += 1

    def run(self, seed: int) -> Tensor:
        self.toy.journal.call = -1  # calls are numbered from the start of a run
        latent = noise(seed, (2, self._size, 4), self._dtype)
        scales = {} if self._guidance is None else {"guidance_scale": self._guidance}
        with announcing_guidance(**scales):
            for step in self._steps:
                with torch.no_grad():
                    latent = latent - self.toy(latent, torch.tensor(step)) / 4
        return latent


def measure(made: Counted, checkpoint: Path, seeds: Any = (0, 1), **settings: Any) -> Calibration:
    return calibrate(
        made.sampler, seeds=seeds, checkpoint=checkpoint, progress=False,
        **{"max_lag": 3, "sensitivity": 1, **settings},
    )  # fmt: skip


KNOWN_BEFORE = {
    "weights": (Counted, {"weights": 1}, {}, "weights are those of another model"),
    "solver": (Counted, {"solver": "Heun"}, {}, "solver is None instead of 'Heun'"),
    "branches": (Counted, {"branches": ("one",)}, {}, "branches is"),
    "lags": (Counted, {}, {"max_lag": 2}, "max_lag is 3 instead of 2"),
    "no sensitivities": (Counted, {}, {"sensitivity": 0}, "has sensitivities, which would be lost"),
    "more sensitivities": (
        Counted,
        {},
        {"sensitivity": 2},
        "1 of its runs have sensitivities, not 2",
    ),
}
KNOWN_BY_A_LOOK = {
    "fewer steps": ({"steps": STEPS[:-1]}, "evaluations is 6 instead of 5"),
    "more steps": ({"steps": (*STEPS, 0.5)}, "evaluations is 6 instead of 7"),
    "other timesteps": ({"steps": (*STEPS[:-1], 0.5)}, "the timesteps differ"),
    "size": ({"size": 5}, "latent_shape is"),
    "data type": ({"dtype": torch.float64}, "dtype is 'float32' instead of 'float64'"),
    "guidance": ({"guidance": 3.0}, "guidance is"),
}


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)], ids=["full", "one to go"])
@pytest.mark.parametrize("what", KNOWN_BEFORE)
def test_another_sampler_is_refused_before_any_evaluation(
    what: str, seeds: tuple[int, ...], tmp_path: Path
):
    checkpoint = tmp_path / "c.safetensors"
    measure(Counted(), checkpoint)
    content = checkpoint.read_bytes()
    make, change, settings, message = KNOWN_BEFORE[what]
    other: Counted = make(**change)
    with pytest.raises(CalibrationError, match=message) as caught:
        measure(other, checkpoint, seeds, **settings)
    assert "\n" not in str(caught.value)
    assert other.evaluations == 0
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)], ids=["full", "one to go"])
@pytest.mark.parametrize("what", KNOWN_BY_A_LOOK)
def test_another_run_is_refused_after_one_evaluation(
    what: str, seeds: tuple[int, ...], tmp_path: Path
):
    checkpoint = tmp_path / "c.safetensors"
    measure(Counted(), checkpoint)
    change, message = KNOWN_BY_A_LOOK[what]
    other = Counted(**change)
    with pytest.raises(CalibrationError, match=message):
        measure(other, checkpoint, seeds)
    assert other.evaluations == 1


def test_batches_of_another_size_are_refused(tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    measure(Counted(), checkpoint)
    with pytest.raises(CalibrationError, match="samples is 2 instead of 1"):
        measure(Counted(samples=1), checkpoint)


def test_what_is_the_same_is_continued_and_returned_at_the_cost_of_one_evaluation(tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    whole = measure(Counted(), tmp_path / "whole.safetensors", (0, 1, 2))
    measure(Counted(), checkpoint)
    assert measure(Counted(), checkpoint, (0, 1, 2)) == whole
    assert Calibration.load(checkpoint) == whole
    again = Counted()
    assert measure(again, checkpoint, (0, 1, 2)) == whole
    assert again.evaluations == 1
    more = measure(Counted(), checkpoint, (3,), sensitivity=[0])
    assert more.seeds == (0, 1, 2, 3)


def scheduled(toy: Toy, scheduler: Any, eta: float, steps: int = 6) -> Sampler:
    def run(seed: int) -> Tensor:
        scheduler.set_timesteps(steps)
        latent, generator = noise(seed), torch.Generator().manual_seed(seed)
        for timestep in scheduler.timesteps:
            with torch.no_grad():
                output = toy(latent, timestep)
            latent = scheduler.step(output, timestep, latent, eta=eta, generator=generator)[0]
        return latent

    return Sampler(model=toy, adapter=ADAPTER, run=run, scheduler=scheduler, samples=2)


@pytest.mark.parametrize(
    ("settings", "eta", "message"),
    [
        (
            {"beta_schedule": "scaled_linear"},
            0.0,
            "beta_schedule is linear, instead of scaled_linear",
        ),
        ({}, 0.5, r"eta is 0, instead of 0.5"),
    ],
)
def test_another_setting_of_the_solver_is_refused(
    settings: dict[str, Any], eta: float, message: str, tmp_path: Path
):
    toy, checkpoint = toy_of(), tmp_path / "c.safetensors"
    make: Callable[..., Any] = diffusers.DDIMScheduler  # pyright: ignore[reportPrivateImportUsage]
    common: dict[str, Any] = {"seeds": [0], "checkpoint": checkpoint, "progress": False}
    calibrate(scheduled(toy, make(), 0.0), sensitivity=0, **common)
    with pytest.raises(CalibrationError, match=message):
        calibrate(scheduled(toy, make(**settings), eta), sensitivity=0, **common)


def test_a_look_at_a_run_says_what_the_run_says():
    made = Counted(guidance=2.0)
    look = probed(made.sampler, 0)
    assert made.evaluations == 1
    known = calibrate(made.sampler, seeds=[0], progress=False).fingerprint
    assert look.changed(sampling=known.sampling) == known


class Labelled(nn.Module):
    """A denoiser that is told what to show."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4, bias=False)])

    def forward(self, hidden_states: Tensor, timestep: float, label: Any) -> Tensor:
        told = torch.as_tensor(label[0] if isinstance(label, list) else label)
        return self.blocks[0](hidden_states) * timestep + told.float().mean()


LABELLED = PatternAdapter(name="labelled", patterns=(SitePattern("blocks.*", "block"),))
LABELS: dict[str, tuple[Any, Any]] = {
    "class": (torch.tensor([3]), torch.tensor([4])),
    "classes of many": (torch.tensor([207, 1]), torch.tensor([208, 1])),
    "number": (3, 4),
    "embedding": (torch.ones(1, 5), torch.linspace(-1, 1, 5)[None]),
    "another length": (torch.ones(1, 5), torch.ones(1, 6)),
    "list of embeddings": ([torch.ones(3)], [torch.arange(3.0)]),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("what", LABELS)
def test_other_prompts_are_refused_whoever_knows_of_them(what: str, named: bool, tmp_path: Path):
    """They are in a function of the user's, so they show in what the model is given."""
    model, checkpoint = Labelled().requires_grad_(False), tmp_path / "c.safetensors"

    def sampler(label: Any) -> Sampler:
        def run(seed: int) -> Tensor:
            latent = noise(seed, (1, 3, 4))
            for step in (1.0, 0.7, 0.3):
                given = {"label": label} if named else {}
                latent = latent - model(latent, step, *(() if named else (label,)), **given) / 9
            return latent

        return Sampler(model=model, adapter=LABELLED, run=run)

    settings: dict[str, Any] = {"checkpoint": checkpoint, "sensitivity": 0, "progress": False}
    one, other = LABELS[what]
    calibrate(sampler(one), seeds=[0, 1], **settings)
    calibrate(sampler(one), seeds=[1, 2], **settings)
    for seeds in ([0, 1, 2], [3]):
        with pytest.raises(CalibrationError, match=r"is given at seed 0 \(prompts, labels\)"):
            calibrate(sampler(other), seeds=seeds, **settings)


# ---------------------------------------------------------------------------- two at once


def hold(path: Path, taken: Any, release: Any) -> None:
    """Hold a file, in a process of its own."""
    with locked(path, CalibrationError):
        taken.set()
        release.wait(60)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_do_not_write_one_file(tmp_path: Path, sharded: bool):
    checkpoint, context = tmp_path / "c.safetensors", multiprocessing.get_context("spawn")
    taken, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(checkpoint, taken, release))
    process.start()
    assert taken.wait(60)
    made = Counted()
    with pytest.raises(CalibrationError, match="is being written by another process"):
        measure(made, checkpoint, sharded=sharded)
    assert made.evaluations == 0
    release.set()
    process.join()
    measure(made, checkpoint, sharded=sharded)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_the_lock_of_a_process_that_was_killed_is_none(tmp_path: Path):
    checkpoint, context = tmp_path / "c.safetensors", multiprocessing.get_context("spawn")
    taken, never = context.Event(), context.Event()
    process = context.Process(target=hold, args=(checkpoint, taken, never))
    process.start()
    assert taken.wait(60)
    process.kill()
    process.join()
    measure(Counted(), checkpoint)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_folder_that_cannot_be_written_to_is_told_before_any_evaluation(tmp_path: Path):
    (tmp_path / "file").touch()
    made = Counted()
    with pytest.raises(SmoothCacheError, match="cannot write"):
        measure(made, tmp_path / "file" / "c.safetensors")
    assert made.evaluations == 0
