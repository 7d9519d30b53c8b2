"""Clips are written as GIF, and as MP4 where PyAV is installed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from smoothcache_core.errors import OutputError
from smoothcache_video import clip_files
from smoothcache_video.clip_files import chosen_suffix, clip_bytes, pixels_of, save_clip
from torch import Tensor

with_av = pytest.mark.skipif(not clip_files.has_mp4(), reason="PyAV is not installed")


def clip(frames: int = 6, height: int = 16, width: int = 24) -> Tensor:
    """A bright bar that moves to the right over grey."""
    found = torch.full((frames, 3, height, width), 0.25)
    for frame in range(frames):
        found[frame, :, :, 3 * frame : 3 * frame + 4] = 1.0
    return found


def read_gif(path: Path) -> tuple[np.ndarray, list[int]]:
    with Image.open(path) as image:
        frames = [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(image)
        ]
    return np.stack([frame for frame, _ in frames]), [duration for _, duration in frames]


def test_a_gif_holds_the_frames_at_their_speed(tmp_path: Path):
    path = save_clip(clip(), tmp_path / "clip.gif", fps=8)
    frames, durations = read_gif(path)
    assert np.array_equal(frames, np.stack(pixels_of(clip())))
    assert durations == [120] * 6


def test_grey_clips_are_written_as_coloured_ones(tmp_path: Path):
    save_clip(clip()[:, :1], tmp_path / "grey.gif", fps=10)
    save_clip(clip(), tmp_path / "clip.gif", fps=10)
    assert (tmp_path / "grey.gif").read_bytes() == (tmp_path / "clip.gif").read_bytes()


def test_a_clip_of_one_frame_is_a_gif_too(tmp_path: Path):
    with Image.open(save_clip(clip(1), tmp_path / "c.gif", fps=8)) as image:
        assert image.size == (24, 16)


def test_values_beyond_the_range_are_clipped():
    (frame,) = pixels_of(torch.tensor([-1.0, 2.0]).expand(1, 3, 1, 2))
    assert frame[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: save_clip(clip(), path / "c.avi", fps=8), "as .gif or .mp4, not as '.avi'"),
        (lambda path: save_clip(clip(), path / "c.gif", fps=0), "more than 0 frames per second"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], message: str
):
    with pytest.raises(OutputError, match=message):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_mp4_without_pyav_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clip_files, "find_spec", lambda name: None)
    message = "PyAV, which is not installed: pip install 'smoothcache-video"
    for write in (
        lambda: chosen_suffix("mp4"),
        lambda: save_clip(clip(), tmp_path / "c.mp4", fps=8),
    ):
        with pytest.raises(OutputError, match=message):
            write()
    assert chosen_suffix("auto") == chosen_suffix("gif") == ".gif"


def test_mp4_is_chosen_where_it_can_be_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clip_files, "find_spec", lambda name: importlib.util.find_spec("numpy"))
    assert chosen_suffix("auto") == chosen_suffix("mp4") == ".mp4"
    assert chosen_suffix("gif") == ".gif"


@with_av
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_an_mp4_holds_the_frames_at_their_speed(tmp_path: Path, size: tuple[int, int]):
    import av

    made = clip(6, *size)
    path = save_clip(made, tmp_path / "clip.mp4", fps=8)
    with av.open(path) as container:
        (stream,) = container.streams.video
        rate = stream.average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert rate is not None
    assert float(rate) == pytest.approx(8)
    assert len(frames) == 6
    height, width = size
    expected = np.stack(pixels_of(made)).astype(float)
    shown = np.stack(frames)[:, :height, :width].astype(float)
    assert np.abs(shown - expected).mean() < 6


@with_av
def test_an_mp4_is_the_same_every_time():
    frames = pixels_of(clip())
    assert clip_bytes(frames, ".mp4", fps=8) == clip_bytes(frames, ".mp4", fps=8)
