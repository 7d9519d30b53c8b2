"""Sample DiT in its authors' own code, plain, by a schedule, or by a trained router.

    python -m tools.sample.dit --ddim-sample --num-sampling-steps 50 --speedup 2 --schedule 2.json
    python -m tools.sample.dit --ddim-sample --num-sampling-steps 50 --schedule 2.json --seed 1
    python -m tools.sample.dit --ddim-sample --num-sampling-steps 10 --path r.pt --thres 0.1
    python -m tools.sample.dit --ddim-sample --num-sampling-steps 10 --path r.pt --updates 20000

Run it where facebookresearch/DiT can be imported: its `models`, `diffusion` and `download` are used
as they are, with `forward_with_cfg` and `p_sample_loop` or `ddim_sample_loop`. Options have the
names of its `sample.py`, and of those of Learning-to-Cache and HarmoniCa, whose `--path` and
`--thres` take their routers. With `--updates` the router at `--path` is trained, or trained on.

What is planned is `forward_with_cfg` as a whole, since it guides three of the four channels: to the
solver that is one output, but no combination of two passes. DDPM takes its variances from the
model, so of it only published rules and routers are to be had.
"""

import importlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import torch
from cyclopts import Parameter, validators
from smoothcache_core import (
    PatternAdapter,
    Sampler,
    Schedule,
    SitePattern,
    SmoothCacheError,
    calibrate,
    plan,
)
from smoothcache_core.compat.routers import Policy, load_router
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.pipelines.loading import device_named
from smoothcache_core.routing import HARMONICA, train_router
from torch import Tensor, nn

_SCALE = 0.18215  # of Stable Diffusion's autoencoder, which DiT's latents are of
_NEEDED = ("models", "diffusion", "download")
_CALIBRATED = 4  # samples; the last of the seeds, which nobody samples with


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


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be sampled.

    Attributes:
        image_size: Height and width in pixels.
        num_classes: Classes of the model.
        classes: Classes to sample, each once.
        cfg_scale: Strength of guidance.
        num_sampling_steps: Steps, each of which is one evaluation.
        ddim_sample: Whether to sample by DDIM in place of DDPM.
    """

    image_size: int
    num_classes: int
    classes: tuple[int, ...]
    cfg_scale: float
    num_sampling_steps: int
    ddim_sample: bool


def main(
    *,
    model: Annotated[str, Parameter(help="Name of the model in DiT's own code.")] = "DiT-XL/2",
    image_size: Annotated[int, Parameter(help="Height and width in pixels.")] = 256,
    num_classes: Annotated[int, Parameter(help="Classes of the model.")] = 1000,
    classes: Annotated[
        tuple[int, ...], Parameter(name="--class", help="Class to sample. Repeatable.")
    ] = (207, 360, 387, 974, 88, 979, 417, 279),
    cfg_scale: Annotated[float, Parameter(help="Strength of guidance.")] = 4.0,
    num_sampling_steps: Annotated[
        int, Parameter(validator=validators.Number(gte=1), help="Steps of the solver.")
    ] = 250,
    seed: Annotated[int, Parameter(help="Seed of the noise.")] = 0,
    ckpt: Annotated[
        str | None, Parameter(help="Checkpoint; default: the published one, which is downloaded.")
    ] = None,
    vae: Annotated[str, Parameter(help="Autoencoder: 'ema', 'mse' or a folder.")] = "mse",
    ddim_sample: Annotated[bool, Parameter(help="Sample by DDIM, not DDPM.")] = False,
    schedule: Annotated[
        Path | None,
        Parameter(help="Schedule; without it everything is computed. Written with --speedup."),
    ] = None,
    speedup: Annotated[
        float | None,
        Parameter(
            validator=validators.Number(gt=1),
            help="Calibrate first, and plan for this speedup by MACs.",
        ),
    ] = None,
    path: Annotated[Path | None, Parameter(help="Trained router to sample by.")] = None,
    thres: Annotated[
        float,
        Parameter(
            validator=validators.Number(gte=0.0, lt=1.0),
            help="What the score of a computed sub-layer exceeds.",
        ),
    ] = 0.1,
    accelerate_method: Annotated[
        Literal["dynamiclayer", "alternate"],
        Parameter(
            help="What the router is: 'dynamiclayer' decides at every evaluation (HarmoniCa), "
            "'alternate' at every other one (Learning-to-Cache)."
        ),
    ] = "dynamiclayer",
    updates: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=1),
            help="Train the router at --path for so many updates, then sample by it.",
        ),
    ] = None,
    device: Annotated[str, Parameter(help="Torch device; 'auto' is CUDA if any.")] = "auto",
    output: Annotated[Path, Parameter(help="Picture to write.")] = Path("sample.png"),
) -> None:
    """Sample DiT in its authors' own code, plain, by a schedule, or by a trained router."""
    _check(schedule, speedup, path, updates)
    policy: Policy = "all" if accelerate_method == "dynamiclayer" else "alternate"
    wish = Wish(
        image_size=image_size,
        num_classes=num_classes,
        classes=tuple(classes),
        cfg_scale=cfg_scale,
        num_sampling_steps=num_sampling_steps,
        ddim_sample=ddim_sample,
    )
    place = device_named(device)
    sampler = load(model, ckpt, wish, place)
    decode = _decoder(vae, place)
    if updates is not None:
        settings = replace(HARMONICA, updates=updates, threshold=thres)
        train_router(sampler, settings, evaluations=num_sampling_steps, checkpoint=path)
    planned = None
    if path is not None:
        planned = load_router(path, threshold=thres, policy=policy)
    elif speedup is not None and schedule is not None:
        planned = _planned(sampler, speedup)
        planned.save(schedule)
    elif schedule is not None:
        planned = Schedule.load(schedule)
    start = time.perf_counter()
    with nullcontext() if planned is None else cached_sampler(sampler, planned):
        latents = sampler.final_latent(seed)
    seconds = time.perf_counter() - start
    _save(decode(latents[: len(wish.classes)]), output)
    print(f"{seconds:.1f} s, in {output}")


