"""What is known of each family of video models, and the table of it in the package's README.

`PYTHONPATH=tests python -m kit.zoo.families` writes the table; the tests compare it, and find by
`pytest -m zoo` that each of its pipelines is as it says.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import smoothcache_video as video
from kit.zoo import ENTRIES
from kit.zoo.entry import Entry
from smoothcache_core import PatternAdapter

README = Path(__file__).parents[3] / "packages" / "video" / "README.md"
BATCHED, ANNOUNCED = "batched", "two announced calls"
TWO_CALLS = '`branches=("cond", "uncond")`'


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family: a row of the table.

    Attributes:
        title: Its denoiser.
        adapter: The adapter of it.
        guidance: How its pipelines make their passes.
        text: Pipelines of the zoo that make videos of a text.
        image: Those that make them of an image, or of a video.
        limits: What cannot be done, and why.
    """

    title: str
    adapter: PatternAdapter
    guidance: str
    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    limits: tuple[str, ...] = field(default=())

    @property
    def entries(self) -> list[Entry]:
        """Its pipelines of the zoo."""
        by_name = {entry.name: entry for entry in ENTRIES}
        return [by_name[name] for name in (*self.text, *self.image)]

    def plans(self, target: str) -> bool:
        """Return whether a target is planned for any of its pipelines."""
        return any(target not in (entry.refused or {}) for entry in self.entries)

    @property
    def row(self) -> str:
        """Its row of the table."""
        cells = (
            self.title,
            ", ".join(_kinds(self.adapter)),
            self.guidance,
            _said(bool(self.text)),
            _said(bool(self.image)),
            _said(self.plans("denoiser")),
            _said(self.plans("guidance")),
            "; ".join(self.limits),
        )
        return f"| {' | '.join(cells)} |"


def _said(holds: bool) -> str:
    return "yes" if holds else "no"


def _kinds(adapter: PatternAdapter) -> list[str]:
    deltas = {pattern.kind for pattern in adapter.patterns if _is_delta(pattern)}
    kinds = dict.fromkeys(pattern.kind for pattern in adapter.patterns)
    return [f"{kind} (delta)" if kind in deltas else kind for kind in kinds]


def _is_delta(pattern: object) -> bool:
    return "delta" in repr(pattern)


