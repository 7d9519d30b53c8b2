import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy
from smoothcache_core.errors import EvaluationError
from smoothcache_core.metrics import frechet_distance, kl_divergence, psnr_db, relative_l2
from torch.nn.functional import mse_loss


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------- relative L2


def test_relative_l2_is_distance_over_norm_per_sample():
    reference = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    candidate = torch.tensor([[[3.0, 9.0]], [[0.0, 2.0]]])
    assert relative_l2(reference, candidate).tolist() == [1.0, 0.0]


def test_relative_l2_of_zeros_is_zero_and_of_something_for_nothing_is_infinite():
    reference = torch.zeros(2, 3)
    candidate = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert relative_l2(reference, candidate).tolist() == [0.0, math.inf]


def test_relative_l2_shows_what_is_not_a_number():
    values = relative_l2(torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.0], [1.0, math.nan, 1.0]]))
    assert values[0] == 0.0
    assert values[1].isnan()


def test_relative_l2_of_half_precision_does_not_overflow():
    reference = torch.full((1, 4), 60000.0, dtype=torch.float16)
    assert relative_l2(reference, -reference).tolist() == [2.0]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3, 4)])
def test_relative_l2_ignores_the_shape_of_a_sample(shape: tuple[int, ...]):
    reference, candidate = numbers(*shape), numbers(*shape, seed=1)
    expected = [float((c - r).norm() / r.norm()) for r, c in zip(reference, candidate, strict=True)]
    assert relative_l2(reference, candidate).tolist() == pytest.approx(expected, rel=1e-12)


def test_relative_l2_is_float64_on_the_cpu_without_a_graph():
    reference = torch.ones(2, 3, requires_grad=True)
    values = relative_l2(reference, 2 * reference)
    assert (values.dtype, values.device.type, values.requires_grad) == (torch.float64, "cpu", False)
    assert values.tolist() == [1.0, 1.0]


# ---------------------------------------------------------------------------- PSNR


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_psnr_is_range_over_root_mean_square_error_in_decibels(data_range: float):
    reference, candidate = numbers(4, 3, 8, 8), numbers(4, 3, 8, 8, seed=1)
    errors = [mse_loss(c, r).sqrt().item() for r, c in zip(reference, candidate, strict=True)]
    expected = [20.0 * math.log10(data_range / error) for error in errors]
    values = psnr_db(reference, candidate, data_range=data_range)
    assert values.tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_of_a_tenth_of_the_range_is_twenty_decibels():
    reference = torch.zeros(1, 5, dtype=torch.float64)
    assert psnr_db(reference, reference + 0.2, data_range=2.0).item() == pytest.approx(20.0)


def test_psnr_of_equal_samples_is_infinite():
    reference = numbers(2, 3)
    candidate = reference.clone()
    candidate[1] += 1.0
    values = psnr_db(reference, candidate, data_range=1.0)
    assert values[0] == math.inf
    assert values[1].isfinite()


@pytest.mark.parametrize("data_range", [0.0, -1.0, math.nan])
def test_psnr_refuses_a_range_that_is_none(data_range: float):
    with pytest.raises(EvaluationError, match="data_range must be above 0"):
        psnr_db(torch.ones(1, 2), torch.ones(1, 2), data_range=data_range)


@pytest.mark.parametrize(
    ("one", "other"),
    [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((), ())],
    ids=["sample", "batch", "none"],
)
def test_metrics_refuse_shapes_that_do_not_fit(one: tuple[int, ...], other: tuple[int, ...]):
    with pytest.raises(EvaluationError, match=r"must be \(B, \.\.\.\) of one shape, got"):
        relative_l2(torch.ones(one), torch.ones(other))
    with pytest.raises(EvaluationError, match=r"must be \(B, \.\.\.\) of one shape, got"):
        psnr_db(torch.ones(one), torch.ones(other), data_range=1.0)


# ---------------------------------------------------------------------------- Frechet distance


def textbook(features_a: torch.Tensor, features_b: torch.Tensor) -> float:
    """The formula as FID implementations have it, with scipy's general matrix square root."""
    means = features_a.mean(dim=0) - features_b.mean(dim=0)
    cov_a, cov_b = features_a.T.cov(), features_b.T.cov()
    root = torch.from_numpy(np.real(sqrtm((cov_a @ cov_b).numpy())))
    return float(means @ means + (cov_a + cov_b - 2 * root).trace())


