"""How much of its MAC saving does caching turn into time, on a DiT of the size of DiT-XL/2?

Samples by DDIM at 256 x 256, guidance in one batch of two, under every policy in lockstep, see
`timing.py`. The weights are random: speed does not depend on them, and nothing is said on quality.
The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from smoothcache_image import DIT

from tools.bench.models import image_policies
from tools.bench.models.dit_xl import Size, dit, sampling
from tools.bench.policies import PLAIN, Policy
from tools.bench.records import Record
from tools.bench.studies.speed import SEED, Settings, Subject, measure_speed

PACKAGES = ("torch", "diffusers", "smoothcache-core", "dit-smoothcache", "cache-dit")

NOTES = (
    "The row of 24 of 50 has the pattern of SmoothCache's published schedule for alpha 0.18. "
    "Caches that decide by looking at the data are made to skip by that row; those that only know "
    "an interval skip every second evaluation (of_limit compares them).",
    "DiTTransformer2DModel offers none of diffusers' own caches (pyramid-attention-broadcast, "
    "first-block-cache, taylorseer, magcache, seacache, fastercache): it has no CacheMixin. Here "
    "the mixin is added to the class of a copy; the hooks are diffusers' own.",
)

EQUALS = {
    "smoothcache (all computed)": PLAIN.key,
    "dit-smoothcache (attn1)": "smoothcache (attn1)",
    "dit-smoothcache (attn1, ff)": "smoothcache (attn1, ff)",
}


def image_subject(
    size: Size | None = None, *, images: int = 1, policies: Sequence[Policy] = ()
) -> Subject:
    """Return a DiT sampled by DDIM.

    Args:
        size: Its size, that of DiT-XL/2 if not given.
        images: Images of one run.
        policies: What is compared, the plain model first; those of the benchmark if not given.
    """
    size = size or Size()
    batch = "one image" if images == 1 else f"{images} images"
    return Subject(
        modality="image",
        model=size.name,
        full_size=size.is_full,
        solver="DDIM",
        batch=f"{2 * images} ({batch}, both conditioning passes)",
        adapter=DIT,
        build=lambda device, dtype: dit(size, device=device, dtype=dtype, seed=SEED),
        sampling=partial(sampling, seed=SEED, images=images),
        policies=policies or image_policies.policies(),
        packages=PACKAGES,
        notes=NOTES,
        equals=EQUALS,
    )


@dataclass(frozen=True, kw_only=True)
class ImageSettings(Settings):
    """Settings on a DiT.

    Attributes:
        layers: Blocks; 28 is full size.
        heads: Heads of 72 channels; 16 is full size.
        sample_size: Side of the latent; 32 is full size.
    """

    layers: int = 28
    heads: int = 16
    sample_size: int = 32

    @property
    def size(self) -> Size:
        """Size of the DiT."""
        return Size(
            num_layers=self.layers,
            num_attention_heads=self.heads,
            sample_size=self.sample_size,
        )


def measure(settings: ImageSettings) -> Record:
    """Time all policies side by side."""
    return measure_speed(image_subject(settings.size), settings)
