"""Training routers along the model's own trajectories: HarmoniCa's step-wise denoising training.

arXiv 2410.01723, section 4.1: a trajectory is sampled with the routers at work; at every evaluation
a teacher that computes everything and a student that mixes by the scores answer the same latent,
the scores take a step down the difference of the answers, and the solver goes on with what the
student says.
The model is frozen and the teacher has no graph, so gradients are those of the scores alone.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_map_only
from tqdm.auto import tqdm

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calls.clock import Tick
from smoothcache_core.calls.fingerprints import live_fingerprint
from smoothcache_core.calls.stopping import Stop
from smoothcache_core.errors import RouterError
from smoothcache_core.files import check_output
from smoothcache_core.outputs.structures import Structure
from smoothcache_core.routing.checkpoint import read_state, write_state
from smoothcache_core.routing.mixing import Mixing, hard
from smoothcache_core.routing.noised import CleanLatents, NoisedData, drawn_for
from smoothcache_core.routing.proxy import ErrorProxy
from smoothcache_core.routing.router import Routers
from smoothcache_core.routing.sampled import sampled
from smoothcache_core.routing.settings import RouterSettings
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.wrapping.denoiser import sites_of

Choice = TypeVar("Choice")


Log = Callable[[int, dict[str, float]], None]
"""Is told of an update: its number, and loss, error and computed share."""


@dataclass
class _State:
    """How far a training has come.

    Attributes:
        routers: What is trained.
        optimizer: Of their logits.
        weights: Of every evaluation's error, (evaluations,).
        update: Updates that were made.
        trajectory: Trajectories that were begun.
        measured: The update at which weights were measured last; below 0 before.
    """

    routers: Routers
    optimizer: torch.optim.AdamW
    weights: Tensor
    update: int = 0
    trajectory: int = 0
    measured: int = -1
    last: dict[str, float] = field(default_factory=dict[str, float])


def train_router(
    sampler: Sampler,
    settings: RouterSettings | None = None,
    *,
    evaluations: int,
    checkpoint: str | Path | None = None,
    data: CleanLatents | None = None,
    log: Log | None = None,
    progress: bool = True,
) -> Routers:
    """Train routers for a sampler: its model, its solver, its number of evaluations.

    Several processes share a training where `torch.distributed` is initialised, as by torchrun or
    `accelerate launch`: each samples trajectories of its own, and gradients are averaged.

    Example::

        routers = train_router(sampler, HARMONICA, evaluations=20, checkpoint="router.pt")
        routers.schedule(threshold=0.1).save("router.json")

    Args:
        sampler: Runs the model; its sites are the slots.
        settings: How to train; those of `RouterSettings` if not given.
        evaluations: Evaluations of one run, at least 2.
        checkpoint: A file that the training is written to and goes on from, after an interruption
            too; `load_router` reads it, and so do the projects that this follows.
        data: Draws clean latents, for settings that train on data (Learning-to-Cache): (samples,
            ...) as the denoiser is given them without noise, of what the samples of a seed show.
        log: Is told of every update.
        progress: Whether to show a progress bar.

    Returns:
        The trained routers.

    Raises:
        RouterError: The model has no sites that can be mixed, runs have another number of
            evaluations, or the checkpoint is of other routers. Or data is missing, not asked for,
            or cannot be noised by the sampler's scheduler.
    """
    settings = settings or RouterSettings()
    if (data is not None) != (settings.on == "data"):
        raise RouterError(
            f"settings say that routers train on {settings.on}, and `data`, which draws clean "
            f"latents, is {'not ' if data is None else ''}given; change on= of the settings, or it"
        )
    if checkpoint is not None:
        check_output(checkpoint)
    model = denoiser(sampler.model)
    sites = sites_of(sampler.adapter, model)
    routers = Routers(evaluations, sites, decides=settings.decides, seed=settings.seed)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    routers.to(device)
    optimizer = torch.optim.AdamW(routers.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    state = _State(routers, optimizer, torch.ones(evaluations))
    if checkpoint is not None and Path(checkpoint).exists():
        read_state(checkpoint, state, settings)
    training = _Training(sampler, settings, state, Mixing(model, sites), log)
    if data is not None:
        seed = settings.seed + _rank()
        training.data = NoisedData(sampler, data, seed, evaluations)
    with _frozen(model), training.mixing.entered():
        bar = tqdm(
            total=settings.updates, initial=state.update, desc="training", disable=not progress
        )
        with bar:
            while state.update < settings.updates:
                if training.data is None:
                    training.trajectory(bar)
                else:
                    training.of_data(training.data, bar)
                if checkpoint is not None and _rank() == 0:
                    write_state(checkpoint, state, settings)
    return routers


@contextmanager
def _frozen(model: torch.nn.Module) -> Generator[None]:
    """Let no parameter of a model have a gradient, and leave them as they were."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@dataclass
