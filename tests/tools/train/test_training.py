"""What the trainings of the small shipped models share."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tools.train.muon import Muon, orthogonal
from tools.train.training import Budget, averaging, descend, keep_row, kept_rows, learning_rate


def test_learning_rate_warms_up_to_its_peak_and_ends_at_its_floor():
    assert learning_rate(0.0, peak=1.0, floor=0.1) == 0.1
    assert learning_rate(0.02, peak=1.0, floor=0.1) == 1.0
    assert learning_rate(1.0, peak=1.0, floor=0.1) == pytest.approx(0.1)


def test_budget_counts_what_was_spent_before():
    budget = Budget(minutes=1.0, steps=100, before=30.0)
    assert budget.progress(0) == pytest.approx(0.5, abs=0.01)
    assert budget.progress(80) == 0.8
    assert budget.progress(200) == 1.0


def test_a_stage_keeps_its_last_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for row in ({"stage": "a", "loss": 2}, {"stage": "b"}, {"stage": "a", "loss": 1}):
        keep_row(tmp_path, row)
    assert [(row["stage"], row.get("loss")) for row in kept_rows(tmp_path)] == [
        ("b", None),
        ("a", 1),
    ]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss"] == 1


def test_losses_in_threads_give_the_gradient_of_their_mean():
    model, parts = nn.Linear(3, 2), torch.randn(4, 5, 3)
    weights = list(model.parameters())
    losses = [lambda part=part: model(part).square().mean() for part in parts]
    mean = descend(losses, weights)
    expected = torch.autograd.grad(model(parts).square().mean(), weights)
    assert mean == pytest.approx(model(parts).square().mean().item(), rel=1e-6)
    torch.testing.assert_close([weight.grad for weight in weights], list(expected))


def test_average_starts_close_to_the_model_and_then_follows_slowly():
    model, average = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    following = averaging(average.requires_grad_(False))
    for step in (1, 2, 3, 10**6):
        nn.init.zeros_(average.weight)
        following.optimization_step = step - 1
        following.step(model.parameters())
        kept = min(0.999, (1 + step) / (10 + step))
        assert average.weight.item() == pytest.approx(1 - kept)


@pytest.mark.parametrize("shape", [(8, 8), (32, 8), (8, 32)])
def test_orthogonal_keeps_directions_and_evens_out_their_sizes(shape: tuple[int, int]):
    matrix = torch.randn(shape)
    even = orthogonal(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ even @ right.T
    sizes = torch.linalg.svdvals(even)
    assert sizes.min() > 0.4
    assert sizes.max() < 1.3
    torch.testing.assert_close(inside, inside.diag().diag(), rtol=0, atol=1e-4)


def test_muon_moves_a_matrix_against_its_gradient():
    weight = nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([weight], peak=0.1, threads=2)
    weight.grad = torch.eye(4)
    optimizer.step()
    moved = weight.detach()
    torch.testing.assert_close(moved, moved.diag().diag())
    assert (moved.diag() < -0.02).all()
