"""How much of its MAC saving does caching turn into time, against the plain model and peers?

    python -m tools.bench speed image
    python -m tools.bench compile

`speed` samples with a DiT of the size of DiT-XL/2 at 256 x 256 (DDIM, classifier-free guidance in
one batch of two) under every policy in lockstep, see `timing.py`. `compile` asks what is
left of it when the model is compiled by `torch.compile`, on fewer layers. Both write a record into
benchmarks/. The weights are random: speed does not depend on them, and nothing is said on quality.

The peers are in requirements-bench.lock (`make bench-env`); those not installed are reported.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.bench.models.dit_xl import Size
from tools.bench.options import dtype_of, piece_of, set_threads, show
from tools.bench.records import FOLDER
from tools.bench.studies.speed import Settings, measure_speed
from tools.bench.studies.speed_image import image_subject, measure_compile

app = typer.Typer(help=__doc__, rich_markup_mode=None, no_args_is_help=True)


@app.command()
def speed(
    *,
    layers: Annotated[int, typer.Option(help="Blocks; 28 is full size.")] = 28,
    heads: Annotated[int, typer.Option(help="Heads of 72 channels; 16 is full size.")] = 16,
    sample_size: Annotated[int, typer.Option(help="Side of the latent; 32 is full size.")] = 32,
    evaluations: Annotated[int, typer.Option(help="Evaluations of one run.")] = 50,
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
    size = Size(num_layers=layers, num_attention_heads=heads, sample_size=sample_size)
    settings = Settings(
        evaluations=evaluations,
        rounds=rounds,
        device=torch.device(device),
        dtype=dtype_of(dtype),
        piece=piece_of(piece, device),
        only=policy or (),
    )
    show(measure_speed(image_subject(size), settings), output)


@app.command(name="compile")
def compile_(
    *,
    layers: Annotated[int, typer.Option(help="Blocks.")] = 4,
    heads: Annotated[int, typer.Option(help="Heads of 72 channels; 16 is full width.")] = 16,
    sample_size: Annotated[int, typer.Option(help="Side of the latent; 32 is full size.")] = 32,
    evaluations: Annotated[int, typer.Option(help="Evaluations of one run.")] = 50,
    rounds: Annotated[int, typer.Option(help="Runs of every policy.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads; 0 leaves it to torch.")] = 0,
    backend: Annotated[str, typer.Option(help="Backend of torch.compile.")] = "inductor",
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Time caching on compiled models, count graphs and breaks, and compare outputs."""
    set_threads(threads)
    size = Size(num_layers=layers, num_attention_heads=heads, sample_size=sample_size)
    settings = Settings(
        evaluations=evaluations,
        rounds=rounds,
        device=torch.device(device),
        dtype=dtype_of(dtype),
        piece=piece_of("auto", device),
    )
    show(measure_compile(image_subject(size), settings, backend=backend), output)
