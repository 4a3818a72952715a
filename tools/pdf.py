"""The built book as one PDF, printed by Chromium.

After ``jupyter-book build .``, the command ``python -m tools.pdf`` writes all pages, in the order
of the table of contents, to ``_build/pdf/book.pdf``: with links between them, solutions unfolded,
and a word in the place of a figure that answers to the pointer. It needs no network, but Chromium,
and Playwright to drive it. What lies on the web is left there, with a link to it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

from helpers import hear, in_words, tell
from tools import speak_to_any_console
from tools.slides import find_picture, link, say_instead

BOOK = Path(__file__).resolve().parents[1]
BUILT = BOOK / "_build" / "html"
MOVES = "<p><em>On the screen a figure moves here; the one above shows it at rest.</em></p>"
STYLE = """
article { break-before: page; }
h1, h2, h3, h4 { break-after: avoid; }
figure, .admonition, table, div.cell_output { break-inside: avoid; }
pre { white-space: pre-wrap; }
"""


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
        One HTML page. Each anchor carries the name of its page, and every link within the book
        leads to one. A page that is damaged is told of and left out.

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
    for path in paths:
        try:
            page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
            if (article := page.select_one("article.bd-article")) is None:
                raise ValueError("expected an article, found none")
        except (OSError, ValueError) as error:
            tell(f"{path}: this page is left out: {in_words(error)}")
            continue
        _make_still(article)
        _find_again(article, path, built)
        _rename_links(article, path, paths)
        body.append(article)
        if whole.head is None:
            whole.html.append(_head(page, path))
    if whole.head is None:
        raise ValueError(f"{built}: expected a page that can be read, found none")
    whole.html.append(body)
    return str(whole)


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
            except FileNotFoundError as error:
                print(f"{path}: {error}")
                file = (path.parent / tag[name]).resolve()
            if file:
                tag[name] = file.as_uri()
            elif urlsplit(tag[name]).scheme != "data":
                print(f"{path}: the PDF links to what lies on the web: {tag[name]}")
                say_instead(tag, f"On the web: {link(tag[name], tag.get('alt'))}")


def _rename_links(article: Tag, path: Path, paths: list[Path]) -> None:
    for tag in article.find_all(id=True):
        tag["id"] = f"{path.stem}--{tag['id']}"
    article["id"] = path.stem
    for tag in article.find_all("a", href=True):
        target, anchor = urldefrag(tag["href"])
        if urlsplit(target).scheme:
            continue
        linked = (path.parent / target).resolve() if target else path
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
        if not urlsplit(sheet["href"]).netloc:
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
    from playwright.sync_api import sync_playwright  # a second to import, for this alone

    source = one_page(built, contents())
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise FileNotFoundError("no browser found: install Debian's chromium, or Chrome")
    target.parent.mkdir(parents=True, exist_ok=True)
    page_path = target.with_suffix(".html")
    mathjax = built / "_static" / "mathjax" / "tex-svg.js"
    try:
        page_path.write_text(source, encoding="utf-8")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path)
            tab = browser.new_page()
            tab.set_default_timeout(0)  # a whole book takes as long as it takes,
            # and nobody waits for a network: a style sheet may name fonts on the web.
            tab.route(re.compile("^https?:"), lambda route: route.abort())
            tab.goto(page_path.as_uri())
            tab.add_script_tag(path=mathjax)
            tab.evaluate("MathJax.startup.promise")
            tab.evaluate("document.fonts.ready")
            margin = dict.fromkeys(("top", "bottom", "left", "right"), "18mm")
            tab.pdf(path=target, format="A4", margin=margin, outline=True, tagged=True)
            browser.close()
    finally:
        page_path.unlink(missing_ok=True)
    return target


def main() -> int:
    """Print the built book; return 0, or 1 with a word on what is missing."""
    speak_to_any_console()
    try:
        path, left_out = hear(print_pdf, BUILT, BUILT.parent / "pdf" / "book.pdf")
    except (FileNotFoundError, ValueError) as error:
        print(error)
        return 1
    print(*left_out, f"{os.path.relpath(path)}: {path.stat().st_size / 1e6:.1f} MB", sep="\n")
    return int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
