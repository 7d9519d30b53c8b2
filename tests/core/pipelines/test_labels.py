import pytest
from smoothcache_core.errors import PipelineError
from smoothcache_core.pipelines.labels import chosen_classes, prompts_for, refuse_prompts

NAMES = {"fox": 0, "hen": 1, "owl": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", [2]), ("0-2", [0, 1, 2]), ("owl, fox", [2, 0]), ("1,hen,1-1,4", [1, 1, 1, 4]),
    ],
)  # fmt: skip
def test_classes_are_numbers_ranges_and_names(text: str, expected: list[int]):
    assert chosen_classes(text, names=NAMES, count=5) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "classes '5' are not among 0-4"),
        ("3-5", "classes '3-5' are not among 0-4"),
        ("3-2", "classes '3-2' are not among 0-4"),
        ("cat", r"'cat' is no class .* or names such as \['fox', 'hen', 'owl'\]"),
        ("-1", "'-1' is no class of this model"),
        ("1,", "'' is no class of this model"),
    ],
)
def test_what_is_no_class_is_refused(text: str, message: str):
    with pytest.raises(PipelineError, match=message):
        chosen_classes(text, names=NAMES, count=5)


def test_no_names_are_offered_where_there_are_none():
    with pytest.raises(PipelineError, match=r"give numbers, ranges such as 0-9$"):
        chosen_classes("cat", names={}, count=5)


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
