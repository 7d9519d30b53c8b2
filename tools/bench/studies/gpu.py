"""What does caching do on a GPU: time, memory, device synchronisations, eagerly and compiled?

DiT-XL/2 at 256 and 512 pixels and Stable Audio Open's transformer, weights random, in bfloat16,
guidance in one batch: the plain model, this library by sites and by whole evaluations, and other
people's caches; eagerly, compiled block by block, compiled as a whole, and as CUDA graphs. What is
most worth knowing goes first. Every measurement looks at the clock before it begins; what does not
fit, and what fails, is named in the record with its reason.
"""

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from smoothcache_core.schedule import Cost
from torch import nn
from torch._dynamo.utils import counters

from tools.bench.baselines.diffusers_hooks import first_block_by, mag_every, taylorseer_every
from tools.bench.baselines.hosts import Host, masked
from tools.bench.baselines.ours import smoothcache, whole_evaluations
from tools.bench.baselines.peers import ALMOST_ALWAYS, ALWAYS, quiet
from tools.bench.counting import counting, macs_by_leaf
from tools.bench.models import dit_xl, image_policies
from tools.bench.policies import PLAIN, Policy, all_computed, spaced
from tools.bench.records import REPOSITORY, Record, Row, new_record
from tools.bench.shared_weights import sharing
from tools.bench.studies.speed import SEED, Sampler, Subject, cost_of, times_of
from tools.bench.studies.speed_image import image_subject
from tools.bench.timing import Seconds, judge, race

Way = Literal["eager", "regional", "whole", "graphs"]

