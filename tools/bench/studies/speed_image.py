"""The image model as a subject of speed benchmarks."""

from functools import partial
from typing import Any

import torch
from smoothcache_image import DIT

from tools.bench.baselines.ours import PLAIN
from tools.bench.models.dit_xl import Size, dit, sampling
from tools.bench.models.image_policies import policies
from tools.bench.records import Record
from tools.bench.studies.compile import TOLERANCE, measure_ways
from tools.bench.studies.speed import SEED, Settings, Subject, about, count, to_record

PACKAGES = ("torch", "diffusers", "smoothcache-core", "dit-smoothcache", "cache-dit")

COMPILE_QUESTION = "What does caching do on a compiled model: graphs, breaks, outputs and time?"

SPEED_NOTES = (
    "The row of 24 of 50 has the pattern of SmoothCache's published schedule for alpha 0.18. "
    "Caches that decide by looking at the data are made to skip by that row; those that only know "
    "an interval skip every second evaluation (of_limit compares them).",
    "DiTTransformer2DModel offers none of diffusers' own caches (pyramid-attention-broadcast, "
    "first-block-cache, taylorseer, magcache, seacache, fastercache): it has no CacheMixin. Here "
    "the mixin is added to the class of a copy; the hooks are diffusers' own.",
)

COMPILE_NOTES = (
    "regional: every block compiled by itself; whole: torch.compile(model), and the cache attached "
    "to what it returns.",
    "graphs and graph_breaks are torch's own counters over the first run; first_run_seconds is "
    "that run with all compilation in it, possibly from torch's cache on disk.",
    "speedup is over the plain model compiled in the same way, speedup_over_eager_plain over the "
    "plain model not compiled; of_limit is speedup x compute.",
    "rel_l2 is the relative L2 difference of the final latent from the same policy run eagerly.",
)

EQUALS = {
    "smoothcache (all computed)": PLAIN.key,
    "dit-smoothcache (attn1)": "smoothcache (attn1)",
    "dit-smoothcache (attn1, ff)": "smoothcache (attn1, ff)",
}


def image_subject(size: Size | None = None) -> Subject:
    """Return a DiT of a size, that of DiT-XL/2 if not given, sampled by DDIM."""
    size = size or Size()
    return Subject(
        modality="image",
        model=size.name,
        full_size=size == Size(),
        solver="DDIM",
        batch="2 (one image, both conditioning passes)",
        adapter=DIT,
        build=lambda device, dtype: dit(size, device=device, dtype=dtype, seed=SEED),
        sampling=partial(sampling, seed=SEED),
        policies=policies(),
        packages=PACKAGES,
        notes=SPEED_NOTES,
        equals=EQUALS,
    )


@torch.no_grad()
def measure_compile(subject: Subject, settings: Settings, *, backend: str = "inductor") -> Record:
    """Run the plain model and this library's cache compiled in each way; return the record."""
    model = subject.build(settings.device, settings.dtype)
    keys = (PLAIN.key, "smoothcache (attn1, ff)")
    chosen = [policy for policy in policies() if policy.key in keys]
    rows = measure_ways(
        model,
        {policy: count(subject, model, policy, settings.evaluations) for policy in chosen},
        backend=backend,
        rounds=settings.rounds,
        piece=settings.piece,
        seed=SEED,
        progress=settings.progress,
    )
    common: dict[str, Any] = about(subject, settings)
    rows = [common | dict(row) for row in rows]
    tolerance = TOLERANCE[settings.dtype]
    checks = {
        "no graph breaks (fullgraph=True)": not any(row["graph_breaks"] for row in rows),
        f"rel_l2 at most {tolerance:g} in every row": all(r["rel_l2"] <= tolerance for r in rows),
    }
    return to_record(
        "compile",
        COMPILE_QUESTION,
        subject,
        settings,
        rows=rows,
        checks=checks,
        notes=COMPILE_NOTES,
    )
