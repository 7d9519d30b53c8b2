"""What a page shows: sections of one modality each, and what is said across them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smoothcache_core.errors import EvaluationError
from smoothcache_core.reports.page.media import Comparison, Media
from smoothcache_core.reports.skip_rows import SkipMap
from smoothcache_core.reports.tables import Table
from smoothcache_core.schedule.provenance import Aim

PointKind = Literal["plain", "ours", "published", "peer", "planned"]


@dataclass(frozen=True, kw_only=True)
class ErrorPoint:
    """A policy in the plot of error over compute; what is not known is None.

    Attributes:
        policy: Name of the policy; points of kind `"peer"` or `"planned"` that share it are joined
            by a line.
        kind: `"plain"`, `"ours"` or `"published"` rules that were measured; a `"peer"` that was
            measured elsewhere; `"planned"` is a prediction only.
        compute: MACs over those of the plain run, in (0, 1].
        error: Relative L2 distance of the final latents from the plain ones, or from the exact
            solution in the plot of that, at least 0.
        low: Lower end of the 95 % interval of the error.
        high: Upper end of that interval.
        predicted: The error that the schedule promised.
        seconds: Of one run.
        speedup: Plain seconds over these.
        schedule: Its file, relative to the folder of the section.
    """

    policy: str
    kind: PointKind
    compute: float
    error: float
    low: float | None = None
    high: float | None = None
    predicted: float | None = None
    seconds: float | None = None
    speedup: float | None = None
    schedule: str | None = None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What else may be used, beside what is recommended.

    Attributes:
        policy: Name of the policy.
        speedup: Plain seconds over its seconds.
        error: Relative L2 distance of the final latents from what it aims at, at least 0.
        schedule: Its file, relative to the folder of the section.
    """

    policy: str
    speedup: float
    error: float
    schedule: str | None = None


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What is said first of a section: what was gained, what it cost, and what to use.

    Attributes:
        policy: Name of the policy that is recommended.
        why: Why that one, a clause that follows its name.
        speedup: Plain seconds over its seconds.
        compute: MACs over those of the plain run, in (0, 1], if known.
        error: Relative L2 distance of the final latents from `distance_from`, at least 0.
        low: Lower end of the 95 % interval of the error, if known.
        high: Upper end of that interval, if known.
        distance_from: The plain samples, or the exact solution of their noise.
        costs: What else it costs, such as `"PSNR 41.2 dB"`.
        schedule: Its file, relative to the folder of the section.
        line: The command that samples with it.
        closest: What errs least, where that is another one.
    """

    policy: str
    why: str = ""
    speedup: float
    compute: float | None = None
    error: float
    low: float | None = None
    high: float | None = None
    distance_from: Aim = "plain"
    costs: Sequence[str] = ()
    schedule: str | None = None
    line: str | None = None
    closest: Alternative | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """What is shown of one modality. Everything but its name and title may be left out.

    Attributes:
        name: A word of small letters that no other section of the page has, such as `"image"`.
        title: Title of the section.
        folder: Where its files are, relative to the page, such as `"image"`; `""` if beside it.
        about: Text that comes first: paragraphs, parted by empty lines, with `code` in backticks.
        headline: What was gained, what it cost, and what to use.
        comparisons: Samples, plain beside cached.
        points: Policies in the plot of error over compute.
        exact_points: The same with their distances from the exact solution, where these were
            measured.
        tables: Tables in their order, the one of all policies first.
        skip_maps: What every schedule computes and fills.
        pictures: Further pictures, whose `alt` is shown as their caption.
        explanations: What the numbers say, written like `about`.
        settings: What was measured and how, by name.
        notices: What could not be shown, and why, and what else readers must know.

    Raises:
        EvaluationError: The name is no such word.
    """

    name: str
    title: str
    folder: str = ""
    about: str = ""
    headline: Headline | None = None
    comparisons: Sequence[Comparison] = ()
    points: Sequence[ErrorPoint] = ()
    exact_points: Sequence[ErrorPoint] = ()
    tables: Sequence[Table] = ()
    skip_maps: Sequence[SkipMap] = ()
    pictures: Sequence[Media] = ()
    explanations: str = ""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    notices: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise EvaluationError(
                f"a section's name is a word of small letters, such as 'image', got {self.name!r}"
            )

    def media(self) -> Iterator[Media]:
        """Return every file that is shown or played."""
        for comparison in self.comparisons:
            yield from comparison.media()
        for picture in self.pictures:
            yield from picture.all()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report as a page.

    Attributes:
        title: Title of the page.
        summary: What came out, first of all: paragraphs.
        sections: One for each modality, at least one.
        tables: Tables across the sections.
        notices: What could not be shown at all, and why.
        files: What else is in the folder, by file name relative to it.

    Raises:
        EvaluationError: There is no section, or two have the same name.
    """

    title: str
    summary: Sequence[str] = ()
    sections: Sequence[Section]
    tables: Sequence[Table] = ()
    notices: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        if not names or len(set(names)) < len(names):
            raise EvaluationError(f"a page has sections of different names, got {names}")
