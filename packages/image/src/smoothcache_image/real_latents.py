"""Latents of real digits: the data that the shipped models were trained on."""

from __future__ import annotations

import torch
from smoothcache_core.routing import CleanLatents
from torch import Tensor

from smoothcache_image.classifier import real_digits
from smoothcache_image.sampling import PromptSampler


def digit_latents(sampler: PromptSampler) -> CleanLatents:
    """Return what draws latents of real digits of the classes that a sampler's samples show.

    Args:
        sampler: Of a shipped model, which shows classes 0 to 9.
    """
    latents, labels = _encoded(sampler)
    of_class = {label: latents[labels == label] for label in set(labels.tolist())}

    def drawn(seed: int, generator: torch.Generator) -> Tensor:
        chosen = [of_class[int(each)] for each in sampler.conditions_of(seed)]
        places = [int(torch.randint(len(each), (), generator=generator)) for each in chosen]
        return torch.stack([each[place] for each, place in zip(chosen, places, strict=True)])

    return drawn


@torch.no_grad()
def _encoded(sampler: PromptSampler) -> tuple[Tensor, Tensor]:
    """Return the latents of all real digits, (1797, 4, 8, 8), as the denoiser has them; labels."""
    pictures, labels = real_digits()
    vae = sampler.pipe.vae
    colour = (pictures.expand(-1, 3, -1, -1) * 2 - 1).to(vae.device, vae.dtype)
    found = [vae.encode(each).latent_dist.mode() for each in colour.split(100)]
    return torch.cat(found) * vae.config.scaling_factor, labels
