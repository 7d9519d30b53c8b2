"""Pages as files: what is written where, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from smoothcache_core.errors import EvaluationError, OutputError
from smoothcache_core.reports.page import (
    Comparison,
    ErrorPoint,
    Media,
    Page,
    Section,
    Table,
    Variant,
    write_page,
)

SCRIPT = "<script>alert(1)</script>"


def media(file: str = "samples/three.png", content: bytes | None = b"a picture") -> Media:
    return Media(file=file, alt="a three", content=content)


def page(*comparisons: Comparison, title: str = "Digits", **values: Any) -> Page:
    section = Section(name="image", title=title, comparisons=comparisons, **values)
    return Page(title=title, sections=[section])


def compared(**values: Media) -> Comparison:
    variant = Variant(policy="half", media=values.get("half", media("samples/half.png")))
    return Comparison(caption="three", plain=values.get("plain", media()), variants=[variant])


def test_the_page_and_what_it_shows_are_in_the_folder(tmp_path: Path):
    path = write_page(page(compared()), tmp_path / "new")
    assert path == tmp_path / "new" / "index.html"
    assert (tmp_path / "new/samples/three.png").read_bytes() == b"a picture"
    assert sorted(p.name for p in (tmp_path / "new").rglob("*.*")) == [
        "half.png", "index.html", "three.png",
    ]  # fmt: skip


def test_names_and_titles_are_text_not_markup(tmp_path: Path):
    text = write_page(page(compared(), title=SCRIPT), tmp_path).read_text()
    assert SCRIPT not in text
    assert "&lt;script&gt;" in text


def test_addresses_are_quoted(tmp_path: Path):
    text = write_page(page(compared(plain=media("50 % of #1?.png"))), tmp_path).read_text()
    assert "50%20%25%20of%20%231%3F.png" in text


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    point = ErrorPoint(policy="half", kind="ours", compute=0.5, error=0.1, schedule="half.json")
    with pytest.raises(EvaluationError, match=r"not in .*half\.json"):
        write_page(page(points=[point]), tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_two_contents_for_one_file_are_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match=r"two different files .* 'samples/half.png'"):
        write_page(page(compared(plain=media("samples/half.png", b"another"))), tmp_path)


def test_an_unwritable_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        write_page(page(), tmp_path / "file")


@pytest.mark.parametrize("file", ["../a.png", "/a.png", "a//b.png", "c:/a.png", "a\\b.png", ""])
def test_files_lie_in_the_folder(file: str):
    with pytest.raises(EvaluationError, match="lie in its folder"):
        media(file)


def test_what_no_browser_shows_is_refused():
    with pytest.raises(EvaluationError, match=r"not 'samples.npz'"):
        media("samples.npz")
    with pytest.raises(EvaluationError, match=r"a preview is a picture, not 'a.wav'"):
        Media(file="b.wav", alt="b", preview=Media(file="a.wav", alt="a"))


def test_rows_of_a_table_have_a_cell_for_every_column():
    with pytest.raises(EvaluationError, match="2 columns, but a row of 1 cells"):
        Table(caption="errors", columns=["policy", "error"], rows=[["half"]])


def test_sections_have_names_of_their_own():
    with pytest.raises(EvaluationError, match="different names"):
        Page(title="", sections=[Section(name="a", title=""), Section(name="a", title="")])
