"""The command `train-router`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveFloat, PositiveInt
from cyclopts.validators import Number

from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import SamplingCommand


@dataclass(frozen=True, kw_only=True)
class TrainRouter(SamplingCommand):
    """Train which outputs are reused, along the model's own samples (HarmoniCa), or on data.

    Samples, and lets scores of all parts and evaluations take steps down the error; needs no data.
    For many more samples than calibrate takes; compare what comes out by evaluate.
    """

    WORK: ClassVar[str] = "smoothcache_core.cli.routing:train_to_files"

    output: Annotated[
        Path | None,
        opt.output_option(
            "File for the schedule. Default: router-MODEL-STEPS.json. The training is kept beside "
            "it, with the ending .pt, and goes on from there.",
            file=True,
        ),
    ] = None
    force: Annotated[bool, Parameter(group=opt.FILES, help="Start anew if the files exist.")] = (
        False
    )
    preset: Annotated[
        Literal["harmonica", "learning-to-cache"],
        Parameter(
            group=opt.PLAN,
            help="Published settings: those of HarmoniCa, or of Learning-to-Cache, which decides "
            "at every other evaluation and trains on data. Other options change single ones.",
        ),
    ] = "harmonica"
    on: Annotated[
        Literal["samples", "data"] | None,
        Parameter(
            group=opt.PLAN,
            help="What is trained on: the model's own samples, or noised data, which is known of "
            "the shipped image models. Default: that of the preset.",
        ),
    ] = None
    updates: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.PLAN, help="Updates, at least 1. Default: 20000, or 50000 as published."
        ),
    ] = None
    learning_rate: Annotated[
        PositiveFloat | None,
        Parameter(group=opt.PLAN, help="Learning rate of AdamW. Default: 0.01 or 0.001."),
    ] = None
    sparsity: Annotated[
        float | None,
        Parameter(
            group=opt.PLAN,
            validator=Number(gte=0.0),
            help="Weight of the scores' sum in the loss: the larger, the less is computed. "
            "Default: 0.001.",
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Parameter(
            group=opt.PLAN,
            validator=Number(gte=0.0, lt=1.0),
            help="What the score of a computed output exceeds. Default: 0.1.",
        ),
    ] = None
    compute: Annotated[
        float | None,
        Parameter(
            group=opt.PLAN,
            validator=Number(gt=0.0, lte=1.0),
            help="In place of --threshold: the most that is computed, as a fraction of the plain "
            "run's MACs. A training that is over is only cut again.",
        ),
    ] = None
    proxy: Annotated[
        Literal["leave-one-out", "cumulative", "none"] | None,
        Parameter(
            group=opt.PLAN,
            help="How evaluations are weighed: by the final sample's change without reuse at each "
            "('leave-one-out', the paper) or with reuse up to each ('cumulative', its code), or "
            "alike ('none'). Default: that of the preset.",
        ),
    ] = None
    refresh: Annotated[
        PositiveInt | None,
        Parameter(
            group=opt.PLAN, help="Updates between two measurements of these weights. Default: 500."
        ),
    ] = None
    straight_through: Annotated[
        bool,
        Parameter(
            group=opt.PLAN,
            help="Train with outputs that are reused or computed as they will be, not mixed.",
        ),
    ] = False
    tensorboard: Annotated[
        Path | None,
        Parameter(
            group=opt.FILES,
            help="Folder for curves of loss, error and computed share, for TensorBoard.",
        ),
    ] = None
