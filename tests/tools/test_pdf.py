"""The PDF holds the whole book, and its links lead within it."""

import base64
import gzip
import importlib
import io
import os
import re
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
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", "Why count", "How"]
    assert whole.title.get_text() == "A book"
    assert "menu" not in whole.get_text() and not whole.find_all("script")


def test_links_lead_within_the_book_or_out_of_it_or_nowhere(whole):
    links = {a.get_text(" ").replace("\n", " "): a.get("href") for a in whole.select("article a")}
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
    assert [a["href"] for a in page.select("article a")] == [
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
    left = {"one": "How", "two": "Why count"}[which]
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", left]
    assert whole.select_one("#contents li > a > span").get_text() == left
    assert whole.title.get_text() == {"one": "B", "two": "A book"}[which]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="expected a page that can be"):
        pdf.one_page(built, [f"chapters/{which}"])


ODD = ["http://[bad", "https://[your-host]/a.png", "a" * 5000 + ".png", "file://[x/a.png", "\0"]


@pytest.mark.parametrize("address", ODD, ids=["half", "placeholder", "long", "file", "zero"])
@pytest.mark.parametrize(
    "html",
    [
        '<img src="ODD" alt="lost">',
        '<object data="ODD"></object>',
        '<a href="ODD">words</a>',
        '<iframe src="ODD"></iframe>',
    ],
)
def test_an_odd_address_costs_that_picture_or_link_alone(built, capsys, html, address):
    page = built / "chapters" / "one.html"
    page.write_text(FIRST.replace("</details>", "</details>" + html.replace("ODD", address)))
    whole = BeautifulSoup(pdf.one_page(built, ["chapters/one", "chapters/two"]), "html.parser")
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", "Why count", "How"]
    assert len(whole.select("article a[href]")) == 4 and "a paper" in whole.get_text()
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{page}: ")]
    # What may be the name of a file, and is not in the PDF, is a link that leads nowhere.
    if "href" not in html or "[" in address:
        assert len(told) == 1 and repr(address[:50])[:-1] in told[0] and len(told[0]) < 800
    assert "href" not in html or "words" in whole.get_text()


@pytest.mark.parametrize("damage", ["whole", "not packed", "half"])
def test_a_packed_drawing_is_unpacked_or_told_of(built, capsys, damage):
    drawing, page = b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", built / "chapters/two.html"
    packed = gzip.compress(drawing)
    content = {"whole": packed, "not packed": drawing, "half": packed[:20]}[damage]
    (built / "_images").mkdir()
    (built / "_images" / "a.svgz").write_bytes(content)
    page.write_text(SECOND.replace("a.png", "a.svgz"))
    whole = BeautifulSoup(pdf.one_page(built, ["chapters/two"]), "html.parser")
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", "How"]
    told, source = capsys.readouterr().out, whole.img["src"]
    if damage == "whole":
        assert base64.b64decode(source.split(",")[1]) == drawing and told == ""
    else:
        assert f"{page}: " in told and "a.svgz: expected a packed picture, found" in told


def test_an_odd_style_sheet_costs_no_page(built):
    page = built / "chapters" / "one.html"
    page.write_text(FIRST.replace("../_static/a.css?digest=1", "http://[bad"))
    whole = BeautifulSoup(pdf.one_page(built, ["chapters/one"]), "html.parser")
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", "Why count"]


