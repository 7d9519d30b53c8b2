"""Pictures, sounds and clips of a page, and the same sample by several policies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from smoothcache_core.errors import EvaluationError

MediaKind = Literal["picture", "sound", "clip"]

KINDS: dict[str, MediaKind] = {
    ".png": "picture",
    ".jpg": "picture",
    ".gif": "picture",
    ".webp": "picture",
    ".svg": "picture",
    ".wav": "sound",
    ".flac": "sound",
    ".mp3": "sound",
    ".mp4": "clip",
    ".webm": "clip",
}
"""What browsers can show, by the suffix of a file."""


@dataclass(frozen=True, kw_only=True)
class Media:
    """A file that a page shows or plays.

    Attributes:
        file: Where it is, relative to the folder of its section, with `/`: `"samples/three.png"`.
        alt: What is to be seen or heard, for those who cannot see it.
        content: What to write there; None if the file is there already.
        preview: A still picture: the spectrogram of a sound, or a frame of a clip or of a GIF file,
            shown to those who want no movement.
        width: Its width in pixels, if known; small pictures are enlarged without smoothing.
        height: Its height in pixels, if known.

    Raises:
        EvaluationError: The file is not below the folder, or is of a kind that no browser shows, or
            the preview is no picture.
    """

    file: str
    alt: str
    content: bytes | None = field(default=None, repr=False)
    preview: "Media | None" = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        check_inside(self.file)
        if PurePosixPath(self.file).suffix.lower() not in KINDS:
            raise EvaluationError(f"a page shows files of {', '.join(KINDS)}, not {self.file!r}")
        if self.preview is not None and self.preview.kind != "picture":
            raise EvaluationError(f"a preview is a picture, not {self.preview.file!r}")

    @property
    def kind(self) -> MediaKind:
        """What it is, as its suffix says."""
        return KINDS[PurePosixPath(self.file).suffix.lower()]

    def all(self) -> "Iterator[Media]":
        """Return it, and its preview if it has one."""
        yield self
        if self.preview is not None:
            yield self.preview


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a policy made of a sample.

    Attributes:
        policy: Name of the policy.
        media: The sample, as this policy made it.
        difference: How it differs from the plain one, if that can be shown.
    """

    policy: str
    media: Media
    difference: Media | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One sample: plain, and from the same noise by every policy.

    Attributes:
        caption: What was asked for, such as `"a three"`.
        plain: The sample of the plain run.
        variants: What the other policies made of it.
    """

    caption: str
    plain: Media
    variants: Sequence[Variant]

    def media(self) -> Iterator[Media]:
        """Return everything that it shows."""
        yield from self.plain.all()
        for variant in self.variants:
            yield from variant.media.all()
            if variant.difference is not None:
                yield from variant.difference.all()


def check_inside(file: str) -> None:
    """Refuse a name that is not of a file below the folder of a page.

    Args:
        file: Name relative to that folder, with `/` between its parts.

    Raises:
        EvaluationError: It is empty or absolute, leaves the folder, or has a backslash.
    """
    parts = file.split("/")
    if "\\" in file or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        raise EvaluationError(f"a page's files lie in its folder, as 'samples/1.png', got {file!r}")
