"""The command `judge`. Loads nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Path as Place
from smoothcache_core.cli import options as opt
from smoothcache_core.cli.command import Command

PAPERS = Group("Metrics of papers", sort_key=9)


@dataclass(frozen=True, kw_only=True)
class Judge(Command):
    """Judge {units} in WAV files, such as sample writes plain and by a schedule.

    Files of one name are compared. The metrics of papers are for whoever asks: KL-PaSST of a cached
    sound from the plain one, the CLAP scores with prompts, the FD-OpenL3 of either folder with
    recordings. Their networks are loaded before anything is judged.
    """

    WORK: ClassVar[str] = "smoothcache_audio.judge_files:judge_files"

    plain: Annotated[Path, Parameter(group=opt.ARGUMENTS, help="Folder of the plain sounds.")] = (
        field(kw_only=False)
    )
    cached: Annotated[
        Path,
        Parameter(group=opt.ARGUMENTS, help="Folder of the cached ones, of the same names."),
    ] = field(kw_only=False)
    kl_passt: Annotated[
        bool, Parameter(group=PAPERS, help="KL-PaSST too, in nats; needs hear21passt.")
    ] = False
    prompts: Annotated[
        Path | None,
        Parameter(
            group=PAPERS,
            validator=Place(dir_okay=False),
            help="Text file for CLAP: a prompt per line, in the order of the names.",
        ),
    ] = None
    recordings: Annotated[
        Path | None,
        Parameter(
            group=PAPERS,
            help="Folder of recordings (WAV) for FD-OpenL3; needs torchopenl3.",
        ),
    ] = None
    clap: Annotated[
        str, Parameter(group=PAPERS, help="A CLAP model folder, or a name on the model hub.")
    ] = "laion/clap-htsat-fused"
    content: Annotated[
        Literal["env", "music"], Parameter(group=PAPERS, help="What OpenL3 was trained on.")
    ] = "env"
    device: Annotated[str, Parameter(group=PAPERS, help="Torch device of the networks.")] = "cpu"