QUESTION = "What does caching do on a GPU: time, memory, device synchronisations, compiled or not?"
NOTES = (
    "milliseconds is the time of one evaluation, the solver's step with it; seconds that of a run. "
    "speedup is over the plain model compiled in the same way: one over the median of paired "
    "ratios of whole runs in lockstep; speedup_low and speedup_high are its 95 % bootstrap "
    "interval. of_limit is speedup x compute, 1 if every MAC saved were time saved.",
    "compiled: eager; regional, every block by itself; whole, the model; graphs, the model with "
    'mode="reduce-overhead", which replays CUDA graphs.',
    "overhead of the policy that computes everything is how much longer its evaluations take than "
    "the plain model's, here in whole runs.",
    "compute is MACs over the plain model's, counted by the calls of the layers in an eager run.",
    "bytes_peak is the most that this library's cache held, predicted_bytes what the schedule says "
    "of it before; peak_over_start is what a run allocates on the device beyond what was there.",
    "syncs_per_evaluation counts calls that wait for the device while the denoiser is called "
    "(torch.cuda.set_sync_debug_mode), without the solver's step.",
    "first_run_seconds is a run with all compilation in it; graphs and graph_breaks are torch's "
    "own counters over it. rel_l2 is the relative L2 difference of the final latent from the same "
    "policy run eagerly.",
)
COMPUTES = (0.5, 0.25)
RESERVE = 25.0  # seconds: for writing, and for what no clock interrupts
PATIENCE: Mapping[Way, float] = {"eager": 5.0, "regional": 40.0, "whole": 90.0, "graphs": 90.0}
"""Seconds that must be left before a policy is begun: what compiling a full-size model may take."""
ROUNDS = 5  # timed runs of every policy, if there is time


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the check.

    Attributes:
        minutes: It ends within so many.
        device: cuda or cpu.
        small: Tiny models and few evaluations, to see that it runs to its end.
        tests: Also run the tests that need a GPU, if the device is one.
    """

    minutes: float = 8.0
    device: str = "cuda"
    small: bool = False
    tests: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """Data type of models and latents."""
        return torch.float32 if self.small else torch.bfloat16


class OutOfTimeError(BaseException):
    """The time is up; no measurement may take it for its own error."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When all must be done."""

    end: float

    def left(self) -> float:
        """Seconds left for measurements."""
        return self.end - time.monotonic() - RESERVE

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Raise `OutOfTimeError` inside when the time is up."""

        def ring(number: int, frame: object) -> None:
            del number, frame
            raise OutOfTimeError

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.01))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------- what is measured


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """A model to measure, and how it is compiled.

    Attributes:
        subject: The model and its solver; its policies are those that are compared.
        evaluations: Evaluations of one run.
        blocks: Returns the blocks that are compiled by themselves.
        backend: Backend of `torch.compile`; "eager" takes no time.
    """

    subject: Subject
    evaluations: int
    blocks: Callable[[Any], nn.ModuleList]
    backend: str = "inductor"


def policies(host: Host, kinds: Sequence[str], *, threshold: float) -> list[Policy]:
    """Return everything that is compared on a model.

    Args:
        host: Where peers' caches go.
        kinds: Kinds of sites, which are names of components of a block.
        threshold: That of cache-dit, at which it skips where its mask says.
    """
    half, what = spaced(0.5), ", ".join(kinds)
    modules = [rf"{host.blocks}\.\d+\.({'|'.join(kinds)})"]
    ours = {f"{what} at {each:g}": smoothcache(*kinds, row=spaced(each)) for each in COMPUTES} | {
        f"whole evaluations at {each:g}, filled": whole_evaluations(spaced(each))
        for each in COMPUTES
    }
    everything = smoothcache(*kinds, row=all_computed)
    return [
        PLAIN,
        *(Policy(name="smoothcache", setting=k, attach=v, ours=True) for k, v in ours.items()),
        Policy(name="smoothcache", setting="all computed", attach=everything, ours=True),
        Policy(
            name="dit-smoothcache",
            setting=f"{what} at 0.5",
            attach=host.dit_smoothcache(lambda steps: dict.fromkeys(kinds, half(steps))),
        ),
        Policy(
            name="cache-dit",
            setting="DBCache, 1 block always computed, mask of evaluations at 0.5",
            attach=host.cache_dit(lambda steps: masked(half(steps), blocks=1, threshold=threshold)),
        ),
        Policy(
            name="taylorseer",
            setting=f"{what}, order 1, every second evaluation",
            attach=host.diffusers(taylorseer_every(cache_identifiers=modules)),
        ),
        Policy(
            name="first-block-cache",
            setting="all blocks but the first, mask of evaluations at 0.5",
            attach=first_block_by(host, half),
        ),
        Policy(
            name="magcache",
            setting="all blocks, every second evaluation",
            attach=host.diffusers(mag_every()),
        ),
    ]


def image_testbed(
    size: dit_xl.Size, *, images: int, evaluations: int, backend: str = "inductor"
) -> Testbed:
    """Return a DiT; every image has a conditional and an unconditional row."""
    found = policies(image_policies.HOST, ("attn1", "ff"), threshold=ALMOST_ALWAYS)
    subject = image_subject(size, images=images, policies=found)
    return Testbed(
        subject=subject,
        evaluations=evaluations,
        blocks=lambda model: model.transformer_blocks,
        backend=backend,
    )


def audio_testbed(*, small: bool, sounds: int, evaluations: int) -> Testbed:
    """Return Stable Audio Open's transformer.

    Raises:
        ImportError: stable-audio-tools is not installed.
    """
    from tools.bench.models import audio_policies, stable_audio
    from tools.bench.studies.speed_audio import audio_subject

    size = stable_audio.Size(layers=2, heads=2, seconds=0.5) if small else stable_audio.Size()
    found = policies(audio_policies.host(), audio_policies.KINDS, threshold=ALWAYS)
    return Testbed(
        subject=audio_subject(size, sounds=sounds, policies=found),
        evaluations=evaluations,
        blocks=lambda model: model.transformer.layers,
    )


def testbeds(settings: Settings) -> dict[str, Callable[[], Testbed]]:
    """Return what is measured by name."""
    if settings.small:
        tiny = dit_xl.Size(num_layers=2, num_attention_heads=2, sample_size=8)
        return {
            "image": partial(image_testbed, tiny, images=1, evaluations=6, backend="eager"),
            "audio": partial(audio_testbed, small=True, sounds=1, evaluations=6),
        }
    large = dit_xl.Size(sample_size=64)
    return {
        "image 256": partial(image_testbed, dit_xl.Size(), images=8, evaluations=50),
        "audio": partial(audio_testbed, small=False, sounds=4, evaluations=50),
        "image 512": partial(image_testbed, large, images=4, evaluations=50),
    }


def cases(names: Sequence[str], *, small: bool) -> list[tuple[str, Way]]:
    """Return what is measured in which order: what is most worth knowing first."""
    first, *others = names
    ways: Sequence[Way] = ("regional",) if small else ("regional", "graphs", "whole")
    return [
        *((name, "eager") for name in names),
        *((first, way) for way in ways),
        *((name, way) for way in ways for name in others if not small),
    ]


# ---------------------------------------------------------------------------- measuring


@dataclass
class Findings:
    """What is known of one testbed so far.

    Attributes:
        testbed: The testbed.
        rows: One for each way of compiling and policy.
        refused: What was not measured, with the reason.
        latents: Final latents of eager runs, by the key of the policy.
        computes: MACs over those of the plain run, by the key of the policy.
    """

    testbed: Testbed
    rows: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    latents: dict[str, torch.Tensor] = field(default_factory=dict)
    computes: dict[str, float] = field(default_factory=dict)

    def refuse(self, way: Way, policy: Policy, reason: str) -> None:
        """Note what was not measured."""
        known = {"compiled": way, "policy": policy.name, "setting": policy.setting}
        self.refused.append(known | {"reason": reason})


def compiled(testbed: Testbed, model: Any, way: Way) -> Any:
    """Return a model compiled in a way."""
    if way == "regional":
        for block in testbed.blocks(model):
            block.compile(fullgraph=True, backend=testbed.backend)
    if way in ("eager", "regional"):
        return model
    mode = "reduce-overhead" if way == "graphs" else None
    return torch.compile(model, fullgraph=True, backend=testbed.backend, mode=mode)


def measure_case(findings: Findings, model: Any, cost: Cost, way: Way, clock: Clock) -> None:
    """Measure all policies in one way of compiling, as far as the time allows."""
    testbed = findings.testbed
    torch.compiler.reset()
    with ExitStack() as stack:
        samplers: dict[Policy, Sampler] = {}
        facts: dict[Policy, dict[str, Any]] = {}
        for policy in testbed.subject.policies:
            if way in ("whole", "graphs") and not policy.ours and policy != PLAIN:
                findings.refuse(way, policy, "not run: it goes inside the model, not around it")
            elif clock.left() < PATIENCE[way]:
                findings.refuse(way, policy, f"not run: {max(clock.left(), 0.0):.0f} s were left")
            else:
                try:
                    samplers[policy], facts[policy] = _begun(stack, findings, model, policy, way)
                except Exception as error:
                    findings.refuse(way, policy, _reason(error))
        if PLAIN not in samplers:
            return
        seconds = _raced(testbed, samplers, facts, clock)
        for policy, sampler in samplers.items():
            row = _row(findings, policy, sampler, facts[policy], seconds, cost, way)
            findings.rows.append(row)


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


def _begun(
    stack: ExitStack, findings: Findings, model: Any, policy: Policy, way: Way
) -> tuple[Sampler, dict[str, Any]]:
    """Attach a policy, make a first and a second run, and leave it attached."""
    testbed = findings.testbed
    with ExitStack() as own:
        copy = compiled(testbed, sharing(model), way)
        sampling = testbed.subject.sampling(copy, policy, testbed.evaluations)
        sampler: Any = own.enter_context(sampling)
        if way == "graphs":
            sampler = _Marked(sampler)
        with quiet():
            facts = _first_run(sampler, testbed.evaluations)
            macs = macs_of(testbed, model) if way == "eager" else {}
            facts |= _second_run(sampler, testbed.evaluations, counted=macs)
        if way == "eager":
            _keep(findings, policy, facts)
        stack.push(own.pop_all())
    return sampler, facts


def _keep(findings: Findings, policy: Policy, facts: dict[str, Any]) -> None:
    """Keep what compiled runs are compared with: the eager latent, and compute."""
    findings.latents[policy.key] = facts["latent"]
    findings.computes[policy.key] = facts.pop("macs")


def macs_of(testbed: Testbed, model: Any) -> Mapping[str, int]:
    """Return the MACs of one batch row in a call of every layer."""
    with testbed.subject.sampling(sharing(model), PLAIN, 4) as plain:
        plain.start()
        return macs_by_leaf(plain.model, lambda: plain.evaluate(0))


def _run(sampler: Sampler, evaluations: int, around: Callable[[], Any]) -> None:
    sampler.start()
    for evaluation in range(evaluations):
        with around():
            sampler.evaluate(evaluation)
        sampler.advance(evaluation)


def _first_run(sampler: Sampler, evaluations: int) -> dict[str, Any]:
    """Make a run; return its seconds, what it compiled and its final latent."""
    counters.clear()
    begin = time.perf_counter()
    _run(sampler, evaluations, ExitStack)
    latent = sampler.latent.float().cpu()  # waits for the device
    return {
        "first_run_seconds": time.perf_counter() - begin,
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "latent": latent,
    }


def _second_run(
    sampler: Sampler, evaluations: int, *, counted: Mapping[str, int]
) -> dict[str, Any]:
    """Make a run; return its seconds, MACs, memory and device synchronisations."""
    waits: list[int] = []
    on_gpu = sampler.latent.is_cuda
    with ExitStack() as stack:
        tally = stack.enter_context(counting(sampler.model, counted)) if counted else None
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated() if on_gpu else 0
        begin = time.perf_counter()
        _run(sampler, evaluations, partial(_waiting, waits) if on_gpu else ExitStack)
        if on_gpu:
            torch.cuda.synchronize()
        found: dict[str, Any] = {"run_seconds": time.perf_counter() - begin}
        if on_gpu:
            found["peak_over_start"] = torch.cuda.max_memory_allocated() - start
            found["syncs_per_evaluation"] = sum(waits) / evaluations
    return found | ({"macs": tally.macs} if tally else {})


@contextmanager
def _waiting(waits: list[int]) -> Generator[None]:
    """Note how many calls inside wait for the device."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits.append(sum("synchronizing CUDA" in str(each.message) for each in told))