def test_whatever_else_fails_on_a_page_costs_that_page_and_is_told(built, monkeypatch):
    page = built / "chapters" / "one.html"
    entry = pdf._entry

    def fails(article, name):
        if name == "one":
            raise KeyError("odd")
        return entry(article, name)

    monkeypatch.setattr(pdf, "_entry", fails)
    with pytest.warns(UserWarning, match=f"^{page}: this page is left out: KeyError: 'odd'"):
        whole = BeautifulSoup(pdf.one_page(built, ["chapters/one", "chapters/two"]), "html.parser")
    assert [h1.get_text() for h1 in whole.find_all("h1")] == ["Contents", "How"]
    assert whole.title.get_text() == "B"


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no browser found"
)
def test_a_file_in_the_place_of_the_folder_is_told(built, monkeypatch, capsys):
    place = built.parent / "pdf"
    place.write_text("mine")
    monkeypatch.setattr(pdf, "BUILT", built)
    monkeypatch.setattr(pdf, "contents", lambda: ["chapters/one"])
    assert pdf.main() == 1
    told = capsys.readouterr().out
    assert f"{place}: expected a folder, found a file\n" in told and place.read_text() == "mine"
    place.unlink()


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
    assert "Why count" in PdfReader(target / "book.pdf").pages[2].extract_text()
    shutil.rmtree(target)
    silent.close()


# --- sheets of paper ------------------------------------------------------------------------------

MATHJAX = importlib.import_module("sphinx-mathjax-offline")
#: As MyST writes formulas: in a text that MathJax is told to leave alone.
THIRD = r"""<html><head><title>C</title></head><body><article class="bd-article">
<section class="tex2jax_ignore mathjax_ignore" id="set"><h1>Sums "and" \ <em>more</em></h1>
<p>In <span class="math notranslate nohighlight">\(\mathbb{E}[x] \mid z\)</span> it is.</p>
<div class="math notranslate nohighlight">\[ -\log P(x) = \sum_{i=1}^{784} x_i \]</div>
<section id="deep"><h2>Of <span class="math notranslate nohighlight">\(\sigma\)</span></h2>
<table><tr>WIDE</tr></table><pre>LONG</pre><p>Below.</p>
<style>.sd-tab-content { display: none; } input:checked + label + div { display: block; }</style>
<div class="sd-tab-set"><input type="radio" name="a" checked><label>Linux</label>
<div class="sd-tab-content">like this</div><input type="radio" name="a"><label>Windows</label>
<div class="sd-tab-content">like that</div></div>
<p style="margin-top: 290mm">Far below.</p></section></section></article>
<footer><p class="component-author">By somebody</p><div class="extra_footer">CC BY
<p class="made-with">Version 9.8.7</p></div></footer></body></html>"""
THIRD = THIRD.replace("WIDE", "".join(f"<td>column{n}</td>" for n in range(20)))
THIRD = THIRD.replace("LONG", " ".join(f"word{n}" for n in range(15)) + "\n" + "=" * 300)
WIDTH, MARGIN = 210 * 72 / 25.4, 18 * 72 / 25.4  # A4, in points
needs_a_browser = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no browser found"
)


def spoken(book):
    """What is said in the place of each picture, in the order of the book."""
    found, waiting = [], [book.trailer["/Root"]["/StructTreeRoot"]]
    while waiting:
        part = waiting.pop().get_object()
        if isinstance(part, list):
            waiting += part[::-1]
        elif isinstance(part, dict):
            found += [part["/Alt"]] if "/Alt" in part else []
            waiting += [part["/K"]] if "/K" in part else []
    return found


def read(sheet):
    """The text of a sheet; each piece of it, how large it is, and where it begins, in points."""
    found = []

    def hear(text, outer, inner, font, size):
        if text.strip():
            x = inner[4] * outer[0] + outer[4]
            found.append((text.strip(), round(abs(size * inner[3] * outer[3]), 1), x))

    return sheet.extract_text(visitor_text=hear), found


def chunks(sheet):
    return read(sheet)[1]


