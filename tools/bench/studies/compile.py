"""Caching on compiled models: graphs, graph breaks, outputs, and time."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch._dynamo.utils import counters

from tools.bench.baselines.ours import Policy
from tools.bench.models.dit_xl import Sampler, sampling
from tools.bench.records import Row
from tools.bench.shared_weights import sharing
from tools.bench.timing import Piece, judge, race

Way = Literal["eager", "regional", "whole"]
Key = tuple[Way, Policy]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}
"""Largest relative L2 difference from the eager run's final latent: rounding in another order."""


def compiled(model: DiTTransformer2DModel, way: Way, backend: str) -> DiTTransformer2DModel:
    """Compile `model`: every block by itself, as a whole, or not at all.

    `fullgraph=True` makes a graph break an error.
    """
    if way == "regional":
        for block in model.transformer_blocks:
            block.compile(fullgraph=True, backend=backend)
    if way != "whole":
        return model
    whole: Any = torch.compile(model, fullgraph=True, backend=backend)
    return whole


def measure_ways(
    model: DiTTransformer2DModel,
    macs: Mapping[Policy, Sequence[int]],
    *,
    backend: str,
    rounds: int,
    piece: Piece,
    seed: int,
    progress: bool,
) -> Iterator[Row]:
    """Yield a row for each way of compiling and policy, each way timed beside the eager model.

    Args:
        model: The denoiser.
        macs: MACs of every evaluation under each policy, the plain model first.
        backend: Backend of `torch.compile`.
        rounds: Runs of each.
        piece: What is timed at once.
        seed: Seed of the noise.
        progress: Show progress bars.
    """
    evaluations = len(next(iter(macs.values())))
    ways: tuple[Way, ...] = ("regional", "whole")
    for way in ways:
        torch.compiler.reset()
        with ExitStack() as stack:
            samplers: dict[Key, Sampler] = {
                (each, policy): stack.enter_context(
                    sampling(
                        compiled(sharing(model), each, backend), policy, evaluations, seed=seed
                    )
                )
                for each, policy in _contestants(way, list(macs))
            }
            first = {key: _first_run(samplers[key], evaluations) for key in samplers}
            seconds = race(
                {_name(key): sampler for key, sampler in samplers.items()},
                evaluations=evaluations,
                rounds=rounds,
                piece=piece,
                device=model.device,
                seed=seed,
                progress=progress,
            )
            shown: tuple[Way, ...] = ("eager", way) if way == ways[0] else (way,)
            for key in itertools.product(shown, macs):
                yield _row(key, macs, seconds, first, piece)


def _contestants(way: Way, policies: Sequence[Policy]) -> list[Key]:
    """Return the eager and the compiled policies; the cache first, so that it shares no graph."""
    ways: tuple[Way, ...] = ("eager", way)
    return [(each, policy) for each in ways for policy in reversed(policies)]


def _name(key: Key) -> str:
    return f"{key[0]} {key[1].key}"


def _first_run(sampler: Sampler, evaluations: int) -> dict[str, Any]:
    """Make one run; return its seconds, the graphs it compiled and its final latent."""
    counters.clear()
    begin = time.perf_counter()
    sampler.start()
    for evaluation in range(evaluations):
        with sampler.around(evaluation):
            sampler.evaluate(evaluation)
        sampler.advance(evaluation)
    latent = sampler.latent.float().cpu()
    return {
        "first_run_seconds": time.perf_counter() - begin,
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "latent": latent,
    }


def _row(
    key: Key,
    macs: Mapping[Policy, Sequence[int]],
    seconds: Mapping[str, Any],
    first: Mapping[Key, Mapping[str, Any]],
    piece: Piece,
) -> Row:
    way, policy = key
    plain = next(iter(macs))
    compute = sum(macs[policy]) / sum(macs[plain])
    kinds = list(macs[policy]) if piece == "evaluation" else [0]
    verdict = judge(seconds[_name(key)], seconds[_name((way, plain))], kinds)
    eager = judge(seconds[_name(key)], seconds[_name(("eager", plain))], kinds)
    facts = dict(first[key])
    latent, wanted = facts.pop("latent"), first["eager", policy]["latent"]
    return {
        "compiled": way,
        "policy": policy.name,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        "seconds": eager.seconds,
        "speedup": 1.0 / verdict.relative,
        "speedup_low": 1.0 / verdict.high,
        "speedup_high": 1.0 / verdict.low,
        "of_limit": compute / verdict.relative,
        "speedup_over_eager_plain": 1.0 / eager.relative,
        **facts,
        "rel_l2": float((latent - wanted).norm() / wanted.norm()),
    }
