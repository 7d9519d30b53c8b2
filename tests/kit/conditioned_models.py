"""Small random models of real classes whose latent argument also holds a condition, and samplers.

Each is sampled as its pipeline does it, by Euler's method and with guidance where that has it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.adapters import LatentPart
from torch import Tensor

STEPS = 8
GUIDANCE = 2.0


@dataclass(frozen=True, kw_only=True)
class ConditionedCase:
    """A model, how its output is got of a latent, and what is to be found of it.

    Attributes:
        build: Makes the model.
        patterns: Where its sites are.
        latent: Name of its latent argument.
        shape: Of what is denoised, without rows.
        output: Makes the function of (latent, timestep) that gives the guided output.
        part: What of the latent argument is denoised.
        fixed: Entries along dimension 1 that the solver leaves as they are, from the first on.
        of_sites: Whether its sites are enough of it to plan them.
    """

    build: Callable[[], Any]
    patterns: tuple[SitePattern, ...]
    latent: str
    shape: tuple[int, ...]
    output: Callable[[Any], Callable[[Tensor, Tensor], Tensor]]
    part: LatentPart
    fixed: int = 0
    of_sites: bool = True

    def sampler(self) -> Sampler:
        torch.manual_seed(0)
        model = self.build().eval().requires_grad_(False)
        adapter = PatternAdapter(
            name="conditioned", patterns=self.patterns, latent=self.latent, guidance="uncond-first"
        )
        output, fixed = self.output(model), self.fixed

        def run(seed: int) -> Tensor:
            latent = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(seed))
            latent[:, :fixed] = numbers(1, *self.shape)[:, :fixed]
            for step in range(STEPS):
                moved = latent - output(latent, torch.tensor(1.0 - step / STEPS)) / STEPS
                latent = torch.cat((latent[:, :fixed], moved[:, fixed:]), dim=1)
            return latent

        return Sampler(model=model, adapter=adapter, run=run, solver="euler")


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def guided(both: Tensor) -> Tensor:
    """Return the guided output of a batch, unconditional rows first."""
    unconditional, conditional = both.chunk(2)
    return unconditional + GUIDANCE * (conditional - unconditional)


def with_nothing(condition: Tensor) -> Tensor:
    """Return the condition of a guided batch: nothing for the unconditional row."""
    return torch.cat((torch.zeros_like(condition), condition))


# ---------------------------------------------------------------------------- channels


def wan() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=9,
        out_channels=4,
        text_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def of_wan(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    text, image = numbers(1, 6, 16), numbers(1, 5, 2, 8, 8)

    def output(latent: Tensor, timestep: Tensor) -> Tensor:
        given = torch.cat((latent, image), dim=1)
        return model(given, 1000 * timestep.expand(1), text, return_dict=False)[0]

    return output


def flux(channels: int, out: int) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=channels,
        out_channels=out,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 4, 8),
    )


def asked_of_flux(model: Any, given: Tensor, timestep: Tensor) -> Tensor:
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(given.shape[1] / 4), torch.arange(4.0))
    return model(
        given,
        encoder_hidden_states=numbers(1, 5, 12),
        pooled_projections=numbers(1, 10),
        timestep=timestep.expand(1),
        img_ids=ids,
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


def of_flux_fill(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    masked = numbers(1, 16, 6)
    return lambda latent, timestep: asked_of_flux(
        model, torch.cat((latent, masked), dim=2), timestep
    )


def of_flux_kontext(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    image = numbers(1, 8, 4)
    return lambda latent, timestep: asked_of_flux(
        model, torch.cat((latent, image), dim=1), timestep
    )[:, : latent.shape[1]]


def inpainting() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=9,
        out_channels=4,
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
    )


def of_inpainting(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    text, masked = numbers(2, 5, 12), numbers(1, 5, 8, 8)

    def output(latent: Tensor, timestep: Tensor) -> Tensor:
        given = torch.cat((latent, masked), dim=1).repeat(2, 1, 1, 1)
        return guided(model(given, 1000 * timestep, text, return_dict=False)[0])

    return output


def video() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        in_channels=8,
        out_channels=4,
        sample_size=8,
        num_frames=2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=12,
        num_attention_heads=2,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )


def of_video(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    image, times = (
        with_nothing(numbers(1, 2, 4, 8, 8)),
        torch.tensor([[6.0, 1.0, 0.0]]).repeat(2, 1),
    )
    seen = with_nothing(numbers(1, 1, 12))

    def output(latent: Tensor, timestep: Tensor) -> Tensor:
        given = torch.cat((latent.repeat(2, 1, 1, 1, 1), image), dim=2)
        answer = model(given, timestep, seen, added_time_ids=times, return_dict=False)[0]
        return guided(answer)

    return output


# ---------------------------------------------------------------------------- tokens


def ltx() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=16,
    )


def of_ltx(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    text = numbers(1, 4, 16)
    given = torch.zeros(1, 32)
    given[:, :16] = 1.0

    def output(latent: Tensor, timestep: Tensor) -> Tensor:
        return model(
            hidden_states=latent,
            encoder_hidden_states=text,
            timestep=1000 * timestep * (1 - given),
            encoder_attention_mask=torch.ones(1, 4),
            num_frames=2,
            height=4,
            width=4,
            return_dict=False,
        )[0]

    return output


FLUX = (SitePattern("transformer_blocks.*.ff", "ff"),)
CASES = {
    "Wan image to video": ConditionedCase(
        build=wan,
        patterns=tuple(SitePattern(f"blocks.*.{kind}", kind) for kind in ("attn1", "ffn")),
        latent="hidden_states",
        shape=(4, 2, 8, 8),
        output=of_wan,
        part=LatentPart(dim=1, start=0, stop=4),
    ),
    "Flux Fill": ConditionedCase(
        build=lambda: flux(10, 4),
        patterns=FLUX,
        latent="hidden_states",
        shape=(16, 4),
        output=of_flux_fill,
        part=LatentPart(dim=2, start=0, stop=4),
    ),
    "Flux Kontext": ConditionedCase(
        build=lambda: flux(4, 4),
        patterns=FLUX,
        latent="hidden_states",
        shape=(16, 4),
        output=of_flux_kontext,
        part=LatentPart(dim=1, start=0, stop=16),
    ),
    "Stable Diffusion inpainting": ConditionedCase(
        build=inpainting,
        patterns=(SitePattern("mid_block.attentions.*", "attn"),),
        latent="sample",
        shape=(4, 8, 8),
        output=of_inpainting,
        of_sites=False,
        part=LatentPart(dim=1, start=0, stop=4),
    ),
    "Stable Video Diffusion": ConditionedCase(
        build=video,
        patterns=(SitePattern("mid_block.attentions.*", "attn"),),
        latent="sample",
        shape=(2, 4, 8, 8),
        output=of_video,
        of_sites=False,
        part=LatentPart(dim=2, start=0, stop=4),
    ),
    "LTX image to video": ConditionedCase(
        build=ltx,
        patterns=(SitePattern("transformer_blocks.*.attn1", "attn1"),),
        latent="hidden_states",
        shape=(32, 4),
        output=of_ltx,
        part=LatentPart(dim=1, start=16),
        fixed=16,
    ),
}