def _raced(
    testbed: Testbed,
    samplers: Mapping[Policy, Sampler],
    facts: Mapping[Policy, Mapping[str, Any]],
    clock: Clock,
) -> dict[str, Seconds]:
    """Time whole runs in lockstep, as many as there is time for, one at least."""
    once = sum(each["run_seconds"] for each in facts.values())
    rounds = min(max(int(0.5 * clock.left() / once), 1), ROUNDS)
    with quiet():
        return race(
            {policy.key: sampler for policy, sampler in samplers.items()},
            evaluations=testbed.evaluations,
            rounds=rounds,
            piece="run",
            device=next(iter(samplers.values())).latent.device,
            seed=SEED,
            progress=False,
        )


@dataclass(frozen=True)
class _Marked:
    """A sampler that tells CUDA graphs when an evaluation begins."""

    sampler: Sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def evaluate(self, evaluation: int) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        self.sampler.evaluate(evaluation)


def _row(
    findings: Findings,
    policy: Policy,
    sampler: Sampler,
    facts: Mapping[str, Any],
    seconds: Mapping[str, Seconds],
    cost: Cost,
    way: Way,
) -> Row:
    subject, evaluations = findings.testbed.subject, findings.testbed.evaluations
    verdict = judge(seconds[policy.key], seconds[PLAIN.key], [0])
    schedule, stats = sampler.attached.schedule, sampler.attached.stats
    compute = 1.0 if schedule is None else schedule.compute_fraction(cost)
    if policy.key in findings.computes:
        compute = findings.computes[policy.key] / findings.computes[PLAIN.key]
    row: dict[str, Any] = {
        "modality": subject.modality,
        "model": subject.model,
        "full_size": subject.full_size,
        "solver": subject.solver,
        "evaluations": evaluations,
        "compiled": way,
        "policy": policy.name,
        "setting": policy.setting,
        "ours": policy.ours,
        "compute": compute,
        "milliseconds": 1000.0 * verdict.seconds / evaluations,
        **times_of(verdict, compute),
    }
    if policy.setting == "all computed":
        row["overhead"] = verdict.relative - 1.0
    if schedule is not None and stats is not None:
        row["predicted_compute"] = schedule.compute_fraction(cost)
        row["bytes_peak"] = stats.bytes_peak
        row["predicted_bytes"] = schedule.predicted_bytes(cost)
    kept = ("first_run_seconds", "graphs", "graph_breaks", "peak_over_start")
    row |= {key: facts[key] for key in (*kept, "syncs_per_evaluation") if key in facts}
    if policy.key in findings.latents:
        wanted = findings.latents[policy.key]
        row["rel_l2"] = float((facts["latent"] - wanted).norm() / wanted.norm())
    return row


