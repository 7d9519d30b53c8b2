"""How much the error of an evaluation matters: the proxy of HarmoniCa for the error of the sample.

arXiv 2410.01723, section 4.2, weighs the loss of every evaluation by the change of the final sample
where nothing is reused at that evaluation alone. Its code switches reuse on, evaluation after
evaluation, and takes the change that each brings. Both are here. Weights are divided by their mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import RouterError
from smoothcache_core.routing.mixing import Mixing
from smoothcache_core.routing.router import Routers
from smoothcache_core.routing.sampled import sampled
from smoothcache_core.routing.settings import Proxy
from smoothcache_core.sampling.sampler import Sampler

_LEAST = 1e-3
"""Least weight, over the mean: an evaluation without any would be driven by sparsity alone."""


@dataclass(frozen=True, kw_only=True)
class ErrorProxy:
    """Measures the weights of evaluations.

    Attributes:
        sampler: Runs the model.
        mixing: Its sites, entered.
        threshold: Score above which what was mixed is kept.
    """

    sampler: Sampler
    mixing: Mixing
    threshold: float

    def weights(self, routers: Routers, kind: Proxy, seed: int) -> Tensor:
        """Return the weight of every evaluation, (evaluations,) float32 with a mean of 1.

        Needs as many runs as there are evaluations, without gradients, all of one seed. Random
        generators are left as they are but for what the sampler draws.

        Args:
            routers: Mix what is reused.
            kind: Which estimate; `"none"` weighs all alike, without a run.
            seed: What the sampler is run with.

        Raises:
            RouterError: The sampler gives no final latent.
        """
        evaluations = routers.evaluations
        if kind == "none":
            return torch.ones(evaluations)
        decided = [e for e in range(evaluations) if routers.logits(e) is not None]
        if kind == "leave-one-out":
            found = self._left_out(routers, decided, seed)
        else:
            found = self._cumulative(routers, decided, seed)
        return _normed(found, decided, evaluations)

    def _left_out(self, routers: Routers, decided: Sequence[int], seed: int) -> list[float]:
        reused = self._final(routers, seed, lambda evaluation: True)
        return [
            _distance(reused, self._final(routers, seed, lambda e, left=each: e != left))
            for each in decided
        ]

    def _cumulative(self, routers: Routers, decided: Sequence[int], seed: int) -> list[float]:
        before = self._final(routers, seed, lambda evaluation: False)
        found = []
        for each in decided:
            after = self._final(routers, seed, lambda e, last=each: e <= last)
            found.append(_distance(before, after))
            before = after
        return found

    @torch.no_grad()
    def _final(self, routers: Routers, seed: int, reuses: Callable[[int], bool]) -> Tensor:
        """Return the final latent of a run that reuses at some evaluations."""

        def answer(tick: Tick, compute: Callable[[], Any], latent: Tensor) -> Any:
            del latent
            with torch.no_grad():
                scores = routers.scores(tick.evaluation)
                if tick.new_run:
                    self.mixing.forget()
                if scores is None or not reuses(tick.evaluation):
                    self.mixing.keep(tick.branch)
                else:
                    self.mixing.mix(tick.branch, scores, self.threshold)
                return compute()

        final = sampled(self.sampler, seed, answer)
        self.mixing.forget()
        if final is None:
            raise RouterError(
                "evaluations are weighed by the final latent, and `run` returned None; train with "
                "proxy='none'"
            )
        return final.detach().double()


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().sum())


def _normed(found: Sequence[float], decided: Sequence[int], evaluations: int) -> Tensor:
    weights = torch.ones(evaluations)
    values = torch.tensor(found, dtype=torch.float64)
    if values.sum() > 0.0:
        weights[list(decided)] = (values / values.mean()).clamp(min=_LEAST).float()
    return weights
