"""How much of its MAC saving does caching turn into time, on Stable Audio Open's transformer?

    python -m tools.bench speed audio

`speed` samples with the transformer of Stable Audio Open 1.0 as stable-audio-tools builds it (ten
seconds, DPM-Solver++(3M) SDE, guidance in one batch of two) under every policy in lockstep, see
`timing.py`, and writes a record into benchmarks/. The weights are random: speed does not
depend on them, and nothing is said on quality.

The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.bench.models.stable_audio import Size
from tools.bench.options import dtype_of, piece_of, set_threads, show
from tools.bench.records import FOLDER
from tools.bench.studies.speed import Settings, measure_speed
from tools.bench.studies.speed_audio import audio_subject

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback(help=__doc__)
def main() -> None:
    """Keep `speed` a command of its own."""


@app.command()
def speed(
    *,
    layers: Annotated[int, typer.Option(help="Blocks; 24 is full size.")] = 24,
    heads: Annotated[int, typer.Option(help="Heads of 64 channels; 24 is full size.")] = 24,
    seconds: Annotated[float, typer.Option(help="Length of the sound.")] = 10.0,
    evaluations: Annotated[int, typer.Option(help="Evaluations of one run.")] = 100,
    rounds: Annotated[int, typer.Option(help="Runs of every policy.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads; 0 leaves it to torch.")] = 0,
    piece: Annotated[str, typer.Option(help="evaluation, run, or auto: run on cuda.")] = "auto",
    policy: Annotated[list[str] | None, typer.Option(help="Only these policies.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Time all policies side by side."""
    set_threads(threads)
    settings = Settings(
        evaluations=evaluations,
        rounds=rounds,
        device=torch.device(device),
        dtype=dtype_of(dtype),
        piece=piece_of(piece, device),
        only=policy or (),
    )
    size = Size(layers=layers, heads=heads, seconds=seconds)
    show(measure_speed(audio_subject(size), settings), output)
