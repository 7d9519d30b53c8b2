"""Open-Sora v1.2, of this package."""

from typing import Any

from kit.video_models import open_sora
from kit.zoo.entry import Entry, words
from kit.zoo.pictures import LATENT
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler


def pipeline() -> Any:
    parts: dict[str, Any] = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return OpenSoraPipeline(transformer=open_sora(), scheduler=RectifiedFlowScheduler(), **parts)


def asked(**changes: Any) -> dict[str, Any]:
    size = {"height": 16, "width": 16, "num_frames": 4, "guidance_scale": 3.0}
    return {"prompt_embeds": words(1, 5, 12), **size, **LATENT, **changes}


def kept(*, seed: int = 6) -> dict[str, Any]:
    """Return the first frame as given, and the others to be made."""
    mask = words(1, 4).abs() * 0 + 1
    mask[:, 0] = 0
    return {"frames": words(1, 4, 4, 16, 16, seed=seed), "frame_mask": mask}


ENTRIES = (
    Entry(
        name="Open-Sora v1.2",
        build=pipeline,
        arguments=asked,
        output="frames",
        others=lambda: ({"num_frames": 3}, {"height": 32}),
    ),
    Entry(
        name="Open-Sora v1.2 image to video",
        build=pipeline,
        arguments=lambda: asked(**kept()),
        output="frames",
        others=lambda: (kept(seed=9), {"frames": None, "frame_mask": None}),
    ),
)