class _Training:
    """Makes updates along trajectories."""

    sampler: Sampler
    settings: RouterSettings
    state: _State
    mixing: Mixing
    log: Log | None
    data: NoisedData | None = None

    def of_data(self, data: NoisedData, bar: Any) -> None:
        """Make as many updates as a run has evaluations, each on noised data of its own."""
        state, settings = self.state, self.settings
        if state.measured < 0 or state.update - state.measured >= settings.refresh:
            self._weigh()
        last = min(settings.updates, state.update + state.routers.evaluations)
        with self.sampler.around():
            while state.update < last:
                self._on_data(data)
                bar.n = state.update
                bar.set_postfix(state.last, refresh=False)
                bar.update(0)

    def _on_data(self, data: NoisedData) -> None:
        """Make one update: the plain model at an evaluation, teacher and student at the next."""
        routers, update = self.state.routers, self.state.update
        decided = [e for e in range(routers.evaluations) if routers.logits(e) is not None]
        shared = drawn_for(self.settings.seed, update)  # routers of one evaluation, on all ranks
        evaluation, branch = _one_of(decided, shared), _one_of(data.branches, shared)
        own = drawn_for(self.settings.seed + 1, update * _world() + _rank())
        self.mixing.forget()
        with torch.no_grad():
            noisy = data.noised(evaluation - 1, branch, own)
            self.mixing.keep(branch)
            compute, _ = data.called(evaluation - 1, branch, noisy)
            output = compute()
            self.mixing.off()
            following = data.stepped(evaluation - 1, noisy, output, own)
        compute, latent = data.called(evaluation, branch, following)
        self._answer(Tick(evaluation=evaluation, branch=branch, new_run=False), compute, latent)

    def trajectory(self, bar: Any) -> None:
        """Sample once, with an update at every evaluation that routers decide on."""
        state, settings = self.state, self.settings
        if state.measured < 0 or state.update - state.measured >= settings.refresh:
            self._weigh()
        seed = settings.seed + state.trajectory * _world() + _rank()
        state.trajectory += 1
        seen = 0

        def answer(tick: Tick, compute: Callable[[], Any], latent: Tensor) -> Any:
            nonlocal seen
            if tick.new_run:
                self.mixing.forget()
            if tick.evaluation >= state.routers.evaluations:
                raise RouterError(
                    f"the sampler makes more evaluations than the {state.routers.evaluations} that "
                    "routers are trained for"
                )
            seen = max(seen, tick.evaluation + 1)
            given = self._answer(tick, compute, latent)
            bar.n = state.update
            bar.set_postfix(state.last, refresh=False)
            bar.update(0)
            if state.update >= settings.updates:
                raise Stop
            return given

        try:
            sampled(self.sampler, seed, answer)
        except Stop:
            return
        if seen != state.routers.evaluations:
            raise RouterError(
                f"the sampler makes {seen} evaluations, but routers are trained for "
                f"{state.routers.evaluations}"
            )

    def _weigh(self) -> None:
        state = self.state
        proxy = ErrorProxy(
            sampler=self.sampler, mixing=self.mixing, threshold=self.settings.threshold
        )
        weights = proxy.weights(state.routers, self.settings.proxy, self.settings.seed)
        if _world() > 1:
            distributed.all_reduce(weights)
            weights /= _world()
        state.weights, state.measured = weights, state.update

    def _answer(self, tick: Tick, compute: Callable[[], Any], latent: Tensor) -> Any:
        """Update the routers of an evaluation; return what the student says."""
        logits = self.state.routers.logits(tick.evaluation)
        if logits is None:
            with torch.no_grad():
                self.mixing.keep(tick.branch)
                return compute()
        with torch.no_grad():
            self.mixing.off()
            teacher = compute()
        with torch.enable_grad():
            scores = logits.sigmoid()
            mixed = (
                hard(scores, self.settings.threshold) if self.settings.straight_through else scores
            )
            self.mixing.mix(tick.branch, mixed, self.settings.threshold)
            student = compute()
            error = _error(student, teacher, latent)
            weight = float(self.state.weights[tick.evaluation])
            loss = weight * error + self.settings.sparsity * scores.sum()
            self._step(logits, loss)
        self._note(error, loss, scores)
        return tree_map_only(Tensor, Tensor.detach, student)

    def _step(self, logits: torch.nn.Parameter, loss: Tensor) -> None:
        """Move the logits of one evaluation; those of others have no gradient, so they stay."""
        self.state.optimizer.zero_grad(set_to_none=True)
        (gradient,) = torch.autograd.grad(loss, [logits])
        if _world() > 1:
            distributed.all_reduce(gradient)
            gradient /= _world()
        logits.grad = gradient
        self.state.optimizer.step()
        self.state.routers.clamp()
        self.state.update += 1

    def _note(self, error: Tensor, loss: Tensor, scores: Tensor) -> None:
        computed = (scores.detach() > self.settings.threshold).float().mean()
        self.state.last = {
            "loss": float(loss.detach()),
            "error": float(error.detach()),
            "computed": float(computed),
        }
        if self.log is not None:
            self.log(self.state.update, self.state.last)


def trained_for(sampler: Sampler) -> Fingerprint:
    """Return what routers of a sampler are for: its model, adapter and solver.

    Args:
        sampler: What they were trained for.
    """
    return live_fingerprint(
        denoiser(sampler.model),
        sampler.adapter,
        sampler.branches,
        sampler.scheduler,
        sampler.solver,
    )


def _error(student: Any, teacher: Any, latent: Tensor) -> Tensor:
    """Return the squared distance of what the solver uses of two outputs, over the teacher's.

    The mean over rows, so that it does not matter in which batch a sample is.
    """
    given, wanted = (
        Structure.of(each).signal(latent).float().flatten(1) for each in (student, teacher)
    )
    size = wanted.square().sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return ((given - wanted).square().sum(dim=1) / size).mean()


def _one_of(choices: Sequence[Choice], generator: torch.Generator) -> Choice:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _world() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0