# ---------------------------------------------------------------------------- all of it


@torch.no_grad()
def measure(settings: Settings) -> list[Record]:
    """Measure as much as there is time for, and return a record of every modality.

    Args:
        settings: The settings.
    """
    clock = Clock(end=time.monotonic() + 60.0 * settings.minutes)
    tests = _tests(settings, clock)
    found: dict[str, Findings] = {}
    missing: list[Row] = []
    prepared: dict[str, tuple[Any, Cost]] = {}
    todo = cases(list(testbeds(settings)), small=settings.small)
    try:
        with clock.interrupting():
            while todo:
                name, way = todo[0]
                _measure_one(settings, name, way, found, prepared, missing, clock)
                todo.pop(0)
    except OutOfTimeError:
        missing += [_not_run(name, way, "not run: the time was up") for name, way in todo]
    return _records(settings, found, missing, tests)


def _measure_one(
    settings: Settings,
    name: str,
    way: Way,
    found: dict[str, Findings],
    prepared: dict[str, tuple[Any, Cost]],
    missing: list[Row],
    clock: Clock,
) -> None:
    """Measure one case; what cannot be built or measured is noted."""
    if clock.left() < PATIENCE[way]:
        missing.append(_not_run(name, way, f"not run: {max(clock.left(), 0.0):.0f} s were left"))
        return
    try:
        if name not in found:
            testbed = testbeds(settings)[name]()
            model = testbed.subject.build(torch.device(settings.device), settings.dtype)
            prepared[name] = model, cost_of(testbed.subject, model)
            found[name] = Findings(testbed=testbed)
        measure_case(found[name], *prepared[name], way, clock)
    except Exception as error:
        missing.append(_not_run(name, way, _reason(error)))


