"""Pipelines of videos are loaded by folder, also Open-Sora's own."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from smoothcache_core.errors import PipelineError
from smoothcache_video.loading import MOVING_DIGITS, load_pipeline, shipped_folder
from smoothcache_video.open_sora import OpenSoraPipeline


def test_a_folder_loads_as_the_class_that_it_names(open_sora_folder: Path, wan_folder: Path):
    assert type(load_pipeline(open_sora_folder, device="cpu")) is OpenSoraPipeline
    assert type(load_pipeline(str(wan_folder), device="cpu")) is WanPipeline


def test_dtype_is_that_asked_for(open_sora_folder: Path):
    pipe = load_pipeline(open_sora_folder, device="cpu", dtype="bfloat16")
    assert pipe.components["transformer"].dtype is torch.bfloat16


def test_loading_says_nothing(wan_folder: Path, capfd: pytest.CaptureFixture[str]):
    load_pipeline(wan_folder, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_the_shipped_model_has_a_folder():
    assert shipped_folder().name == MOVING_DIGITS
    with pytest.raises(PipelineError, match="the shipped models are 'moving-digits', not 'digits'"):
        shipped_folder("digits")


@pytest.mark.parametrize("name", ["./nowhere", "nowhere"])
def test_a_missing_folder_is_refused(name: str):
    with pytest.raises(PipelineError, match="one of 'moving-digits'"):
        load_pipeline(name)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"it has no model_index\.json"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"_class_name": "Nothing"}', '{"a": 1}'])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, content: str):
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(PipelineError, match="cannot load model") as refused:
        load_pipeline(tmp_path)
    assert "\n" not in str(refused.value)


def test_an_open_sora_pipeline_without_weights_is_refused_in_one_line(
    tmp_path: Path, open_sora_folder: Path
):
    index = json.loads((open_sora_folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(PipelineError, match="cannot load model") as refused:
        load_pipeline(tmp_path)
    assert "\n" not in str(refused.value)