#: Elements that reach over the edge of the sheet, or hide a part of themselves.
TOO_WIDE = """() => {
  const edge = document.body.getBoundingClientRect().right + 1;
  const trouble = [];
  for (const part of document.querySelectorAll("body *")) {
    const style = getComputedStyle(part), box = part.getBoundingClientRect();
    if (!box.width || style.visibility === "hidden" || part.closest(".visually-hidden")) continue;
    const hides = style.overflowX !== "visible" && part.scrollWidth > part.clientWidth + 1;
    if (box.right > edge || hides) trouble.push(part.outerHTML.slice(0, 120));
  }
  return trouble;
}"""


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    """A little book, printed with the MathJax of the real one."""
    built = tmp_path_factory.mktemp("html")
    shutil.copytree(Path(MATHJAX.__file__).parent / "static/mathjax", built / "_static/mathjax")
    (built / "chapters").mkdir()
    for name, page in (("zero", THIRD), ("one", FIRST), ("two", SECOND)):
        (built / "chapters" / f"{name}.html").write_text(page, encoding="utf-8")
    target = built / "printed" / "book.pdf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "contents", lambda: [f"chapters/{n}" for n in ("zero", "one", "two")])
        book = PdfReader(pdf.print_pdf(built, target))
    assert [path.name for path in target.parent.iterdir()] == ["book.pdf"]
    return book


@needs_a_browser
def test_sheets_are_numbered_titled_and_listed_with_their_numbers(sheets):
    text = [sheet.extract_text() for sheet in sheets.pages]
    assert re.findall(r"\S.*", text[0]) == [
        'Sums "and" \\ more',
        "By somebody",
        "CC BY",
        "Version 9.8.7",
    ]
    assert re.findall(r"\w+ \d+$", text[1], re.MULTILINE) == [
        "more 3",
        "Of 3",
        "count 5",
        "How 6",
        "so 6",
    ]
    assert "Linux\nlike this\nWindows\nlike that" in text[2]  # which a screen shows one at a time
    assert "Far below." in text[3]
    heads = ['Sums "and" \\ more'] * 2 + ["Why count", "How"]
    assert [line.splitlines()[0] for line in text[2:]] == heads
    assert [line.splitlines()[1] for line in text[2:]] == ["3", "4", "5", "6"]
    assert [entry.title for entry in sheets.outline if not isinstance(entry, list)] == [
        "Contents",
        *('Sums "and" \\ more', "Why count", "How"),
    ]


@needs_a_browser
def test_formulas_are_set_and_no_tex_is_left(sheets):
    formulas = [said for said in spoken(sheets) if said.startswith("Formula: ")]
    assert formulas == [
        "Formula: σ",  # in the contents
        "Formula: 𝔼[x]∣z".replace("𝔼", "E"),
        "Formula: −logP(x)=∑i=1784xi",
        "Formula: σ",
    ]
    text = "".join(sheet.extract_text() for sheet in sheets.pages)
    assert "it is." in text and not re.search(r"\\[(\[a-z]", text)


@needs_a_browser
def test_what_is_too_wide_for_the_paper_is_made_to_fit_and_nothing_else(sheets):
    found = chunks(sheets.pages[2])
    (below,) = (size for text, size, _ in found if text == "Below.")
    assert below == chunks(sheets.pages[3])[-1][1], "the whole sheet was made smaller"
    columns = [(x, size) for text, size, x in found if text.startswith("column")]
    assert len(columns) == 20 and MARGIN < min(columns)[0] < max(columns)[0] < WIDTH - MARGIN - 9
    assert {size for _, size in columns} == {columns[0][1]} and columns[0][1] < below
    assert "".join(text for text, *_ in found).count("=") == 300


@needs_a_browser
def test_a_search_for_what_is_too_wide_finds_it(built, monkeypatch):
    (built / "_static" / "mathjax").mkdir(parents=True)
    script = "window.MathJax = {startup: {promise: Promise.resolve()}};"
    (built / "_static" / "mathjax" / "tex-svg.js").write_text(script)
    page = FIRST.replace("<details>", '<div style="width: 175mm">W</div><details>')
    page = page.replace(
        "</details>",
        '</details><p style="overflow: hidden; white-space: nowrap; width: 9px">hidden</p>',
    )
    (built / "chapters" / "one.html").write_text(page)
    with pdf.set_page(built, ["chapters/one"], built / "scratch.html") as tab:
        found = tab.evaluate(TOO_WIDE)
    assert len(found) == 2 and "175mm" in found[0] and "hidden" in found[1]


