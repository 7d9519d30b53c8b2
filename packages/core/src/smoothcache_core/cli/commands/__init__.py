"""The commands of a modality, one file for each. A new one is a file and a line in `COMMANDS`.

Nothing heavy is loaded before a command runs: help is shown at once.
"""

from inspect import cleandoc
from types import MappingProxyType

from smoothcache_core.cli.app import CommandLine, new_app, shown_examples
from smoothcache_core.cli.command import Command
from smoothcache_core.cli.commands.calibrate import Calibrate
from smoothcache_core.cli.commands.demo import Demo
from smoothcache_core.cli.commands.evaluate import Evaluate
from smoothcache_core.cli.commands.exchange import Export, Import
from smoothcache_core.cli.commands.fit import Fit
from smoothcache_core.cli.commands.memory import Memory
from smoothcache_core.cli.commands.plan import Plan
from smoothcache_core.cli.commands.push import Push
from smoothcache_core.cli.commands.sample import Sample
from smoothcache_core.cli.commands.train_router import TrainRouter
from smoothcache_core.cli.commands.transfer import Transfer
from smoothcache_core.cli.modality import Modality

COMMANDS: tuple[type[Command], ...] = (
    Demo,
    Calibrate,
    Transfer,
    Plan,
    Memory,
    Fit,
    Sample,
    Evaluate,
    Import,
    Export,
    Push,
    TrainRouter,
)
"""The commands that every modality has, in the order of the help."""

_ABOUT = """
Make diffusion transformers for {models} faster, by reusing what hardly changes from one
evaluation to the next.

Start with [bold]demo[/bold]: it needs no download and no GPU. With a model of your own:
[bold]calibrate[/bold] measures what changes and what errors would do, [bold]plan[/bold] turns
that into a schedule of what to skip, for a compute fraction, a speed-up or an error that you
name; [bold]fit[/bold] improves and measures it, [bold]sample[/bold] samples by it,
[bold]evaluate[/bold] compares it with the plain model. [bold]transfer[/bold] carries a
calibration over to another number of steps; [bold]memory[/bold] says what is kept at another size;
[bold]import[/bold] and [bold]export[/bold] read and write schedules of other programs,
[bold]push[/bold] shares them on the model hub, and [bold]train-router[/bold] learns one by
gradients.
"""


_EXAMPLES = MappingProxyType(
    {
        "": (
            "demo",
            "calibrate --samples 10 -o mine.safetensors",
            "plan mine.safetensors --compute 0.5 -o half.json",
            "sample --schedule half.json",
        ),
        "demo": ("demo --output demo-output",),
        "calibrate": ("calibrate --samples 10 -o mine.safetensors",),
        "transfer": ("transfer mine.safetensors --steps 30 -o mine-30.safetensors",),
        "plan": (
            "plan mine.safetensors --compute 0.5 -o half.json",
            "plan mine.safetensors --speedup 2 --max-bytes 2GB",
            "plan mine.safetensors --error 0.01 -o good.json",
            "plan mine.safetensors --compute 0.5 --at four.json --keep-as bfloat16",
            "plan mine.safetensors --front",
            "plan mine.safetensors --compute 0.5 --rule smooth --map",
            "plan mine.safetensors --interval 2 -o every-second.json --v1",
        ),
        "memory": ("memory --batch 4 --samples 4 --calibration mine.safetensors -o four.json",),
        "fit": (
            "fit half.json --samples 8 -o fitted.json",
            "fit quarter.json --refine 50 --checkpoint tried.json",
        ),
        "sample": (
            "sample --samples 10",
            "sample --samples 10 --schedule half.json",
            "sample --schedule me/dit-smoothcache --speedup 2",
        ),
        "evaluate": (
            "evaluate half.json smooth.json --samples 50 --batch 10 --calibration mine.safetensors",
        ),
        "import": (
            "import 50-N-3-threshold-0.18.json --format smoothcache-v1",
            "import 0020000.pt --format router --component attn1 --component ff",
        ),
        "train-router": (
            "train-router --steps 20 --updates 2000 -o router.json",
            "train-router --preset learning-to-cache --on samples --sparsity 0.002",
        ),
        "export": ("export half.json --format cache-dit",),
        "push": (
            "push me/dit-smoothcache half.json quarter.json --base-model facebook/DiT-XL-2-256",
            "push me/dit-smoothcache evaluation --base-model facebook/DiT-XL-2-256",
            "push me/dit-smoothcache half.json --output shared",
        ),
    }
)


def command_line(modality: Modality) -> CommandLine:
    """Return the program of a modality, with all commands, from demo to evaluate.

    Args:
        modality: What it is about.
    """
    name, examples = modality.command, {**_EXAMPLES, **modality.examples}
    app = new_app(
        name, about=_paragraphs(_ABOUT.format(models=modality.models)), examples=examples[""]
    )
    for order, command in enumerate((*COMMANDS, *modality.commands)):
        called = command.called()
        app.command(
            command.of(modality),
            name=called,
            sort_key=order,
            help=_help(command, modality),
            help_epilogue=shown_examples(name, examples[called]),
        )
    return CommandLine(modality=modality, app=app)


def _help(command: type[Command], modality: Modality) -> str:
    """Return the docstring of a command, in the words of the modality."""
    demo = modality.demo
    return _paragraphs(command.__doc__ or "").format(
        units=modality.units, shown=demo.title.lower(), duration=demo.duration
    )


def _paragraphs(text: str) -> str:
    """Return a text with one line for every paragraph, which the help folds to its width."""
    return "\n\n".join(" ".join(each.split()) for each in cleandoc(text).split("\n\n"))
