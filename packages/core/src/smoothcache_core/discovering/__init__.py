"""Finding the sites of a denoiser by its structure and a run of two evaluations."""

from smoothcache_core.discovering.coarser import coarser_adapters
from smoothcache_core.discovering.find import (
    Structure,
    find_by_structure,
    found_later,
    structure_of,
)

__all__ = ["Structure", "coarser_adapters", "find_by_structure", "found_later", "structure_of"]
