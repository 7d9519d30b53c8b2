import pytest
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.conditioned import prompts_for, refuse_prompts


def test_a_model_of_prompts_takes_prompts_alone():
    assert prompts_for("It", labels=None, prompts=("fox",)) == ["fox"]
    with pytest.raises(PipelineError, match="It takes prompts: give at least one"):
        prompts_for("It", labels=None, prompts=())
    with pytest.raises(PipelineError, match="It takes prompts, not class labels"):
        prompts_for("It", labels="3", prompts=("fox",))


def test_a_model_of_classes_takes_no_prompts():
    refuse_prompts("It", ())
    with pytest.raises(PipelineError, match="It takes class labels, not prompts"):
        refuse_prompts("It", ("fox",))
