"""Policies across modalities, by numbers made up."""

import pytest

from tools.bench.ranking import Cell, standings

BUDGETS = (0.5, 0.25)


def cell(
    modality: str, policy: str, error: float, *, budget: float = 0.5, compute: float | None = None
) -> Cell:
    return Cell(
        modality=modality,
        policy=policy,
        budget=budget,
        compute=budget if compute is None else compute,
        error=error,
        ours=policy == "mine",
    )


def test_the_least_error_everywhere_is_first_with_rank_and_ratio_1():
    first, second = standings(
        [
            cell("image", "mine", 0.01),
            cell("image", "other", 0.04),
            cell("audio", "mine", 0.2),
            cell("audio", "other", 0.2),
        ]
    )
    assert (first.policy, first.rank, first.ratio) == ("mine", 1.0, 1.0)
    assert second.policy == "other"
    assert second.rank == 1.5  # equal errors share a rank
    assert second.ratio == pytest.approx(2.0)  # the geometric mean of 4 and 1


def test_a_modality_of_large_errors_does_not_outweigh_others():
    large = [cell("audio", "mine", 1.0), cell("audio", "other", 1.1)]
    small = [cell("image", "mine", 0.001), cell("image", "other", 0.0005)]
    assert [each.policy for each in standings(large + small)] == ["other", "mine"]


def test_what_is_over_its_budget_counts_as_not_possible_and_comes_last():
    cells = [
        cell("image", "mine", 0.02),
        cell("image", "rule", 0.001, compute=0.56),
        cell("audio", "mine", 0.02),
        cell("audio", "rule", 0.01),
    ]
    first, second = standings(cells)
    assert (first.policy, first.missing) == ("mine", 0)
    assert (second.policy, second.missing, second.cells) == ("rule", 1, 1)


def test_a_policy_that_is_possible_nowhere_has_no_standing():
    cells = [cell("image", "mine", 0.1), cell("image", "rule", 0.1, compute=0.9)]
    assert [each.policy for each in standings(cells)] == ["mine"]


def test_budgets_are_ranked_by_themselves():
    cells = [
        cell("image", "mine", 0.01),
        cell("image", "other", 0.02),
        cell("image", "mine", 0.04, budget=0.25),
        cell("image", "other", 0.03, budget=0.25),
    ]
    assert [standings(cells, each)[0].policy for each in BUDGETS] == ["mine", "other"]
