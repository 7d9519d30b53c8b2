"""An adapter that is found when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.sites import Guidance, Names, Site

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, eq=False)
class LateAdapter:
    """An adapter that is found by a run of the sampler, when its sites or its name are asked for.

    It is what a sampler has whose adapter is not given, so that nothing is run before something is
    measured. What was found is `found`, a value to keep.

    Attributes:
        latent: Name of the denoiser's forward argument that holds the noisy latent, or names of
            several.
        timestep: Name of the denoiser's forward argument that holds the timestep.
        search: Finds the adapter; called once.
    """

    latent: Names
    timestep: str
    search: Callable[[], PatternAdapter]

    @cached_property
    def found(self) -> PatternAdapter:
        """The adapter that the search found; the first use runs the sampler."""
        return self.search()

    @property
    def name(self) -> str:
        """Name of the adapter that was found."""
        return self.found.name

    @property
    def guidance(self) -> Guidance | None:
        """Which half of the batch is conditional, as the adapter that was found says it."""
        return self.found.guidance

    def sites(self, model: nn.Module) -> Sequence[Site]:
        """Return the sites of `model`; see `Adapter.sites`."""
        return self.found.sites(model)

    def variant(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Hashable:
        """Return None; see `PatternAdapter.variant`."""
        del model, args, kwargs

    def without_sites(self) -> PatternAdapter:
        """Return the adapter for whole evaluations, for which nothing needs to be found."""
        return PatternAdapter(
            name="whole-evaluations", patterns=(), latent=self.latent, timestep=self.timestep
        )
