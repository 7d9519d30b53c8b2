"""What does a demo find on the shipped model? Runs it and keeps its table as a record.

    python -m tools.bench demo [options of `smoothcache-image demo`]
    python -m tools.bench demo video [options of `smoothcache-video demo`]
    python -m tools.bench demo audio [options of `smoothcache-audio demo`]

Writes `benchmarks/demo-<modality>-<hardware>-<yyyymmdd>.json` and a `.md` beside it.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import smoothcache_audio.cli
import smoothcache_image.cli
import smoothcache_video.cli
from cyclopts import Parameter
from smoothcache_core import Report
from smoothcache_core.cli.app import CommandLine
from smoothcache_core.reports import ReportRow

from tools.bench.records import Record, Row, new_record

KEYS = (
    *("policy", "ours", "solver", "evaluations", "compute", "seconds", "speedup", "of_limit"),
    *("rel_l2", "rel_l2_spread", "psnr_db", "accuracy", "frechet", "bytes_peak"),
)
METRICS = (
    *("ssim", "motion_error", "flicker_ratio", "motion_ratio", "sharpness_ratio"),
    *("log_spectral_distance_db", "mel_l1", "multi_resolution_stft", "si_sdr_db", "kl"),
)
SUMMARIES = ("direction_accuracy",)
QUESTION = "What do schedules cost and save on the small trained model, from the same noise?"
SECONDS = (
    "seconds is the median time of one run of a batch, without decoding; speedup the median over "
    "the runs of plain seconds over the policy's."
)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A demo to record."""

    app: CommandLine
    model: str
    libraries: tuple[str, ...]
    note: str


DEMOS = {
    "image": Demo(
        app=smoothcache_image.cli.app,
        model="digits-dit",
        libraries=("diffusers", "smoothcache-image"),
        note="rel_l2 compares what enters the autoencoder, psnr_db decoded pictures in [0, 1], "
        "both with the plain run; accuracy is the classifier's, frechet is in its features, to "
        "real digits.",
    ),
    "video": Demo(
        app=smoothcache_video.cli.app,
        model="moving-digits",
        libraries=("diffusers", "smoothcache-video"),
        note="rel_l2 compares what enters the autoencoder, psnr_db, ssim and motion_error decoded "
        "clips in [0, 1], all with the plain run; flicker_ratio, motion_ratio and sharpness_ratio "
        "are levels of a clip over those of the plain one; accuracy and direction_accuracy are the "
        "classifier's, frechet is in its features, to real clips.",
    ),
    "audio": Demo(
        app=smoothcache_audio.cli.app,
        model="spoken-digits",
        libraries=("stable-audio-tools", "smoothcache-audio"),
        note="rel_l2 compares what enters the autoencoder, log_spectral_distance_db, mel_l1, "
        "multi_resolution_stft, si_sdr_db and kl decoded sounds, all with the plain run from the "
        "same noise, the solver's included; accuracy is the classifier's, frechet is in its "
        "features, to real digits.",
    ),
}


def row(values: ReportRow, modality: str) -> Row:
    """Return one row of a report as one of a record; infinite values are left out."""
    named = values.model_dump(include=set(KEYS), exclude_none=True)
    given = {key: named[key] for key in KEYS if key in named}
    given |= {key: values.metrics[key].mean for key in METRICS if key in values.metrics}
    given |= {key: values.summaries[key] for key in SUMMARIES if key in values.summaries}
    return {"modality": modality, "model": DEMOS[modality].model, "full_size": False} | {
        key: value for key, value in given.items() if value not in (float("inf"), float("-inf"))
    }


def record(report: Report, modality: str) -> Record:
    """Return the record of a demo's report."""
    demo = DEMOS[modality]
    return new_record(
        what="demo",
        modality=modality,
        question=QUESTION,
        packages=("torch", "smoothcache-core", *demo.libraries),
        seeds={"calibration": report.calibration_seeds, "evaluation": report.seeds},
        settings={"samples": report.num_samples},
        rows=[row(values, modality) for values in report.rows],
        notes=(SECONDS, demo.note),
    )


def main(*options: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run the demo that was asked for and save its record.

    Args:
        *options: image, video or audio, image if none is said, and options of its demo.
    """
    named = options[:1] in [(name,) for name in DEMOS]
    modality, options = (options[0], options[1:]) if named else ("image", options)
    with tempfile.TemporaryDirectory() as folder:
        if status := DEMOS[modality].app.run(["demo", "--output", folder, *options]):
            sys.exit(status)
        print(record(Report.load(Path(folder) / "report.json"), modality).save())
