"""The table of docs/models.md: every denoiser class of the installed diffusers, and what was found.

Run with `python -m tools.models`; it takes some ten minutes on two cores. With names of classes
only their rows are made anew.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
HEAD = "| class | sites | of the MACs | whole evaluations | |"

_ABOUT = """# Models

Every denoiser class that diffusers {version} exports, at tiny size with random weights. No adapter
is used: sites are found by structure ([how](add-a-model.md)). For each class it is checked that
sites are found, that computing everything is bit-identical, that the model is restored exactly,
that parts are called as often as the schedule says, and that whole evaluations are calibrated,
planned and skipped. `python -m tools.models` makes this page, `pytest -m zoo` checks it.

- **of the MACs**: what part of the multiply-accumulates the sites do. Models of this size tell
  little of the share in a real one, where embeddings and modulation are next to nothing.
- **whole evaluations**: `planned`; or `by hand`, where the output is not like the latent, or that
  has a few numbers only at this size, so that nothing can be fitted.

{kept} of {all} keep the contract.

"""


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of a page by the class that they are of."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in lines}


def row_of(name: str) -> str:
    """Return the row of a class, after trying it."""
    from kit.denoiser_contract import keeps_contract
    from kit.denoisers import DENOISERS, NOT_DENOISERS

    if name in NOT_DENOISERS:
        return f"| `{name}` | | | | no denoiser: it {NOT_DENOISERS[name]} |"
    if name not in DENOISERS:
        return f"| `{name}` | | | | untested: it is not in `tests/kit/denoisers.json` |"
    if DENOISERS[name].reason:
        return f"| `{name}` | | | | {DENOISERS[name].reason} |"
    kept = keeps_contract(DENOISERS[name])
    whole = "planned" if kept.whole else "by hand"
    return f"| `{name}` | {kept.sites} | {kept.share:.0%} | {whole} | |"


def page_of(rows: Sequence[str]) -> str:
    """Return the page with these rows."""
    import diffusers

    denoisers = [row for row in rows if "no denoiser" not in row]
    kept = [row for row in denoisers if row.endswith("| |")]
    about = _ABOUT.format(version=diffusers.__version__, kept=len(kept), all=len(denoisers))
    return about + "\n".join((HEAD, "| --- | ---: | ---: | --- | --- |", *rows)) + "\n"


def main() -> None:
    """Make the page."""
    sys.path.append(str(ROOT / "tests"))
    import torch
    from kit.denoisers import DENOISERS, exported

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="classes whose rows are made anew; all if none")
    asked = parser.parse_args().names
    torch.set_num_threads(1)
    names = sorted({*exported(), *DENOISERS})
    known = rows_of(PAGE.read_text()) if PAGE.exists() and asked else {}
    rows = [row_of(name) if name in asked or name not in known else known[name] for name in names]
    PAGE.write_text(page_of(rows))


if __name__ == "__main__":
    main()
