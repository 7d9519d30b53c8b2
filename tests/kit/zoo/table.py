"""Writes docs/pipelines.md: `PYTHONPATH=tests python -m kit.zoo.table`."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from kit.zoo import ENTRIES
from kit.zoo.trial import COMPUTE, Planned, Row, tried

PAGE = Path(__file__).parents[3] / "docs" / "pipelines.md"

HEAD = """# Pipelines

Pipelines of diffusers {version} with tiny random components, taken as they are: the denoiser is
found, its sites are found by structure where its class is not known, ten steps are calibrated with
four seeds, and plans are judged on two others. Errors are relative L2 of the final latent; in
brackets are those of plain reuse, evenly spread, at no less compute. Weights are random, so this
does not tell what an error is on a trained model. It tells that the pipeline is understood: in
every row a schedule that computes everything changes no bit, a second run equals the first, and
nothing that was planned to be skipped was computed.

`PYTHONPATH=tests python -m kit.zoo.table` writes this page (with names, their rows only), `pytest
-m zoo` tests it.

- **passes**: how guidance makes its conditional and unconditional pass.
- **whole** and **guidance**: whole evaluations, and these with unconditional passes, at half the
  compute.
- **parts**: attention, feed forward and whatever else was found, at 0.7 of the compute.

| pipeline | denoiser | passes | sites | whole (plain reuse) | guidance | parts (plain reuse) |
| --- | --- | --- | --- | --- | --- | --- |
"""

REASONS = {
    "guidance batches some": "not planned: passes are batched in part",
    "not affine": "not planned: the sampler clips, rescales or blends (1)",
    "no unconditional pass": "",
    "no sites": "no sites",
    "which half of a batch": "refused: which half is conditional is not known",
    "cannot be planned for sites": "out of reach: too few MACs are in sites",
    "is out of reach": "out of reach: too few MACs are in sites",
}

NOTE = """
(1) A plan needs a solver whose latents are sums of the denoiser's outputs. Clipping (`clip_sample`,
thresholding), guidance that is normalised by its own size (`true_cfg_scale` of Qwen-Image,
`cfg_normalization` of Lumina 2), another strength of guidance for every frame (Stable Video
Diffusion) or a timestep of its own for each (SkyReels V2 with `ar_step`) are none; the calibration
says so. Schedules by rule (`smooth`) work there, and without that setting the same pipeline is
planned, as other rows show.
"""


def written(lines: Sequence[str]) -> str:
    """Return the page of these rows."""
    head = HEAD.format(version=diffusers.__version__)
    return head + "".join(f"{line}\n" for line in lines) + NOTE


def _line(row: Row) -> str:
    whole, guidance, parts = (_cell(row, target) for target in COMPUTE)
    kinds = str(len(row.kinds)) if len(row.kinds) > 4 else ", ".join(row.kinds)
    sites = f"{kinds} kinds" if kinds.isdigit() else kinds or "none"
    cells = (row.name, row.denoiser, row.passes, sites, whole, guidance, parts)
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, target: str) -> str:
    if target in row.plans:
        return _errors(row.plans[target], naive=target != "guidance")
    reason = row.reasons.get(target, "")
    return next((text for key, text in REASONS.items() if key in reason), reason)


def _errors(plan: Planned, *, naive: bool) -> str:
    return f"{plan.error:.2g} ({plan.naive:.2g})" if naive else f"{plan.error:.2g}"


def known_lines(page: str) -> dict[str, str]:
    """Return the rows of a page, by the names of their pipelines."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    named = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    return {name: line for name, line in named.items() if name not in ("pipeline", "---")}


def main(names: Sequence[str] = ()) -> int:
    """Try pipelines and write the page.

    Args:
        names: Which; all if there are none. The rows of others stay as they are.
    """
    torch.set_num_threads(1)
    lines, failed = known_lines(PAGE.read_text()), 0
    for entry in ENTRIES:
        if names and entry.name not in names and entry.name in lines:
            continue
        try:
            lines[entry.name] = _line(tried(entry))
        except Exception:  # the others are still worth knowing
            failed += 1
            sys.stderr.write(f"{entry.name}:\n{traceback.format_exc()}")
        # after each of them, so that nothing is lost where one takes long
        PAGE.write_text(written([lines[each.name] for each in ENTRIES if each.name in lines]))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
