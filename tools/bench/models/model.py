"""What the quality benchmark has to know of a modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smoothcache_core.evaluation import RecentlyDecoded
from smoothcache_core.sampling import ConditionedSampler
from torch import Tensor

from tools.bench.baselines.hosts import Host
from tools.bench.baselines.teacache import Tea

Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]
WithSteps = Callable[[Any, int], Any]
"""Returns a sampler like the given one, but with so many steps."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How samples are judged.

    Attributes:
        metrics: Functions of the plain run's final latents and a policy's, one value per sample.
        summaries: Functions of all final latents of a policy, seed by seed.
    """

    metrics: Mapping[str, Metric]
    summaries: Mapping[str, Summary]


def judgement_of(
    sampler: ConditionedSampler, metrics: Mapping[str, Metric], summaries: Mapping[str, Summary]
) -> Judgement:
    """Return the judgement of final latents by functions of what a sampler decodes them to."""
    decode = RecentlyDecoded(sampler.decode, batch=sampler.samples)

    def of_pair(metric: Metric) -> Metric:
        return lambda plain, other: metric(decode(plain), decode(other))

    def of_all(summary: Summary) -> Summary:
        return lambda latents: summary(decode(latents))

    return Judgement(
        metrics={name: of_pair(metric) for name, metric in metrics.items()},
        summaries={name: of_all(summary) for name, summary in summaries.items()},
    )


@dataclass(frozen=True, kw_only=True)
class Solver:
    """The solver of a sampler.

    Attributes:
        title: Its name for readers.
        is_stochastic: Whether it adds noise, so that its samples solve no differential equation.
        exact: Makes the sampler of the exact solution, if there is one.
        exact_settings: What tells one such sampler from another.
    """

    title: str
    is_stochastic: bool
    exact: WithSteps
    exact_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Modality:
    """What a modality's shipped models are to the quality benchmark.

    Attributes:
        name: As in records.
        packages: Whose versions are recorded.
        load: Loads a model by its name and solver, with so many steps, on a device; samples one
            sample per call, in float32. Raises `ValueError` if there is no such solver.
        owned: Returns a sampler of so many samples per call, of a denoiser of its own.
        solver: Tells a sampler's solver.
        fewer: Returns the ways to take fewer steps by the title of their solver, and in words.
        others: Returns such ways of good other solvers, on all grids; see `solvers`.
        host: Where peers' caches go on a denoiser.
        tea: Where TeaCache goes.
        judged: Returns how samples of a sampler from some seeds are judged.
        pictured: Returns pictures of final latents, (n, 3, height, width), values in [0, 1].
        notes: How to read the rows, besides what is true of all modalities.
        pyramid: By kind of site, its place in pyramid attention broadcast: 0 for spatial, 1 for
            temporal, 2 for cross-attention, 3 for feed-forwards; None if it has no such places.
        spreads: Summaries that are compared with how much they change from seed to seed.
    """

    name: str
    packages: Sequence[str]
    load: Callable[[str, str, int, str], ConditionedSampler]
    owned: Callable[[Any, int], Any]
    solver: Callable[[Any], Solver]
    fewer: Callable[[Any], Mapping[str, Mapping[str, WithSteps]]]
    others: Callable[[Any], Mapping[str, Mapping[str, WithSteps]]]
    host: Host
    tea: Tea
    judged: Callable[[Any, Sequence[int]], Judgement]
    pictured: Callable[[Any, Tensor], Tensor]
    notes: Sequence[str] = ()
    pyramid: Mapping[str, int] | None = None
    spreads: Sequence[str] = ()
