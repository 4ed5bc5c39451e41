"""The text of the docs is plain: sentences are short. Code, tables, headings and pictures do not count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = {"cluster/kustomize/mine/kustomization.yaml", "cluster/kustomize/mine"}
"""Files that a reader writes."""
MAX_WORDS = 30
MAX_MEAN_WORDS = 18


def sentences(markdown: str) -> list[str]:
    """The sentences of the text; a code span and a link count as the words that a reader sees."""
    text = re.sub(r"^```.*?^```|<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "", markdown, flags=re.M | re.S)
    text = re.sub(r"^(?:\s*\|.*|#.*)$", "", text, flags=re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text).replace("**", "")
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.)\s", text, flags=re.M)
    joined = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return [part for paragraph in joined for part in re.split(r"(?<=[.!?])[\"')]*\s+(?=\S)", paragraph) if part]


def words(sentence: str) -> int:
    return len([word for word in sentence.split() if re.search(r"\w", word)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    lengths = {sentence: words(sentence) for sentence in sentences(page.read_text(encoding="utf-8"))}
    assert {sentence: n for sentence, n in lengths.items() if n > MAX_WORDS} == {}
    assert sum(lengths.values()) <= MAX_MEAN_WORDS * len(lengths)


def test_what_counts_as_a_sentence() -> None:
    page = "# A title\n\nOne `code` here. Two [links to\nsee](x.md)!\n\n| a | table |\n\n"
    page += "- A point:\n  one more line.\n```\nx. y.\n```\n"
    assert sentences(page) == ["One code here.", "Two links to see!", "A point: one more line."]
    assert [words(sentence) for sentence in sentences(page)] == [3, 4, 5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    """No mark, also not a name in capitals in the text, where no code is; and files that are linked are there."""
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"@[A-Z_]+@|TODO|FIXME", text)
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", text, flags=re.M | re.S)
    assert not re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b(?!\.md)", prose)
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]
    assert [target for target in links if target and not (page.parent / target).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page: Path) -> None:
    folders = "benchmarks|cluster|configs|docs|jobs|occpipe|tests"
    named = re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*[\w/]", page.read_text(encoding="utf-8"))
    missing = {name for name in named if not (ROOT / name).exists() and not (page.parent / name).exists()}
    assert missing - EXAMPLES == set()


def test_the_manual_lists_each_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"^\| \[[\w.-]+\]\(([\w-]+\.md)\)", index, re.M)) == pages


RECORDS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
MAX_RECORD_LINES = 25


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_decision_is_a_short_record_with_its_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_RECORD_LINES
    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert [part for part in ("**Context", "**Decision", "**Consequences", "**Revisit when") if part not in text] == []


def test_the_index_lists_each_record_once() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\d{4})\]\((\S+)\)", index, re.M) == [(path.name[:4], path.name) for path in RECORDS]
