import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from tithe.evaluation import PeakMemory, Section, loss_curve, run_sections, write_report


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page refers to and says."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.tags, self.references, self.ids, self.cells, self.text = [], [], [], [], [], ""
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.references += [found[name] for name in ("src", "href", "srcset", "data") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.stack and self.stack[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.fixture
def figure(tmp_path):
    return loss_curve(tmp_path / "loss.png", [{"step": 1, "value": 1.0}, {"step": 2, "value": 0.5}])


@pytest.fixture
def results():
    memory = PeakMemory()
    with memory.phase("training"):
        pass
    return {
        "metrics": {"validation": {"f1_macro": 0.5}, "test": {"f1_macro": 0.25, "roc_auc": float("nan")}},
        "selection": {"strategy": "margin_coverage", "budget": 10},
        "timings": {"training": 3725.0, "selection": {"round 0": 1.5}},
        "memory": memory.to_dict(),
        "data": {"name": "corpus"},
        "environment": {"versions": {"torch": "9.9"}},
        "args": {"learning_rate": 5e-5, "fp16": False, "resume": None},
    }


def test_page_is_well_formed_and_refers_to_nothing_outside(tmp_path, figure, results):
    sections = run_sections(results, rounds=[{"round": 0, "size": 10}], figures=[(figure, "Loss")])
    html = write_report(tmp_path / "report.html", title="A run", summary="One.\n\nTwo.", sections=sections).read_text()
    page = Page(html)
    anchors = [reference for reference in page.references if reference.startswith("#")]
    images = [reference for reference in page.references if not reference.startswith("#")]
    assert anchors == [f"#{name}" for name in page.ids] and len(anchors) == len(sections)
    assert len(images) == 1 and images[0].startswith("data:image/png;base64,")
    assert base64.b64decode(images[0].partition(",")[2]) == figure.read_bytes()
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_text_is_escaped_everywhere(tmp_path, figure):
    evil = '<script>alert("x")</script> & $title'
    section = Section(evil, evil, {evil: evil}, [{evil: evil}], [(figure, evil)])
    html = write_report(tmp_path / "r.html", title=evil, summary=evil, sections=[section]).read_text()
    page = Page(html)
    assert "script" not in page.tags and "<script" not in html
    # title twice, summary, contents, heading, text, two of the facts, two of the table, caption
    assert page.text.count(evil) == 11
    assert page.cells == [evil] * 4


def test_report_of_a_run_shows_every_part(results, figure):
    rounds = [{"round": 0, "size": 4, "indices": [1, 2], "scores": np.ones(2)}, {"round": 1, "size": 10}]
    extra = Section("Classes", table=[{"label": "a"}])
    sections = run_sections(results, rounds=rounds, figures=[(figure, "Loss")], extra=[extra])
    assert [part.title for part in sections] == [
        "Results",
        "What was selected",
        "Figures",
        "Classes",
        "Timings",
        "Peak memory",
        "Data",
        "Environment",
        "Arguments",
    ]
    assert sections[1].table == [{"round": 0, "size": 4}, {"round": 1, "size": 10}]
    assert sections[4].facts == {"training": "1 h 02 min", "selection.round 0": "1.5 s"}
    assert sections[5].table[0]["phase"] == "training" and sections[5].table[0]["peak (MiB)"] > 0


def test_missing_parts_leave_no_empty_sections():
    assert [part.title for part in run_sections({"metrics": {"test": {"f1": 1.0}}, "args": {}})] == ["Results"]


def test_cells_are_formatted_for_reading(tmp_path, results):
    html = write_report(tmp_path / "r.html", title="t", sections=run_sections(results)).read_text()
    cells = Page(html).cells
    assert cells[:9] == ["split", "f1 macro", "roc auc", "validation", "0.5000", "–", "test", "0.2500", "–"]
    for name, value in [("versions.torch", "9.9"), ("learning_rate", "5e-05"), ("fp16", "false"), ("resume", "–")]:
        assert cells[cells.index(name) + 1] == value


def test_figure_that_is_no_png_is_an_error_and_writes_no_page(tmp_path):
    (tmp_path / "figure.png").write_text("<svg/>")
    with pytest.raises(ValueError, match="'figure.png' is not"):
        write_report(tmp_path / "r.html", title="t", sections=[Section("s", figures=[(tmp_path / "figure.png", "")])])
    assert not (tmp_path / "r.html").exists()
