"""Samples for a page: plain beside what every policy made of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from smoothcache_core.evaluation.sheets import MAGNIFIED
from smoothcache_core.reports.names import file_stems
from smoothcache_core.reports.page.media import Comparison, Media, Variant
from smoothcache_core.reports.report import Report
from smoothcache_core.reports.rows import PLAIN

SAMPLES = "samples"
"""Folder of the samples of a page, within that of the report."""

_LARGEST = 512
"""Pixels of the longer side of a picture: enough to see what a cache changes on a screen, and a
page of sixty pictures stays below 50 MB."""

Shown = Callable[[Tensor, str, str], Media]
"""Returns a sample as what a page shows, from the sample, the file without a suffix, and what is to
be seen or heard."""


def compared_samples(
    report: Report,
    captions: Sequence[str],
    *,
    show: Shown,
    difference: Callable[[Tensor, Tensor, str, str], Media],
) -> list[Comparison]:
    """Return the samples that a report keeps, each plain and by every policy.

    Args:
        report: Holds samples, of all policies as many.
        captions: What they are; as many samples are shown, if there are so many.
        show: Makes a page's media of a sample.
        difference: Makes them of what changed: a plain sample, another, file and description.
    """
    stems = file_stems(row.policy for row in report.rows)
    plain = report.samples[PLAIN]

    def variant(policy: str, index: int, caption: str) -> Variant:
        sample, file = report.samples[policy][index], f"{SAMPLES}/{stems[policy]}-{index}"
        alt = f"what differs from plain in {caption}, {policy}"
        return Variant(
            policy=policy,
            media=show(sample, file, f"{caption}, {policy}"),
            difference=difference(plain[index], sample, f"{file}-difference", alt),
        )

    return [
        Comparison(
            caption=caption,
            plain=show(plain[index], f"{SAMPLES}/{stems[PLAIN]}-{index}", f"{caption}, plain"),
            variants=[variant(r.policy, index, caption) for r in report.rows if r.policy != PLAIN],
        )
        for index, caption in enumerate(captions[: len(plain)])
    ]


def compared_pictures(report: Report, captions: Sequence[str]) -> list[Comparison]:
    """Return the pictures that a report keeps, plain beside cached, with ten times the difference.

    Args:
        report: Holds pictures, (n, 1 or 3, height, width) for every policy, values in [0, 1].
        captions: What they show; as many are shown.
    """
    return compared_samples(report, captions, show=picture, difference=picture_difference)


def picture_difference(plain: Tensor, other: Tensor, file: str, alt: str) -> Media:
    """Return ten times the absolute difference of two pictures.

    Args:
        plain: (channels, height, width), values in [0, 1].
        other: Another picture, of the same shape.
        file: Where it will be, without a suffix.
        alt: What is to be seen.
    """
    apart = (other.float() - plain.float()).abs().mul(MAGNIFIED).clamp(max=1.0)
    return picture(apart, file, f"{alt}, times {MAGNIFIED}")


def picture(sample: Tensor, file: str, alt: str) -> Media:
    """Return a picture, made smaller if it has more than 512 pixels on a side.

    Args:
        sample: (1 or 3, height, width), values in [0, 1].
        file: Where it will be, without a suffix.
        alt: What is to be seen.
    """
    shown = sample.detach().float().cpu()
    largest = max(shown.shape[-2:])
    if largest > _LARGEST:
        scale = _LARGEST / largest
        shown = functional.interpolate(shown[None], scale_factor=scale, mode="area")[0]
    pixels = shown.expand(3, -1, -1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return png_media(pixels.numpy(), file, alt)


def png_media(pixels: np.ndarray, file: str, alt: str) -> Media:
    """Return pixels as a PNG file.

    Args:
        pixels: (height, width, 3) uint8.
        file: Where it will be, without a suffix.
        alt: What is to be seen.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    height, width = pixels.shape[:2]
    return Media(file=f"{file}.png", alt=alt, content=buffer.getvalue(), width=width, height=height)
