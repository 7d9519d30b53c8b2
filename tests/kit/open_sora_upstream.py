"""Doubles of Open-Sora's own models and sampling loops: what is called with what, in our words.

They are called as the first implementation calls its own: version 1.2's `STDiT3` by `RFLOW.sample`
(tokens in one sequence, words of all texts packed into one, lengths as a list), version 2.0's
`MMDiTModel` by its image-to-video denoiser (three passes in a batch; attention whose parts are
called, not itself; `forward` chosen on the instance).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from smoothcache_video.open_sora import RectifiedFlowScheduler
from smoothcache_video.open_sora.layers import (
    Attention,
    CaptionEmbedding,
    FinalLayer,
    Mlp,
    PatchEmbedding,
    Rope,
    ScalarEmbedding,
    modulated,
    positions,
)
from torch import Tensor, nn
from torch.nn import functional

# ---------------------------------------------------------------------------- version 1.2


class PackedCrossAttention(nn.Module):
    """Attends to texts that are packed into one sequence, each video to its own."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(channels, channels)
        self.kv_linear = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, cond: Tensor, mask: list[int]) -> Tensor:
        q = self.q_linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        pairs = self.kv_linear(cond)[0].unflatten(-1, (2, self.heads, -1)).permute(1, 2, 0, 3)
        mixed = [
            functional.scaled_dot_product_attention(one, k, v)
            for one, k, v in zip(q, *(half.split(mask, dim=1) for half in pairs), strict=True)
        ]
        return self.proj(torch.stack(mixed).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, channels: int, heads: int, rope: Rope | None) -> None:
        super().__init__()
        self.temporal = rope is not None
        self.norm1 = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(channels, heads, rope=rope)
        self.cross_attn = PackedCrossAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(channels, 4 * channels)
        self.scale_shift_table = nn.Parameter(torch.randn(6, channels) / channels**0.5)

    def forward(
        self, x: Tensor, y: Tensor, t: Tensor, mask: Any, x_mask: Any, t0: Any, T: int, S: int
    ) -> Tensor:
        def by_token(number: int) -> Tensor:
            """Return a modulation for each of the tokens, as frames are noisy or given."""
            noisy, given = (
                self.scale_shift_table[number] + each.unflatten(-1, (6, -1))[:, None, number]
                for each in (t, t if t0 is None else t0)
            )
            if x_mask is None:
                return noisy
            frames = torch.where(x_mask[:, :, None], noisy, given)
            return frames.repeat_interleave(S, dim=1)

        inside = modulated(self.norm1(x), by_token(0), by_token(1)).unflatten(1, (T, S))
        if self.temporal:
            across = inside.transpose(1, 2)
            seen = self.attn(across.flatten(0, 1)).view_as(across).transpose(1, 2)
        else:
            seen = self.attn(inside.flatten(0, 1)).view_as(inside)
        x = x + by_token(2) * seen.flatten(1, 2)
        x = x + self.cross_attn(x, y, mask)
        return x + by_token(5) * self.mlp(modulated(self.norm2(x), by_token(3), by_token(4)))


