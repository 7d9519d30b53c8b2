"""Running the sampling scripts in tests, by the words of their command lines."""

from types import ModuleType
from typing import Any

import pytest

from tools.sample.options import run_script


def run(script: ModuleType, *words: object) -> Any:
    """Run a script in this process."""
    return run_script(
        script.__name__.rpartition(".")[2], script.main, [str(word) for word in words]
    )


def refused(script: ModuleType, *words: object) -> str:
    """Run a script that must end in one line, and return the line."""
    with pytest.raises(SystemExit) as ended:
        run(script, *words)
    assert "\n" not in str(ended.value)
    return str(ended.value)
