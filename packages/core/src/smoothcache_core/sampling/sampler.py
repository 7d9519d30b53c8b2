"""The one thing that is known of a sampler: how to run it from a seed."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self, cast

from torch import Tensor, nn

from smoothcache_core.adapters.latent_part import LatentPart
from smoothcache_core.adapters.sites import Adapter, check_adapter
from smoothcache_core.arguments import check_kind, check_names, described
from smoothcache_core.calls.clock import Scheduler
from smoothcache_core.calls.solvers import solver_name, solver_settings
from smoothcache_core.discovering import found_later
from smoothcache_core.errors import SamplerError
from smoothcache_core.schedule.provenance import Setting

NOT_GIVEN = cast(Adapter, None)
"""Stands for an adapter that is to be found."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to sample once: the model, its adapter, and a function of a seed.

    It is what `calibrate`, `transfer`, `fit` and `evaluate` take. The solver itself is a black box:
    it is known by the calls that it makes of the model, and by what `run` returns.

    `run(seed)` runs the solver once, from the noise of that seed, and everything random in it must
    come from the seed. It returns the final latent, a tensor (samples, ...) of as many entries as
    the latent that the model is called with, or as what is denoised of it; or None if it is not
    available. Without it a model can be calibrated, but what the last evaluation does is not known,
    and nothing can be fitted, transferred or evaluated. Anything else that it returns is refused.

    Example:
        A denoiser of two layers, and Euler's method of 8 steps:

        >>> import torch
        >>> from torch import nn
        >>> from smoothcache_core import PatternAdapter, Sampler, SitePattern
        >>> class Denoiser(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        ...     def forward(self, hidden_states: torch.Tensor, timestep: float) -> torch.Tensor:
        ...         for block in self.blocks:
        ...             hidden_states = hidden_states + block(hidden_states).tanh()
        ...         return hidden_states * timestep
        >>> model = Denoiser().requires_grad_(False)
        >>> adapter = PatternAdapter(name="mine", patterns=(SitePattern("blocks.*", "block"),))
        >>> def run(seed: int) -> torch.Tensor:
        ...     latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        ...     for step in range(8):
        ...         latent = latent - model(latent, 1 - step / 8) / 8
        ...     return latent
        >>> sampler = Sampler(model=model, adapter=adapter, run=run, solver="euler", samples=2)
        >>> sampler.final_latent(0).shape
        torch.Size([2, 4])

    Attributes:
        model: The module that the solver calls; its sites are `adapter.sites(model)`.
        adapter: What is known about its family. If it is not given, sites are found by the model's
            structure and two evaluations of `run`, when they are first needed.
        run: Runs the solver from the noise of a seed and returns the final latent, (samples, ...),
            or None if it is not available.
        decode: Turns a final latent into what metrics compare, (samples, ...): images, waveforms.
            None: the final latent is compared itself.
        scheduler: The solver's scheduler, if it has one (those of diffusers do): names the solver,
            and tells for certain when a run begins.
        solver: Name of the solver, where there is no scheduler to name it.
        branches: Names of the conditioning passes, if guidance makes one call for each and does not
            announce them by `cache_context`.
        samples: Samples of one run, at least 1. Guidance may repeat the batch, conditional and
            unconditional rows one block after the other; the rows of one sample are measured
            together.
        around: Returns a context manager that is entered around every use of the model.
        part: What of the model's latent argument is denoised, where the rest of it is a condition,
            such as the channels of an image. If not given, it is what changes in a run.
        finer: Runs the solver of a seed from the same noise with a number of times as many
            evaluations, as `finer(seed, factor)`, and returns the final latent as `run` does. What
            such runs come near to is the exact solution, see `sampling.exact_solution`. They may
            be of another solver, if it gives the denoiser latents on the same scale. None where
            that is not to be had.

    Raises:
        AdapterError: The adapter lacks a member.
        SamplerError: `samples` is below 1, or `finer` is no function.
    """

    model: nn.Module
    adapter: Adapter = NOT_GIVEN
    run: Callable[[int], object]
    decode: Callable[[Tensor], Tensor] | None = None
    scheduler: Scheduler | None = None
    solver: str | None = None
    branches: tuple[str, ...] = ()
    samples: int = 1
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    part: LatentPart | None = None
    finer: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        check_kind(self.model, nn.Module, name="model", error=SamplerError)
        if self.adapter is not NOT_GIVEN:
            check_adapter(self.adapter)
        check_names(self.branches, name="branches", error=SamplerError)
        if self.part is not None:
            check_kind(self.part, LatentPart, name="part", error=SamplerError)
        if not callable(self.run):
            raise SamplerError(
                f"`run` must be a function of a seed that samples once, not {described(self.run)}"
            )
        if self.finer is not None and not callable(self.finer):
            raise SamplerError(
                "`finer` must be a function of a seed and of how many times as many evaluations it "
                f"shall make, not {described(self.finer)}"
            )
        if self.samples < 1:
            raise SamplerError(f"a run has at least 1 sample, got samples={self.samples}")
        if self.adapter is NOT_GIVEN:
            found = found_later(self.model, self.run, around=self.around)
            object.__setattr__(self, "adapter", found)

    @property
    def solver_name(self) -> str | None:
        """Name of the solver: `solver`, or what the scheduler says; None if neither is known."""
        if self.solver or self.scheduler is None:
            return self.solver
        return solver_name(self.scheduler)

    @property
    def solver_settings(self) -> dict[str, Setting] | None:
        """All settings that the scheduler says of itself; None if there is none to say them."""
        return solver_settings(self.scheduler) if self.scheduler is not None else None

    @property
    def settings(self) -> dict[str, Setting]:
        """What decides on its runs beside model and solver, as far as it knows, by name."""
        return {"samples": self.samples}

    def with_adapter(self, adapter: Adapter) -> Self:
        """Return the same sampler with another adapter.

        Args:
            adapter: What is known about the model's family.
        """
        changed = copy.copy(self)
        object.__setattr__(changed, "adapter", adapter)
        return changed

    def final_latent_if_known(self, seed: int) -> Tensor | None:
        """Run once, and return the final latent, (samples, ...); None if it cannot be had.

        Args:
            seed: What `run` is called with.

        Raises:
            SamplerError: `run` returned something else.
        """
        result = self.run(seed)
        if result is None:
            return None
        if not isinstance(result, Tensor) or not result.ndim or len(result) != self.samples:
            raise SamplerError(
                f"a sampler's `run` must return the final latents, a tensor ({self.samples}, ...) "
                f"for samples={self.samples}, or None if they are not available; it returned "
                f"{_described(result)}"
            )
        return result

    def final_latent(self, seed: int) -> Tensor:
        """Run once, and return the final latent, (samples, ...).

        Args:
            seed: What `run` is called with.

        Raises:
            SamplerError: `run` returned something else, or None.
        """
        return needed(self.final_latent_if_known(seed))


def needed(latent: Tensor | None) -> Tensor:
    """Return a final latent where one is needed.

    Raises:
        SamplerError: There is none.
    """
    if latent is None:
        raise SamplerError(
            "a sampler's `run` must return the final latent, a tensor (samples, ...), to be fitted "
            "to, transferred to or evaluated; it returned None"
        )
    return latent


def _described(result: object) -> str:
    if isinstance(result, Tensor):
        hint = f" (set samples={len(result)}?)" if result.ndim and len(result) else ""
        return f"a tensor of shape {tuple(result.shape)}{hint}"
    if isinstance(result, list | tuple):
        return f"a {type(result).__name__} of length {len(result)}"
    return f"a {type(result).__name__}"
