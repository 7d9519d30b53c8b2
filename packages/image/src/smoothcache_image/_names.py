"""Names that a user gives: of shipped models, solvers and data types. Loads nothing."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Solver = Literal["default", "ddim", "dpmsolver++", "sde-dpmsolver++"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

DIGITS = "digits"
SHIPPED: Mapping[str, str] = MappingProxyType({DIGITS: "digits-dit", "digits-flow": "digits-flow"})
"""The small models that come with this package, by name, and the folders they are in.

Both draw handwritten digits, ten classes: `"digits"` predicts noise, `"digits-flow"` a flow.
"""
