"""Judging pictures: metrics and summaries for `smoothcache_core.evaluate`."""

from collections.abc import Callable, Mapping, Sequence

from smoothcache_core.evaluation import class_summaries
from smoothcache_core.metrics import psnr_db
from torch import Tensor

from smoothcache_image.classifier import load_digit_classifier, real_digits

Metric = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[Tensor], float]


def picture_metrics() -> dict[str, Metric]:
    """Return the metrics of pictures (n, 3, height, width) in [0, 1]: PSNR in decibels."""
    return {"psnr_db": lambda plain, other: psnr_db(plain, other, data_range=1.0)}


def digit_summaries(labels: Sequence[int]) -> Mapping[str, Summary]:
    """Return the summaries of drawn digits, pictures (n, 3, height, width) in [0, 1].

    Args:
        labels: The digit, 0 to 9, that each sample was asked to show.

    Returns:
        `"accuracy"` by the packaged classifier and `"frechet"` to real digits, see
        `smoothcache_core.class_summaries`.
    """
    classifier = load_digit_classifier()
    real = classifier.features(real_digits()[0])
    return class_summaries(labels, logits=classifier, features=classifier.features, real=real)
