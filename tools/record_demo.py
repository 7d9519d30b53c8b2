"""What does the demo find on the shipped digits model? Runs it and keeps its table as a record.

    python tools/record_demo.py [options of `smoothcache-image demo`]

Writes `benchmarks/demo-image-<hardware>-<yyyymmdd>.json` and a `.md` beside it.
"""

import sys
import tempfile
from pathlib import Path

import torch
from _records import Record, Row, command, commit, hardware, now, versions
from smoothcache_core import Report, ReportRow
from smoothcache_image._cli import app

KEYS = (
    *("policy", "ours", "solver", "evaluations", "compute", "seconds", "speedup", "of_limit"),
    *("rel_l2", "rel_l2_spread", "psnr_db", "accuracy", "frechet", "bytes_peak"),
)
QUESTION = "What do schedules cost and save on the small trained model, from the same noise?"
NOTES = (
    "seconds is the median time of one run of a batch, without decoding; speedup the median over "
    "the runs of plain seconds over the policy's.",
    "rel_l2 compares what enters the autoencoder, psnr_db decoded pictures in [0, 1], both with "
    "the plain run; accuracy is the classifier's, frechet is in its features, to real digits.",
)


def row(values: ReportRow) -> Row:
    """Return one row of a report as one of a record; infinite values are left out."""
    named = values.model_dump(include=set(KEYS), exclude_none=True)
    given = {key: named[key] for key in KEYS if key in named}
    return {"modality": "image", "model": "digits-dit", "full_size": False} | {
        key: value for key, value in given.items() if value != float("inf")
    }


def record(report: Report) -> Record:
    """Return the record of the demo's report."""
    return Record(
        what="demo",
        modality="image",
        question=QUESTION,
        command=command(),
        date=now(),
        hardware=hardware(torch.device("cpu")),
        versions=versions("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        commit=commit(),
        seeds={"calibration": report.calibration_seeds, "evaluation": report.seeds},
        settings={"samples": report.num_samples},
        rows=[row(values) for values in report.rows],
        notes=NOTES,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            app(["demo", "--output", folder, *sys.argv[1:]])
        except SystemExit as done:
            if done.code:
                raise
        print(record(Report.load(Path(folder) / "report.json")).save())
