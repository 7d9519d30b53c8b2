"""Files of a repository on the model hub, by way of huggingface_hub, which is an extra of core.

Whatever goes wrong there is told in one line. Tokens, endpoint, cache and offline mode are those of
huggingface_hub: `hf auth login`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE`.
"""

import re
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from smoothcache_core.errors import OutputError, ScheduleError, SmoothCacheError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIBRARY = "smoothcache"
"""What the hub is told of who asks, and what cards name as the library."""


class Download(TypedDict, total=False):
    """Where from, if it is a repository; as in huggingface_hub.

    Attributes:
        revision: Branch, tag or commit; the main branch if not given.
        token: Token to read with; by default that of the machine.
        cache_dir: Folder to keep what is downloaded in.
        local_files_only: Whether to use only what was downloaded before.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


class Upload(TypedDict, total=False):
    """How a repository is written; as in huggingface_hub.

    Attributes:
        revision: Branch to commit to, which is made if it is not there; the main branch if not
            given.
        token: Token to write with; by default that of the machine.
        private: Whether a new repository is private; as the account is set up if not given.
        commit_message: First line of the commit.
        create_pr: Whether to open a pull request, and leave the branch as it is.
    """

    revision: str | None
    token: str | bool | None
    private: bool | None
    commit_message: str
    create_pr: bool


def is_repository(name: str) -> bool:
    """Return whether a name is one that repositories of the hub have: `"user/name"`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def downloaded(repository: str, file: str, options: Download) -> Path:
    """Return where a file of a repository is, after downloading it if that is needed.

    Args:
        repository: Name of the repository, such as `"user/name"`.
        file: Name of a file in it.
        options: Where from exactly.

    Returns:
        The file in the cache, in the folder that has the name of its commit.

    Raises:
        ScheduleError: There is no such file, or it cannot be had; says why.
    """
    api = _api()
    with _told(f"cannot read {file} of {repository}", ScheduleError):
        return Path(api.hf_hub_download(repository, file, **options))


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a repository holds before it is written.

    Attributes:
        files: Names of all files of the branch.
        read: Returns what one of them holds.
    """

    files: Collection[str]
    read: Callable[[str], bytes]


def uploaded(
    repository: str,
    files: Mapping[str, bytes],
    options: Upload,
    outdated: Callable[[Before], Collection[str]],
) -> str:
    """Write files into a repository in one commit, and return the address of the commit.

    Args:
        repository: Name of the repository; made if it is not there.
        files: Contents by the names that they get there.
        options: How to write.
        outdated: Returns which files to delete in the same commit; all others stay.

    Raises:
        OutputError: They cannot be written; says why. What was there is as it was.
    """
    api = _api()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision, token = options.get("revision"), options.get("token")
    with _told(f"cannot push to {repository}", OutputError):
        made = api.create_repo(
            repository, private=options.get("private"), token=token, exist_ok=True
        )
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(made.repo_id, branch=revision, token=token, exist_ok=True)
        before = Before(
            files=api.list_repo_files(made.repo_id, revision=revision, token=token),
            read=lambda name: Path(
                api.hf_hub_download(made.repo_id, name, revision=revision, token=token)
            ).read_bytes(),
        )
        gone = sorted(outdated(before))
        commit = api.create_commit(
            made.repo_id,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in gone),
                *(CommitOperationAdd(name, content) for name, content in files.items()),
            ],
            commit_message=options.get("commit_message") or "Schedules of SmoothCache",
            revision=revision,
            token=token,
            create_pr=options.get("create_pr"),
        )
    return str(commit.pr_url or commit.commit_url)


def _api() -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ScheduleError(
            "the model hub needs the package huggingface_hub: pip install 'smoothcache-core[hub]'"
        ) from error
    return HfApi(library_name=LIBRARY, library_version=version("smoothcache-core"))


@contextmanager
def _told(what: str, kind: type[SmoothCacheError]) -> Generator[None]:
    """Turn whatever goes wrong into an error of this library, of one line."""
    try:
        yield
    except Exception as error:  # of huggingface_hub, of its HTTP library, of the file system
        raise kind(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors as hub

    reasons: tuple[tuple[type[Exception], str], ...] = (
        (hub.GatedRepoError, "access to it must be asked for on its page"),
        (
            hub.RepositoryNotFoundError,
            "there is no such repository, or it is private and the token is not allowed to see it "
            "(hf auth login)",
        ),
        (hub.RevisionNotFoundError, "there is no such branch, tag or commit"),
        (hub.RemoteEntryNotFoundError, "there is no such file"),
        (hub.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set"),
        (
            hub.LocalEntryNotFoundError,
            "it was not downloaded before, and the hub cannot be reached or is not to be asked",
        ),
    )
    for kind, reason in reasons:
        if isinstance(error, kind):
            return reason
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = getattr(error, "server_message", None)  # of the hub's own answers, which name a reason
    return said or (lines[0] if lines else type(error).__name__)
