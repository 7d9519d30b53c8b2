"""What the command lines of benchmarks have in common."""

from pathlib import Path

import torch
import typer

from tools.bench.records import Record
from tools.bench.timing import Piece


def set_threads(threads: int) -> None:
    """Set torch's threads; 0 leaves them."""
    if threads:
        torch.set_num_threads(threads)


def dtype_of(name: str) -> torch.dtype:
    """Return a data type by its name.

    Raises:
        typer.BadParameter: There is none of this name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise typer.BadParameter(
            f"torch has no data type {name!r}; give float32, float16 or bfloat16"
        )
    return found


def piece_of(name: str, device: str) -> Piece:
    """Return what is timed at once; `"auto"` is whole runs on a GPU, else evaluations.

    Raises:
        typer.BadParameter: There is none of this name.
    """
    auto: Piece = "run" if device.startswith("cuda") else "evaluation"
    pieces: dict[str, Piece] = {"evaluation": "evaluation", "run": "run", "auto": auto}
    if name not in pieces:
        raise typer.BadParameter(f"no piece is called {name!r}; there are {sorted(pieces)}")
    return pieces[name]


def show(record: Record, output: Path) -> None:
    """Write a record and print it."""
    path = record.save(output)
    print(record.to_markdown())
    print(f"written to {path} and {path.with_suffix('.md').name}")
