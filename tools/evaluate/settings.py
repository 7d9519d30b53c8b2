"""What an evaluation can be asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from smoothcache_core.cli import options as opt
from smoothcache_core.errors import CommandError

from tools.evaluate.modalities import ALONE, KINDS, Kind, Size
from tools.evaluate.policies import POLICIES

Name = Literal["image", "video", "audio"]

QUICK_BUDGETS = (0.5, 0.25)
BUDGETS = (0.7, 0.5, 0.35, 0.25)
QUICK_POLICIES = tuple(name for name, policy in POLICIES.items() if policy.quick)


def _model(name: str) -> Parameter:
    return Parameter(
        group=opt.MODEL,
        metavar="FOLDER_OR_NAME",
        help=f"Model of the {name} part, in place of the shipped one: a folder, or a hub name.",
    )


def _steps(name: str) -> Parameter:
    return Parameter(
        group=opt.MODEL,
        help=f"Steps of the {name} model's solver. Default: those of its command.",
    )


def _prompts(name: str) -> Parameter:
    return Parameter(
        name=f"--{name}-prompt",
        group=opt.MODEL,
        allow_leading_hyphen=True,
        help=f"A prompt for the {name} model, if it is no shipped one. Repeatable.",
    )


def _sizes(name: str) -> str:
    """Return how much is sampled by default, as the help says it."""

    def of(sizes: Iterable[Size]) -> str:
        told = [str(getattr(size, name)).strip("()") for size in sizes]
        return " or ".join(dict.fromkeys(told))

    kinds = KINDS.values()
    told = (of(kind.full for kind in kinds), of(kind.quick for kind in kinds), of([ALONE]))
    if len(set(told)) == 1:
        return told[0]
    return f"{told[0]}; of --quick {told[1]}; of a model that is not shipped {told[2]}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is evaluated, how much is sampled, and where the report goes.

    Raises:
        CommandError: A setting is impossible.
    """

    modalities: Annotated[
        tuple[Name, ...],
        Parameter(
            name="--modalities",
            consume_multiple=True,
            group=opt.PLAN,
            help="What to evaluate, one or more.",
        ),
    ] = ("image", "video", "audio")
    budgets: Annotated[
        tuple[float, ...],
        Parameter(
            name="--budgets",
            consume_multiple=True,
            group=opt.PLAN,
            help="Compute fractions in (0, 1): MACs over those of the plain model. Default: "
            f"{', '.join(map(str, BUDGETS))}; of --quick {', '.join(map(str, QUICK_BUDGETS))}.",
        ),
    ] = ()
    policies: Annotated[
        tuple[str, ...],
        Parameter(
            name="--policies",
            consume_multiple=True,
            group=opt.PLAN,
            help=f"What to compare beside plain: {', '.join(POLICIES)}. Default: all; of --quick "
            f"{', '.join(QUICK_POLICIES)}.",
        ),
    ] = ()
    quick: Annotated[
        bool,
        Parameter(
            group=opt.PLAN,
            help="Few samples, budgets and policies: some minutes on two cores.",
        ),
    ] = False
    image_model: Annotated[str | None, _model("image")] = None
    video_model: Annotated[str | None, _model("video")] = None
    audio_model: Annotated[str | None, _model("audio")] = None
    image_steps: Annotated[PositiveInt | None, _steps("image")] = None
    video_steps: Annotated[PositiveInt | None, _steps("video")] = None
    audio_steps: Annotated[PositiveInt | None, _steps("audio")] = None
    image_prompts: Annotated[tuple[str, ...], _prompts("image")] = ()
    video_prompts: Annotated[tuple[str, ...], _prompts("video")] = ()
    audio_prompts: Annotated[tuple[str, ...], _prompts("audio")] = ()
    device: opt.Device = "auto"
    dtype: opt.DtypeOption = "auto"
    adapter: opt.AdapterOption = "auto"
    threads: Annotated[
        NonNegativeInt,
        Parameter(
            group=opt.MODEL,
            help="CPU threads of every process; 0 is what torch takes. The last digits depend on "
            "them, so processes that share the work have as many as one that does it alone.",
        ),
    ] = 1
    samples: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.SAMPLES,
            help=f"Samples of every evaluation seed, one batch. Default: {_sizes('samples')}.",
        ),
    ] = None
    seeds: Annotated[
        tuple[NonNegativeInt, ...],
        Parameter(
            name="--seeds",
            consume_multiple=True,
            group=opt.SAMPLES,
            help=f"Evaluation seeds. Default: {_sizes('seeds')}.",
        ),
    ] = ()
    calibration_samples: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.SAMPLES,
            help="Samples of every calibration seed, one batch. Default: "
            f"{_sizes('calibration_samples')}.",
        ),
    ] = None
    calibration_seeds: Annotated[
        tuple[NonNegativeInt, ...],
        Parameter(
            name="--calibration-seeds",
            consume_multiple=True,
            group=opt.SAMPLES,
            help="Calibration seeds, none of which evaluates. Default: "
            f"{_sizes('calibration_seeds')}.",
        ),
    ] = ()
    output: Annotated[
        Path,
        opt.output_option(
            "Folder of the report, and of what was measured: a run that was broken off is "
            "continued from it.",
            folder=True,
        ),
    ] = Path("evaluation-output")
    force: Annotated[
        bool,
        Parameter(group=opt.FILES, help="Start anew where something else was measured there."),
    ] = False
    record: Annotated[
        bool, Parameter(group=opt.FILES, help="Write a record into benchmarks/ as well.")
    ] = False

    def __post_init__(self) -> None:
        for name, values in (("modalities", self.modalities), ("budgets", self.budgets)):
            if len(set(values)) < len(values):
                raise CommandError(f"--{name} must be distinct, got {list(values)}")
        if not all(0.0 < budget < 1.0 for budget in self.budgets):
            raise CommandError(f"--budgets are fractions in (0, 1), got {list(self.budgets)}")
        if unknown := sorted(set(self.policies) - set(POLICIES)):
            raise CommandError(f"no policy is called {unknown}; there are {list(POLICIES)}")
        for name in self.modalities:
            self._check_seeds(self.size_of(KINDS[name]))

    def _check_seeds(self, size: Size) -> None:
        given = {"seeds": size.seeds, "calibration-seeds": size.calibration_seeds}
        for name, seeds in given.items():
            if len(set(seeds)) < len(seeds):
                raise CommandError(f"--{name} must be distinct, got {list(seeds)}")
        if shared := sorted(set(size.seeds) & set(size.calibration_seeds)):
            raise CommandError(
                f"seeds {shared} would calibrate and evaluate, which makes errors look small; keep "
                "--seeds and --calibration-seeds apart"
            )

    # ------------------------------------------------------------------ what follows from them

    @property
    def kinds(self) -> list[Kind]:
        """The modalities that were asked for."""
        return [KINDS[name] for name in self.modalities]

    @property
    def chosen_budgets(self) -> tuple[float, ...]:
        """The budgets, falling."""
        own = QUICK_BUDGETS if self.quick else BUDGETS
        return tuple(sorted(self.budgets or own, reverse=True))

    @property
    def chosen_policies(self) -> tuple[str, ...]:
        """The names of the policies, in the order of `POLICIES`."""
        own = QUICK_POLICIES if self.quick else tuple(POLICIES)
        return tuple(name for name in POLICIES if name in (self.policies or own))

    def model_of(self, kind: Kind) -> str | None:
        """Return the model that takes the place of the shipped one, if there is one."""
        given = {"image": self.image_model, "video": self.video_model, "audio": self.audio_model}
        return given[kind.name]

    def steps_of(self, kind: Kind) -> int | None:
        """Return the steps that were asked for."""
        given = {"image": self.image_steps, "video": self.video_steps, "audio": self.audio_steps}
        return given[kind.name]

    def prompts_of(self, kind: Kind) -> tuple[str, ...]:
        """Return the prompts for a model that takes the place of the shipped one."""
        given = {
            "image": self.image_prompts,
            "video": self.video_prompts,
            "audio": self.audio_prompts,
        }
        return given[kind.name]

    def size_of(self, kind: Kind) -> Size:
        """Return how much is sampled."""
        own = kind.quick if self.quick else kind.full
        size = own if self.model_of(kind) is None else ALONE
        return replace(
            size,
            samples=self.samples or size.samples,
            seeds=self.seeds or size.seeds,
            calibration_samples=self.calibration_samples or size.calibration_samples,
            calibration_seeds=self.calibration_seeds or size.calibration_seeds,
        )
