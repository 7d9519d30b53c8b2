"""What does caching do on a compiled model: graphs, graph breaks, outputs, and time?

The DiT of the benchmark of speed, of fewer layers: every block compiled by itself, and the whole.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch._dynamo.utils import counters

from tools.bench.models.dit_xl import Sampler, sampling
from tools.bench.options import dtype_of
from tools.bench.policies import PLAIN, Policy
from tools.bench.records import Record, Row
from tools.bench.shared_weights import sharing
from tools.bench.studies.speed import SEED, Settings, Subject, about, count, to_record
from tools.bench.studies.speed_image import ImageSettings, image_subject
from tools.bench.timing import Piece, judge, race

QUESTION = "What does caching do on a compiled model: graphs, breaks, outputs and time?"

NOTES = (
    "regional: every block compiled by itself; whole: torch.compile(model), and the cache attached "
    "to what it returns.",
    "graphs and graph_breaks are torch's own counters over the first run; first_run_seconds is "
    "that run with all compilation in it, possibly from torch's cache on disk.",
    "speedup is over the plain model compiled in the same way, speedup_over_eager_plain over the "
    "plain model not compiled; of_limit is speedup x compute.",
    "rel_l2 is the relative L2 difference of the final latent from the same policy run eagerly.",
)

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


@torch.no_grad()
def measure_compile(subject: Subject, settings: Settings, *, backend: str = "inductor") -> Record:
    """Run the plain model and this library's cache compiled in each way; return the record."""
    model = subject.build(torch.device(settings.device), dtype_of(settings.dtype))
    keys = (PLAIN.key, "smoothcache (attn1, ff)")
    chosen = [policy for policy in subject.policies if policy.key in keys]
    rows = measure_ways(
        model,
        {policy: count(subject, model, policy, settings.evaluations) for policy in chosen},
        backend=backend,
        rounds=settings.rounds,
        piece=settings.timed,
        seed=SEED,
        progress=settings.progress,
    )
    common: dict[str, Any] = about(subject, settings)
    rows = [common | dict(row) for row in rows]
    tolerance = TOLERANCE[dtype_of(settings.dtype)]
    checks = {
        "no graph breaks (fullgraph=True)": not any(row["graph_breaks"] for row in rows),
        f"rel_l2 at most {tolerance:g} in every row": all(r["rel_l2"] <= tolerance for r in rows),
    }
    return to_record(
        "compile",
        QUESTION,
        subject,
        settings,
        rows=rows,
        checks=checks,
        notes=NOTES,
    )


@dataclass(frozen=True, kw_only=True)
class CompileSettings(ImageSettings):
    """Settings of compiling.

    Attributes:
        layers: Blocks.
        backend: Backend of torch.compile.
    """

    layers: int = 4
    backend: str = "inductor"


def measure(settings: CompileSettings) -> Record:
    """Time caching on compiled models, count graphs and breaks, and compare outputs."""
    return measure_compile(image_subject(settings.size), settings, backend=settings.backend)
