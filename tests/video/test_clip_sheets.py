"""Sheets of clips: frame by frame, playing, and side by side."""

from typing import Any

import numpy as np
import pytest
import torch
from smoothcache_core.evaluation.sheets import MAGNIFIED, PictureRow
from smoothcache_video.clip_sheets import frame_sheet, playing_sheet, side_by_side


def rows(*pictures: torch.Tensor) -> list[PictureRow]:
    return [
        PictureRow(name=f"row {index}", remark="remark", pictures=each)
        for index, each in enumerate(pictures)
    ]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_frames_stand_in_the_order_of_time():
    clip = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 3, 8, 8)
    figure = frame_sheet(rows(clip, clip), fps=4, title="title")
    assert texts(figure.axes[0])[2:] == ["0.00 s", "0.25 s", "0.50 s", "0.75 s", "1.00 s"]
    strip = np.asarray(figure.axes[0].images[0].get_array())
    assert strip[0, ::9, 0].tolist() == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_of_many_frames_some_are_shown():
    figure = frame_sheet(rows(torch.rand(50, 3, 8, 8)), fps=10, title="title")
    captions = texts(figure.axes[0])[2:]
    assert (len(captions), captions[0], captions[-1]) == (8, "0.00 s", "4.90 s")


def test_a_sheet_plays_the_clips_of_every_row():
    clips = torch.zeros(2, 3, 3, 16, 16)
    clips[:, 1] = 1.0
    played = playing_sheet(rows(clips, clips), captions=["one", "two"], title="title")
    assert len(played) == 3
    assert played[0].dtype == np.uint8
    assert np.array_equal(played[0], played[2])
    assert not np.array_equal(played[0], played[1])


@pytest.mark.parametrize(("frames", "shown"), [(48, 48), (100, 48)])
def test_long_clips_are_played_by_some_of_their_frames(frames: int, shown: int):
    clips = torch.zeros(1, frames, 3, 8, 8)
    assert len(playing_sheet(rows(clips), captions=["one"], title="title")) == shown


def test_clips_are_put_beside_what_they_became_and_the_difference():
    plain = torch.full((2, 3, 1, 32, 32), 0.25)
    other = plain + torch.tensor([0.01, 0.5])[:, None, None, None, None]
    joined = side_by_side(plain, other)
    assert joined.shape == (3, 3, 2 * 96 + 4, 3 * 96 + 8)
    centres = joined[0, 0, 48::100, 48::100]
    assert centres.flatten().tolist() == pytest.approx([0.25, 0.26, 0.1, 0.25, 0.75, 1.0])
    assert MAGNIFIED == 10
    assert (joined[:, :, 96:100] == 1).all()
