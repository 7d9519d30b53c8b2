from typing import Any

import pytest
from smoothcache_core.pipelines import PipelineClass
from smoothcache_core.pipelines.diffusers_shaped import (
    call_arguments,
    known_class,
    part_of,
    show_steps,
)


class Pipeline:
    def __init__(self, **components: Any) -> None:
        self.components = components
        self.bars: list[dict[str, Any]] = []

    def __call__(self, prompt: str, guidance_scale: float = 4.0, true_scale: float = 1.0) -> None:
        del prompt, guidance_scale, true_scale

    def set_progress_bar_config(self, **settings: Any) -> None:
        self.bars.append(settings)


class Derived(Pipeline):
    pass


TWO = PipelineClass(name="Pipeline", passes=("cond", "uncond"))


def test_a_class_is_known_by_its_name_or_that_of_a_base():
    table = (PipelineClass(name="Other"), TWO)
    assert known_class(Pipeline(), table) is TWO
    assert known_class(Derived(), table) is TWO
    assert known_class(Derived(), (TWO, PipelineClass(name="Derived"))).name == "Derived"


def test_an_unknown_class_has_the_defaults():
    assert known_class(Pipeline(), ()) == PipelineClass(name="Pipeline")


@pytest.mark.parametrize(
    ("scale", "passes"), [(None, TWO.passes), (1.0, ()), (0.0, ()), (1.5, TWO.passes)]
)
def test_guidance_that_is_off_makes_one_pass(scale: float | None, passes: tuple[str, ...]):
    assert TWO.passes_at(Pipeline(), scale) == passes


def test_the_strength_of_a_pipeline_is_that_of_its_own_argument():
    known = PipelineClass(name="Pipeline", passes=("a", "b"), guidance_argument="true_scale")
    assert known.passes_at(Pipeline(), None) == ()
    assert PipelineClass(name="Pipeline").passes_at(Pipeline(), 3.0) == ()


def test_guidance_is_set_with_what_it_needs():
    known = PipelineClass(
        name="P", guidance_argument="true_scale", guidance_needs={"negative_prompt": " "}
    )
    assert known.with_guidance(3.0) == {"true_scale": 3.0, "negative_prompt": " "}
    assert known.with_guidance(None) == {}
    assert TWO.with_guidance(3.0) == {"guidance_scale": 3.0}


def test_parts_are_found_in_the_order_of_names():
    assert part_of(Pipeline(unet="u", transformer="t"), "transformer", "unet") == "t"
    assert part_of(Pipeline(unet="u", transformer=None), "transformer", "unet") == "u"
    assert part_of(Pipeline(), "transformer") is None
    assert part_of(object(), "transformer") is None


def test_arguments_are_those_of_a_call():
    assert {"prompt", "guidance_scale"} < set(call_arguments(Pipeline()))


@pytest.mark.parametrize(("shown", "disable"), [(True, None), (False, True)])
def test_steps_are_shown_where_there_is_a_terminal(shown: bool, disable: bool | None):
    pipe = Pipeline()
    show_steps(pipe, shown)
    assert [settings["disable"] for settings in pipe.bars] == [disable]
