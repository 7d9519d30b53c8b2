"""The command line: `smoothcache-audio demo|calibrate|transfer|plan|fit|sample|evaluate|judge`.

Nothing heavy is loaded before a command runs, so that help is shown at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoothcache_core.cli.commands import command_line
from smoothcache_core.cli.modality import Demo, Judging, Modality

from smoothcache_audio._source import SoundSource
from smoothcache_audio.judge import Judge

if TYPE_CHECKING:
    from torch import Tensor

    from smoothcache_audio._sampling import Sampler

__all__ = ["app", "main"]

_MODEL = "--model stabilityai/stable-audio-open-1.0 --seconds 10 --prompt 'a dog barks'"
_EXAMPLES = {
    "": [
        "demo",
        f"calibrate {_MODEL} --samples 4",
        "plan calibration.safetensors --compute 0.5",
        f"sample {_MODEL} --schedule schedules/auto-compute0.5.json",
    ],
    "demo": ["demo --output demo-output --samples 100"],
    "calibrate": [
        "calibrate --solver dpmpp-2m --steps 50 -o digits.safetensors",
        f"calibrate {_MODEL} --library diffusers --dtype float16",
    ],
    "sample": [
        "sample --labels three,one,4 --samples 3",
        f"sample {_MODEL} --schedule schedules/auto-compute0.5.json",
    ],
    "evaluate": [
        "evaluate schedules/auto-compute0.5.json schedules/smooth-compute0.5.json --samples 50 "
        "--batch 10 --calibration calibration.safetensors",
        "evaluate fitted.json --samples 50 --peers 'benchmarks/quality-audio-*.json'",
    ],
    "judge": [
        "judge plain cached",
        "judge plain cached --kl-passt --prompts prompts.txt --recordings recordings",
    ],
}


def _judging(sampler: Sampler, seeds: Sequence[int], digits: bool) -> Judging:
    from smoothcache_audio._evaluation import sound_judging

    return sound_judging(sampler, seeds, digits)


def _save(
    sampler: Sampler, seeds: Sequence[int], latents: Sequence[Tensor], folder: Path
) -> list[Path]:
    from smoothcache_audio._evaluation import save_sounds

    return save_sounds(sampler, seeds, latents, folder)


SOUNDS = Modality(
    command="smoothcache-audio",
    models="audio",
    units="sounds",
    source=SoundSource,
    demo=Demo(
        opening="digits, spoken by a small diffusion transformer",
        title="Spoken digits",
        legend="rel L2 with its 95 % interval: against the plain latents. LSD (log-spectral "
        "distance, dB), mel L1, SI-SDR (dB), KL (nats):\nagainst the plain sounds. accuracy: "
        "digits that a classifier recognises. Frechet: distance from real ones in its features.",
        files={
            "sounds": "WAV files: the same digits, plain and by every schedule",
            "samples.png": "their spectrograms, and what changed",
            "waveforms.png": "one of them over its plain waveform",
            "report.md": "all numbers and pictures (report.json for programs)",
            "predicted-and-measured.png": "the errors that were promised, and those that came",
            "schedules": "JSON files, for `smoothcache-audio sample --schedule`",
        },
        samples=50,
        batch=25,
        duration="a few minutes",
    ),
    judging=_judging,
    save=_save,
    commands=(Judge,),
    examples=_EXAMPLES,
)
app = command_line(SOUNDS)


def main() -> None:
    """Run the command line."""
    app()