@pytest.mark.parametrize(("rows_a", "rows_b"), [(60, 60), (12, 90)])
def test_frechet_distance_is_that_of_the_matrix_square_root(rows_a: int, rows_b: int):
    mixing = numbers(7, 7, seed=2)
    features_a = numbers(rows_a, 7)
    features_b = numbers(rows_b, 7, seed=1) @ mixing + 0.5
    distance = frechet_distance(features_a, features_b)
    assert distance == pytest.approx(textbook(features_a, features_b), rel=1e-9)
    assert distance == pytest.approx(frechet_distance(features_b, features_a), rel=1e-12)


def test_frechet_distance_of_one_dimension_is_known():
    # Standard deviations sqrt(2) and sqrt(8), means 1 and 4: 3^2 + (sqrt(8) - sqrt(2))^2 = 11.
    features_a = torch.tensor([[0.0], [2.0]])
    features_b = torch.tensor([[2.0], [6.0]])
    assert frechet_distance(features_a, features_b) == pytest.approx(11.0, rel=1e-14)


def test_frechet_distance_of_singular_covariances_is_known():
    # Two rows span one direction each; the directions are orthogonal, so nothing is shared.
    features_a = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    features_b = torch.tensor([[0.0, -2.0, 0.0], [0.0, 2.0, 0.0]])
    assert frechet_distance(features_a, features_b) == pytest.approx(2.0 + 8.0, rel=1e-14)


def test_frechet_distance_of_moved_features_is_the_square_of_the_move():
    features = numbers(5, 20)
    assert frechet_distance(features, features + 2.0) == pytest.approx(20 * 4.0, rel=1e-12)


def test_frechet_distance_of_a_set_to_itself_is_never_negative():
    distances = [frechet_distance(numbers(9, 6, seed=s), numbers(9, 6, seed=s)) for s in range(20)]
    assert min(distances) >= 0.0
    assert max(distances) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"), [((1, 3), (5, 3)), ((5, 3), (1, 3)), ((5, 3), (5, 4)), ((5,), (5,))]
)
def test_frechet_distance_refuses_too_few_rows_and_other_features(
    one: tuple[int, ...], other: tuple[int, ...]
):
    with pytest.raises(EvaluationError, match="at least 2 rows each, got"):
        frechet_distance(torch.ones(one), torch.ones(other))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_frechet_distance_refuses_features_that_are_not_finite(broken: float):
    features = torch.tensor([[0.0], [broken]])
    with pytest.raises(EvaluationError, match="must be finite"):
        frechet_distance(torch.ones(2, 1), features)


# ---------------------------------------------------------------------------- KL divergence


def test_divergence_is_that_of_scipy():
    reference, candidate = numbers(6, 5), numbers(6, 5, seed=1)
    pairs = zip(candidate.softmax(1), reference.softmax(1), strict=True)
    expected = [float(entropy(given.numpy(), known.numpy())) for given, known in pairs]
    assert kl_divergence(reference, candidate).tolist() == pytest.approx(expected, rel=1e-12)


def test_divergence_of_the_same_answers_is_zero_and_of_opposite_ones_the_distance():
    same, sure = torch.tensor([[1.0, -3.0]]), torch.tensor([[1000.0, 0.0]])
    assert kl_divergence(same, same).tolist() == [0.0]
    assert kl_divergence(sure, sure.flip(1)).tolist() == [1000.0]


@pytest.mark.parametrize(("one", "other"), [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,))])
def test_divergence_refuses_shapes_that_do_not_fit(one: tuple[int, ...], other: tuple[int, ...]):
    with pytest.raises(EvaluationError, match=r"logits must be \(B, classes\) of one shape, got"):
        kl_divergence(torch.ones(one), torch.ones(other))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_divergence_refuses_logits_that_are_not_finite(broken: float):
    with pytest.raises(EvaluationError, match="logits must be finite"):
        kl_divergence(torch.zeros(1, 2), torch.tensor([[0.0, broken]]))
