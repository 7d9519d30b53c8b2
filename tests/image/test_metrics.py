import pytest
import torch
from smoothcache_image.classifier import real_digits
from smoothcache_image.metrics import digit_summaries, picture_metrics


def test_psnr_is_that_of_the_decoded_pictures():
    psnr_db = picture_metrics()["psnr_db"]
    plain, other = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1)
    assert psnr_db(plain, other).tolist() == pytest.approx([20.0, 20.0], rel=1e-6)


def test_real_digits_are_recognised_and_at_no_distance():
    pictures, labels = real_digits()
    summaries = digit_summaries(labels.tolist())
    assert summaries["accuracy"](pictures) > 0.99
    assert summaries["frechet"](pictures) == pytest.approx(0.0, abs=1e-6)


def test_wrong_labels_are_not_recognised():
    pictures, labels = real_digits()
    summaries = digit_summaries(((labels + 1) % 10).tolist())
    assert summaries["accuracy"](pictures) < 0.01


def test_paper_is_at_a_distance():
    summaries = digit_summaries(list(range(10)))
    real = real_digits()[0][:10]
    assert summaries["frechet"](torch.zeros(10, 1, 32, 32)) > summaries["frechet"](real)


def test_one_sample_has_no_distance():
    assert set(digit_summaries([3])) == {"accuracy"}
