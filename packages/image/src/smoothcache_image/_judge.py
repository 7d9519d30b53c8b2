"""Judging pictures: metrics and summaries for `smoothcache_core.evaluate`."""

from collections.abc import Callable, Mapping, Sequence

import torch
from smoothcache_core import frechet_distance, psnr_db
from torch import Tensor

from smoothcache_image._classifier import load_digit_classifier, real_digits

Decode = Callable[[Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]


class RecentlyDecoded:
    """Decodes latents in batches and remembers the last two, so that metrics can share them.

    Args:
        decode: Latents (n, ...) to pictures (n, 3, height, width) in [0, 1].
        batch: Most samples to decode at once, at least 1.
    """

    def __init__(self, decode: Decode, *, batch: int) -> None:
        self._decode = decode
        self._batch = batch
        self._recent: list[tuple[Tensor, Tensor]] = []

    def __call__(self, latents: Tensor) -> Tensor:
        """Return the pictures of `latents`, on the CPU, (n, 3, height, width) in [0, 1]."""
        for known, pictures in self._recent:
            if known is latents:
                return pictures
        pictures = torch.cat([self._decode(part).cpu() for part in latents.split(self._batch)])
        self._recent = [*self._recent[-1:], (latents, pictures)]
        return pictures


def picture_metrics(decode: Decode) -> dict[str, Metric]:
    """Return the metrics of pictures: PSNR in decibels of the decoded samples, range [0, 1]."""
    return {"psnr_db": lambda plain, other: psnr_db(decode(plain), decode(other), data_range=1.0)}


def digit_summaries(decode: Decode, labels: Sequence[int]) -> Mapping[str, Summary]:
    """Return the summaries of drawn digits.

    Args:
        decode: Latents to pictures, see `RecentlyDecoded`.
        labels: The digit, 0 to 9, that each sample was asked to show.

    Returns:
        `"accuracy"`, the fraction of samples that the packaged classifier takes for the digit asked
        for, and `"frechet"`, the Frechet distance of its features to those of real digits (needs at
        least two samples).
    """
    classifier = load_digit_classifier()
    wanted = torch.tensor(labels)
    real = classifier.features(real_digits()[0])

    def accuracy(latents: Tensor) -> float:
        return float((classifier(decode(latents)).argmax(dim=1) == wanted).float().mean())

    def frechet(latents: Tensor) -> float:
        return frechet_distance(real, classifier.features(decode(latents)))

    return {"accuracy": accuracy, "frechet": frechet} if len(labels) > 1 else {"accuracy": accuracy}