def _not_run(name: str, way: Way, reason: str) -> Row:
    return {"compiled": way, "policy": "all", "setting": name, "reason": reason}


def _tests(settings: Settings, clock: Clock) -> str:
    """Run the tests that need a GPU; return what they said at the end."""
    if not (settings.tests and settings.device.startswith("cuda")):
        return "not run"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=clock.left() / 4
        )
    except subprocess.TimeoutExpired as error:
        return f"not ended within {error.timeout:.0f} s"
    return ((done.stdout or done.stderr).strip().splitlines() or ["nothing was said"])[-1]


def _records(
    settings: Settings, found: Mapping[str, Findings], missing: Sequence[Row], tests: str
) -> list[Record]:
    """Return a record of every modality of which there is something to say."""
    made: list[Record] = []
    for modality in ("image", "audio"):
        mine = [each for each in found.values() if each.testbed.subject.modality == modality]
        refused = [row for each in mine for row in each.refused]
        refused += [row for row in missing if row["setting"].startswith(modality)]
        rows = [row for each in mine for row in each.rows]
        if rows or refused:
            made.append(_record(settings, modality, mine, rows, refused, tests))
    return made


def _record(
    settings: Settings,
    modality: str,
    mine: Sequence[Findings],
    rows: Sequence[Row],
    refused: Sequence[Row],
    tests: str,
) -> Record:
    known = {each.testbed.subject.model: each.testbed.subject.batch for each in mine}
    packages = ("torch", "triton", "diffusers", "stable-audio-tools", "smoothcache-core")
    ours = [row for row in rows if row["ours"]]
    checks = {"schedules keep the bytes that they predict": _all_equal(ours)} if ours else {}
    waits = [row["syncs_per_evaluation"] for row in ours if "syncs_per_evaluation" in row]
    if waits:
        plain = {
            (row["model"], row["compiled"]): row["syncs_per_evaluation"]
            for row in rows
            if row["policy"] == PLAIN.name
        }
        checks["no cache of ours waits for the device more often than the plain model"] = all(
            row["syncs_per_evaluation"] <= plain[row["model"], row["compiled"]] for row in ours
        )
    overheads = [
        row["overhead"] for row in ours if "overhead" in row and row["compiled"] == "eager"
    ]
    shown = [f"{overhead:.2%}" for overhead in overheads]
    return new_record(
        what="gpu",
        modality=modality,
        question=QUESTION,
        packages=(*packages, "dit-smoothcache", "cache-dit"),
        device=torch.device(settings.device),
        seeds={"calibration": [], "evaluation": [SEED]},
        settings={
            "dtype": str(settings.dtype).removeprefix("torch."),
            "batch": "; ".join(f"{model}: {batch}" for model, batch in known.items()),
            "timed": "whole runs, in lockstep, order shuffled",
            "weights": "random",
            "minutes": settings.minutes,
            "gpu_tests": tests,
            "overhead of an all-compute schedule, eager": ", ".join(shown) or "not known",
        },
        rows=rows,
        refused=refused,
        notes=NOTES,
        checks=checks,
    )


def _all_equal(ours: Sequence[Row]) -> bool:
    return all(row["bytes_peak"] == row["predicted_bytes"] for row in ours)
