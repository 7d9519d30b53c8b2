"""Clips as VBench reads them: its scores are what papers on video report (arXiv 2311.17982).

`evaluate.py` of Vchitect/VBench takes a folder of `.mp4` or `.gif` files. For its own prompts a
file is called `PROMPT-NUMBER`, with numbers from 0 on for the clips of a prompt; for other prompts
(`--mode=custom_input`) `prompts.json` beside them says which file shows what.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smoothcache_core.cli.sampling import file_stem
from smoothcache_core.errors import OutputError
from smoothcache_core.files import check_output, write_atomically
from torch import Tensor

from smoothcache_video.clip_files import FileKind, chosen_suffix, save_clip

PROMPTS = "prompts.json"
"""The file for `--prompt_file`: prompts by names of files."""

_LONGEST = 200  # bytes of a prompt that is a name: file systems take 255, with number and suffix


def export_for_vbench(
    clips: Tensor | Sequence[Tensor],
    prompts: Sequence[str],
    folder: str | Path,
    *,
    fps: float,
    kind: FileKind = "auto",
) -> list[Path]:
    """Write clips into a folder that VBench's `evaluate.py` scores.

    Example:
        >>> files = export_for_vbench(sampler.decode(latents), prompts, "vbench", fps=8)

    Args:
        clips: (n, frames, channels, height, width), values in [0, 1], or n clips without n.
        prompts: What each was asked to show, n of them.
        folder: Where to; made if it is not there.
        fps: Frames per second, above 0.
        kind: `"gif"`, `"mp4"`, or `"auto"`: MP4 where PyAV is installed.

    Returns:
        The clips in their order, and `prompts.json` last.

    Raises:
        OutputError: There is not a prompt for each clip, MP4 was asked for and PyAV is not
            installed, or a file cannot be written.
    """
    suffix = chosen_suffix(kind)
    if len(clips) != len(prompts):
        raise OutputError(
            f"VBench needs a prompt for each clip: {len(clips)} clips, {len(prompts)} prompts"
        )
    check_output(folder, folder=True)
    names = [f"{stem}{suffix}" for stem in vbench_stems(prompts)]
    files = [
        save_clip(clip, Path(folder) / name, fps=fps)
        for clip, name in zip(clips, names, strict=True)
    ]
    asked = dict(zip(names, prompts, strict=True))
    text = json.dumps(asked, indent=2, ensure_ascii=False) + "\n"
    return [*files, write_atomically(Path(folder) / PROMPTS, text.encode())]


def vbench_stems(prompts: Sequence[str]) -> list[str]:
    """Return the names of files, without suffixes, of clips of these prompts.

    A prompt that is no name of a file, as it is too long or has a slash in it, is shortened; VBench
    reads it from `prompts.json`.

    Args:
        prompts: What each clip was asked to show.
    """
    seen: Counter[str] = Counter()
    stems = []
    for number, prompt in enumerate(prompts):
        name = prompt if _is_name(prompt) else file_stem(number, prompt[:_LONGEST])
        stems.append(f"{name}-{seen[name]}")
        seen[name] += 1
    return stems


def _is_name(prompt: str) -> bool:
    return (
        prompt.isprintable()
        and not set(prompt) & set('/\\:*?"<>|')
        and prompt == prompt.strip(" .")
        and 0 < len(prompt.encode()) <= _LONGEST
    )
