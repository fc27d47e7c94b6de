"""The page of predictions: what it says of each sentence, that it is well formed, and that text stays text."""

import time
from html.parser import HTMLParser

import numpy as np
import pytest

from tithe.evaluation import TaggedSentence, entity_page


VOID = {"meta", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects the sentences and what refers to other files."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.sentences, self.marks, self.references, self.options = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.references += [found[name] for name in ("src", "href", "srcset", "data") if name in found]
        if tag == "li":
            self.sentences.append({"matches": found["data-matches"], "text": "", "lines": 0})
        if tag == "p" and "li" in self.stack:
            self.sentences[-1]["lines"] += 1
        if tag == "mark" and "li" in self.stack:
            self.marks.append((found["class"], ""))
        if tag == "option":
            self.options.append(found["value"])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "li" in self.stack:
            self.sentences[-1]["text"] += data
        if "li" in self.stack and "mark" in self.stack:
            self.marks[-1] = (self.marks[-1][0], self.marks[-1][1] + data)


SENTENCES = [
    TaggedSentence(["All", "is", "well"], ["O", "O", "O"], ["O", "O", "O"]),
    TaggedSentence(["Ann", "Lee", "came"], ["B-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"]),
    TaggedSentence(["In", "New", "York"], ["B-ORG", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"], name="doc 7"),
    TaggedSentence(["Paris", "met", "Kim"], ["B-LOC", "O", "O"], ["B-PER", "O", "B-PER"]),
    TaggedSentence(["<b>", "&", '"x"', "$title"], ["B-a<b", "O", "O", "O"], ["O"] * 4),
]


def test_each_sentence_says_what_is_right_and_wrong(tmp_path):
    html = entity_page(tmp_path / "new" / "entities.html", SENTENCES, title="R & D <1>").read_text(encoding="utf-8")
    page = Page(html)
    assert [s["matches"] for s in page.sentences] == [
        "spurious:1 wrong_boundary:0",  # types by name: LOC, ORG, PER, a<b
        "missed:2 wrong_type:0 wrong_type:2",
        "spurious:3",
        "",
        "correct:2",
    ]
    assert [s["lines"] for s in page.sentences] == [2, 2, 2, 1, 1]
    assert page.marks == [
        ("wrong_boundary", "New YorkLOC ↔ boundary"),
        ("spurious", "InORG + spurious"),
        ("wrong_boundary", "YorkLOC ↔ boundary"),
        ("wrong_type", "ParisPER ≠ type"),
        ("missed", "KimPER − missed"),
        ("wrong_type", "ParisLOC ≠ type"),
        ("spurious", "<b>a<b + spurious"),
        ("correct", "Ann LeePER ✓"),
    ]
    assert page.sentences[0]["text"].startswith("doc 7")
    assert page.sentences[2]["text"] == 'reference <b> & "x" $titlepredicted <b>a<b + spurious & "x" $title'
    assert page.options == ["errors", "wrong_type", "wrong_boundary", "missed", "spurious", "", "", "0", "1", "2", "3"]
    assert page.references == []
    assert "<title>R &amp; D &lt;1&gt;</title>" in html
    assert "5 sentences with 4 entities. F1 0.2222, precision 0.2000, recall 0.2500." in html
    assert "prefers-color-scheme: dark" in html and "${" in html and "$style" not in html


def test_thousands_of_sentences_are_written_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    names = ["O", "O", "O", "B-PER", "I-PER", "B-LOC"]
    sentences = [
        TaggedSentence(["word"] * 25, rng.choice(names, 25).tolist(), rng.choice(names, 25).tolist())
        for _ in range(5000)
    ]
    started = time.process_time()
    path = entity_page(tmp_path / "entities.html", sentences)
    assert time.process_time() - started < 10
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.sentences) == 5000
    errors = [sum(not m.startswith("correct") for m in s["matches"].split()) for s in page.sentences]
    assert errors[0] > 0 and path.stat().st_size < 15_000_000


def test_bad_sentences_leave_an_older_page_as_it_is(tmp_path):
    path = tmp_path / "entities.html"
    path.write_text("older")
    with pytest.raises(ValueError, match="sentence 1: 1 words but 2 labels"):
        entity_page(path, [SENTENCES[0], TaggedSentence(["a"], ["O", "O"], ["O", "O"])])
    with pytest.raises(ValueError, match="row 0: 1 predicted labels but 2"):
        entity_page(path, [TaggedSentence(["a", "b"], ["O"], ["O", "O"])])
    with pytest.raises(ValueError, match="nothing to score"):
        entity_page(path, [])
    assert path.read_text() == "older"
