"""Judging clips: metrics and summaries for `smoothcache_core.evaluate`.

Metrics compare a cached run's clips with the plain run's from the same noise, both (n, frames,
channels, height, width) with values in [0, 1], and give one value per clip, (n,) float64, computed
clip by clip on the CPU. Three of them answer what users of caches complain of: flicker, motion that
stands still, and blur. These are also levels of a clip by itself, whose means are summaries, so
that they can be compared with how much plain runs of other seeds differ.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from smoothcache_core.errors import EvaluationError
from smoothcache_core.evaluation import class_summaries
from smoothcache_core.metrics import psnr_db, relative_l2
from torch import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]
Level = Callable[[Tensor], Tensor]
"""Returns what a clip has of something by itself, (n, frames, channels, h, w) to (n,)."""

MOST_PSNR_DB = 100.0
"""PSNR of a frame that is the same: a mean over frames must be finite where one frame is given, as
in image-to-video. The limit that papers on video have, for example PAB's code (arXiv 2408.12588).
"""

SSIM_PIXELS = 11
"""Side of SSIM's Gaussian window (Wang et al. 2004, sigma 1.5), so the least side of a frame."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def clip_metrics() -> dict[str, Metric]:
    """Return the metrics of clips, (n, frames, channels, height, width), by name."""
    return {
        "psnr_db": frame_psnr_db,
        "ssim": frame_ssim,
        "motion_error": motion_error,
        **{f"{name}_ratio": partial(_ratio, level) for name, level in _LEVELS.items()},
    }


def clip_summaries() -> dict[str, Summary]:
    """Return the summaries of all clips of a policy: mean flicker, motion and sharpness."""
    return {name: partial(_mean, level) for name, level in _LEVELS.items()}


# ---------------------------------------------------------------------------- frame by frame


