"""The PDF holds the whole book, and its links lead within it."""

import os
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from tools import pdf

FIRST = """<html><head><title>A book</title>
<link rel="stylesheet" href="../_static/a.css?digest=1"></head><body><nav>menu</nav>
<article class="bd-article"><h1 id="why">Why count<a class="headerlink" href="#why">#</a></h1>
<p>See <a href="#why">above</a>, <a href="two.html#how">the next page</a>, <a href="two.html">all
of it</a>, <a href="https://example.org/x">a paper</a>, <a href="../data.zip">a file</a>.</p>
<details><summary>Answer</summary>Three.</details></article></body></html>"""
SECOND = """<html><head><title>B</title></head><body><article class="bd-article">
<h1 id="how">How</h1><h2 id="why">Why so</h2><img src="../_images/a.png">
<div class="live"><noscript>Off</noscript><script type="application/json">{"x": 1}</script></div>
<img src="data:image/png;base64,AAAA"></article><script>alert(1)</script></body></html>"""


@pytest.fixture
def built(tmp_path):
    (tmp_path / "chapters").mkdir()
    for name, page in (("one", FIRST), ("two", SECOND)):
        (tmp_path / "chapters" / f"{name}.html").write_text(page)
    return tmp_path


@pytest.fixture
def whole(built):
    return BeautifulSoup(pdf.one_page(built, ["chapters/one", "chapters/two"]), "html.parser")


def test_pages_come_one_after_the_other_and_nothing_around_them(whole):
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Why count", "How"]
    assert whole.title.get_text() == "A book"
    assert "menu" not in whole.get_text() and not whole.find_all("script")


def test_links_lead_within_the_book_or_out_of_it_or_nowhere(whole):
    links = {a.get_text(" ").replace("\n", " "): a.get("href") for a in whole.find_all("a")}
    assert links == {
        "above": "#one--why",
        "the next page": "#two--how",
        "all of it": "#two",
        "a paper": "https://example.org/x",
        "a file": None,
    }
    ids = [tag["id"] for tag in whole.find_all(id=True)]
    assert len(ids) == len(set(ids)), "two pages may call a place the same"
    assert {href[1:] for href in links.values() if href and href[0] == "#"} <= set(ids)


def test_what_opens_is_open_and_what_moves_is_still(whole):
    assert whole.details.has_attr("open")
    assert not whole.select(".live") and pdf.MOVES in str(whole)


def test_pictures_and_styles_are_found_from_anywhere(built, whole):
    sources = [image["src"] for image in whole.find_all("img")]
    assert sources == [(built / "_images/a.png").as_uri(), "data:image/png;base64,AAAA"]
    assert whole.link["href"] == (built / "_static/a.css").as_uri()


def test_a_page_that_is_not_built_is_named(built):
    with pytest.raises(FileNotFoundError, match=r"chapters/three.html is not built; build the"):
        pdf.one_page(built, ["chapters/one", "chapters/three"])


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "BUILT", tmp_path / "html")
    assert pdf.main() == 1
    assert "chapters/index.html is not built" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.environ.get("BOOK_BUILT"), reason="the book is not built")
def test_the_printed_book_is_whole(tmp_path):
    book = PdfReader(pdf.print_pdf(pdf.BUILT, tmp_path / "pdf" / "book.pdf"))
    titles = []
    for page in pdf.contents():
        html = (pdf.BUILT / f"{page}.html").read_text(encoding="utf-8")
        heading = BeautifulSoup(html, "html.parser").select_one("article h1")
        heading.select_one(".headerlink").decompose()
        titles.append("".join(heading.get_text().split()))
    outline = [
        "".join(entry.title.split()) for entry in book.outline if not isinstance(entry, list)
    ]
    assert outline == titles
    links = [
        note.get_object()["/A"]
        for page in book.pages
        for note in page.get("/Annots", [])
        if "/A" in note.get_object()
    ]
    outside = {link["/URI"] for link in links if "/URI" in link}
    assert outside and all(Path(url).parts[0] in ("http:", "https:", "mailto:") for url in outside)
    assert [path.name for path in (tmp_path / "pdf").iterdir()] == ["book.pdf"]


@pytest.mark.skipif(not os.environ.get("BOOK_BUILT"), reason="the book is not built")
def test_every_link_within_the_printed_book_arrives():
    whole = BeautifulSoup(pdf.one_page(pdf.BUILT, pdf.contents()), "html.parser")
    targets = {a["href"][1:] for a in whole.find_all("a", href=True) if a["href"][0] == "#"}
    assert len(targets) > 100
    assert targets <= {tag["id"] for tag in whole.find_all(id=True)}
