"""Every Python block of the documentation runs, block after block of one file in one namespace."""

import json
import re
from pathlib import Path

import pytest

from tools.bench import results
from tools.bench.index import INDEX, index, question_of, quoted_in

ROOT = Path(__file__).parents[1]
FILES = [
    "README.md",
    "docs/tutorial.md",
    "docs/add-a-model.md",
    "docs/any-denoiser.md",
    "docs/video.md",
    "docs/audio.md",
    "docs/audio-metrics.md",
    "docs/memory.md",
    "docs/sharing.md",
]


@pytest.mark.parametrize("name", FILES)
def test_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE
    )
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize("file", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")))
def test_links_lead_somewhere(file: Path):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (file.parent / target).exists()] == []


def test_results_in_the_readme_are_those_of_the_records():
    text = results.README.read_text()
    assert results.rewritten(text) == text


def test_index_lists_the_records_that_are_there():
    assert INDEX.read_text() == index()
    listed = re.findall(r"^\| \[(\S+)\]\(", INDEX.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(file.stem for file in INDEX.parent.glob("*.json"))


def test_only_the_newest_record_of_a_question_is_kept_or_what_the_docs_quote():
    newest: dict[object, tuple[str, str]] = {}
    known = {path.stem: json.loads(path.read_text()) for path in INDEX.parent.glob("*.json")}
    for name, record in known.items():
        question = question_of(name, record)
        newest[question] = max(newest.get(question, ("", "")), (record["date"], name))
    kept = {name for _, name in newest.values()}
    assert [name for name in known if name not in kept and not quoted_in(name)] == []


def test_every_answer_to_users_of_caches_has_evidence():
    text = results.README.read_text().split("## What users of caches ask")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 10
    for question, answer, evidence in rows:
        links = re.findall(r"\]\(([^)#]+)", evidence)
        assert links, question
        assert [link for link in links if not (ROOT / link).exists()] == []
        assert answer.strip()


def test_all_results_are_those_of_the_records():
    assert results.RESULTS.read_text() == results.results()
    assert results.EXACT.read_text() == results.exact()
