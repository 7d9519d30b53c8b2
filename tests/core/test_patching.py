"""Attributes that objects are given for a while."""

import copy
import functools

import pytest
from smoothcache_core.errors import AttachError
from smoothcache_core.patching import Override, Patch, Patches, replaced, undone_on_error


class Decoder:
    """Somebody else's object."""

    def decode(self) -> str:
        return "decoded"


class Failed(Exception):
    pass


def other() -> str:
    return "other"


def another() -> str:
    return "another"


def test_what_the_class_has_comes_back():
    decoder = Decoder()
    with replaced(decoder, "decode", other):
        assert decoder.decode() == "other"
    assert not vars(decoder)
    assert decoder.decode() == "decoded"


@pytest.mark.parametrize("own", [other, None])
def test_what_the_object_had_of_its_own_comes_back(own: object):
    decoder = Decoder()
    vars(decoder)["decode"] = own
    with replaced(decoder, "decode", another):
        assert decoder.decode() == "another"
    assert vars(decoder) == {"decode": own}


@pytest.mark.parametrize("error", [Failed, KeyboardInterrupt])
def test_it_comes_back_after_an_exception(error: type[BaseException]):
    decoder = Decoder()
    with pytest.raises(error), replaced(decoder, "decode", other):
        raise error
    assert not vars(decoder)


def test_nested_ones_are_restored_one_by_one():
    decoder = Decoder()
    with replaced(decoder, "decode", other):
        with replaced(decoder, "decode", another):
            assert decoder.decode() == "another"
        assert decoder.decode() == "other"
    assert not vars(decoder)


def test_what_somebody_put_on_top_is_not_taken_away():
    decoder = Decoder()
    with (
        pytest.raises(AttachError, match="Decoder: something replaced `decode`"),
        replaced(decoder, "decode", other),
    ):
        vars(decoder)["decode"] = another
    assert vars(decoder) == {"decode": another}


def test_an_exception_under_way_is_passed_on_with_a_note():
    decoder = Decoder()
    with pytest.raises(Failed) as caught, replaced(decoder, "decode", other):  # noqa: PT012
        vars(decoder)["decode"] = another
        raise Failed
    assert "something replaced `decode`" in caught.value.__notes__[0]


def test_changes_are_undone_together_or_not_at_all():
    first, second = Decoder(), Decoder()
    patches = Patches(Patch(first, "decode", other), Patch(second, "decode", other))
    vars(first)["decode"] = another
    with pytest.raises(AttachError):
        patches.undo()
    assert vars(second) == {"decode": other}
    vars(first)["decode"] = other
    patches.undo()
    assert not vars(first)
    assert not vars(second)
    patches.undo()  # there is nothing left to do


def test_changes_are_undone_if_the_next_one_fails():
    decoder = Decoder()
    with pytest.raises(Failed), undone_on_error() as patches:  # noqa: PT012
        patches.add(Patch(decoder, "decode", other))
        raise Failed
    assert not vars(decoder)


def test_a_hook_may_move_it_and_gets_what_it_would_have_found():
    decoder = Decoder()
    patch = Patch(decoder, "decode", other, moves_to=("_old_decode",))
    vars(decoder).update(_old_decode=vars(decoder).pop("decode"), decode=another)
    patch.undo()
    assert vars(decoder)["decode"] is another
    assert vars(decoder)["_old_decode"]() == "decoded"


def test_a_hook_below_may_take_it_along():
    """Hooks of diffusers restore what was before them, by `functools.wraps` of it."""
    decoder = Decoder()
    vars(decoder)["decode"] = functools.wraps(other)(functools.partial(other))
    patch = Patch(decoder, "decode", another)
    vars(decoder)["decode"] = other
    patch.undo()
    assert vars(decoder) == {"decode": other}


def test_an_object_whose_methods_are_overridden_is_still_of_its_class():
    decoder = Decoder()
    override = Override(decoder, {"decode": lambda this: "other"})
    assert decoder.decode() == "other"
    assert type(decoder) == Decoder  # noqa: E721 pipelines ask like this
    assert Decoder == type(decoder)  # noqa: E721
    assert type(decoder) != Failed  # noqa: E721
    assert isinstance(decoder, Decoder)
    assert {Decoder: "known"}[type(decoder)] == "known"
    assert type(copy.deepcopy(decoder)) is Decoder
    override.undo()
    assert type(decoder) is Decoder
