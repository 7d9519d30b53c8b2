"""Writing a page into a folder."""

from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from smoothcache_core.errors import EvaluationError
from smoothcache_core.files import check_output, write_atomically
from smoothcache_core.reports import style
from smoothcache_core.reports.page import plot, views
from smoothcache_core.reports.page.media import check_inside
from smoothcache_core.reports.page.values import Page

PAGE = "index.html"
"""Name of the file that is to be opened."""


def write_page(page: Page, folder: str | Path) -> Path:
    """Write a page and the files that it shows, `index.html` last, each in one step.

    The folder needs nothing else: no network, and no program that serves it.

    Args:
        page: What to show.
        folder: Where to; made if it is not there.

    Returns:
        The path of `index.html`.

    Raises:
        EvaluationError: A file that the page names is not in the folder, or is to be written twice
            with different contents.
        OutputError: The folder or a file cannot be written.
    """
    target = Path(folder)
    check_output(target, folder=True)
    contents = _contents(page)
    named = {*contents, *_named(page)}
    for name in named:
        check_inside(name)
    for name, content in contents.items():
        if content is not None:
            write_atomically(target / name, content)
    missing = sorted(name for name in named if not (target / name).exists())
    if missing:
        raise EvaluationError(f"the page names files that are not in {str(target)!r}: {missing}")
    return write_atomically(target / PAGE, rendered(page).encode())


def _contents(page: Page) -> dict[str, bytes | None]:
    """Return what is shown or played by name, with what is to be written there."""
    contents: dict[str, bytes | None] = {}
    for section in page.sections:
        for media in section.media():
            name = within(section.folder, media.file)
            before = contents.get(name)
            if None not in (before, media.content) and before != media.content:
                raise EvaluationError(f"two different files of a page are called {name!r}")
            contents[name] = before if media.content is None else media.content
    return contents


def _named(page: Page) -> set[str]:
    """Return the other files that a page names."""
    named = set(page.files)
    for section in page.sections:
        schedules = [point.schedule for point in section.points]
        if section.headline is not None:
            schedules.append(section.headline.schedule)
            closest = section.headline.closest
            schedules.append(None if closest is None else closest.schedule)
        named |= {within(section.folder, name) for name in schedules if name is not None}
    return named


def within(folder: str, file: str) -> str:
    """Return the name of a section's file relative to the page."""
    return f"{folder}/{file}" if folder else file


def rendered(page: Page) -> str:
    """Return a page as HTML; whatever is in its values is text there."""
    environment = Environment(
        loader=PackageLoader("smoothcache_core", "templates/page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "address": quote,
        "inline": views.inline,
        "prose": views.prose,
        "short": views.short,
    }
    return environment.get_template(PAGE).render(
        page=page, within=within, views=views, plot=plot, style=style
    )
