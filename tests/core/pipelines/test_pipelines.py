"""What a decoder is given in a run is put together to the final latents."""

import pytest
import torch
from smoothcache_core.pipelines.pipelines import of_frames, the_only


def test_latents_that_are_given_at_once_are_the_final_ones():
    videos = torch.rand(2, 4, 3, 8, 8)
    assert of_frames([videos], 2) is videos
    assert the_only([videos]) is videos
    assert the_only([videos, videos]) is None
    assert the_only([]) is None


@pytest.mark.parametrize("rows", [6, 2, 4])
def test_frames_that_are_given_as_pictures_are_put_together(rows: int):
    videos = torch.rand(2, 4, 3, 8, 8)
    pictures = videos.transpose(1, 2).flatten(0, 1)
    found = of_frames(list(pictures.split(rows)), 2)
    assert found is not None
    assert torch.equal(found, videos)


def test_what_is_not_of_all_samples_is_no_final_latent():
    assert of_frames([], 1) is None
    assert of_frames([torch.rand(3, 4, 8, 8)], 2) is None
    assert of_frames([torch.rand(1, 4, 3, 8, 8)], 2) is None
    assert of_frames([torch.rand(1, 4, 3, 8, 8)] * 2, 1) is None
