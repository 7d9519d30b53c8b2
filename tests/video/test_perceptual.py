"""LPIPS is the mean over frames, and says in one line that its weights are missing."""

import pytest
import torch
import torchmetrics.functional.image.lpips as of_torchmetrics
from smoothcache_core.errors import EvaluationError
from smoothcache_video.perceptual import Lpips, load_lpips
from torch import Tensor


def test_the_distance_of_a_clip_is_the_mean_of_its_frames():
    def model(one: Tensor, other: Tensor) -> Tensor:
        assert one.shape[1:] == (3, 4, 4)
        return (one - other).abs().mean(dim=(1, 2, 3))

    plain = torch.zeros(2, 40, 3, 4, 4)
    other = torch.linspace(0, 1, 40)[None, :, None, None, None].expand_as(plain)
    assert Lpips(model=model)(plain, other).tolist() == pytest.approx([0.5, 0.5])


def test_missing_weights_are_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def unreachable(net: str) -> None:
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr(of_torchmetrics, "_NoTrainLpips", unreachable)
    with pytest.raises(EvaluationError) as refused:
        load_lpips()
    assert str(refused.value) == (
        "LPIPS needs the weights of torchvision's 'alex' network, which could not be downloaded "
        "or loaded: no route to host"
    )


def test_the_network_of_torchmetrics_gives_a_value_for_each_frame(monkeypatch: pytest.MonkeyPatch):
    untrained = of_torchmetrics._NoTrainLpips  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        of_torchmetrics, "_NoTrainLpips", lambda net: untrained(net=net, pnet_rand=True)
    )
    torch.manual_seed(0)
    clips = torch.rand(2, 3, 3, 64, 64)
    lpips = load_lpips("squeeze")
    assert lpips(clips, clips).tolist() == [0.0, 0.0]
    assert (lpips(clips, clips.flip(1)) != 0).all()
