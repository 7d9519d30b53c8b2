"""How much of its MAC saving does caching turn into time, on Open-Sora's STDiT3-XL/2?

This package's own STDiT3 at full size, 30 evaluations of rectified flow, guidance in one batch of
two, under every policy in lockstep, see `timing.py`. The weights are random: speed does not depend
on them, and nothing is said on quality. cache-dit is in requirements-bench.lock (`make bench-env`);
what is not installed is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from smoothcache_video import OPEN_SORA

from tools.bench.models import video_policies
from tools.bench.models.stdit3_xl import Size, sampling, stdit3
from tools.bench.policies import CONTROL, PLAIN, Policy
from tools.bench.records import Record
from tools.bench.studies.speed import SEED, Settings, Subject, measure_speed

PACKAGES = ("torch", "diffusers", "smoothcache-core", "smoothcache-video", "cache-dit")

NOTES = (
    "0.86 and 0.82 are the compute fractions of Open-Sora in the paper (arXiv 2411.10510), which "
    "reports 1.07 and 1.09 times the speed. Computed evaluations are evenly spaced here, the same "
    "for all kinds: where they are makes no difference to time.",
    "The denoiser is this package's STDiT3 in plain torch, with 300 tokens of text; the "
    "autoencoder does not run.",
)

EQUALS = {
    "smoothcache (all computed)": PLAIN.key,
    CONTROL.key: PLAIN.key,
}


def video_subject(size: Size | None = None, *, policies: Sequence[Policy] = ()) -> Subject:
    """Return an STDiT3 sampled by rectified flow.

    Args:
        size: Its size, STDiT3-XL/2 and 51 frames of 144 x 256 if not given.
        policies: What is compared, the plain model first; those of the benchmark if not given.
    """
    size = size or Size()
    channels, *sides = size.latent
    return Subject(
        modality="video",
        model=size.name,
        full_size=size.is_full,
        solver="rectified flow",
        batch=f"2 (one clip of {' x '.join(map(str, sides))} latents of {channels} channels, both "
        "conditioning passes)",
        adapter=OPEN_SORA,
        build=lambda device, dtype: stdit3(size, device=device, dtype=dtype, seed=SEED),
        sampling=partial(sampling, size=size, seed=SEED),
        policies=policies or video_policies.policies(),
        packages=PACKAGES,
        notes=NOTES,
        equals=EQUALS,
    )


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """Settings on an STDiT3.

    Attributes:
        depth: Pairs of a spatial and a temporal block; 28 is full size.
        heads: Heads of 72 channels; 16 is full size.
        frames: Frames of the clip.
        height: Height in pixels, a multiple of 16.
        width: Width in pixels, a multiple of 16.
        evaluations: Evaluations of one run, at least 4.
    """

    depth: int = 28
    heads: int = 16
    frames: int = 51
    height: int = 144
    width: int = 256
    evaluations: int = 30

    @property
    def size(self) -> Size:
        """Size of the model and of a clip."""
        return Size(
            depth=self.depth,
            heads=self.heads,
            frames=self.frames,
            height=self.height,
            width=self.width,
        )


def measure(settings: VideoSettings) -> Record:
    """Time all policies side by side."""
    return measure_speed(video_subject(settings.size), settings)