def frame_psnr_db(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of every clip: the mean of its frames'.

    Args:
        reference: Clips of the plain run, (n, frames, channels, height, width) in [0, 1].
        candidate: What they became, same shape.

    Returns:
        (n,) in decibels; a frame that is the same counts 100.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """

    def of_clip(expected: Tensor, given: Tensor) -> Tensor:
        return psnr_db(expected, given, data_range=1.0).clamp(max=MOST_PSNR_DB).mean()

    return _clip_by_clip(of_clip, *_checked(reference, candidate))


def frame_ssim(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the structural similarity of every clip: the mean of its frames'.

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.

    Args:
        reference: Clips of the plain run, (n, frames, channels, height, width) in [0, 1].
        candidate: What they became, same shape.

    Returns:
        (n,), at most 1: 1 where both are the same.

    Raises:
        EvaluationError: The shapes do not fit, a frame has a side below 11 pixels, or a value is
            not finite.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    clips = _checked(reference, candidate)
    if min(reference.shape[-2:]) < SSIM_PIXELS:
        raise EvaluationError(
            f"SSIM compares windows of {SSIM_PIXELS} x {SSIM_PIXELS} pixels, and frames have "
            f"{reference.shape[-2]} x {reference.shape[-1]}; leave `ssim` out of the metrics"
        )

    def of_clip(expected: Tensor, given: Tensor) -> Tensor:
        value = structural_similarity_index_measure(given, expected, data_range=1.0)
        assert isinstance(value, Tensor)
        return value

    return _clip_by_clip(of_clip, *clips)


# ---------------------------------------------------------------------------- motion


def motion_error(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return how far the motion of every clip is from that of the plain run.

    The relative L2 distance of the differences of consecutive frames. Errors that are the same in
    all frames, which an eye hardly sees, do not count.

    Args:
        reference: Clips of the plain run, (n, frames, channels, height, width) in [0, 1].
        candidate: What they became, same shape.

    Returns:
        (n,), at least 0: 0 where both move alike, 1 where the candidate stands still, infinite
        where only the reference does.

    Raises:
        EvaluationError: The shapes do not fit, or a value is not finite.
    """

    def of_clip(expected: Tensor, given: Tensor) -> Tensor:
        return relative_l2(expected.diff(dim=0)[None], given.diff(dim=0)[None])[0]

    return _clip_by_clip(of_clip, *_checked(reference, candidate))


def flicker(clips: Tensor) -> Tensor:
    """Return how much the brightness of every clip flickers.

    The mean over pixels and frames of |y[t + 1] - 2 y[t] + y[t - 1]|, y the brightness. VBench's
    temporal flickering (arXiv 2311.17982, section 3.1) takes the first difference, which is meant
    for scenes that stand still; a second difference is zero where brightness changes evenly, as in
    a smooth motion of soft edges, and largest where it goes up and down from frame to frame.

    Args:
        clips: (n, frames, channels, height, width), values in [0, 1].

    Returns:
        (n,), at least 0; 0 for less than three frames.
    """
    return _magnitude(brightness(clips).diff(n=2, dim=1))


def motion(clips: Tensor) -> Tensor:
    """Return how much every clip moves: the mean absolute difference of consecutive frames.

    Of their brightness; one minus that is VBench's temporal flickering (arXiv 2311.17982).

    Args:
        clips: (n, frames, channels, height, width), values in [0, 1].

    Returns:
        (n,), at least 0: 0 where nothing moves.
    """
    return _magnitude(brightness(clips).diff(dim=1))


def sharpness(clips: Tensor) -> Tensor:
    """Return how sharp the frames of every clip are: the mean absolute difference of neighbours.

    Of the brightness of pixels below and beside each other. Blur makes it smaller, noise larger.

    Args:
        clips: (n, frames, channels, height, width), values in [0, 1].

    Returns:
        (n,), at least 0: 0 where frames are of one brightness each.
    """
    y = brightness(clips)
    return (_magnitude(y.diff(dim=-1)) + _magnitude(y.diff(dim=-2))) / 2


_LEVELS: Mapping[str, Level] = {"flicker": flicker, "motion": motion, "sharpness": sharpness}


def brightness(clips: Tensor) -> Tensor:
    """Return the brightness of clips, (n, frames, height, width): luma, or the mean of channels.

    Args:
        clips: (n, frames, channels, height, width), of three channels or any other number.
    """
    if clips.shape[2] != len(LUMA):
        return clips.mean(dim=2)
    weights = torch.tensor(LUMA, dtype=clips.dtype, device=clips.device)
    return torch.einsum("nfchw,c->nfhw", clips, weights)


def _magnitude(differences: Tensor) -> Tensor:
    """Return the mean absolute value of every clip, (n,); 0 where there is nothing."""
    flat = differences.abs().flatten(1)
    return flat.mean(dim=1) if flat.shape[1] else flat.sum(dim=1)


def _ratio(level: Level, reference: Tensor, candidate: Tensor) -> Tensor:
    """Return a level of clips over that of the plain ones: 1 where both are the same.

    Infinite where only the plain clip has none.
    """
    expected, given = (
        torch.cat([level(clip) for clip in clips.split(1)])
        for clips in _checked(reference, candidate)
    )
    return torch.where(expected == given, 1.0, given / expected)


def _mean(level: Level, clips: Tensor) -> float:
    """Return the mean level of clips."""
    return float(torch.cat([level(clip.double()) for clip in clips.split(1)]).mean())


# ---------------------------------------------------------------------------- moving digits


class ClipJudge(Protocol):
    """Names what is in clips, and where it goes."""

    def __call__(self, videos: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the scores of the classes, (n, classes), and of the directions, (n, ways)."""
        ...

    def features(self, videos: Tensor) -> Tensor:
        """Return what the last layers see, (n, F)."""
        ...


def moving_digit_summaries(
    digits: Sequence[int], directions: Sequence[int], *, classifier: ClipJudge, real: Tensor
) -> dict[str, Summary]:
    """Return the summaries of clips of moving digits.

    Args:
        digits: The digit, 0 to 9, that each clip was asked to show.
        directions: The direction that each was asked to move in, by number.
        classifier: Names the digit and the direction.
        real: The classifier's features of real clips, (m, F), at least 2 rows.

    Returns:
        `"accuracy"` of the digits, `"direction_accuracy"`, and `"frechet"`, the distance of the
        classifier's features to those of real clips, see `smoothcache_core.class_summaries`.
    """
    of_digits = class_summaries(
        digits,
        logits=lambda clips: classifier(clips)[0],
        features=classifier.features,
        real=real,
    )
    of_directions = class_summaries(
        directions,
        logits=lambda clips: classifier(clips)[1],
        features=classifier.features,
        real=real,
    )
    return {**of_digits, "direction_accuracy": of_directions["accuracy"]}


# ---------------------------------------------------------------------------- shared


def _clip_by_clip(
    distance: Callable[[Tensor, Tensor], Tensor], reference: Tensor, candidate: Tensor
) -> Tensor:
    """Judge clip by clip, (frames, channels, h, w) each: float64 copies of all take memory."""
    pairs = zip(reference, candidate, strict=True)
    return torch.stack([distance(one.double(), other.double()) for one, other in pairs])


def _checked(reference: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != candidate.shape or reference.ndim != 5 or not reference.numel():
        raise EvaluationError(
            "reference and candidate must be clips (n, frames, channels, height, width) of one "
            f"shape and not empty, got {tuple(reference.shape)} and {tuple(candidate.shape)}"
        )
    clips = reference.detach().cpu(), candidate.detach().cpu()
    for name, each in zip(("reference", "candidate"), clips, strict=True):
        broken = (~each.isfinite()).flatten(start_dim=1).any(dim=1).nonzero().flatten()
        if len(broken):
            raise EvaluationError(
                f"clips must be finite, but those of the {name} are not at {broken.tolist()}"
            )
    return clips
