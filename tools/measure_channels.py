"""Would one coefficient for each channel fill sites better than one for all?

    python tools/measure_channels.py

Fills combine kept outputs by coefficients that all channels share. This script fits both kinds on
the outputs of every site of the shipped digits model in plain runs of the calibration seeds, and
compares what they leave on the same runs and on runs of other seeds; and on those of the denoiser,
whose channels are those of the latent. Writes a record into
benchmarks/.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from _options import show
from _records import FOLDER, Row, new_record
from smoothcache_core.adapters import DENOISER
from smoothcache_core.numerics.least_squares import RIDGE
from smoothcache_image import adapter_for, load_pipeline
from smoothcache_image._sampling import Sampler
from smoothcache_image._source import DIGITS_GUIDANCE
from torch import Tensor
from tqdm import tqdm

HISTORIES = ((1, 2), (2, 3), (2, 4), (3, 6), (5, 6))
"""How long before a filled evaluation the two outputs that it combines were computed."""
QUESTION = "Do coefficients per channel leave less of a skipped output than shared ones?"
NOTES = (
    "left is the root mean square that the fill leaves of the outputs over that of the outputs, "
    "all sites of a kind and all evaluations of the run; seen: on the runs it was fitted to, "
    "unseen: on runs of other seeds. Two outputs are combined, by ridge least squares.",
    "gain is 1 - left_unseen_channels / left_unseen_shared: what coefficients per channel win "
    "where it counts.",
    "numbers is how many coefficients one site needs for one evaluation.",
)
Outputs = Mapping[str, Sequence[Tensor]]
"""Outputs in one run, by the paths of sites, one (rows, ..., channels) per evaluation."""


def outputs_of(sampler: Sampler, seed: int) -> Outputs:
    """Return what every site and the denoiser give in the plain run of one seed."""
    found: dict[str, list[Tensor]] = defaultdict(list)

    def keeper(path: str) -> Callable[[object, object, Tensor], None]:
        return lambda module, inputs, output: found[path].append(output.detach().clone())

    def keep_output(module: object, inputs: object, output: tuple[Tensor]) -> None:
        found[DENOISER.kind].append(output[0].detach().movedim(1, -1).clone())

    handles = [sampler.denoiser.register_forward_hook(keep_output)]
    for site in adapter_for(sampler.denoiser).sites(sampler.denoiser):
        module = sampler.denoiser.get_submodule(site.path)
        handles.append(module.register_forward_hook(keeper(site.path)))
    try:
        sampler(seed)
    finally:
        for handle in handles:
            handle.remove()
    return found


def shared(regressors: Tensor, target: Tensor) -> Tensor:
    """Return the coefficients, (k, 1), that all channels share; see `per_channel`."""
    normal = torch.einsum("kec,jec->kj", regressors, regressors)
    return solved(normal[None], torch.einsum("kec,ec->k", regressors, target)[None]).T


def per_channel(regressors: Tensor, target: Tensor) -> Tensor:
    """Return the coefficients, (k, channels).

    Args:
        regressors: (k, entries, channels), the newest first.
        target: (entries, channels).
    """
    normal = torch.einsum("kec,jec->ckj", regressors, regressors)
    return solved(normal, torch.einsum("kec,ec->ck", regressors, target)).T


def solved(normal: Tensor, right: Tensor) -> Tensor:
    """Solve normal equations (..., k, k) with the library's ridge towards plain reuse, (..., k)."""
    size = normal.shape[-1]
    strength = RIDGE * normal.diagonal(dim1=-2, dim2=-1).mean(dim=-1) + 1e-300
    damped = normal + strength[..., None, None] * torch.eye(size).to(normal)
    prior = strength[..., None] * torch.eye(size)[0].to(normal)
    return torch.linalg.solve(damped, right + prior)


FITS = {"shared": shared, "channels": per_channel}


def measure(steps: int, batch: int) -> list[Row]:
    """Return a row for every kind of site and every history."""
    pipe = load_pipeline("digits")
    pipe.set_progress_bar_config(disable=True)
    sampler = Sampler(
        pipe=pipe, conditions=range(10), steps=steps, guidance=DIGITS_GUIDANCE, batch=batch
    )
    seen, unseen = (outputs_of(sampler, seed) for seed in (0, 1000))
    sites = adapter_for(sampler.denoiser).sites(sampler.denoiser)
    kinds = {site.path: site.kind for site in (*sites, DENOISER)}
    sums: dict[tuple[str, tuple[int, ...]], Tensor] = defaultdict(lambda: torch.zeros(2, 3))
    for path, kind in tqdm(kinds.items(), unit="site"):
        for history in HISTORIES:
            sums[kind, history] += left_of(seen[path or kind], unseen[path or kind], history)
    channels = {kind: seen[path or kind][0].shape[-1] for path, kind in kinds.items()}
    return [row(*key, total, channels[key[0]]) for key, total in sums.items()]


def left_of(seen: Sequence[Tensor], unseen: Sequence[Tensor], history: Sequence[int]) -> Tensor:
    """Return squares over all evaluations, (seen or not; shared, per channel, the outputs' own)."""
    total = torch.zeros(2, 3)
    for evaluation in range(max(history), len(seen)):
        pairs = [
            torch.stack([_entries(run[evaluation - lag]) for lag in (0, *history)])
            for run in (seen, unseen)
        ]
        found = [fit(pairs[0][1:], pairs[0][0]) for fit in FITS.values()]
        for place, outputs in enumerate(pairs):
            for column, coefficients in enumerate(found):
                filled = torch.einsum(
                    "kc,kec->ec", coefficients.expand(-1, outputs.shape[2]), outputs[1:]
                )
                total[place, column] += (filled - outputs[0]).square().sum()
            total[place, 2] += outputs[0].square().sum()
    return total


def _entries(output: Tensor) -> Tensor:
    return output.double().flatten(0, -2)


def row(kind: str, history: Sequence[int], squares: Tensor, channels: int) -> Row:
    """Return a row of the record."""
    left = (squares[:, :2] / squares[:, 2:]).sqrt().tolist()
    values: dict[str, object] = {"kind": kind, "history": list(history)}
    for when, pair in zip(("seen", "unseen"), left, strict=True):
        for name, value in zip(FITS, pair, strict=True):
            values[f"left_{when}_{name}"] = value
    values["gain"] = 1.0 - left[1][1] / left[1][0]
    values["numbers_shared"], values["numbers_channels"] = len(history), len(history) * channels
    return values


def main(
    steps: Annotated[int, typer.Option(help="Steps of the solver, DDIM.")] = 50,
    batch: Annotated[int, typer.Option(help="Samples to fit to, and other ones to test on.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    output: Annotated[Path, typer.Option(help="Folder of the record.")] = FOLDER,
) -> None:
    """Measure, and write a record."""
    torch.set_num_threads(threads)
    with torch.no_grad():
        rows = measure(steps, batch)
    record = new_record(
        what="channels",
        modality="image",
        question=QUESTION,
        packages=("torch", "diffusers", "smoothcache-core", "smoothcache-image"),
        seeds={"calibration": [0], "evaluation": [1000]},
        settings={"model": "digits", "solver": "DDIM", "evaluations": steps, "batch": batch},
        rows=rows,
        notes=NOTES,
    )
    show(record, output)


if __name__ == "__main__":
    typer.run(main)