FAMILIES = (
    Family(
        title="`STDiT3` (Open-Sora v1.2)",
        adapter=video.OPEN_SORA,
        guidance=BATCHED,
        text=("Open-Sora v1.2",),
        image=("Open-Sora v1.2 image to video",),
    ),
    Family(
        title="`WanTransformer3DModel` (2.1, 2.2)",
        adapter=video.WAN,
        guidance=f"{ANNOUNCED}; of video to video {TWO_CALLS}",
        text=("Wan 2.1", "Wan 2.2, two transformers", "Wan 2.2 TI2V"),
        image=(
            "Wan 2.1 image to video",
            "Wan 2.2 image to video, two transformers",
            "Wan 2.2 TI2V image to video",
            "Wan video to video",
        ),
        limits=("sites of one of the two transformers of 2.2 never fill those of the other",),
    ),
    Family(
        title="`SkyReelsV2Transformer3DModel`",
        adapter=video.SKYREELS_V2,
        guidance=ANNOUNCED,
        text=(
            "SkyReelsV2",
            "SkyReelsV2, diffusion forcing",
            "SkyReelsV2, diffusion forcing, frames one after the other",
        ),
        image=("SkyReelsV2 image to video", "SkyReelsV2, diffusion forcing, image to video"),
        limits=(
            "with `ar_step` above 0 sites by rule only: each frame is at a timestep of its own, so "
            "the solver is not the same for all entries",
        ),
    ),
    Family(
        title="`HunyuanVideoTransformer3DModel`",
        adapter=video.HUNYUAN_VIDEO,
        guidance=f"distilled; with `true_cfg_scale` {ANNOUNCED}, of image to video {TWO_CALLS}",
        text=("HunyuanVideo", "HunyuanVideo, true CFG"),
        image=(
            "HunyuanVideo image to video, joined channels",
            "HunyuanVideo image to video, first frame replaced",
            "HunyuanSkyreels image to video",
        ),
        limits=("distilled guidance is one pass, so there is none to skip",),
    ),
    Family(
        title="`HunyuanVideo15Transformer3DModel`",
        adapter=video.HUNYUAN_VIDEO15,
        guidance="announced calls, by its guider",
        text=("HunyuanVideo 1.5",),
        image=("HunyuanVideo 1.5 image to video",),
    ),
    Family(
        title="`LTXVideoTransformer3DModel`",
        adapter=video.LTX_VIDEO,
        guidance=BATCHED,
        text=("LTX",),
        image=("LTX image to video", "LTX with conditions"),
    ),
    Family(
        title="`LTX2VideoTransformer3DModel` (video and sound)",
        adapter=video.LTX2,
        guidance=f"{BATCHED}; further kinds are announced calls",
        text=("LTX-2", "LTX-2, guidance off", "LTX-2, all guidance"),
        image=("LTX-2 image to video",),
        limits=(
            "with `stg_scale` or `modality_scale` (both by default) sites by rule only: passes are "
            "batched in part; so with `guidance_rescale` above 0 or another "
            "`audio_guidance_scale`: the solver is not the same for all entries",
        ),
    ),
    Family(
        title="`CogVideoXTransformer3DModel`",
        adapter=video.COGVIDEOX,
        guidance=BATCHED,
        text=("CogVideoX",),
        image=("CogVideoX image to video",),
    ),
    Family(
        title="`MochiTransformer3DModel`",
        adapter=video.MOCHI,
        guidance=BATCHED,
        text=("Mochi",),
        limits=("no image to video in diffusers",),
    ),
    Family(
        title="`LatteTransformer3DModel`",
        adapter=video.LATTE,
        guidance=BATCHED,
        text=("Latte",),
        limits=("no image to video in diffusers",),
    ),
    Family(
        title="`AllegroTransformer3DModel`",
        adapter=video.ALLEGRO,
        guidance=BATCHED,
        text=("Allegro",),
        limits=("no image to video in diffusers",),
    ),
    Family(
        title="`EasyAnimateTransformer3DModel`",
        adapter=video.EASY_ANIMATE,
        guidance=BATCHED,
        text=("EasyAnimate",),
        image=("EasyAnimate image to video",),
    ),
    Family(
        title="`CosmosTransformer3DModel` (1, Predict 2 and 2.5)",
        adapter=video.COSMOS,
        guidance=TWO_CALLS,
        text=("Cosmos 1", "Cosmos Predict 2.5"),
        image=(
            "Cosmos 1 image to video",
            "Cosmos Predict 2 image to video",
            "Cosmos Predict 2.5 image to video",
        ),
    ),
    Family(
        title="`Kandinsky5Transformer3DModel`",
        adapter=video.KANDINSKY5,
        guidance=TWO_CALLS,
        text=("Kandinsky 5",),
        image=("Kandinsky 5 image to video",),
    ),
    Family(
        title="`SanaVideoTransformer3DModel`",
        adapter=video.SANA_VIDEO,
        guidance=BATCHED,
        text=("SanaVideo",),
        image=("SanaVideo image to video",),
    ),
)

HEAD = (
    "| denoiser | sites (kinds) | guidance | text to video | image to video | whole evaluations | "
    "guidance skipped | limits |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)

WITHOUT_PIPELINE = (
    "| `MMDiTModel` (Open-Sora 2.0, upstream's) | double, single (delta) | batch of three | "
    "upstream's own loop | upstream's own loop | yes | no | a batch of three has no two halves |"
)
"""A model that no pipeline of diffusers has, tested for itself."""

_TABLE = re.compile(r"\| denoiser \| sites.*?\n(?=\n)", re.DOTALL)


def table(families: Sequence[Family] = FAMILIES) -> str:
    """Return the table."""
    rows = [family.row for family in families]
    return HEAD + "".join(f"{row}\n" for row in (rows[0], WITHOUT_PIPELINE, *rows[1:]))


def written(readme: str) -> str:
    """Return a README with the table as it is now."""
    return _TABLE.sub(lambda _: table(), readme, count=1)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    sys.exit(0)
