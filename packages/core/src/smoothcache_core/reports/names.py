"""Names of policies as names of files."""

import re
from collections.abc import Iterable

FOLDER = "schedules"
"""Folder of the schedules of a report, within its own."""


def file_stems(policies: Iterable[str]) -> dict[str, str]:
    """Return a file name, without a suffix, for every policy, all different on any file system.

    Args:
        policies: Names of policies.
    """
    stems: dict[str, str] = {}
    for policy in policies:
        own = stem = re.sub(r"[^a-z0-9.]+", "-", policy.lower()).strip("-.") or "policy"
        number = 1
        while stem in stems.values():
            number += 1
            stem = f"{own}-{number}"
        stems[policy] = stem
    return stems


def schedule_files(policies: Iterable[str]) -> dict[str, str]:
    """Return where a report keeps the schedule of every policy, relative to its folder.

    Args:
        policies: Names of policies that have a schedule.
    """
    return {policy: f"{FOLDER}/{stem}.json" for policy, stem in file_stems(policies).items()}
