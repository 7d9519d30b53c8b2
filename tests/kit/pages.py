"""A page of three modalities with everything that a page can show, and the files that it needs."""

import io
import struct
import wave
import zlib
from pathlib import Path

from smoothcache_core.reports.page import (
    Alternative,
    Comparison,
    ErrorPoint,
    Headline,
    Media,
    Page,
    Section,
    SkipMap,
    SkipRow,
    Table,
    Variant,
    write_page,
)

NASTY = '<script>alert("x")</script> & "co" 100 % #1'
"""A name of a policy that would do harm, were it markup or part of an address."""

POLICIES = ("plan 0.5", NASTY)


def png(level: int, width: int = 24, height: int = 16) -> bytes:
    """Return a grey picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    lines = (b"\0" + bytes([level]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def wav(seconds: float = 2.0, rate: int = 4000) -> bytes:
    """Return a sound."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"\0\x10" * int(seconds * rate))
    return buffer.getvalue()


def mp4(level: int, frames: int = 12) -> bytes:
    """Return a clip."""
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(frames):
            pixels = np.full((32, 32, 3), level + 5 * index, dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def picture(file: str, level: int = 90, width: int = 24) -> Media:
    return Media(
        file=f"samples/{file}.png", alt=f"a picture, {file}", content=png(level, width),
        width=width, height=16,
    )  # fmt: skip


def sound(file: str) -> Media:
    still = picture(f"{file} spectrogram", width=200)
    return Media(file=f"samples/{file}.wav", alt=f"a sound, {file}", content=wav(), preview=still)


def clip(file: str, level: int = 90) -> Media:
    return Media(
        file=f"samples/{file}.mp4", alt=f"a clip, {file}", content=mp4(level),
        preview=picture(f"{file} still", level, width=32), width=32, height=32,
    )  # fmt: skip


def comparisons(show: type | object, count: int = 2) -> list[Comparison]:
    return [
        Comparison(
            caption=f"sample {index}",
            plain=show(f"plain {index}"),  # pyright: ignore[reportCallIssue]
            variants=[
                Variant(
                    policy=policy,
                    media=show(f"{place} of {index}, 50 % #1"),  # pyright: ignore[reportCallIssue]
                    difference=picture(f"{place} of {index}, difference"),
                )
                for place, policy in enumerate(POLICIES)
            ],
        )
        for index in range(count)
    ]


def points() -> list[ErrorPoint]:
    return [
        ErrorPoint(policy="plain", kind="plain", compute=1.0, error=0.0, seconds=5.0, speedup=1.0),
        ErrorPoint(
            policy=POLICIES[0], kind="ours", compute=0.5, error=0.02, low=0.015, high=0.03,
            predicted=0.018, seconds=2.5, speedup=2.0, schedule="schedules/plan-0.5.json",
        ),
        ErrorPoint(policy=NASTY, kind="published", compute=0.45, error=0.2, predicted=0.1),
        *(ErrorPoint(policy="TeaCache", kind="peer", compute=c, error=0.1 / c) for c in (0.3, 0.6)),
        *(
            ErrorPoint(policy="predicted: parts", kind="planned", compute=c, error=0.01 / c)
            for c in (0.25, 0.5, 0.75)
        ),
    ]  # fmt: skip


def skip_maps() -> list[SkipMap]:
    rows = [
        SkipRow(
            kind=kind, site=f"blocks.{b}.{kind}", block=b,
            computed=[e % (b + 2) == 0 for e in range(10)],
        )
        for kind in ("attn", "ff")
        for b in range(3)
    ]  # fmt: skip
    whole = [SkipRow(kind="denoiser", site="", computed=[True, False] * 5)]
    return [
        SkipMap(policy=POLICIES[0], rows=rows, compute=0.5), SkipMap(policy=NASTY, rows=whole),
    ]  # fmt: skip


def section(name: str, show: object, folder: str) -> Section:
    return Section(
        name=name,
        title=f"{name.capitalize()}: {NASTY}",
        folder=folder,
        about="The small model that comes with `smoothcache`.",
        headline=Headline(
            policy=POLICIES[0], why="the least error", speedup=2.0, compute=0.5, error=0.02,
            low=0.015, high=0.03, costs=["PSNR 40 dB"], schedule="schedules/plan-0.5.json",
            line="smoothcache-image sample --schedule 'a folder/schedules/plan-0.5.json' " * 2,
            closest=Alternative(
                policy=NASTY, speedup=1.5, error=0.001, schedule="schedules/plan-0.5.json"
            ),
        ),
        comparisons=comparisons(show),
        points=points(),
        tables=[
            Table(
                caption=f"All policies of {name}",
                columns=["policy", "compute", *(f"metric {n}" for n in range(12))],
                rows=[[policy, *["0.123 +- 0.45"] * 13] for policy in POLICIES],
                notes=["compute: MACs over those of the plain run"],
            ),
            Table(caption="How", columns=["policy", "made by"], rows=[["plain", "word " * 40]]),
        ],
        skip_maps=skip_maps(),
        pictures=[picture("curves", width=900)],
        explanations="## What the numbers say\n\n`rel_l2` compares <b>latents</b>.",
        settings={"denoiser": "Toy", "versions": "torch 2.11"},
        notices=[f"no schedule for 0.1: {NASTY}"],
    )  # fmt: skip


def full_page(folder: Path) -> Path:
    """Write a page of three modalities, and return its path."""
    sections = [section("image", picture, ""), section("video", clip, "video")]
    sections.append(section("audio", sound, "my audio"))
    for each in sections:
        schedules = folder / each.folder / "schedules"
        schedules.mkdir(parents=True)
        (schedules / "plan-0.5.json").write_text("{}")
    (folder / "report.json").write_text("{}")
    across = Table(caption="Ranks", columns=["policy", "image", "video"], rows=[[NASTY, "1", "2"]])
    return write_page(
        Page(
            title=f"Three modalities: {NASTY}",
            summary=["What came out."],
            sections=sections,
            tables=[across],
            notices=["smoothcache-music is not installed"],
            files={"report.json": "all numbers"},
        ),
        folder,
    )
