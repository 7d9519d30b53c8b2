"""Names and numbers that a user gives, and what they are by default. Loads nothing heavy."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Library = Literal["auto", "stable-audio-tools", "diffusers"]

SPOKEN_DIGITS = "spoken-digits"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SHIPPED_GUIDANCE = 2.5
"""Guidance that the shipped models sound best with."""

SHIPPED_SIGMAS = (0.03, 100.0)
"""Noise that solvers end and begin with for the shipped models."""

WORD_SECONDS = 0.46
"""How long the words of the shipped models are asked to be; they learned from 0.36 to 0.56."""

SHIPPED: Mapping[str, str] = MappingProxyType({SPOKEN_DIGITS: "spoken-digits"})
"""The small models that come with this package, by name, and the folders they are in."""
