"""Clips are named as VBench's evaluate.py reads them."""

import json
import re
from pathlib import Path

import pytest
import torch
from smoothcache_core.errors import OutputError
from smoothcache_video.vbench import export_for_vbench, vbench_stems


def prompt_in(stem: str) -> str:
    """What VBench takes for the prompt of a file: its name without a number at the end."""
    return re.sub(r"-\d+$", "", stem)


def test_names_are_prompts_with_a_number_for_each_clip_of_them():
    prompts = ["a cat", "a dog", "a cat", "a cat-3"]
    assert vbench_stems(prompts) == ["a cat-0", "a dog-0", "a cat-1", "a cat-3-0"]
    assert [prompt_in(stem) for stem in vbench_stems(prompts)] == prompts


@pytest.mark.parametrize("prompt", ["a/b", "long " * 100, ".hidden", "what?", "line\nbreak", ""])
def test_prompts_that_are_no_names_are_shortened(prompt: str, tmp_path: Path):
    (stem,) = vbench_stems([prompt])
    (tmp_path / f"{stem}.gif").write_bytes(b"")
    assert len(stem) < 240


def test_a_folder_says_what_its_files_show(tmp_path: Path):
    clips = torch.rand(3, 2, 3, 8, 8)
    prompts = ["a cat", "a/b", "a cat"]
    *files, asked = export_for_vbench(clips, prompts, tmp_path / "v", fps=8, kind="gif")
    assert [file.name for file in files] == ["a cat-0.gif", "0001-a-b-0.gif", "a cat-1.gif"]
    assert json.loads(asked.read_text()) == dict(
        zip([file.name for file in files], prompts, strict=True)
    )
    assert asked.name == "prompts.json"


def test_a_clip_without_a_prompt_is_refused(tmp_path: Path):
    with pytest.raises(OutputError, match="a prompt for each clip: 2 clips, 1 prompts"):
        export_for_vbench(torch.zeros(2, 1, 3, 8, 8), ["a cat"], tmp_path / "v", fps=8)
    assert not (tmp_path / "v").exists()