class STDiT3(nn.Module):
    """The denoiser of version 1.2, with the parameters of ours."""

    def __init__(
        self, channels: int = 32, depth: int = 2, heads: int = 2, text: int = 12, words: int = 5
    ) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.rope = Rope(channels // heads)
        self.x_embedder = PatchEmbedding((1, 2, 2), 4, channels)
        self.t_embedder, self.fps_embedder = ScalarEmbedding(channels), ScalarEmbedding(channels)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))
        self.y_embedder = CaptionEmbedding(text, channels, words)
        self.spatial_blocks = nn.ModuleList(Block(channels, heads, None) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(
            Block(channels, heads, self.rope) for _ in range(depth)
        )
        self.final_layer = FinalLayer(channels, 4 * 8)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        fps: Any = None,
        height: Any = None,
        width: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        batch, _, frames, rows, columns = x.shape
        scale = float(height[0] * width[0]) ** 0.5 / 512
        tokens = self.x_embedder(x)
        where = positions(rows // 2, columns // 2, self.channels, scale, tokens)
        rate = self.fps_embedder(fps.repeat(batch // len(fps)))
        t = self.t_embedder(timestep) + rate
        t0 = None if x_mask is None else self.t_embedder(0 * timestep) + rate
        text = self.y_embedder(y)[:, 0]
        assert mask is not None
        kept = mask.repeat(batch // len(mask), 1)
        packed = text.masked_select(kept[..., None] != 0).view(1, -1, self.channels)
        lengths = kept.sum(dim=1).tolist()
        tokens, patches = (tokens + where).flatten(1, 2), tokens.shape[2]
        known = (self.t_block(t), lengths, x_mask, None if t0 is None else self.t_block(t0))
        for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for block in pair:
                tokens = block(tokens, packed, *known, frames, patches)
        out = self.final_layer(tokens.unflatten(1, (frames, patches)), t, x_mask, t0)
        parts = out.view(batch, frames, rows // 2, columns // 2, 2, 2, 8)
        return parts.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4).float()


class TextEncoder:
    """Encodes texts as fixed random words, of which the last ones do not count."""

    def __init__(self, model: Any, words: int = 5, channels: int = 12) -> None:
        self.y_embedder, self.size = model.y_embedder, (words, channels)

    def encode(self, text: Sequence[str]) -> dict[str, Tensor]:
        words, channels = self.size
        drawn = [
            torch.randn(1, words, channels, generator=torch.Generator().manual_seed(len(each)))
            for each in text
        ]
        mask = torch.ones(len(text), words, dtype=torch.long)
        mask[:, 3:] = 0
        return {"y": torch.stack(drawn), "mask": mask}

    def null(self, n: int) -> Tensor:
        return self.y_embedder.y_embedding[None].repeat(n, 1, 1)[:, None]


def video_info(frames: int, height: int, width: int, videos: int = 1) -> dict[str, Tensor]:
    """Return what the first implementation tells its denoiser of every video."""
    numbers = {"height": height, "width": width, "num_frames": frames, "ar": 1.0, "fps": 24.0}
    return {name: torch.tensor([float(number)]).repeat(videos) for name, number in numbers.items()}


class RFLOW:
    """The sampling loop of version 1.2. Its timesteps move with size and frames."""

    def __init__(self, num_sampling_steps: int = 10, cfg_scale: float = 4.0) -> None:
        self.num_sampling_steps, self.cfg_scale = num_sampling_steps, cfg_scale

    @torch.no_grad()
    def sample(
        self,
        model: Any,
        text_encoder: Any,
        z: Tensor,
        prompts: Sequence[str],
        device: Any,
        additional_args: Any = None,
        mask: Tensor | None = None,
        guidance_scale: float | None = None,
        progress: bool = True,
    ) -> Tensor:
        strength = self.cfg_scale if guidance_scale is None else guidance_scale
        model_args = text_encoder.encode(prompts)
        model_args["y"] = torch.cat((model_args["y"], text_encoder.null(len(prompts))))
        model_args.update(additional_args)
        steps = [torch.full((len(z),), t) for t in self._timesteps(additional_args)]
        added = None if mask is None else mask == 1
        for t, after in pairwise((*steps, torch.zeros(len(z)))):
            given, noisy = z.clone(), None
            if mask is not None:
                assert added is not None
                noisy = mask * 1000 >= t[:, None]
                model_args["x_mask"] = noisy.repeat(2, 1)
                share = (t / 1000).view(-1, 1, 1, 1, 1)
                with_noise = (1 - share) * given + share * torch.randn_like(given)
                z = torch.where((noisy & ~added)[:, None, :, None, None], with_noise, given)
                added = noisy
            both = torch.cat((z, z)), torch.cat((t, t))
            velocity = model(*both, **model_args).chunk(2, dim=1)[0]
            cond, uncond = velocity.chunk(2)
            moved = uncond + strength * (cond - uncond)
            z = z + moved * ((t - after) / 1000)[:, None, None, None, None]
            if noisy is not None:
                z = torch.where(noisy[:, None, :, None, None], z, given)
        return z

    def _timesteps(self, info: dict[str, Tensor]) -> list[float]:
        scheduler = RectifiedFlowScheduler()
        sizes: Any = {name: int(info[name][0]) for name in ("height", "width", "num_frames")}
        scheduler.set_timesteps(self.num_sampling_steps, **sizes)
        return scheduler.timesteps.tolist()


# ---------------------------------------------------------------------------- version 2.0


class SelfAttention(nn.Module):
    """Holds the layers of an attention; `forward` is never called."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, pe: Tensor) -> Tensor:
        raise AssertionError("the parts are called, never the attention itself")


class Modulation(nn.Module):
    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.lin, self.count = nn.Linear(channels, count * channels), count

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(functional.silu(vec))[:, None].chunk(self.count, dim=-1)


def attention(qkv: Tensor, heads: int, pe: Tensor) -> Tensor:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q + pe, k + pe, v)
    return mixed.transpose(1, 2).flatten(2)


def norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (1 + scale) * functional.layer_norm(x, x.shape[-1:], eps=1e-6) + shift


class DoubleStreamBlock(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("img", "txt"):
            self.add_module(f"{name}_mod", Modulation(channels, 6))
            self.add_module(f"{name}_attn", SelfAttention(channels))
            layers = nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
            self.add_module(f"{name}_mlp", nn.Sequential(*layers))

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        mods = {name: self.get_submodule(f"{name}_mod")(vec) for name in ("txt", "img")}
        streams = {"txt": txt, "img": img}
        layers: dict[str, Any] = {n: self.get_submodule(f"{n}_attn") for n in streams}
        qkv = [layers[n].qkv(norm(streams[n], *mods[n][:2])) for n in streams]
        seen = attention(torch.cat(qkv, 1), self.heads, pe).split((txt.shape[1], img.shape[1]), 1)
        for name, each in zip(("txt", "img"), seen, strict=True):
            x = streams[name] + mods[name][2] * layers[name].proj(each)
            inner = self.get_submodule(f"{name}_mlp")(norm(x, *mods[name][3:5]))
            streams[name] = x + mods[name][5] * inner
        return streams["img"], streams["txt"]


class SingleStreamBlock(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.linear1, self.linear2 = (
            nn.Linear(channels, 5 * channels),
            nn.Linear(3 * channels, channels),
        )
        self.modulation = Modulation(channels, 3)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor, **kwargs: Any) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        qkv, mlp = self.linear1(norm(x, shift, scale)).split(
            (3 * self.channels, 2 * self.channels), -1
        )
        seen = attention(qkv, self.heads, pe)
        return x + gate * self.linear2(torch.cat((seen, functional.gelu(mlp)), -1))


class MMDiTModel(nn.Module):
    """The denoiser of version 2.0, small."""

    def __init__(self, channels: int = 32, heads: int = 2, patch: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.img_in, self.cond_in = nn.Linear(patch, channels), nn.Linear(patch + 4, channels)
        self.time_in, self.vector_in = ScalarEmbedding(channels), nn.Linear(10, channels)
        self.txt_in, self.pe = nn.Linear(12, channels), nn.Linear(3, channels // heads)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(channels, heads) for _ in range(2))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(channels, heads) for _ in range(2))
        self.final_layer = nn.Linear(channels, patch)
        self.forward = self.forward_ckpt

    def forward_ckpt(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y_vec: Tensor,
        cond: Tensor | None = None,
        guidance: Tensor | None = None,
        flow_shift: float | None = None,
    ) -> Tensor:
        x = self.img_in(img) + self.cond_in(cond)
        vec = self.time_in(1000 * timesteps) + self.vector_in(y_vec)
        pe = self.pe(torch.cat((txt_ids, img_ids), 1)).sin()[:, None]
        words = self.txt_in(txt)
        for block in self.double_blocks:
            x, words = block(x, words, vec, pe)
        x = torch.cat((words, x), 1)
        for block in self.single_blocks:
            x = block(x, vec, pe)
        return self.final_layer(x[:, words.shape[1] :])


@torch.inference_mode()
def denoise(
    model: MMDiTModel, seed: int, *, steps: int = 10, patches: int = 12, oscillating: bool = False
) -> Tensor:
    """Return the latent of a run of version 2.0, guided by text and image in one batch of three."""
    generator = torch.Generator().manual_seed(seed)
    img = torch.randn(1, patches, 16, generator=generator).repeat(3, 1, 1)
    fixed = torch.Generator().manual_seed(1)
    ids = torch.arange(patches, dtype=torch.float32)[None, :, None].repeat(3, 1, 3)
    known = {
        "img_ids": ids,
        "txt": torch.randn(3, 4, 12, generator=fixed),
        "txt_ids": torch.zeros(3, 4, 3),
        "y_vec": torch.randn(3, 10, generator=fixed),
        "cond": torch.randn(1, patches, 20, generator=fixed).repeat(3, 1, 1),
    }
    guidance = torch.full((3,), 7.5)
    shares = torch.linspace(1, 0, steps + 1)
    for number, (t, after) in enumerate(pairwise((3 * shares / (1 + 2 * shares)).tolist())):
        velocity = model(
            img=img, **known, flow_shift=None, timesteps=torch.full((3,), t), guidance=guidance
        )
        off = oscillating and number >= 10 and number % 2
        text, image = (1.0, 1.0) if off else (7.5, 3.0)
        cond, uncond, without = velocity.chunk(3)
        guided = without + image * (uncond - without) + text * (cond - uncond)
        img = img + (after - t) * guided.repeat(3, 1, 1)
    return img[:1].clone()
