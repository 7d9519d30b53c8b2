"""How values become words and shapes of a page."""

from smoothcache_core.reports.names import file_stems, schedule_files
from smoothcache_core.reports.page import Comparison, Headline, Media, Section, Variant
from smoothcache_core.reports.page.views import first_panel, panels, prose, runs


def test_prose_is_paragraphs_and_code_and_nothing_else():
    text = "## What `it` is\n\none <b>two</b>\nthree `a < b` & c\n\nfour"
    assert prose(text).split("\n") == [
        "<h4>What `it` is</h4>",
        "<p>one &lt;b&gt;two&lt;/b&gt;",
        "three <code>a &lt; b</code> &amp; c</p>",
        "<p>four</p>",
    ]
    assert prose("") == ""


def test_computed_cells_are_the_parts_of_a_path():
    assert runs([True, True, False, True], 2) == "M0 2h2v1h-2zM3 2h1v1h-1z"
    assert runs([False, False], 0) == ""


def test_samples_are_shown_policy_by_policy_the_recommended_one_first():
    media = Media(file="a.png", alt="a")
    variants = [Variant(policy=name, media=media) for name in ("one", "two")]
    comparisons = [Comparison(caption=c, plain=media, variants=variants) for c in ("a", "b")]
    headline = Headline(policy="two", speedup=2.0, error=0.1)
    section = Section(name="image", title="", headline=headline, comparisons=comparisons)
    shown = panels(section)
    assert [(panel.policy, [c for c, _, _ in panel.samples]) for panel in shown] == [
        ("one", ["a", "b"]), ("two", ["a", "b"]),
    ]  # fmt: skip
    assert first_panel(section, shown) is shown[1]
    assert first_panel(Section(name="image", title=""), shown) is shown[0]


def test_policies_are_files_of_their_own():
    assert list(file_stems(["plan 0.5", "Plan/0.5", "???"]).values()) == [
        "plan-0.5", "plan-0.5-2", "policy",
    ]  # fmt: skip
    assert schedule_files(["plan 0.5"]) == {"plan 0.5": "schedules/plan-0.5.json"}
