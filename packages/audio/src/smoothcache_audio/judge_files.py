"""Comparing WAV files of two folders: what the command `judge` does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
from rich import box
from rich.console import Console
from rich.table import Column, Table
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.tables import print_table
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import frechet_distance
from torch import Tensor
from tqdm import tqdm

from smoothcache_audio import load_clap, load_openl3, load_passt, passt_metric, waveform_metrics
from smoothcache_audio.judge_command import Judge

OfSet = Callable[[Sequence[Path]], float]


@dataclass(frozen=True)
class Sound:
    """What is in a WAV file: a waveform, (1, channels, samples), and its sample rate."""

    waveform: Tensor
    rate: int


def read(file: Path) -> Sound:
    """Read a WAV file."""
    values, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return Sound(torch.from_numpy(values.T)[None], rate)


def files_of(folder: Path) -> list[Path]:
    """Return the WAV files of a folder by name, at least one."""
    found = sorted(folder.glob("*.wav"))
    if not found:
        raise EvaluationError(f"there are no WAV files in {str(folder)!r}")
    return found


def pairs_of(plain: Path, cached: Path) -> list[tuple[Path, Path]]:
    """Return the files of two folders by name; both must have the same names."""
    first, second = files_of(plain), files_of(cached)
    alone = sorted({file.name for file in first} ^ {file.name for file in second})
    if alone:
        raise EvaluationError(f"only one of the folders has {', '.join(alone[:5])}")
    return list(zip(first, second, strict=True))


def lines_of(prompts: Path | None, count: int) -> list[str]:
    """Return a prompt per sound; none without a file."""
    lines = [] if prompts is None else prompts.read_text().splitlines()
    if prompts is not None and len(lines) != count:
        raise EvaluationError(f"{count} sounds need as many prompts, got {len(lines)}")
    return lines


def changes(pair: tuple[Path, Path], passt: Any) -> dict[str, float]:
    """Return the metrics of a cached sound against the plain one."""
    plain, cached = map(read, pair)
    if plain.rate != cached.rate:
        raise EvaluationError(f"{pair[0].name}: sample rates {plain.rate} and {cached.rate}")
    metrics = waveform_metrics(plain.rate)
    if passt is not None:
        metrics |= passt_metric(passt=passt, sample_rate=plain.rate)
    return {name: float(judge(plain.waveform, cached.waveform)) for name, judge in metrics.items()}


def clap_of(clap: Any, prompts: Sequence[str]) -> OfSet:
    """Return what gives the mean CLAP score of files and prompts."""

    def score(files: Sequence[Path]) -> float:
        sounds = zip(map(read, files), prompts, strict=True)
        return mean([float(clap.score(s.waveform, [p], sample_rate=s.rate)) for s, p in sounds])

    return score


def openl3_of(openl3: Any, recordings: Sequence[Path]) -> OfSet:
    """Return what gives the Frechet distance of files to recordings."""

    def features(files: Sequence[Path]) -> Tensor:
        sounds = map(read, files)
        return torch.cat([openl3.features(s.waveform, sample_rate=s.rate) for s in sounds])

    real = features(recordings)
    return lambda files: frechet_distance(real, features(files))


def mean(values: Sequence[float]) -> float:
    """Return the mean, infinite if a value is."""
    return float(torch.tensor(values, dtype=torch.float64).mean())


def show(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """Show a table, unless it is empty."""
    if not rows:
        return
    table = Table(title, *(Column(name, justify="right") for name in columns), box=box.SIMPLE_HEAD)
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.4g}" for value in values))
    print_table(table, Console(highlight=False))


def judge_files(settings: Judge, modality: Modality | None = None) -> None:
    """Compare the files of one name in two folders and show the metrics.

    Args:
        settings: The folders, and which metrics of papers to add.
        modality: Whose program this is, which makes no difference.

    Raises:
        EvaluationError: The folders do not fit, or a package is missing.
    """
    del modality
    pairs = pairs_of(settings.plain, settings.cached)
    lines = lines_of(settings.prompts, len(pairs))
    real = [] if settings.recordings is None else files_of(settings.recordings)
    device = settings.device
    passt = load_passt(device=device) if settings.kl_passt else None
    sets: dict[str, OfSet] = {}
    if lines:
        sets["clap"] = clap_of(load_clap(settings.clap, device=device), lines)
    if real:
        sets["fd_openl3"] = openl3_of(load_openl3(settings.content, device=device), real)
    each = [changes(pair, passt) for pair in tqdm(pairs, desc="sounds", leave=False)]
    show("against plain", ["mean"], {name: [mean([c[name] for c in each])] for name in each[0]})
    folders = list(zip(*pairs, strict=True))
    sums = {name: [judge(files) for files in folders] for name, judge in sets.items()}
    show("of the sounds", ["plain", "cached"], sums)
