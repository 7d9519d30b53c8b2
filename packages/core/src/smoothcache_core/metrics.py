"""How far samples are from reference samples. Computed in float64 on the CPU."""

import torch
from torch import Tensor

from smoothcache_core.errors import EvaluationError


def relative_l2(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return ||candidate - reference||_2 / ||reference||_2 of every sample.

    Example:
        >>> relative_l2(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.5]]))
        tensor([0.1000], dtype=torch.float64)

    Args:
        reference: Samples of the plain run, (B, ...).
        candidate: Samples to compare with them, same shape.

    Returns:
        (B,) float64, at least 0: 0 where both are zero, infinite where only the reference is.

    Raises:
        EvaluationError: The shapes differ or have no batch dimension.
    """
    expected, given = _flattened(reference, candidate)
    distance = torch.linalg.vector_norm(given - expected, dim=1)
    norm = torch.linalg.vector_norm(expected, dim=1)
    return torch.where(distance == 0.0, 0.0, distance / norm)


def psnr_db(reference: Tensor, candidate: Tensor, *, data_range: float) -> Tensor:
    """Return the peak signal-to-noise ratio of every sample, 10 log10(data_range^2 / MSE).

    Args:
        reference: Samples of the plain run, (B, ...).
        candidate: Samples to compare with them, same shape.
        data_range: Largest value minus smallest value that a sample can have, above 0.

    Returns:
        (B,) float64 in decibels, infinite where the samples are equal.

    Raises:
        EvaluationError: The shapes differ or have no batch dimension, or `data_range` is not
            positive.
    """
    if not data_range > 0.0:
        raise EvaluationError(f"data_range must be above 0, got {data_range}")
    expected, given = _flattened(reference, candidate)
    error = (given - expected).square().mean(dim=1)
    return 10.0 * torch.log10(data_range**2 / error)


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Return the squared Frechet distance of the Gaussians fitted to two sets of features.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), as in FID (arXiv 1706.08500, eq. 6), with
    unbiased covariances S. With S = X^T X, tr((S_a S_b)^(1/2)) is the sum of the singular values of
    X_a X_b^T, so no square root of a singular matrix is taken and fewer rows than features will do.

    Args:
        features_a: Features of one set of samples, (N, F), at least 2 rows.
        features_b: Features of the other, (M, F), at least 2 rows.

    Returns:
        The distance, at least 0.

    Raises:
        EvaluationError: The shapes do not fit, there are too few rows, or a feature is not finite.
    """
    _check_features(features_a, features_b)
    mean_a, root_a = _gaussian(features_a)
    mean_b, root_b = _gaussian(features_b)
    shared = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2.0 * shared
    distance = (mean_a - mean_b).square().sum() + spread
    return max(float(distance), 0.0)


def kl_divergence(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of a classifier's answers of every sample.

    sum_c q_c (log q_c - log p_c), where p are the probabilities of the reference and q those of the
    candidate: the direction that generated audio is judged by (MusicGen, arXiv 2306.05284).

    Args:
        reference: Logits of the reference samples, (B, classes).
        candidate: Logits of what they became, same shape.

    Returns:
        (B,) float64 in nats, at least 0: 0 where the logits are the same.

    Raises:
        EvaluationError: The shapes differ or are not (B, classes), or a logit is not finite.
    """
    if reference.shape != candidate.shape or reference.ndim != 2:
        raise EvaluationError(
            f"logits must be (B, classes) of one shape, got {tuple(reference.shape)} and "
            f"{tuple(candidate.shape)}"
        )
    expected, given = reference.detach().cpu().double(), candidate.detach().cpu().double()
    if not (expected.isfinite().all() and given.isfinite().all()):
        raise EvaluationError("logits must be finite to have a divergence")
    expected, given = expected.log_softmax(dim=1), given.log_softmax(dim=1)
    return (given.exp() * (given - expected)).sum(dim=1).clamp(min=0.0)


def _check_features(features_a: Tensor, features_b: Tensor) -> None:
    shapes = tuple(features_a.shape), tuple(features_b.shape)
    if any(len(shape) != 2 or shape[0] < 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise EvaluationError(
            f"features must be (N, F) and (M, F) with at least 2 rows each, got {shapes[0]} and "
            f"{shapes[1]}"
        )
    if not (features_a.isfinite().all() and features_b.isfinite().all()):
        raise EvaluationError("features must be finite to have a Frechet distance")


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and an R with R^T R the covariance, of at most F rows."""
    values = features.detach().cpu().double()
    mean = values.mean(dim=0)
    scaled = (values - mean) / (len(values) - 1) ** 0.5
    return mean, torch.linalg.qr(scaled, mode="r").R


def _flattened(reference: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != candidate.shape or not reference.ndim:
        raise EvaluationError(
            f"reference and candidate must be (B, ...) of one shape, got {tuple(reference.shape)} "
            f"and {tuple(candidate.shape)}"
        )
    expected, given = (
        samples.detach().cpu().double().unsqueeze(-1).flatten(start_dim=1)
        for samples in (reference, candidate)
    )
    return expected, given
