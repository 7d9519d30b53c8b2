"""Real pipelines of diffusers with tiny random components, and what is planned for them."""

from dataclasses import replace

import smoothcache_video
from kit.zoo import image_videos, open_sora, sound_videos, text_videos
from kit.zoo.entry import Entry
from kit.zoo.pictures import PICTURES
from kit.zoo.videos import SOUNDS, VIDEOS

REFUSED: dict[str, dict[str, str]] = {
    "HunyuanVideo": {"guidance": "no unconditional pass"},
    "LTX-2, guidance off": {"guidance": "no unconditional pass"},
    "LTX-2, all guidance": {
        "denoiser": "guidance batches some of its passes",
        "guidance": "no unconditional pass",
        "site": "guidance batches some of its passes",
    },
    "SkyReelsV2, diffusion forcing, frames one after the other": {
        "denoiser": "not affine",
        "guidance": "no unconditional pass",
        "site": "not affine",
    },
    "StableVideoDiffusion": {
        "denoiser": "not affine",
        "guidance": "no unconditional pass",
        "site": "not affine",
    },
}
"""Of pipelines that make videos, what is refused, and by what reason."""


def _videos() -> tuple[Entry, ...]:
    given = (
        *open_sora.ENTRIES,
        *VIDEOS,
        *text_videos.ENTRIES,
        *image_videos.ENTRIES,
        *sound_videos.ENTRIES,
    )
    return tuple(
        replace(
            entry,
            sampler_of=smoothcache_video.sampler_of,
            refused=REFUSED.get(entry.name, {}),
        )
        for entry in given
    )


VIDEO_ENTRIES = _videos()
ENTRIES: tuple[Entry, ...] = (*PICTURES, *VIDEO_ENTRIES, *SOUNDS)
