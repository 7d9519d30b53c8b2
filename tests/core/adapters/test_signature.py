"""The latent and the timestep among the arguments of a `forward`, and adapters without sites."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from kit.helpers import Toy
from kit.planning import WAVE, Wave
from smoothcache_core import PatternAdapter, Schedule, cached
from smoothcache_core.adapters import latent_and_timestep, whole_evaluations
from smoothcache_core.adapters.signature import argument_names
from smoothcache_core.errors import AdapterError
from torch import Tensor, nn


class Stub(nn.Module):
    """Says of its arguments what the signature of a function does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        vars(self)["__signature__"] = inspect.signature(function)


PUBLISHED: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "k-diffusion": (lambda x, sigma, **extra: ..., ("x", "sigma")),
    "facebook DiT": (lambda x, t, y: ..., ("x", "t")),
    "Open-Sora": (lambda x, timestep, y, mask=None, x_mask=None: ..., ("x", "timestep")),
    "stable-audio-tools": (lambda x, t, cross_attn_cond=None: ..., ("x", "t")),
    "CompVis": (lambda x, timesteps=None, context=None, y=None: ..., ("x", "timesteps")),
    "Flux": (lambda img, img_ids, txt, txt_ids, timesteps, y: ..., ("img", "timesteps")),
    "EDM": (lambda x, noise_labels, class_labels: ..., ("x", "noise_labels")),
    "Wan": (lambda x, t, context, seq_len: ..., ("x", "t")),
    "LTX-2": (
        lambda hidden_states, audio_hidden_states, timestep, audio_timestep, sigma: ...,
        ("hidden_states", "timestep"),
    ),
    "any order": (lambda text, t, latents: ..., ("latents", "t")),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_that_published_models_give_are_known(name: str):
    function, expected = PUBLISHED[name]
    assert latent_and_timestep(Stub(function)) == expected


UNNAMED = {"Cosmos3OmniTransformer", "RFD4ProteinaTransformer"}
"""Denoisers of several latents, of which none is the noisy one by its name."""


def test_names_of_all_denoisers_of_diffusers_but_those_of_several_latents_are_known():
    names = [name for name in dir(diffusers) if "Transformer" in name or "UNet" in name]
    found = {name: getattr(diffusers, name) for name in names if "Output" not in name}
    models = {k: v for k, v in found.items() if isinstance(v, type) and issubclass(v, nn.Module)}
    assert len(models) > 70
    unnamed = set()
    for name, kind in models.items():
        parameters = inspect.signature(kind.forward).parameters
        stub = Stub(kind)
        vars(stub)["__signature__"] = inspect.Signature(list(parameters.values())[1:])
        try:
            latent, timestep = latent_and_timestep(stub)
        except AdapterError:
            unnamed.add(name)
        else:
            assert latent in {"hidden_states", "sample", "x"}, name
            assert timestep in {"timestep", "timesteps", "t", "timestep_ratio"}, name
    assert unnamed <= UNNAMED


def test_a_denoiser_of_other_names_is_asked_for_them():
    stub = Stub(lambda noise, progress, text: ...)
    with pytest.raises(
        AdapterError,
        match=r"Stub.forward takes \['noise', 'progress', 'text'\], and none of their names is "
        r"usual for the noisy latent \(`latent=`\) or the timestep \(`timestep=`\); name them",
    ):
        whole_evaluations(stub)
    with pytest.raises(AdapterError, match=r"usual for the timestep \(`timestep=`\); name"):
        whole_evaluations(stub, latent="noise")
    adapter = whole_evaluations(stub, latent="noise", timestep="progress")
    assert (adapter.latent, adapter.timestep) == ("noise", "progress")


def test_a_name_that_is_given_must_be_one():
    with pytest.raises(
        AdapterError, match=r"takes \['x', 't'\], so latent='y' and timestep='s' is none of them"
    ):
        whole_evaluations(Stub(lambda x, t: ...), latent="y", timestep="s")
    assert whole_evaluations(Stub(lambda x, y, t: ...), latent="y").latent == "y"


class Passing(nn.Module):
    """Passes on whatever it is given, as DDP and PEFT do."""

    def __init__(self, inside: nn.Module, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.inside, self.beside = inside, beside

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inside(*args, **kwargs)


def test_a_wrapper_that_passes_everything_on_is_read_by_what_is_inside():
    assert argument_names(Passing(Passing(Wave()))) == ["hidden_states", "timestep", "label"]
    with pytest.raises(AdapterError, match=r"takes nothing by name, only \*args and \*\*kwargs"):
        whole_evaluations(Passing(nn.Identity(), nn.Identity()))


def test_a_forward_that_an_instance_chose_is_read_where_its_class_has_none():
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.forward = self.forward_plain

        def forward_plain(self, img: Tensor, timesteps: Tensor) -> Tensor:
            return img * timesteps

    assert argument_names(Choosing()) == ["img", "timesteps"]
    assert latent_and_timestep(Choosing()) == ("img", "timesteps")


def test_a_compiled_model_is_read_by_what_was_compiled():
    compiled: Any = torch.compile(Wave(), backend="eager")
    assert latent_and_timestep(compiled) == ("hidden_states", "timestep")


def test_what_was_found_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="smoothcache_core"):
        whole_evaluations(Wave())
    assert caplog.messages == [
        "Wave: whole evaluations can be skipped; its latent is 'hidden_states', its timestep "
        "'timestep'"
    ]


def test_an_adapter_of_other_names_is_told_the_usual_ones():
    class Net(nn.Module):
        def forward(self, sample: Tensor, sigma: Tensor) -> Tensor:
            return sample * sigma

    schedule = Schedule(evaluations=2, rows={"denoiser": (1, 0)})
    with (
        pytest.raises(
            AdapterError,
            match=r"expects an argument 'hidden_states', but Net.forward takes \['sample', "
            r"'sigma'\]; by their names the adapter should say latent='sample', timestep='sigma'",
        ),
        cached(Net(), WAVE, schedule),
    ):
        pass


def test_an_adapter_without_patterns_finds_no_sites():
    assert PatternAdapter(name="x", patterns=()).sites(Toy()) == ()
    assert whole_evaluations(Toy()).sites(Toy()) == ()
