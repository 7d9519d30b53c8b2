"""T-GATE through pipelines of diffusers, beside its published loop."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from kit.zoo.entry import Entry
from kit.zoo.pictures import PICTURES, SIZE, sd, sd_words, unet
from smoothcache_core import Adapter, Schedule
from smoothcache_core.adapters import unet_attention
from smoothcache_core.errors import AdapterError
from smoothcache_core.sources import tgate
from smoothcache_image import PIXART, cached_pipeline
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

STEPS = 8
SD = Entry(name="SD", build=sd, arguments=lambda: {**sd_words(), **SIZE})
PIXART_ALPHA = next(each for each in PICTURES if each.name == "PixArtAlpha")


def pixart() -> tuple[Entry, Any, nn.Module, Adapter]:
    pipe = PIXART_ALPHA.pipeline()
    return PIXART_ALPHA, pipe, pipe.transformer, PIXART


def stable_diffusion() -> tuple[Entry, Any, nn.Module, Adapter]:
    pipe = SD.pipeline()
    return SD, pipe, pipe.unet, unet_attention(pipe.unet)


CASES = {"PixArt": pixart, "Stable Diffusion": stable_diffusion}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class Gated:
    """What the package does in one attention: `tgate_processor`, around the whole module."""

    def __init__(self, module: Any, cross: bool) -> None:
        self.computed, self.cross, self.cache = module.forward, cross, None
        self.saves = self.reuses = self.averages = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.reuses and self.cache is not None:
            return self.cache
        output = self.computed(*args, **kwargs)
        if self.saves:
            first, second = output.chunk(2) if self.averages else (output, output)
            self.cache = (first + second) / 2
        return output


@contextmanager
def published(
    model: nn.Module, gate: int, before: int, after: int, warm_up: int
) -> Generator[None]:
    """Make the steps that the package makes, its numbers of steps counted at the model.

    After the gate it gives the model the half of the batch with the negative prompt, and its guided
    output is what the model answers.
    """
    gates = {
        path: Gated(module, path.endswith("attn2"))
        for path, module in model.named_modules()
        if path.endswith(("attn1", "attn2"))
    }
    step, forward = [-1], model.forward

    def decide() -> None:
        now = step[0]
        for each in gates.values():
            each.averages = now == gate - 1
            if now < gate - 1:
                each.saves = not each.cross and now >= warm_up
                each.reuses = not each.cross and now > warm_up and now % before != 0
            elif now == gate - 1:
                each.saves, each.reuses = True, False
            else:
                each.reuses = each.cross or now % after != 0
                each.saves = not each.reuses

    def called(*args: Any, **kwargs: Any) -> Any:
        step[0] += 1
        decide()
        if step[0] < gate:
            return forward(*args, **kwargs)
        halved = [_first(each) for each in args]
        (output,) = forward(*halved, **{key: _first(each) for key, each in kwargs.items()})
        return (torch.cat((output, output)),)

    for path, each in gates.items():
        vars(model.get_submodule(path))["forward"] = each
    vars(model)["forward"] = called
    try:
        yield
    finally:
        for module in (model, *map(model.get_submodule, gates)):
            del vars(module)["forward"]


def _first(value: Any) -> Any:
    return value[:1] if isinstance(value, Tensor) and value.dim() and len(value) == 2 else value


@every_case
@pytest.mark.parametrize(
    ("gate", "before", "after", "warm_up"), [(4, 5, 1, 1), (5, 2, 3, 0), (3, 1, 2, 2)]
)
def test_pictures_are_those_of_the_published_loop(
    case: Callable[[], Any], gate: int, before: int, after: int, warm_up: int
):
    entry, pipe, model, adapter = case()
    plain = sampled(entry, pipe, 0)
    with published(model, gate, before, after, warm_up):
        expected = sampled(entry, pipe, 0)
    schedule = tgate(
        evaluations=STEPS, gate_step=gate, sp_interval=before, fi_interval=after, warm_up=warm_up
    )
    with cached_pipeline(pipe, schedule, adapter=adapter) as stats:
        once, _, again = (sampled(entry, pipe, seed) for seed in (0, 1, 0))
    assert torch.equal(once, expected)
    assert torch.equal(again, expected)
    assert not torch.equal(once, plain)
    assert stats.recomputed == 0
    assert torch.equal(sampled(entry, pipe, 0), plain)


def sampled(entry: Entry, pipe: Any, seed: int) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    given = {**entry.arguments(), "num_inference_steps": STEPS, "output_type": "latent"}
    return pipe(**given, generator=generator).images


@every_case
def test_a_gate_at_the_end_computes_the_plain_picture(case: Callable[[], Any]):
    entry, pipe, _, adapter = case()
    plain = sampled(entry, pipe, 0)
    schedule = tgate(evaluations=STEPS, gate_step=STEPS, sp_interval=1)
    with (
        pytest.warns(UserWarning, match="computes everything"),
        cached_pipeline(pipe, schedule, adapter=adapter),
    ):
        assert torch.equal(sampled(entry, pipe, 0), plain)


def test_a_schedule_of_a_file_is_followed_alike(tmp_path: Any):
    entry, pipe, _, adapter = pixart()
    schedule = tgate(evaluations=STEPS, gate_step=4)
    with cached_pipeline(pipe, schedule, adapter=adapter):
        expected = sampled(entry, pipe, 0)
    loaded = Schedule.load(schedule.save(tmp_path / "tgate.json"))
    assert loaded == schedule
    with cached_pipeline(pipe, loaded):
        assert torch.equal(sampled(entry, pipe, 0), expected)


def test_a_unet_without_transformers_has_nothing_to_gate():
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    with pytest.raises(AdapterError, match="no transformers, so no attention"):
        unet_attention(unet(**blocks, mid_block_type=None))
