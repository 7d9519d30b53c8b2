"""Sample DiT-XL/2 in either of its libraries, plain, by a schedule, or by a trained router.

    python -m tools.sample.dit --schedule user/dit-smoothcache --speedup 2
    python -m tools.sample.dit --image-size 512 --steps 50 --speedup 2 --schedule twice.json
    python -m tools.sample.dit --library facebook --ddim-sample --steps 50 --schedule 2.json
    python -m tools.sample.dit --library facebook --ddim-sample --steps 10 --path r.pt --thres 0.1
    python -m tools.sample.dit --small --steps 20 --speedup 2 --schedule digits.json --compare

With `--library facebook` run it where facebookresearch/DiT can be imported. Its options have the
names of its `sample.py` too, and of those of Learning-to-Cache and HarmoniCa, whose `--path` and
`--thres` take their routers. With `--updates` the router at `--path` is trained, or trained on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from smoothcache_core import Schedule
from smoothcache_core.compat.routers import load_router
from smoothcache_core.errors import CommandError
from smoothcache_core.pipelines.loading import device_named
from smoothcache_core.routing import HARMONICA, train_router
from smoothcache_image.loading import DIGITS_GUIDANCE

from tools.sample.dit_libraries import Library, Wish, load
from tools.sample.options import AT_LEAST_ONE, Options, run_script
from tools.sample.running import Loaded, sample_with

_CLASSES = (207, 360, 387, 974, 88, 979, 417, 279)  # those of facebook's own script
_STEPS = {"diffusers": 50, "facebook": 250}  # the defaults of their own


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DitOptions(Options):
    """The options of all scripts, two of them under the names of facebook's script as well."""

    steps: Annotated[
        int | None,
        Parameter(
            name=("--steps", "--num-sampling-steps"),
            validator=AT_LEAST_ONE,
            help="Steps of the solver. Default: those of the schedule, else 50 of diffusers, 250 "
            "of facebook.",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Parameter(
            name=("--guidance", "--cfg-scale"),
            validator=validators.Number(gte=0.0),
            help="Strength of guidance; 1 is none. Default: 4.",
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Facebook:
    """Options of facebook's own code and of routers for it.

    Attributes:
        num_classes: Classes of the model.
        ckpt: Checkpoint; None is the published one.
        vae: Autoencoder.
        ddim_sample: Whether to sample by DDIM, not DDPM.
        path: Trained router to sample by.
        thres: What the score of a computed sub-layer exceeds.
        accelerate_method: What the router is.
        updates: Updates to train it for first.
    """

    num_classes: Annotated[int, Parameter(help="Classes of the model.")] = 1000
    ckpt: Annotated[
        str | None, Parameter(help="Checkpoint; default: the published one, which is downloaded.")
    ] = None
    vae: Annotated[str, Parameter(help="Autoencoder: 'ema', 'mse' or a folder.")] = "mse"
    ddim_sample: Annotated[bool, Parameter(help="Sample by DDIM, not DDPM.")] = False
    path: Annotated[Path | None, Parameter(help="Trained router to sample by.")] = None
    thres: Annotated[
        float,
        Parameter(
            validator=validators.Number(gte=0.0, lt=1.0),
            help="What the score of a computed sub-layer exceeds.",
        ),
    ] = 0.1
    accelerate_method: Annotated[
        Literal["dynamiclayer", "alternate"],
        Parameter(
            help="What the router is: 'dynamiclayer' decides at every evaluation (HarmoniCa), "
            "'alternate' at every other one (Learning-to-Cache)."
        ),
    ] = "dynamiclayer"
    updates: Annotated[
        int | None,
        Parameter(
            validator=AT_LEAST_ONE,
            help="Train the router at --path for so many updates, then sample by it.",
        ),
    ] = None

    def router(self) -> Schedule | None:
        """Return what the router says, if there is one."""
        if self.path is None:
            return None
        every = self.accelerate_method == "dynamiclayer"
        policy = "all" if every else "alternate"
        return load_router(self.path, threshold=self.thres, policy=policy)


_NO_FACEBOOK, _NO_OPTIONS = Facebook(), DitOptions()


def main(
    classes: Annotated[
        tuple[int, ...], Parameter(name="--class", help="Class to sample. Repeatable.")
    ] = (),
    library: Annotated[Library, Parameter(help="Library to sample with.")] = "diffusers",
    image_size: Annotated[
        Literal[64, 256, 512], Parameter(help="Height and width in pixels; XL/2 has 256 and 512.")
    ] = 256,
    facebook: Facebook = _NO_FACEBOOK,
    options: DitOptions = _NO_OPTIONS,
) -> None:
    """Sample DiT-XL/2 in either of its libraries, plain, by a schedule, or by a trained router."""
    _check(library, facebook, options)
    own = f"facebook/DiT-XL-2-{image_size}" if library == "diffusers" else "DiT-XL/2"
    small = options.small
    own_guidance = DIGITS_GUIDANCE if small else 4.0  # 4: that of facebook's own script
    wish = Wish(
        model="digits" if small else options.model or own,
        image_size=image_size,
        num_classes=facebook.num_classes,
        classes=classes or (tuple(range(8)) if small else _CLASSES),
        guidance=own_guidance if options.guidance is None else options.guidance,
        ddim=facebook.ddim_sample,
        ckpt=facebook.ckpt,
        vae=facebook.vae,
    )

    def loaded(steps: int) -> Loaded:
        return load(library, wish, steps, device_named(options.device))

    steps = _STEPS[library]
    if facebook.updates is not None:
        settings = replace(HARMONICA, updates=facebook.updates, threshold=facebook.thres)
        count = options.steps or steps
        train_router(loaded(count).sampler, settings, evaluations=count, checkpoint=facebook.path)
    router = facebook.router()
    sample_with(options, loaded, steps=steps, output=Path("sample.png"), schedule=router)


def _check(library: Library, facebook: Facebook, options: Options) -> None:
    if library == "diffusers" and facebook != _NO_FACEBOOK:
        other = [k for k, v in vars(facebook).items() if v != getattr(_NO_FACEBOOK, k)]
        named = ", ".join(f"--{name.replace('_', '-')}" for name in other)
        raise CommandError(f"{named}: of facebook's code; give --library facebook too")
    if library == "facebook" and options.small:
        raise CommandError("--small is a model of diffusers: leave out --library")
    if facebook.path is not None and options.schedule is not None:
        raise CommandError("a router (--path) is a schedule by itself: leave out --schedule")
    if facebook.updates is not None and facebook.path is None:
        raise CommandError("--updates trains a router: say where to with --path FILE")


if __name__ == "__main__":
    run_script("dit", main)
