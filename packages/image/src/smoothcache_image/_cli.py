"""The command line: `smoothcache-image demo|calibrate|transfer|plan|fit|sample|evaluate`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality

from smoothcache_image._source import PictureSource

if TYPE_CHECKING:
    from torch import Tensor

    from smoothcache_image._sampling import Sampler

__all__ = ["app", "main"]

_MODEL = "--model facebook/DiT-XL-2-256"
_EXAMPLES = {
    "": [
        "demo",
        f"calibrate {_MODEL} --samples 10",
        "plan calibration.safetensors --compute 0.5",
        "sample --schedule schedules/auto-compute0.5.json",
    ],
    "demo": ["demo --output demo-output --samples 200"],
    "calibrate": [
        "calibrate --steps 50 -o digits.safetensors",
        f"calibrate {_MODEL} --dtype float16",
        "calibrate --model PixArt-alpha/PixArt-Sigma-XL-2-1024-MS --steps 20 --prompt 'a red fox' "
        "--prompt 'a city at night'",
    ],
    "evaluate": [
        "evaluate schedules/auto-compute0.5.json schedules/smooth-compute0.5.json --samples 50 "
        "--batch 10 --calibration calibration.safetensors",
        "evaluate fitted.json --samples 50 --peers 'benchmarks/quality-image-*.json'",
    ],
}


def _judging(sampler: Sampler, seeds: Sequence[int], digits: bool) -> Judging:
    from smoothcache_image._evaluation import picture_judging

    return picture_judging(sampler, seeds, digits)


def _save(
    sampler: Sampler, seeds: Sequence[int], latents: Sequence[Tensor], folder: Path
) -> list[Path]:
    from smoothcache_image._evaluation import save_pictures

    return save_pictures(sampler, seeds, latents, folder)


IMAGES = Modality(
    command="smoothcache-image",
    models="images",
    units="pictures",
    source=PictureSource,
    demo=Demo(
        opening="digits, drawn by a small diffusion transformer",
        title="Digits",
        legend="rel L2 with its 95 % interval, and PSNR (dB): against the plain sample. accuracy: "
        "digits that a classifier\nrecognises. Frechet: distance from real digits in its features.",
        files={
            "samples.png": "the same digits, plain and by every schedule",
            "report.md": "all numbers and pictures (report.json for programs)",
            "predicted-and-measured.png": "the errors that were promised, and those that came",
            "schedules": "JSON files, for `smoothcache-image sample --schedule`",
        },
        samples=100,
    ),
    judging=_judging,
    save=_save,
    examples=_EXAMPLES,
)
app = command_line(IMAGES)


def main() -> None:
    """Run the command line."""
    app()
