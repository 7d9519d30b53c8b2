"""DiT in each of its implementations, as something that is calibrated, cached and sampled.

Of its authors' own code `models`, `diffusion` and `download` are used as they are, with
`forward_with_cfg` and `p_sample_loop` or `ddim_sample_loop`. What is planned is `forward_with_cfg`
as a whole, since it guides three of the four channels: to the solver that is one output, but no
combination of two passes. DDPM takes its variances from the model, so of it only published rules
and routers are to be had.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from smoothcache_core import PatternAdapter, Sampler, SitePattern
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines.diffusers_shaped import show_steps
from smoothcache_image import load_pipeline, sampler_of
from torch import Tensor, nn

from tools.sample.running import Loaded

Library = Literal["diffusers", "facebook"]

_SCALE = 0.18215  # of Stable Diffusion's autoencoder, which DiT's latents are of
_NEEDED = ("models", "diffusion", "download")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be sampled.

    Attributes:
        model: Name of the model in its library, or a folder.
        image_size: Height and width in pixels, for facebook's models.
        num_classes: Classes of facebook's model.
        classes: Classes to sample, each once.
        guidance: Strength of guidance.
        ddim: Whether facebook's code samples by DDIM in place of DDPM.
        ckpt: A checkpoint for facebook's code; None is the published one.
        vae: Autoencoder for facebook's code: `"ema"`, `"mse"` or a folder.
    """

    model: str
    image_size: int
    num_classes: int
    classes: tuple[int, ...]
    guidance: float
    ddim: bool
    ckpt: str | None
    vae: str


def load(library: Library, wish: Wish, steps: int, device: torch.device) -> Loaded:
    """Return a model of a library.

    Args:
        library: Whose implementation.
        wish: What is to be sampled.
        steps: Steps, each of which is one evaluation.
        device: Where to.

    Raises:
        CommandError: facebook's code cannot be imported, or has no such model.
        PipelineError: There is no such pipeline.
    """
    return (_diffusers if library == "diffusers" else _facebook)(wish, steps, device)


# ---------------------------------------------------------------------------- diffusers


def _diffusers(wish: Wish, steps: int, device: torch.device) -> Loaded:
    pipe: Any = load_pipeline(wish.model, device=str(device))
    show_steps(pipe, True)

    def sample(seed: int) -> Tensor:
        images = pipe(
            list(wish.classes),
            guidance_scale=wish.guidance,
            num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="np",
        ).images
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    sampler = sampler_of(pipe, sample, samples=len(wish.classes))
    return Loaded(sampler=sampler, sample=sample, save=save)


# ---------------------------------------------------------------------------- facebook's own code


GUIDED = PatternAdapter(
    name="facebook-dit-guided",
    patterns=(SitePattern("dit.blocks.*.attn", "attn"), SitePattern("dit.blocks.*.mlp", "mlp")),
    latent="x",
    timestep="t",
)


class Guided(nn.Module):
    """A DiT that guides: its `forward` is `forward_with_cfg`.

    Args:
        dit: A model of facebookresearch/DiT.
    """

    def __init__(self, dit: Any) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float) -> Tensor:
        """Return the guided output of both halves, (2 n, 8, height, width)."""
        return self.dit.forward_with_cfg(x, t, y, cfg_scale)


def _facebook(wish: Wish, steps: int, device: torch.device) -> Loaded:
    models, diffusion, download = map(_imported, _NEEDED)
    if wish.model not in models.DiT_models:
        raise CommandError(f"there is no model {wish.model!r}, but {sorted(models.DiT_models)}")
    side = wish.image_size // 8
    denoiser = models.DiT_models[wish.model](input_size=side, num_classes=wish.num_classes)
    published = f"DiT-XL-2-{wish.image_size}x{wish.image_size}.pt"
    denoiser.load_state_dict(download.find_model(wish.ckpt or published))
    guided = Guided(denoiser).to(device).eval()
    solver = diffusion.create_diffusion(str(steps))
    loop = solver.ddim_sample_loop if wish.ddim else solver.p_sample_loop
    sampler = Sampler(
        model=guided,
        adapter=GUIDED,
        run=_run(guided, loop, wish, side, device),
        samples=2 * len(wish.classes),  # both halves of the batch are guided
        solver="ddim" if wish.ddim else "ddpm",
    )
    decode = _decoder(wish.vae, device)

    def sample(seed: int) -> Tensor:
        return decode(sampler.final_latent(seed)[: len(wish.classes)])

    return Loaded(sampler=sampler, sample=sample, save=save)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CommandError(
            f"{name!r} of facebookresearch/DiT cannot be imported ({error}); run this inside a "
            "clone of it, or put one on PYTHONPATH"
        ) from None


def _run(
    guided: Guided, loop: Callable[..., Tensor], wish: Wish, side: int, device: torch.device
) -> Callable[[int], Tensor]:
    """Return what samples all classes once, as DiT's `sample.py` does."""
    count = len(wish.classes)

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, 4, side, side, generator=generator).to(device)
        z = torch.cat([noise, noise], 0)
        labels = torch.tensor([*wish.classes, *[wish.num_classes] * count], device=device)
        with torch.random.fork_rng():  # DDPM draws its noise from torch's own generator
            torch.manual_seed(seed)
            return loop(
                guided,
                z.shape,
                z,
                clip_denoised=False,
                model_kwargs={"y": labels, "cfg_scale": wish.guidance},
                progress=True,
                device=device,
            )

    return run


def _decoder(vae: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what makes pictures in [0, 1] of latents."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    name = f"stabilityai/sd-vae-ft-{vae}" if vae in ("ema", "mse") else vae
    model: Any = AutoencoderKL.from_pretrained(name)
    model.to(device)

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return (model.decode(latents / _SCALE).sample / 2 + 0.5).clamp(0, 1)

    return decode


def save(pictures: Tensor, path: Path) -> Path:
    """Write pictures in [0, 1], (n, 3, height, width), side by side into a file; return it."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(pictures, path, nrow=4)
    return path