# --- the built book -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The whole book, what is too wide in it, and each sheet's text and pieces of text."""
    if not os.environ.get("BOOK_BUILT"):
        pytest.skip("the book is not built")
    scratch = tmp_path_factory.mktemp("pdf") / "book.html"
    with pdf.set_page(pdf.BUILT, pdf.contents(), scratch) as tab:
        book = PdfReader(io.BytesIO(pdf.print_sheets(tab)))
        return book, tab.evaluate(TOO_WIDE), [read(sheet) for sheet in book.pages]


def articles():
    for page in pdf.contents():
        html = (pdf.BUILT / f"{page}.html").read_text(encoding="utf-8")
        yield BeautifulSoup(html, "html.parser").select_one("article.bd-article")


def test_the_printed_book_is_whole(printed):
    book, *_ = printed
    titles = ["Contents"]
    for article in articles():
        article.h1.select_one(".headerlink").decompose()
        titles.append("".join(article.h1.get_text().split()))
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


def test_every_formula_of_the_book_is_printed_and_none_as_tex(printed):
    book, _, sheets = printed
    tex = re.compile(r"\\(?:[a-zA-Z]+|[\[\](){}])")
    expected, commands, in_code = 0, set(), set()
    for article in articles():
        # Those of the headings stand in the contents, too.
        expected += len(article.select(".math")) + len(article.select("h1 .math, h2 .math"))
        for formula in article.select(".math"):
            commands |= set(tex.findall(formula.get_text()))
            formula.decompose()
        in_code |= set(tex.findall(article.get_text()))
    assert expected > 100 and "\\log" in commands
    assert sum(said.startswith("Formula: ") for said in spoken(book)) == expected
    text = "\n".join(text for text, _ in sheets)
    assert not (commands & set(tex.findall(text))) - in_code


def test_every_sheet_of_the_book_has_its_head_its_number_and_something_on_it(printed):
    book, _, sheets = printed
    n_front = book.get_destination_page_number(book.outline[1])  # title and contents
    for n, (sheet, (text, _)) in enumerate(zip(book.pages, sheets, strict=True), 1):
        lines = text.splitlines()
        if n > n_front:
            assert lines[1] == str(n)
            head, lines = lines[0], lines[2:]
            assert head
        assert len("".join(lines).split()) > 2 or len(sheet.images), f"sheet {n} is blank"


def test_the_contents_of_the_book_name_the_sheets(printed):
    book, _, sheets = printed
    n_front = book.get_destination_page_number(book.outline[1])
    text = "\n".join(text for text, _ in sheets[1:n_front])
    named = [int(n) for n in re.findall(r" (\d+)$", text, re.MULTILINE)]
    places = [
        book.get_destination_page_number(entry) + 1
        for entry in book.outline
        if not isinstance(entry, list)
    ]
    assert len(named) > 50 and set(places[1:]) <= set(named) and named == sorted(named)


def test_nothing_of_the_book_is_wider_than_the_paper(printed):
    _, too_wide, sheets = printed
    assert not too_wide, "\n".join(too_wide)
    for n, (_, pieces) in enumerate(sheets, 1):
        for text, _, x in pieces:
            assert MARGIN - 2 <= x <= WIDTH - MARGIN, f"sheet {n}: {text}"


@pytest.mark.skipif(not os.environ.get("BOOK_BUILT"), reason="the book is not built")
def test_every_link_within_the_printed_book_arrives():
    whole = BeautifulSoup(pdf.one_page(pdf.BUILT, pdf.contents()), "html.parser")
    targets = {a["href"][1:] for a in whole.find_all("a", href=True) if a["href"][0] == "#"}
    assert len(targets) > 100
    assert targets <= {tag["id"] for tag in whole.find_all(id=True)}
