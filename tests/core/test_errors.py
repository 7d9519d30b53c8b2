"""Warnings name the line of the user's own code."""

import inspect
import warnings

import pytest
import torch
from kit.helpers import ADAPTER, Toy, sample, schedule_of
from smoothcache_core import Schedule, SmoothCacheWarning, attach, cached
from smoothcache_core.errors import warn


def line() -> int:
    """Return the line that this is called from."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_warning_is_of_the_line_that_calls_the_library():
    with pytest.warns(SmoothCacheWarning, match="here") as caught:
        warn("here")
    assert (caught[0].filename, caught[0].lineno) == (__file__, line() - 1)


def test_a_warning_inside_a_model_is_of_the_line_that_calls_the_model():
    model = Toy()
    schedule = Schedule(evaluations=4, rows={"ff": (1, 0, 1, 0)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attachment = attach(model, ADAPTER, schedule)
        with torch.no_grad():
            model(torch.zeros(2, 3, 4), 9.0)
            attachment.new_run()
            model(torch.zeros(2, 3, 4), 9.0)
            where = line() - 1
        attachment.detach(quietly=True)
    assert [each.filename for each in caught] == [__file__]
    assert caught[0].lineno == where
    assert "a run ended after 1 evaluation" in str(caught[0].message)


def test_what_is_told_when_a_block_ends_is_of_the_line_of_the_block():
    model = Toy()
    where = line() + 1
    with pytest.warns(SmoothCacheWarning) as caught, cached(model, ADAPTER, schedule_of()):
        pass
    assert (caught[0].filename, caught[0].lineno) == (__file__, where)
    sample(model)
