"""The PDF holds the whole book, and its links lead within it."""

import io
import os
import shutil
import socket
import sys
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


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_any_console_is_told_what_is_missing(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(pdf, "BUILT", tmp_path / "数据")
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert pdf.main() == 1
    shown.flush()
    assert b"\\u6570\\u636e/chapters/index.html is not built" in shown.buffer.getvalue()


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "BUILT", tmp_path / "html")
    assert pdf.main() == 1
    assert "chapters/index.html is not built" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


TEACHER = """<html><head>
<link rel="stylesheet" href="https://example.org/a.css"><link rel="stylesheet"></head><body>
<article class="bd-article"><h1>Mine</h1><img src="../_images/m%C3%BCde.png?v=1">
<img src="chapters/a%20b.png" srcset="https://example.org/c.png 2x"><object data="../_images/d.svg">
</object><img src="//example.org/e.png" alt="far"><iframe src="https://example.org/film"></iframe>
<img src="lost.png"></article></body></html>"""


def test_a_teacher_s_pictures_are_found_linked_or_told_of(built, capsys):
    pictures = [built / "_images/müde.png", built / "chapters/a b.png", built / "_images/d.svg"]
    for path in pictures:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a picture")
    html = built / "_build" / "html"
    for folder in ("_images", "chapters"):
        (html / folder).mkdir(parents=True)
    for path in (pictures[0], pictures[2]):  # the other one Sphinx leaves where it is
        path.rename(html / "_images" / path.name)
    (html / "chapters" / "mine.html").write_text(TEACHER, encoding="utf-8")
    page = BeautifulSoup(pdf.one_page(html, ["chapters/mine"]), "html.parser")
    found = [tag.get("src") or tag.get("data") for tag in page.select("img, object")]
    assert found == [
        (html / "_images/müde.png").as_uri(),
        (built / "chapters/a b.png").as_uri(),
        (html / "_images/d.svg").as_uri(),
        (html / "chapters/lost.png").as_uri(),
    ]
    assert [a["href"] for a in page.select("a")] == [
        "https://example.org/e.png",
        "https://example.org/film",
    ]
    assert not page.select("link, iframe, [srcset]") and page.title is None
    told = capsys.readouterr().out
    for word in ("'lost.png'", "//example.org/e.png", "https://example.org/film"):
        assert f"{html / 'chapters' / 'mine.html'}: " in told and word in told


DAMAGED = [b"", b"<h1>no article</h1>", "<article>ä".encode("latin-1"), bytes(99)]


@pytest.mark.parametrize("content", DAMAGED, ids=["empty", "no article", "latin-1", "zeros"])
@pytest.mark.parametrize("which", ["one", "two"])
def test_a_damaged_page_costs_that_page_alone(built, content, which):
    page = built / "chapters" / f"{which}.html"
    page.write_bytes(content)
    pages = ["chapters/one", "chapters/two"]
    with pytest.warns(UserWarning, match=f"^{page}: this page is left out: "):
        whole = BeautifulSoup(pdf.one_page(built, pages), "html.parser")
    assert [h1.get_text() for h1 in whole.find_all("h1")] == [
        {"one": "How", "two": "Why count"}[which]
    ]
    assert whole.title.get_text() == {"one": "B", "two": "A book"}[which]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="expected a page that can be"):
        pdf.one_page(built, [f"chapters/{which}"])


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no browser found"
)
def test_no_network_is_waited_for_and_what_is_left_out_is_said(built, monkeypatch, capsys):
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    fonts = f'@import url("http://127.0.0.1:{silent.getsockname()[1]}/fonts.css");'
    mathjax = built / "_static" / "mathjax" / "tex-svg.js"
    mathjax.parent.mkdir(parents=True)
    mathjax.write_text("window.MathJax = {startup: {promise: Promise.resolve()}};")
    (built / "_static" / "a.css").write_text(fonts)
    (built / "chapters" / "two.html").write_text("")
    monkeypatch.setattr(pdf, "BUILT", built)
    monkeypatch.setattr(pdf, "contents", lambda: ["chapters/one", "chapters/two"])
    target = built.parent / "pdf"
    assert pdf.main() == 1
    told = capsys.readouterr().out
    assert "two.html: this page is left out" in told and "book.pdf: 0.0 MB" in told
    assert "Why count" in PdfReader(target / "book.pdf").pages[0].extract_text()
    shutil.rmtree(target)
    silent.close()


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
