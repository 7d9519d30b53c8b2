"""The command line of all benchmarks: a study registers itself by one line at the end of this file.

A study is a dataclass of settings, which become its options, and a function that makes a record of
them. Threads, writing and what is printed are the same for all.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from diffusers.utils import logging as diffusers_logging

from tools.bench import results
from tools.bench.models.audio import audio
from tools.bench.models.image import IMAGE
from tools.bench.models.video import VIDEO
from tools.bench.options import set_threads
from tools.bench.records import FOLDER, Record
from tools.bench.studies import (
    compile,
    demo,
    exact_record,
    exact_settings,
    planning,
    portability,
    promises,
    quality_record,
    quality_settings,
    routers,
    seconds,
    sensitivity,
    speed_audio,
    speed_image,
    speed_video,
    targets,
)

NAME = "python -m tools.bench"
Save = Callable[[Any, Path], Path]
app = App(
    name=NAME,
    help="Measure, and write a record into benchmarks/.",
    version_flags=[],
    help_format="plaintext",
)


def group(name: str, about: str | None) -> App:
    """Return a command that is followed by a modality."""
    made = App(name=name, help=about)
    app.command(made)
    return made


def study(
    home: App,
    name: str,
    settings: type[Any],
    measure: Callable[[Any], Any],
    *,
    about: str | None = None,
    threads: int = 1,
    save: Save = Record.save,
) -> None:
    """Register a study as a command.

    Args:
        home: The command that it stands below.
        name: Its name there.
        settings: Dataclass of its options; all have defaults, what they mean stands below
            Attributes of its docstring.
        measure: Makes a record from settings, or what else `save` takes.
        about: Help of the command; by default that of `measure`.
        threads: Threads of torch, unless told otherwise; 0 leaves them.
        save: Writes a record into a folder and returns the path of its JSON file.
    """
    own_threads = threads

    def run(
        chosen: Annotated[Any, Parameter(name="*")] = None,
        *,
        threads: Annotated[
            int, Parameter(help="CPU threads of torch; 0 leaves them.")
        ] = own_threads,
        output: Annotated[Path, Parameter(help="Folder of the record.")] = FOLDER,
    ) -> None:
        set_threads(threads)
        path = save(measure(chosen or settings()), output)
        print(path.with_suffix(".md").read_text())
        beside = sorted(file.name for file in path.parent.glob(f"{path.stem}.*") if file != path)
        print(f"written to {path}, {' and '.join(beside)}")

    run.__annotations__["chosen"] = Annotated[settings | None, Parameter(name="*")]
    home.command(run, name=name, help=about or measure.__doc__)


def main(words: Sequence[str] | None = None) -> None:
    """Run a command; settings that are impossible end it with a line that says so.

    Args:
        words: The command and its options; what was typed if not given.
    """
    diffusers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="Should have t[ab]")  # torchsde, of rounding
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    try:
        command, bound, _ = app.parse_args(words)
    except ValueError as error:
        sys.exit(f"{NAME}: {error}")
    command(*bound.args, **bound.kwargs)


_quality = group("quality", quality_record.__doc__)
_exact = group("exact", exact_record.__doc__)
_speed = group("speed", speed_image.__doc__)
_seconds = group("seconds", seconds.__doc__)
_portability = group("portability", portability.__doc__)
_routers = group("routers", routers.__doc__)

study(
    _quality,
    "image",
    quality_settings.Settings,
    lambda settings: quality_record.record(IMAGE, settings),
    about="Compare policies on the digits models.",
    threads=2,
    save=quality_record.save,
)
study(
    _quality,
    "audio",
    quality_settings.AudioSettings,
    lambda settings: quality_record.record(audio(), settings),
    about="Compare policies on the spoken-digits model.",
    save=quality_record.save,
)
study(
    _quality,
    "video",
    quality_settings.VideoSettings,
    lambda settings: quality_record.record(VIDEO, settings),
    about="Compare policies on the moving-digits model.",
    threads=2,
    save=quality_record.save,
)
study(
    _exact,
    "image",
    exact_settings.Settings,
    lambda settings: exact_record.record(IMAGE, settings),
    about="Compare distances from the exact solution on the digits models.",
    save=exact_record.save,
)
study(
    _exact,
    "audio",
    exact_settings.AudioSettings,
    lambda settings: exact_record.record(audio(), settings),
    about="Compare distances from the exact solution on the spoken-digits model.",
    save=exact_record.save,
)
study(
    _exact,
    "video",
    exact_settings.VideoSettings,
    lambda settings: exact_record.record(VIDEO, settings),
    about="Compare distances from the exact solution on the moving-digits model.",
    save=exact_record.save,
)
study(_speed, "image", speed_image.ImageSettings, speed_image.measure, threads=0)
study(_speed, "audio", speed_audio.AudioSettings, speed_audio.measure, threads=0)
study(_speed, "video", speed_video.VideoSettings, speed_video.measure, threads=0)
study(app, "compile", compile.CompileSettings, compile.measure, about=compile.__doc__, threads=0)
study(_seconds, "image", seconds.ImageSettings, lambda s: seconds.measure(IMAGE, s))
study(_seconds, "audio", seconds.AudioSettings, lambda s: seconds.measure(audio(), s))
study(app, "planning", planning.Settings, planning.record, about=planning.__doc__)
study(app, "sensitivity", sensitivity.Settings, sensitivity.record, about=sensitivity.__doc__)
study(app, "promises", promises.Settings, promises.record, about=promises.__doc__)
study(_portability, "image", portability.ImageSettings, portability.measure_image)
study(_portability, "audio", portability.AudioSettings, portability.measure_audio)
study(_routers, "image", routers.Settings, lambda s: routers.record(IMAGE, s))
study(_routers, "video", routers.VideoSettings, lambda s: routers.record(VIDEO, s))
study(_routers, "audio", routers.AudioSettings, lambda s: routers.record(audio(), s))
study(app, "targets", targets.Settings, targets.record, about=targets.__doc__, save=targets.save)
app.command(demo.main, name="demo", help=demo.__doc__)
app.command(results.main, name="results", help=results.__doc__)