def _check(
    schedule: Path | None, speedup: float | None, path: Path | None, updates: int | None
) -> None:
    if speedup is not None and schedule is None:
        raise CommandError("--speedup makes a schedule: say where to with --schedule FILE")
    if path is not None and schedule is not None:
        raise CommandError("a router (--path) is a schedule by itself: leave out --schedule")
    if updates is not None and path is None:
        raise CommandError("--updates trains a router: say where to with --path FILE")


def load(name: str, ckpt: str | None, wish: Wish, device: torch.device) -> Sampler:
    """Return a sampler of a model of facebookresearch/DiT.

    Args:
        name: Name of the model there.
        ckpt: A checkpoint; None is the published one.
        wish: What is to be sampled.
        device: Where to.

    Raises:
        CommandError: Its code cannot be imported, or there is no such model.
    """
    models, diffusion, download = map(_imported, _NEEDED)
    if name not in models.DiT_models:
        raise CommandError(f"there is no model {name!r}, but {sorted(models.DiT_models)}")
    side = wish.image_size // 8
    denoiser = models.DiT_models[name](input_size=side, num_classes=wish.num_classes).to(device)
    published = f"DiT-XL-2-{wish.image_size}x{wish.image_size}.pt"
    denoiser.load_state_dict(download.find_model(ckpt or published))
    guided = Guided(denoiser).eval()
    solver = diffusion.create_diffusion(str(wish.num_sampling_steps))
    loop = solver.ddim_sample_loop if wish.ddim_sample else solver.p_sample_loop
    return Sampler(
        model=guided,
        adapter=GUIDED,
        run=_run(guided, loop, wish, side, device),
        samples=2 * len(wish.classes),  # both halves of the batch are guided
        solver="ddim" if wish.ddim_sample else "ddpm",
    )


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
                model_kwargs={"y": labels, "cfg_scale": wish.cfg_scale},
                progress=False,
                device=device,
            )

    return run


def _planned(sampler: Sampler, speedup: float) -> Schedule:
    last = torch.iinfo(torch.int32).max
    return plan(calibrate(sampler, seeds=range(last - _CALIBRATED, last)), speedup=speedup)


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


def _save(pictures: Tensor, path: Path) -> None:
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(pictures, path, nrow=4)


if __name__ == "__main__":
    try:
        cyclopts.run(main)
    except SmoothCacheError as error:
        raise SystemExit(f"dit.py: {error}") from error
