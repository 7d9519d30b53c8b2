from itertools import pairwise
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from smoothcache_core.evaluation.sheets import (
    MAGNIFIED,
    PictureRow,
    compared_rows,
    sample_sheet,
)
from torch import Tensor


def sheet(*pictures: Tensor, captions: tuple[str, ...] = ("one", "two")) -> Any:
    rows = [
        PictureRow(name=f"row {index}", remark="remark", pictures=each)
        for index, each in enumerate(pictures)
    ]
    return sample_sheet(rows, captions=captions, title="title")


def strip(figure: Any, row: int) -> np.ndarray:
    return np.asarray(figure.axes[row].images[0].get_array())


def test_pictures_stand_side_by_side_with_white_between():
    pictures = torch.rand(2, 3, 48, 48)
    shown = strip(sheet(torch.zeros(2, 3, 48, 48), pictures), 1)
    assert shown.shape == (48, 98, 3)
    assert np.array_equal(shown[:, :48], pictures[0].permute(1, 2, 0).numpy())
    assert np.array_equal(shown[:, 50:], pictures[1].permute(1, 2, 0).numpy())
    assert (shown[:, 48:50] == 1.0).all()


@pytest.mark.parametrize(("pixels", "shown"), [(256, 256), (1024, 256)])
def test_large_pictures_are_made_smaller(pixels: int, shown: int):
    assert strip(sheet(torch.rand(2, 3, pixels, pixels)), 0).shape[0] == shown


def test_every_row_and_column_is_labelled():
    figure = sheet(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    texts = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    assert texts == [{"row 0", "remark", "one", "two"}, {"row 1", "remark"}]
    assert [text.get_text() for text in figure.texts] == ["title"]


def test_long_captions_stay_within_their_columns():
    figure = sheet(torch.rand(4, 3, 24, 8), captions=("a six moving left", "a six moving up") * 2)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts[2:]]
    assert [text.get_text() for text in figure.axes[0].texts[2:4]] == [
        "a six\nmoving left",
        "a six\nmoving up",
    ]
    for one, other in pairwise(boxes):
        assert one.x1 < other.x0
    assert max(box.y1 for box in boxes) < figure.texts[0].get_window_extent().y0


class Judged:
    """What sheets look at of a report."""

    rows = (SimpleNamespace(policy="plain"), SimpleNamespace(policy="half"))
    samples: ClassVar = {
        "plain": torch.full((2, 4, 3, 8, 8), 0.5),
        "half": torch.full((2, 4, 3, 8, 8), 0.52),
    }


def test_every_policy_stands_above_its_difference_from_plain():
    report: Any = Judged()
    rows = compared_rows(report, lambda row: f"of {row.policy}", shown=lambda clips: clips[:, 1])
    assert [(row.name, row.remark) for row in rows] == [
        ("plain", "of plain"),
        ("half", "of half"),
        ("", f"|half - plain| x {MAGNIFIED}"),
    ]
    assert all(row.pictures.shape == (2, 3, 8, 8) for row in rows)
    assert rows[2].pictures.mean().item() == pytest.approx(0.02 * MAGNIFIED, rel=1e-4)
