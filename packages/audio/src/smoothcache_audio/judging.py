"""What becomes of sounds: metrics, summaries, spectrograms, waveforms, and files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from smoothcache_core import Report
from smoothcache_core.cli.evaluating import CLASS_COLUMNS, SHEET, described
from smoothcache_core.cli.modality import Judging
from smoothcache_core.cli.sampling import save_samples
from smoothcache_core.reports import ReportRow
from smoothcache_core.reports.names import file_stems
from torch import Tensor

from smoothcache_audio import classifier as spoken
from smoothcache_audio.conditions import digit_of
from smoothcache_audio.loading import DIGITS
from smoothcache_audio.metrics import digit_metrics, digit_summaries, waveform_metrics
from smoothcache_audio.sampling import PromptSampler
from smoothcache_audio.sound_media import compared_sounds
from smoothcache_audio.sounds import SoundRow, save_wav, spectrogram_sheet, waveform_overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERLAY = "waveforms.png"
SOUNDS = "sounds"
_HEARD = 10  # sounds of every policy in the WAV files
_SEEN = 3  # of these in the pictures
_PLAYED = 6  # of these on the page, one by one

ABOUT = """
## What the numbers say

A sample is what the solver ends with: the latents, as they enter the autoencoder's decoder.
`rel_l2` compares them with those of the plain run from the same noise, that of a stochastic solver
included. The other metrics compare decoded sounds with those of the plain run:
`log_spectral_distance_db` and `snr_db` in decibels, `mel_l1` in natural logarithms (0.115 is 1 dB),
`multi_resolution_stft` is without a unit, `si_sdr_db` is the scale-invariant signal-to-distortion
ratio. Seconds are those of one run, from the noise to the latents; decoding is not among them.

In spectrograms time goes across and frequency up, from 0 to half the sample rate; levels end 80 dB
below the loudest. Differences go from -30 dB (violet, quieter than plain) to 30 dB (brown, louder).
"""
ABOUT_DIGITS = """
`accuracy` is the fraction of sounds that the packaged classifier takes for the digit asked for.
`kl` is the divergence of what it hears from what it hears in the plain sound, in nats. `frechet` is
the Frechet distance between its features of the sounds and of real recordings; it falls with the
number of samples, so compare it between policies only.
"""


def sound_judging(sampler: PromptSampler, seeds: Sequence[int], digits: bool) -> Judging:
    """Return what becomes of sounds.

    Args:
        sampler: How the sounds are made, and of what conditions.
        seeds: Runs that are made.
        digits: Whether they are the shipped model's digits, which can be recognised.
    """
    conditions = [each for seed in seeds for each in sampler.conditions_of(seed)]
    captions = [_name(sampler, condition) for condition in conditions[:_HEARD]]

    def rows(report: Report) -> list[SoundRow]:
        return [
            SoundRow(
                name=row.policy,
                remark=described(row),
                waveforms=report.samples[row.policy],
            )
            for row in report.rows
        ]

    def pictures(report: Report, title: str) -> dict[str, Figure]:
        seen = [
            SoundRow(name=row.name, remark=row.remark, waveforms=row.waveforms[:_SEEN])
            for row in rows(report)
        ]
        rate = sampler.sample_rate
        sheet = spectrogram_sheet(seen, sample_rate=rate, captions=captions[:_SEEN], title=title)
        if len(seen) == 1:  # the plain run alone, which has nothing to lie over
            return {SHEET: sheet}
        overlay = waveform_overlay(seen, index=0, sample_rate=rate, title=f"{title}: {captions[0]}")
        return {SHEET: sheet, OVERLAY: overlay}

    def write(report: Report, folder: Path) -> None:
        stems = file_stems(row.policy for row in report.rows)
        for row in rows(report):
            joined = torch.cat(list(row.waveforms), dim=-1)
            save_wav(
                joined, folder / SOUNDS / f"{stems[row.name]}.wav", sample_rate=sampler.sample_rate
            )

    metrics = waveform_metrics(sampler.sample_rate)
    summaries = {}
    if digits:
        classifier, labels = spoken.load(), [digit_of(condition) for condition in conditions]
        metrics |= digit_metrics(classifier)
        summaries = digit_summaries(labels, classifier=classifier, real=spoken.reference_features())
    return Judging(
        metrics=metrics,
        summaries=summaries,
        about=ABOUT + ABOUT_DIGITS if digits else ABOUT,
        columns=(
            ("LSD", lambda row: _mean(row, "log_spectral_distance_db", ".1f")),
            ("mel L1", lambda row: _mean(row, "mel_l1", ".2f")),
            ("SI-SDR", lambda row: _mean(row, "si_sdr_db", ".1f")),
            ("KL", lambda row: _mean(row, "kl", ".2g")),
            *CLASS_COLUMNS,
        ),
        shown=_HEARD,
        pictures=pictures,
        write=write,
        comparisons=partial(
            compared_sounds, captions=captions[:_PLAYED], sample_rate=sampler.sample_rate
        ),
    )


def save_sounds(
    sampler: PromptSampler, seeds: Sequence[int], latents: Iterable[Tensor], folder: Path
) -> list[Path]:
    """Write the sounds of some runs into a folder, as WAV files, and return the files."""
    return save_samples(
        sampler,
        seeds,
        latents,
        folder,
        save=partial(save_wav, sample_rate=sampler.sample_rate),
        suffix=".wav",
        name=partial(_name, sampler),
    )


def _name(sampler: PromptSampler, condition: Any) -> str:
    """Return the name of what a sound is; of a shipped model's, the word."""
    if isinstance(condition, dict):
        return DIGITS[digit_of(condition)]
    return sampler.label(condition)


def _mean(row: ReportRow, name: str, form: str) -> str:
    """Return the mean of a metric, but nothing for the plain run, whose metrics are trivial."""
    found = row.metrics.get(name)
    return "" if found is None or row.source is None else format(found.mean, form)
