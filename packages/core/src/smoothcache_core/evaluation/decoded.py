"""Judging samples by what a decoder makes of them, and by what a classifier says of that."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from smoothcache_core.evaluation.tally import Metric, Summary
from smoothcache_core.metrics import frechet_distance, kl_divergence

Decode = Callable[[Tensor], Tensor]


class RecentlyDecoded:
    """Decodes latents in batches and remembers the last two, so that metrics can share them.

    Args:
        decode: Latents (n, ...) to what they stand for (n, ...): pictures, waveforms, frames.
        batch: Most samples to decode at once, at least 1.
    """

    def __init__(self, decode: Decode, *, batch: int) -> None:
        self._decode = decode
        self._batch = batch
        self._recent: list[tuple[Tensor, Tensor]] = []

    def __call__(self, latents: Tensor) -> Tensor:
        """Return what `latents` stand for, (n, ...) on the CPU."""
        for known, decoded in self._recent:
            if known is latents:
                return decoded
        decoded = torch.cat([self._decode(part).cpu() for part in latents.split(self._batch)])
        self._recent = [*self._recent[-1:], (latents, decoded)]
        return decoded


def class_summaries(
    labels: Sequence[int], *, logits: Decode, features: Decode, real: Tensor
) -> Mapping[str, Summary]:
    """Return the summaries of samples that a classifier can name.

    Args:
        labels: The class that each sample was asked to show, in the order of the samples.
        logits: The classifier: samples (n, ...), decoded, to scores (n, classes).
        features: Features of the classifier: samples (n, ...), decoded, to (n, F).
        real: Features of real examples, (m, F), at least 2 rows.

    Returns:
        `"accuracy"`, the fraction of samples in [0, 1] that the classifier takes for the class
        asked for, and `"frechet"`, the Frechet distance of their features to `real`, at least 0
        (absent for a single sample, which has no spread).
    """
    wanted = torch.tensor(labels)

    def accuracy(samples: Tensor) -> float:
        return float((logits(samples).argmax(dim=1).cpu() == wanted).float().mean())

    def frechet(samples: Tensor) -> float:
        return frechet_distance(real, features(samples))

    return {"accuracy": accuracy, "frechet": frechet} if len(labels) > 1 else {"accuracy": accuracy}


def class_divergence(*, logits: Decode) -> Metric:
    """Return the metric of what a classifier thinks otherwise than of the plain run's sample.

    Args:
        logits: The classifier: samples (n, ...), decoded, to scores (n, classes).

    Returns:
        A metric of `evaluate`: the Kullback-Leibler divergence of the classifier's answers, (n,) in
        nats, see `kl_divergence`.
    """
    return lambda plain, other: kl_divergence(logits(plain), logits(other))
