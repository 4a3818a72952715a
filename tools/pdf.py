"""The built book as one PDF, printed by Chromium.

After ``jupyter-book build .``, the command ``python -m tools.pdf`` writes all pages, in the order
of the table of contents, to ``_build/pdf/book.pdf``: a title page, the contents with their page
numbers, and each chapter under its name at the head of the page; with links between them, formulas
set, solutions unfolded, and a word in the place of a figure that answers to the pointer. It needs
no network, but Chromium, and Playwright and pypdf, which come with the tests. What lies on the web
is left there, with a link to it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

from helpers import hear, in_words, tell
from tools import speak_to_any_console
from tools.slides import (
    find_picture,
    in_address,
    leads_out,
    link,
    make_folder,
    read_picture,
    say_instead,
    shorten,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

BOOK = Path(__file__).resolve().parents[1]
BUILT = BOOK / "_build" / "html"
MOVES = "<p><em>On the screen a figure moves here; the one above shows it at rest.</em></p>"
STYLE = """
@page { size: A4; margin: 22mm 18mm 20mm;
  @bottom-center { content: counter(page); font: 9pt sans-serif; color: #444; } }
@page front { @bottom-center { content: none; } }
html { font-size: 14px; }
body { width: 174mm; margin: 0; background: #fff; }
article, #contents { break-before: page; padding: 0 !important; margin: 0 !important; }
h1, h2, h3, h4, h5, h6, caption { break-after: avoid; }
p { orphans: 3; widows: 3; }
figure, .admonition, table, pre, div.cell_output, .short { break-inside: avoid; }
.tall { break-inside: auto; }
tr { break-inside: avoid; }
body { overflow-wrap: break-word; }
img { max-width: 100%; max-height: 200mm; object-fit: contain; }
figure img, .cell_output img { max-height: 125mm; }
figcaption, figcaption *, caption, caption * { color: #333 !important; font-weight: 400; }
pre, .cell_output, .cell_input, .highlight, .pst-scrollable-table-container, div.math {
  overflow: visible !important; max-height: none !important; }
pre { font-size: 11.5px !important; padding: 0.6em 0.8em; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
.sd-tab-set > .sd-tab-content { display: block !important; }
.sd-tab-set > * { order: 0 !important; width: 100%; }
.copybtn, .toggle-button, .sd-summary-state-marker { display: none !important; }
.formula { max-width: 100%; background: none !important; padding: 0 !important; }
div.math > mjx-container { text-align: center; display: block; margin: 0.6em 0; }
.cover { page: front; height: 250mm; display: flex; flex-direction: column;
  justify-content: center; text-align: center; }
.cover .book { font-size: 2.6rem; line-height: 1.25; font-weight: 600; margin-bottom: 2rem; }
.cover .small { margin-top: 6rem; }
#contents ol { list-style: none; margin: 0; padding: 0; }
#contents li li { padding-left: 1.6em; }
#contents > ol > li { margin-top: 0.7em; }
#contents > ol > li > a { font-weight: 600; }
#contents a { display: flex; align-items: baseline; color: inherit; text-decoration: none; }
#contents .dots { flex: 1; border-bottom: 1px dotted #999; margin: 0 0.4em; min-width: 1em; }
#contents .number { min-width: 2em; text-align: right; }
"""
# Each formula becomes a picture of itself, which a PDF can name; what it says stands in its place
# for who listens. (MathJax's own hidden copy of it is not printed.)
FORMULAS = """() => {
  for (const set of document.querySelectorAll("mjx-container")) {
    const drawn = set.querySelector("svg"), picture = new Image();
    const said = set.querySelector("math").textContent.replace(/[\\u2061-\\u2064]/g, "");
    picture.className = "formula";
    picture.alt = "Formula: " + said;
    picture.style.cssText = drawn.style.cssText;
    picture.style.width = drawn.getAttribute("width");
    picture.style.height = drawn.getAttribute("height");
    drawn.removeAttribute("style");
    // A line of no width is printed as the thinnest there is.
    for (const part of drawn.querySelectorAll("[stroke-width='0']")) part.removeAttribute("stroke");
    picture.src = "data:image/svg+xml," +
      encodeURIComponent(new XMLSerializer().serializeToString(drawn));
    set.replaceChildren(picture);
    set.removeAttribute("tabindex");
  }
  const all = [...document.images].map(image => image.decode().catch(() => null));
  return Promise.all(all);  // a picture that is missing is told of elsewhere
}"""
# Where something is wider than the paper, Chromium would make all pages smaller or cut it.
FIT = """() => {
  const edge = document.body.getBoundingClientRect().right;
  for (const block of document.querySelectorAll("table, pre")) {
    if (block.parentElement.closest("table, pre")) continue;
    const room = edge - block.getBoundingClientRect().left;
    const width = Math.max(block.scrollWidth, block.offsetWidth);
    if (width <= room) continue;
    if (block.tagName === "PRE" && room < 0.7 * width) block.classList.add("wrapped");
    else block.style.zoom = 0.995 * room / width;
  }
  // What takes half a page may go on on the next one.
  for (const block of document.querySelectorAll(".admonition, table, pre, div.cell_output"))
    if (block.offsetHeight > 450 && !block.matches(":scope:has(> figure)"))
      block.classList.add("tall");
}"""
NUMBER = """numbers => {
  for (const entry of document.querySelectorAll("#contents a"))
    entry.querySelector(".number").textContent = numbers[entry.hash.slice(1)] ?? "";
}"""


def contents() -> list[str]:
    """Name the pages of the book, in order.

    Examples
    --------
    >>> contents()[:2]
    ['chapters/index', 'chapters/setup']
    """
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


def one_page(built: Path, pages: list[str]) -> str:
    """Put pages of a built book one after the other.

    Parameters
    ----------
    built : Path
        The folder of the HTML pages.
    pages : list of str
        Which ones, as in the table of contents.

    Returns
    -------
    str
        One HTML page, which begins with a title and the contents. Each anchor carries the name of
        its page, and every link within the book leads to one. A page that is damaged is told of
        and left out.

    Raises
    ------
    FileNotFoundError
        A page has not been built.
    ValueError
        No page is whole.

    Examples
    --------
    >>> one_page(Path("no-such-folder"), ["chapters/index"])
    Traceback (most recent call last):
    ...
    FileNotFoundError: no-such-folder/chapters/index.html is not built; ...
    """
    paths = [built / f"{page}.html" for page in pages]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"{path.as_posix()} is not built; build the book first, with `jupyter-book build .`"
            )
    paths = [path.resolve() for path in paths]
    whole = BeautifulSoup('<html lang="en" data-theme="light"></html>', "html.parser")
    body = whole.new_tag("body")
    entries, rules = whole.new_tag("ol"), []
    for path in paths:
        try:
            page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
            if (article := page.select_one("article.bd-article")) is None:
                raise ValueError("expected an article, found none")
            _make_still(article)
            _find_again(article, path, built)
            _rename_links(article, path, paths)
            entry, rule = _entry(article, path.stem), _running_head(article, f"page-{len(rules)}")
            front = None if whole.head else (_cover(page), _head(page, path))
        except Exception as error:  # whatever it is, it must not cost the other pages theirs
            tell(f"{path}: this page is left out: {in_words(error)}")
            continue
        entries.append(entry)
        rules.append(rule)
        if front:
            cover, head = front
            body.append(cover)
            whole.html.append(head)
        body.append(article)
    if whole.head is None:
        raise ValueError(f"{built}: expected a page that can be read, found none")
    contents = BeautifulSoup('<nav id="contents"><h1>Contents</h1></nav>', "html.parser").nav
    contents.append(entries)
    body.insert(1, contents)
    whole.head.style.append("".join(rules))
    whole.html.append(body)
    return str(whole)


def _cover(page: BeautifulSoup) -> Tag:
    """A page with the book's title, and with what stands at the foot of its pages."""
    cover = BeautifulSoup('<div class="cover"></div>', "html.parser").div
    title = page.select_one("article h1")
    said = [("book", _text(title or page.title or cover))]
    said += [("author", _text(author)) for author in page.select(".component-author")[:1]]
    for foot in page.select(".extra_footer")[:1]:
        said += [("small", line) for line in foot.stripped_strings]
    for kind, text in said:
        if text:
            line = page.new_tag("p", attrs={"class": kind})
            line.string = text
            cover.append(line)
    return cover


def _text(tag: Tag) -> str:
    return " ".join(tag.get_text().split())


def _entry(article: Tag, name: str) -> Tag:
    """What the contents say of a page: its title, and the headings below it."""
    title = article.h1.decode_contents() if article.h1 else escape(name)
    entry = _line(title, name)
    if headings := article.select("h2"):
        entry.append(BeautifulSoup("<ol></ol>", "html.parser").ol)
        for heading in headings:
            place = heading.get("id") or heading.parent.get("id") or name
            entry.ol.append(_line(heading.decode_contents(), place))
    return entry


def _line(words: str, place: str) -> Tag:
    """One line of the contents, which may hold formulas; links and names stay in the text."""
    dots = '<span class="dots"></span><span class="number"></span>'
    html = f'<li><a href="#{place}"><span>{words}</span>{dots}</a></li>'
    line = BeautifulSoup(html, "html.parser").li
    for tag in line.span.find_all(True):
        del tag["id"]
        if tag.name == "a":
            tag.unwrap()
    return line


def _running_head(article: Tag, kind: str) -> str:
    """Let the title of a page stand at the head of each sheet that it takes."""
    article["style"] = f"page: {kind}"
    title = BeautifulSoup(str(article.h1 or ""), "html.parser")
    for formula in title.select(".math"):  # which cannot be set there
        formula.decompose()
    title = _text(title)
    title = re.sub(r'["\\<]', lambda sign: f"\\{ord(sign[0]):x} ", title)
    font = "font: 9pt sans-serif; color: #444;"
    return f'@page {kind} {{ @top-left {{ content: "{title}"; {font} }} }}\n'


def _make_still(article: Tag) -> None:
    """Leave what paper can show."""
    for live in article.select(".live"):
        live.replace_with(BeautifulSoup(MOVES, "html.parser"))
    for useless in article.select("script, .headerlink"):
        useless.decompose()
    for folded in article.select("details"):
        folded["open"] = ""


def _find_again(article: Tag, path: Path, built: Path) -> None:
    """Name the files that a page shows by their places on the disk."""
    for name in ("src", "data"):
        for tag in article.find_all(attrs={name: True}):
            tag.attrs.pop("srcset", None)
            try:
                file = find_picture(tag[name], path, built)
                if file and file.suffix.lower() == ".svgz":  # a browser unpacks none from a disk
                    tag[name], file = in_address(*read_picture(file)), None
            except (OSError, ValueError) as error:
                print(f"{path}: {in_words(error)}")
                file = Path(os.path.normpath(path.parent / tag[name]))
            if file:
                tag[name] = file.as_uri()
            elif urlsplit(tag[name]).scheme != "data":
                print(f"{path}: the PDF links to what lies on the web: {shorten(tag[name])}")
                say_instead(tag, f"On the web: {link(tag[name], tag.get('alt'))}")


def _rename_links(article: Tag, path: Path, paths: list[Path]) -> None:
    for tag in article.find_all(id=True):
        tag["id"] = f"{path.stem}--{tag['id']}"
    article["id"] = path.stem
    for tag in article.find_all("a", href=True):
        target, anchor = urldefrag(tag["href"])
        try:
            if urlsplit(target).scheme:
                continue
            linked = (path.parent / target).resolve() if target else path
        except (OSError, ValueError):
            print(f"{path}: expected an address of a link, found {shorten(tag['href'])!r}")
            linked = None
        if linked in paths:
            tag["href"] = f"#{linked.stem}" + (f"--{anchor}" if anchor else "")
        else:
            del tag["href"]  # a file that is not in the PDF


def _head(page: BeautifulSoup, path: Path) -> Tag:
    head = page.new_tag("head")
    head.append(page.new_tag("meta", charset="utf-8"))
    if page.title:
        head.append(page.title)
    for sheet in page.select("head link[rel=stylesheet][href]"):
        if not leads_out(sheet["href"]):
            sheet["href"] = (path.parent / sheet["href"].split("?")[0]).resolve().as_uri()
            head.append(sheet)
    style = page.new_tag("style")
    style.string = STYLE
    head.append(style)
    return head


def print_pdf(built: Path, target: Path) -> Path:
    """Print a built book.

    Parameters
    ----------
    built : Path
        The folder of the HTML pages.
    target : Path
        The file to write; its folder is made if it is missing.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        The book has not been built, or there is no browser.

    Examples
    --------
    >>> print_pdf(BUILT, Path("book.pdf"))  # doctest: +SKIP
    PosixPath('book.pdf')
    """
    with set_page(built, contents(), target.with_suffix(".html")) as tab:
        printed = print_sheets(tab)
    target.write_bytes(printed)
    return target


@contextlib.contextmanager
def set_page(built: Path, pages: list[str], scratch: Path) -> Iterator[Page]:
    """Open pages of a built book in a browser as they will be printed: one sheet wide.

    Parameters
    ----------
    built : Path
        The folder of the HTML pages.
    pages : list of str
        Which ones, as in the table of contents.
    scratch : Path
        A file to write meanwhile; its folder is made if it is missing.

    Yields
    ------
    playwright.sync_api.Page
        The tab, with formulas set and wide blocks narrowed.

    Raises
    ------
    FileNotFoundError
        The book has not been built, or there is no browser.
    """
    from playwright.sync_api import sync_playwright  # a second to import, for this alone

    source = one_page(built, pages)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise FileNotFoundError("no browser found: install Debian's chromium, or Chrome")
    make_folder(scratch.parent)
    try:
        scratch.write_text(source, encoding="utf-8")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path)
            tab = browser.new_page(viewport={"width": 658, "height": 900})  # 174 mm
            tab.set_default_timeout(0)  # a whole book takes as long as it takes,
            # and nobody waits for a network: a style sheet may name fonts on the web.
            tab.route(re.compile("^https?:"), lambda route: route.abort())
            tab.emulate_media(media="print")
            tab.goto(scratch.as_uri())
            # Pages keep MathJax away from their text, and call it to what is marked as formulas.
            marked = "window.MathJax = {options: {processHtmlClass: 'math'}}"
            tab.add_script_tag(content=marked)
            tab.add_script_tag(path=built / "_static" / "mathjax" / "tex-svg.js")
            tab.evaluate("MathJax.startup.promise")
            tab.evaluate("document.fonts.ready")
            tab.evaluate(FORMULAS)
            tab.evaluate(FIT)
            yield tab
            browser.close()
    finally:
        scratch.unlink(missing_ok=True)


def print_sheets(tab: Page) -> bytes:
    """Print, see on which sheet everything came to lie, and print again with these numbers.

    Parameters
    ----------
    tab : playwright.sync_api.Page
        What `set_page` yields.

    Returns
    -------
    bytes
        The PDF.
    """
    from pypdf import PdfReader

    numbers = {}
    for _ in range(4):  # twice is enough, unless a number broke a line
        printed = tab.pdf(prefer_css_page_size=True, outline=True, tagged=True)
        book = PdfReader(BytesIO(printed))
        found = {
            name.lstrip("/"): book.get_destination_page_number(place) + 1
            for name, place in book.named_destinations.items()
        }
        if found == numbers:
            break
        numbers = found
        tab.evaluate(NUMBER, numbers)
    return printed


def main() -> int:
    """Print the built book; return 0, or 1 with a word on what is missing."""
    speak_to_any_console()
    try:
        path, left_out = hear(print_pdf, BUILT, BUILT.parent / "pdf" / "book.pdf")
    except (OSError, ValueError) as error:
        print(in_words(error))
        return 1
    print(*left_out, f"{os.path.relpath(path)}: {path.stat().st_size / 1e6:.1f} MB", sep="\n")
    return int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
