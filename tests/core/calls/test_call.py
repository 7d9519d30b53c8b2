"""Timesteps of a call: one for all rows, or one for each token or frame."""

from collections.abc import Callable

import pytest
import torch
from kit.helpers import ADAPTER, STEPS, NoWaiting, Toy, noise, sample, schedule_of
from smoothcache_core import Sampler, calibrate
from smoothcache_core.calls.call import CallReader, largest
from smoothcache_core.runtime import attach
from torch import Tensor

GIVEN = torch.tensor([0.0, 1.0, 1.0])
"""0 for a token that is given, as the first frame of a video that is made from an image."""


def with_given_token(step: float) -> Tensor:
    return torch.stack((step * GIVEN, step * GIVEN))


def clean_at_one(step: float) -> Tensor:
    return torch.where(GIVEN > 0, 1.0 - step / 10, 1.0).expand(2, 3)


def frame_after_frame(step: float) -> Tensor:
    """The frames of a rolling video: the next begins when the one before is half done."""
    done = (9.0 - step) / 8
    return (9.0 - 16.0 * (done - torch.tensor([0.0, 0.25, 0.5]))).clamp(0.0, 9.0).expand(2, 3)


FORMS: dict[str, Callable[[float], Tensor]] = {
    "a token is given": with_given_token,
    "a token is given, time runs upwards": clean_at_one,
    "frames one after the other": frame_after_frame,
}
per_token = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@per_token
def test_timesteps_per_token_are_evaluations_of_one_run(form: Callable[[float], Tensor]):
    toy = Toy()
    attachment = attach(toy, ADAPTER, schedule_of())
    for _ in range(2):
        sample(toy, [form(step) for step in STEPS])
    attachment.detach()
    assert attachment.stats.runs == 2
    assert attachment.stats.reuse_fraction == 0.5
    assert attachment.stats.recomputed == 0


@per_token
def test_timesteps_per_token_are_calibrated_as_the_largest(form: Callable[[float], Tensor]):
    toy = Toy()

    def run(seed: int) -> None:
        sample(toy, [form(step) for step in STEPS], latent=noise(seed))

    sampler = Sampler(model=toy, adapter=ADAPTER, run=run, samples=2)
    known = calibrate(sampler, seeds=[0, 1], sensitivity=0, progress=False)
    assert known.evaluations == len(STEPS)
    assert known.fingerprint.timesteps == tuple(float(form(step).max()) for step in STEPS)


def test_a_run_that_is_cut_off_is_told_by_the_timesteps_of_its_tokens():
    toy = Toy()
    attachment = attach(toy, ADAPTER, schedule_of())
    sample(toy, [with_given_token(step) for step in STEPS[:4]])
    with pytest.warns(
        UserWarning, match="a run ended after 4 evaluations, but the schedule is for 6"
    ):
        sample(toy, [with_given_token(step) for step in STEPS])
    assert attachment.stats.runs == 2
    attachment.detach()


def test_equal_timesteps_are_read_as_they_are():
    reader = CallReader(Toy(), ADAPTER)
    for timestep in (torch.tensor(0.1), torch.tensor([0.1]).expand(2), torch.full((2, 3), 0.1)):
        call = reader.read((noise(),), {"timestep": timestep})
        assert call.timestep == call.progress == float(torch.tensor(0.1))


def test_the_largest_timestep_is_found_without_waiting():
    with NoWaiting():
        found = largest(torch.tensor([[0.0, 7.0]]))
    assert found.shape == ()
    assert float(found) == 7.0


def test_there_may_be_no_timestep_in_a_tensor():
    assert CallReader(Toy(), ADAPTER).read((noise(), torch.empty(0)), {}).timestep is None
