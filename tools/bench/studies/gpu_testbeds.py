"""What the check of a GPU measures: models, policies, ways of compiling, and in which order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from tools.bench.baselines.diffusers_hooks import first_block_by, mag_every, taylorseer_every
from tools.bench.baselines.hosts import Host, masked
from tools.bench.baselines.ours import smoothcache, whole_evaluations
from tools.bench.baselines.peers import ALMOST_ALWAYS, ALWAYS
from tools.bench.models import dit_xl, image_policies
from tools.bench.policies import PLAIN, Policy, all_computed, spaced
from tools.bench.studies.speed import Subject
from tools.bench.studies.speed_image import image_subject

Way = Literal["eager", "regional", "whole", "graphs"]
COMPUTES = (0.5, 0.25)
_NAMED = 4  # kinds of sites that are still named one by one


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """A model to measure, and how it is compiled.

    Attributes:
        subject: The model and its solver; its policies are those that are compared.
        evaluations: Evaluations of one run.
        blocks: Returns the blocks that are compiled by themselves.
        backend: Backend of `torch.compile`; "eager" takes no time.
    """

    subject: Subject
    evaluations: int
    blocks: Callable[[Any], Iterable[nn.Module]]
    backend: str = "inductor"


def ours(kinds: Sequence[str]) -> list[Policy]:
    """Return this library's policies on sites of some kinds, and on whole evaluations."""
    what = ", ".join(kinds) if len(kinds) < _NAMED else "all sites"
    found = {f"{what} at {each:g}": smoothcache(*kinds, row=spaced(each)) for each in COMPUTES} | {
        f"whole evaluations at {each:g}, filled": whole_evaluations(spaced(each))
        for each in COMPUTES
    }
    found["all computed"] = smoothcache(*kinds, row=all_computed)
    return [Policy(name="smoothcache", setting=k, attach=v, ours=True) for k, v in found.items()]


def policies(host: Host, kinds: Sequence[str], *, threshold: float) -> list[Policy]:
    """Return everything that is compared on a model.

    Args:
        host: Where peers' caches go.
        kinds: Kinds of sites, which are names of components of a block.
        threshold: That of cache-dit, at which it skips where its mask says.
    """
    half, what = spaced(0.5), ", ".join(kinds)
    modules = [rf"{host.blocks}\.\d+\.({'|'.join(kinds)})"]
    return [
        PLAIN,
        *ours(kinds),
        Policy(
            name="dit-smoothcache",
            setting=f"{what} at 0.5",
            attach=host.dit_smoothcache(lambda steps: dict.fromkeys(kinds, half(steps))),
        ),
        Policy(
            name="cache-dit",
            setting="DBCache, 1 block always computed, mask of evaluations at 0.5",
            attach=host.cache_dit(lambda steps: masked(half(steps), blocks=1, threshold=threshold)),
        ),
        Policy(
            name="taylorseer",
            setting=f"{what}, order 1, every second evaluation",
            attach=host.diffusers(taylorseer_every(cache_identifiers=modules)),
        ),
        Policy(
            name="first-block-cache",
            setting="all blocks but the first, mask of evaluations at 0.5",
            attach=first_block_by(host, half),
        ),
        Policy(
            name="magcache",
            setting="all blocks, every second evaluation",
            attach=host.diffusers(mag_every()),
        ),
    ]


def image_testbed(
    size: dit_xl.Size, *, images: int, evaluations: int, backend: str = "inductor"
) -> Testbed:
    """Return a DiT; every image has a conditional and an unconditional row."""
    found = policies(image_policies.HOST, ("attn1", "ff"), threshold=ALMOST_ALWAYS)
    subject = image_subject(size, images=images, policies=found)
    return Testbed(
        subject=subject,
        evaluations=evaluations,
        blocks=lambda model: model.transformer_blocks,
        backend=backend,
    )


def audio_testbed(*, small: bool, sounds: int, evaluations: int) -> Testbed:
    """Return Stable Audio Open's transformer.

    Raises:
        ImportError: stable-audio-tools is not installed.
    """
    from tools.bench.models import audio_policies, stable_audio
    from tools.bench.studies.speed_audio import audio_subject

    size = stable_audio.Size(layers=2, heads=2, seconds=0.5) if small else stable_audio.Size()
    found = policies(audio_policies.host(), audio_policies.KINDS, threshold=ALWAYS)
    return Testbed(
        subject=audio_subject(size, sounds=sounds, policies=found),
        evaluations=evaluations,
        blocks=lambda model: model.transformer.layers,
    )


def video_testbed(*, small: bool, evaluations: int) -> Testbed:
    """Return Open-Sora's STDiT3, one clip, whose blocks are in two lists that take turns."""
    from tools.bench.models import stdit3_xl, video_policies
    from tools.bench.studies.speed_video import video_subject

    tiny = stdit3_xl.Size(depth=2, heads=2, frames=5, height=32, width=32)
    every_other = taylorseer_every(cache_identifiers=[video_policies.HOST.pattern])
    peer = Policy(
        name="taylorseer",
        setting="all sites, order 1, every second evaluation",
        attach=video_policies.HOST.diffusers(every_other),
    )
    return Testbed(
        subject=video_subject(
            tiny if small else stdit3_xl.Size(),
            policies=[PLAIN, *ours(video_policies.KINDS), peer],
        ),
        evaluations=evaluations,
        blocks=lambda model: [*model.spatial_blocks, *model.temporal_blocks],
        backend="eager" if small else "inductor",
    )


def testbeds(*, small: bool) -> dict[str, Callable[[], Testbed]]:
    """Return what is measured by name."""
    if small:
        tiny = dit_xl.Size(num_layers=2, num_attention_heads=2, sample_size=8)
        return {
            "image": partial(image_testbed, tiny, images=1, evaluations=6, backend="eager"),
            "video": partial(video_testbed, small=True, evaluations=6),
            "audio": partial(audio_testbed, small=True, sounds=1, evaluations=6),
        }
    large = dit_xl.Size(sample_size=64)
    return {
        "image 256": partial(image_testbed, dit_xl.Size(), images=8, evaluations=50),
        "video": partial(video_testbed, small=False, evaluations=30),
        "audio": partial(audio_testbed, small=False, sounds=4, evaluations=50),
        "image 512": partial(image_testbed, large, images=4, evaluations=50),
    }


def cases(names: Sequence[str], *, small: bool) -> list[tuple[str, Way]]:
    """Return what is measured in which order: what is most worth knowing first."""
    first, *others = names
    ways: Sequence[Way] = ("regional",) if small else ("regional", "graphs", "whole")
    return [
        *((name, "eager") for name in names),
        *((first, way) for way in ways),
        *((name, way) for way in ways for name in others if not small),
    ]


def compiled(testbed: Testbed, model: Any, way: Way) -> Any:
    """Return a model compiled in a way."""
    if way == "regional":
        for block in testbed.blocks(model):
            block.compile(fullgraph=True, backend=testbed.backend)
    if way in ("eager", "regional"):
        return model
    mode = "reduce-overhead" if way == "graphs" else None
    return torch.compile(model, fullgraph=True, backend=testbed.backend, mode=mode)
