"""Slides for each chapter, from its built page, so that they cannot drift from the book.

After ``jupyter-book build .``, the command ``python -m tools.slides`` writes one file a chapter
to ``_build/slides``. It needs no network and nothing beside it, since it carries reveal.js: arrow
keys or a finger turn the slides, S opens a second window for the speaker, with notes, clock and
next slide, N shows the notes in the same window, O all slides at once, and a browser prints them,
best with ``?print-pdf`` behind the address. What is too high for a slide is made smaller. A picture
that lies on the web stays there: the slide has a link to it.
"""

from __future__ import annotations

import base64
import gzip
import math
import mimetypes
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from bs4 import BeautifulSoup, NavigableString, Tag

from helpers import in_words
from tools import speak_to_any_console

BUILT = Path(__file__).resolve().parents[1] / "_build" / "html"
CLOSING = "What you have seen"  # the title of the box that ends a chapter
ROOM = 8  # lines of text that fit on a slide; other things count for several
LONGEST = 12  # rows of a table that fit; of a longer one the ends are shown


def make_slides(built: Path, target: Path) -> list[Path]:
    """Write the slides of every chapter of a built book.

    Parameters
    ----------
    built : Path
        The folder of the book's HTML pages.
    target : Path
        The folder for the slides; it is made if it is missing.

    Returns
    -------
    list of Path
        One HTML file a chapter, named like its page, which begins with two digits. A page of which
        none can be made, and a picture that is missing, are told of; the others are made.

    Raises
    ------
    FileNotFoundError
        The folder holds no chapter: the book has not been built.
    NotADirectoryError
        There is something else where the folder for the slides goes.
    ModuleNotFoundError
        The package that carries reveal.js is not installed.

    Examples
    --------
    >>> make_slides(Path("no-such-folder"), Path("slides"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: no-such-folder/chapters holds no chapter; build the book first, ...
    """
    pages = _pages(built)
    if not pages:
        folder = (built / "chapters").as_posix()
        raise FileNotFoundError(
            f"{folder} holds no chapter; build the book first, with `jupyter-book build .`"
        )
    reveal = _reveal()
    make_folder(target)
    if others := sorted({*built.glob("chapters/**/*.html")} - {*pages}):
        names = ", ".join(path.relative_to(built).as_posix() for path in others)
        print(f"No slides of pages whose name does not begin with two digits: {names}")
    guide = _guide(built)
    written = []
    for page in pages:
        path = target / page.name
        try:
            deck = _deck(page, built, guide, reveal)
            path.unlink(missing_ok=True)  # nothing is written through a link
            path.write_text(deck, encoding="utf-8")
        except Exception as error:  # whatever it is, it must not cost the other chapters theirs
            print(f"{page}: no slides can be made of this page: {in_words(error)}")
            with suppress(OSError):  # a folder stays
                path.unlink(missing_ok=True)  # those of an earlier build say something else
            continue
        written.append(path)
    return written


def make_folder(folder: Path) -> None:
    """Make a folder, or say what stands in its place.

    Raises
    ------
    NotADirectoryError
        There is something else.

    Examples
    --------
    >>> make_folder(Path(__file__) / "new")
    Traceback (most recent call last):
    ...
    NotADirectoryError: ...slides.py: expected a folder, found a file
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                kind = "a file" if place.is_file() else "something else"
                raise NotADirectoryError(f"{place}: expected a folder, found {kind}") from None
        raise


def _pages(built: Path) -> list[Path]:
    return sorted(built.glob("chapters/[0-9][0-9]_*.html"))


def find_picture(address: str, page: Path, built: Path) -> Path | None:
    """Find the file of a picture that a built page shows: in the built book, or in its source.

    Parameters
    ----------
    address : str
        As the page has it: relative to the page or, after a slash, to the book.
    page, built : Path
        The page, and the folder of all pages.

    Returns
    -------
    Path or None
        None where it lies elsewhere (on the web, or in the address itself).

    Raises
    ------
    FileNotFoundError
        The book does not hold it, it is empty, or no file can have such an address.

    Examples
    --------
    >>> find_picture("https://example.org/a.png", Path("page.html"), Path("html")) is None
    True
    >>> find_picture("m%C3%BCde.png", Path("html/page.html"), Path("html"))
    Traceback (most recent call last):
    ...
    FileNotFoundError: expected a picture, found none at 'm%C3%BCde.png'
    """
    with suppress(OSError, ValueError):  # of an address that is none, or too long for a name
        parts = urlsplit(address)
        if parts.netloc or parts.scheme in ("http", "https", "data"):
            return None
        if parts.scheme == "file":
            paths = [Path(url2pathname(parts.path))]
        else:
            # A browser's reading first: the name may be written in escapes, and be versioned.
            names = [name for name in (unquote(parts.path), unquote(address), address) if name]
            page, built = page.resolve(), built.resolve()
            folders = [built if address.startswith("/") else page.parent]
            # What is written in HTML, or has an umlaut or a space in its name, is not copied.
            for book in built.parents[:2]:
                folders += [book, book / page.parent.relative_to(built)]
            paths = [folder / name.lstrip("/") for name in names for folder in folders]
        for path in paths:
            if path.is_file() and path.stat().st_size:
                return path.resolve()
    raise FileNotFoundError(f"expected a picture, found none at {shorten(address)!r}")


def shorten(address: str) -> str:
    """Leave the beginning of a long address, to tell of it.

    Examples
    --------
    >>> shorten("a.png"), len(shorten("a" * 5000))
    ('a.png', 200)
    """
    return address if len(address) <= 200 else f"{address[:199]}…"


def sentences(paragraph: Tag) -> list[str]:
    """Split a paragraph where its source was split: one sentence a line.

    Parameters
    ----------
    paragraph : bs4.Tag
        A paragraph of a built page.

    Returns
    -------
    list of str
        The HTML of each sentence.

    Examples
    --------
    >>> sentences(BeautifulSoup("<p>One <b>bold</b> word.\\nAnother.</p>", "html.parser").p)
    ['One <b>bold</b> word.', 'Another.']
    """
    lines = [""]
    for node in paragraph.children:
        if isinstance(node, NavigableString):
            first, *rest = escape(str(node), quote=False).split("\n")
            lines[-1] += first
            lines += rest
        else:
            lines[-1] += str(node)
    return [line.strip() for line in lines if line.strip()]


def key_sentences(paragraph: Tag) -> list[str]:
    """Keep the sentences that matter: those with a bold term or a number from the code.

    Examples
    --------
    >>> text = "<p>By the way.\\nA <strong>code</strong> is short.\\nWe compute:</p>"
    >>> key_sentences(BeautifulSoup(text, "html.parser").p)
    ['A <strong>code</strong> is short.']
    """
    return [s for s in sentences(paragraph) if "<strong" in s or "pasted-" in s]


def _deck(page: Path, built: Path, guide: BeautifulSoup | None, reveal: Path) -> str:
    """One chapter as one HTML file."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    chapter = _chapter(soup, page)
    _clean(chapter, page, built)
    title = chapter.h1.get_text()
    slides = [
        *_title_slide(chapter),
        *_opening_slides(chapter),
        *_section_slides(chapter),
        *_closing_slide(chapter),
    ]
    number = int(page.stem[:2])
    scripts = [reveal / "dist" / "reveal.js", reveal / "plugin" / "notes" / "notes.js"]
    if chapter.select_one(".math"):  # it sets mathematics, with its fonts, from the built book
        scripts.append(built / "_static" / "mathjax" / "tex-svg.js")
    return _TEMPLATE.format(
        title=escape(title),
        slides="\n".join(
            f'<section class="slide" id="slide-{i}" tabindex="-1"'
            f' aria-label="Slide {i} of {len(slides)}">\n'
            f"{_one(slide)}\n"
            f"<footer>{number}. {escape(title)} · {i} / {len(slides)}</footer>\n</section>"
            for i, slide in enumerate(slides, 1)
        ),
        notes=_one(_notes(guide, built, number)),
        style=(reveal / "dist" / "reveal.css").read_text(encoding="utf-8") + _STYLE,
        scripts="\n".join(map(_put_in_script, scripts)),
        start=_START,
    )


def _one(html: str) -> str:
    """A part of a slide without sections, which reveal.js would take for slides below it."""
    return re.sub(r"<(/?)section\b", r"<\1div", html)


def _reveal() -> Path:
    """The folder of reveal.js, which the package sphinx-revealjs carries."""
    package = find_spec("sphinx_revealjs")  # not imported, for it would import Sphinx
    if package is None:
        raise ModuleNotFoundError("sphinx-revealjs is not installed: pip install sphinx-revealjs")
    return Path(package.origin).parent / "_static" / "revealjs"


def _put_in_script(path: Path) -> str:
    """A script to stand in the page; in its texts it may speak of tags, which must not be read."""
    script = path.read_text(encoding="utf-8")
    script = re.sub(r"<(?=/?script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
    return f"<script>{script}</script>"


def _chapter(soup: BeautifulSoup, page: Path) -> Tag:
    """The part of a page that is the chapter: below its title, or what there is without one."""
    if title := soup.select_one("section > h1"):  # a theme may have others around the chapter
        chapter = title.parent
        # Of more than one title the others are headings, each with all that is below it.
        for part in chapter.find_next_siblings("section"):
            for other in part.find_all("h1", recursive=False):
                other.name = "h2"
            chapter.append(part)
        return chapter
    places = map(soup.select_one, ("article.bd-article", "article", "[role=main]", "main", "body"))
    chapter = next(filter(None, places), None)
    if chapter is None or not chapter.get_text().strip():
        raise ValueError("expected a page with a title, found no text")
    print(f"{page}: expected a title, found none; the name of the file stands in for it")
    title = soup.new_tag("h1")
    title.string = page.stem[3:].replace("_", " ") or page.stem
    chapter.insert(0, title)
    return chapter


def _clean(chapter: Tag, page: Path, built: Path) -> None:
    """Drop what leads away from the slide, and put the pictures into it."""
    for citation in chapter.select(".bibtex-citation"):
        if isinstance(before := citation.previous_sibling, NavigableString):
            before.replace_with(before.rstrip())
        citation.decompose()
    for extra in chapter.select("a.headerlink, .section-number, script, style:not(svg *)"):
        extra.decompose()
    for leading in chapter.select("a"):
        leading.unwrap()
    for tag in chapter.select("[id]:not(svg *)"):  # the parts of a drawing name each other
        del tag["id"]
    for table in chapter.select("table"):
        del table["border"]
        _shorten(table)
    for equation in chapter.select("div.math"):
        equation["tabindex"] = "0"  # a long one is scrolled on a small screen
    for image in chapter.select('object[type^="image/"], object[data$=".svg"]'):
        image.name, image["src"] = "img", image.attrs.pop("data", "")
        image["alt"] = image.get_text().strip()
        image.clear()
    for choice in chapter.select("picture > source"):
        choice.decompose()  # the img beside it shows the same
    for picture in chapter.select("img, svg"):
        # An icon of the theme is no picture, nor is a part of one.
        icon = any("octicon" in name for name in picture.get("class", []))
        if not icon and not picture.find_parent(["figure", "table", "svg"]):
            picture.wrap(BeautifulSoup("<figure></figure>", "html.parser").figure)
    for image in chapter.select("img"):
        _put_in(image, page, built)
    for image in chapter.select("svg image"):
        for name in {"href", "xlink:href"} & {*image.attrs}:
            _put_in(image, page, built, name)
    for figure in chapter.select(".exercise details figure"):
        print(f"{page}: the slides do not show this picture, which is folded in an exercise")
        figure.decompose()
    for moving in chapter.select("iframe, video, audio, embed"):
        address = moving.get("src") or (moving.source and moving.source.get("src")) or ""
        print(f"{page}: the slides do not show this {moving.name}: {shorten(address)}")
        there = link(address) if leads_out(address) else escape(shorten(address))
        say_instead(moving, f"Not on the slides: {moving.name} {there}")


def _put_in(image: Tag, page: Path, built: Path, name: str = "src") -> None:
    """Put a picture itself in the place of its address, or a word where that cannot be."""
    image.attrs.pop("srcset", None)
    address = image.get(name, "").strip()
    try:
        path = find_picture(address, page, built)
        if path is None:
            if not address.lower().startswith("data:"):
                print(f"{page}: the slides link to what lies on the web: {shorten(address)}")
                say_instead(image, f"On the web: {link(address, image.get('alt'))}")
            return
        kind, content = read_picture(path)
    except (OSError, ValueError) as error:
        print(f"{page}: {in_words(error)}")
        what = escape(image.get("alt") or shorten(address))
        say_instead(image, f"A picture is missing here: {what}")
        return
    image[name] = in_address(kind, content)
    # A PNG begins with its width and height; a broad one goes below the text.
    width, height = (int.from_bytes(content[i : i + 4]) for i in (16, 20))
    if kind == "image/png" and width > 2 * height:
        image["class"] = "broad"


def read_picture(path: Path) -> tuple[str, bytes]:
    """Read a picture, unpacked: its kind, and what the file holds.

    Raises
    ------
    ValueError
        It is said to be packed, and is not, or is damaged.
    """
    kind, packed = mimetypes.guess_type(path.name)
    content = path.read_bytes()
    if packed == "gzip":  # as in .svgz
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            found = f"found {in_words(error)}"
            raise ValueError(f"{path}: expected a packed picture, {found}") from None
    return kind or "application/octet-stream", content


def in_address(kind: str, content: bytes) -> str:
    """Put a picture into an address.

    Examples
    --------
    >>> in_address("image/png", b"a")
    'data:image/png;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def leads_out(address: str) -> bool:
    """Say whether an address leads out of the book; one that is none does not.

    Examples
    --------
    >>> leads_out("//example.org/a.png"), leads_out("a.png"), leads_out("http://[bad")
    (True, False, False)
    """
    try:
        return bool(urlsplit(address).netloc)
    except ValueError:
        return False


def say_instead(tag: Tag, words: str) -> None:
    """Put words, in HTML, in the place of what cannot be shown; of a part of a drawing, below it.

    Examples
    --------
    >>> page = BeautifulSoup("<div><img></div>", "html.parser")
    >>> say_instead(page.img, "no picture")
    >>> str(page)
    '<div><p class="small">no picture</p></div>'
    """
    said = BeautifulSoup(f'<p class="small">{words}</p>', "html.parser").p
    if drawing := tag.find_parent("svg"):
        drawing.insert_after(said)
        tag.decompose()
    else:
        tag.replace_with(said)


def link(address: str, text: str | None = None) -> str:
    """Write a link in HTML.

    Examples
    --------
    >>> link("//example.org/?a&b", "2 < 3")
    '<a href="https://example.org/?a&amp;b">2 &lt; 3</a>'
    """
    whole = f"https:{address}" if address.startswith("//") else address
    return f'<a href="{escape(whole)}">{escape(text or address)}</a>'


def _shorten(table: Tag) -> None:
    """Leave the first and the last rows of a long table."""
    rows = table.select("tbody > tr")
    if len(rows) > LONGEST:
        half = LONGEST // 2 - 1
        for row in rows[half:-half]:
            row.decompose()
        n_cells = len(rows[0].find_all(["th", "td"], recursive=False))
        row = BeautifulSoup(f"<tr>{'<td>…</td>' * n_cells}</tr>", "html.parser")
        rows[half - 1].insert_after(row)


def _title_slide(chapter: Tag) -> Iterator[str]:
    """The title, the question, and what one will be able to do."""
    question = chapter.find("p", recursive=False)
    objectives = chapter.select_one(".admonition ul")
    parts = [f"<h1>{chapter.h1.decode_contents()}</h1>"]
    parts += [f'<p class="question">{question.get_text()}</p>'] if question else []
    if objectives:
        parts += ["<p>You will be able to</p>", str(objectives)]
        last = objectives.find_parent(class_="admonition").select("p:not(li p)")[-1:]
        parts += [
            f'<p class="small">{sentence}</p>' for p in last for sentence in sentences(p)[-1:]
        ]
    yield "\n".join(parts)


def _opening_slides(chapter: Tag) -> Iterator[str]:
    """What is shown before the first heading."""
    heading = f"<h2>{chapter.h1.decode_contents()}</h2>"
    for child in chapter.find_all(True, recursive=False):
        if child.name != "section":
            yield from (_slide(heading, [picture]) for picture in _pictures(child))


def _pictures(block: Tag) -> list[str]:
    """Take the pictures out of a block, each with its caption."""
    if block.name == "figure":
        return [str(block)]
    return [str(figure.extract()) for figure in block.select("figure")]


def _section_slides(chapter: Tag) -> Iterator[str]:
    """For each heading its key sentences, and what is shown there."""
    for title in chapter.select(", ".join(f"section > h{level}" for level in range(2, 7))):
        section, heading = title.parent, f"<h2>{title.decode_contents()}</h2>"
        text, room = [], ROOM
        for block in _blocks(section):
            size = _size(block)
            if len(text) > 1 and size > room:
                yield _slide(heading, text)
                text, room = [], ROOM
            text.append(block)
            room -= size
            if block.startswith(("<figure", "<pre", "<table", "<blockquote")):
                yield _slide(heading, text)
                text, room = [], ROOM
        if text:
            yield _slide(heading, text)


def _blocks(section: Tag) -> Iterator[str]:
    """The HTML of what a section has to show, in order."""
    paragraphs = [p for p in section.find_all("p", recursive=False) if p.get_text().strip()]
    first, last = (paragraphs[0], paragraphs[-1]) if paragraphs else (None, None)
    keys = [sentence for paragraph in paragraphs for sentence in key_sentences(paragraph)]
    quiz = any(map(_is_question, paragraphs))
    for child in section.find_all(True, recursive=False):
        classes = child.get("class") or []
        if _is_question(child):
            yield f"<blockquote>{child}{_answers(child)}</blockquote>"
        elif child.name == "p":
            pictures, found = _pictures(child), key_sentences(child)
            if quiz:
                found = []
            elif child is first and not found:
                found = sentences(child)[:1]
            elif child is last and not keys:
                found = sentences(child)[-1:]
            yield from (f"<p>{sentence}</p>" for sentence in found if not sentence.endswith(":"))
            yield from pictures
        elif child.name == "details" and quiz:
            continue
        elif child.name in ("ul", "ol") or "math" in classes:
            yield str(child)
        elif "exercise" in classes:
            title = child.select_one(".admonition-title")
            yield f"<p>{title.decode_contents() if title else 'Exercise'}</p>"
            yield from _pictures(child)
        elif "warning" in classes:
            pictures = _pictures(child)
            yield from (
                f"<p>{sentence}</p>"
                for p in child.select("p:not(.admonition-title)")
                for sentence in sentences(p)
            )
            yield from pictures
        elif "admonition" in classes:
            title = child.select_one(".admonition-title")
            if not title or title.get_text() != CLOSING:
                yield from _pictures(child)
        elif child.name == "section":
            continue
        else:
            if "tag_shown-once" in classes and (code := child.select_one(".cell_input")):
                yield f"<pre><code>{escape(code.get_text().strip())}</code></pre>"
            shown = [child] if child.name in ("figure", "table") else child.select("figure, table")
            yield from map(str, shown)


def _is_question(block: Tag) -> bool:
    return block.name == "p" and block.get_text().startswith("Question ")


def _answers(question: Tag) -> str:
    """The answers to choose from, and not which is right."""
    answers = []
    for sibling in question.find_next_siblings():
        if sibling.name != "details":
            break
        if answer := sibling.select_one(".sd-summary-text") or sibling.summary:
            answers.append(answer.decode_contents().strip())
    return f"<ul>{''.join(f'<li>{answer}</li>' for answer in answers)}</ul>"


def _size(block: str) -> float:
    """How many lines of text a block takes the room of."""
    if block.startswith("<figure"):
        return 4
    if block.startswith("<div"):
        return 2 + block.count("\\\\")
    if block.startswith("<p>"):
        return math.ceil(len(BeautifulSoup(block, "html.parser").get_text()) / 95)
    if block.startswith("<pre"):
        return block.count("\n") / 2
    return 1 + block.count("<li") + block.count("<tr") / 2


def _slide(heading: str, blocks: list[str]) -> str:
    beside = blocks[-1].startswith("<figure") and 'class="broad"' not in blocks[-1]
    columns = " columns" if beside and len(blocks) > 1 else ""
    return f'{heading}\n<div class="body{columns}">\n' + "\n".join(blocks) + "\n</div>"


def _closing_slide(chapter: Tag) -> Iterator[str]:
    """The box at the end: what has been seen, and the answer."""
    for box in chapter.select(".admonition"):
        title = box.select_one(".admonition-title")
        if title and title.get_text() == CLOSING:
            title.decompose()
            yield f'<h2>{CLOSING}</h2>\n<div class="body">{box.decode_contents()}</div>'


def _guide(built: Path) -> BeautifulSoup | None:
    path = built / "chapters" / "instructor_guide.html"
    try:
        return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path}: it cannot be read, so the slides have no notes: {in_words(error)}")
        return None


def _notes(guide: BeautifulSoup | None, built: Path, number: int) -> str:
    """What the instructor guide says about a chapter."""
    if guide is None:
        return "<p>There is no instructor guide in the built book.</p>"
    for section in guide.select("section > section"):
        if section.h2 and section.h2.get_text().startswith(f"Chapter {number}:"):
            _clean(section, built / "chapters" / "instructor_guide.html", built)
            section.h2.decompose()
            return section.decode_contents()
    return f"<p>The instructor guide says nothing about Chapter {number}.</p>"


# A slide is 1280 by 720, whatever the screen, and everything on it is measured by its letters.
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --paper: #fff; --soft: #565d66;
  --accent: #0b5a93; --panel: #eef2f6; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8eaed; --paper: #14171a; --soft: #aab2bb;
    --accent: #7fc1f5; --panel: #23282e; } }
* { box-sizing: border-box; }
html, body, .reveal-viewport { margin: 0; background: var(--paper); color: var(--text); }
.reveal .controls, .reveal .progress { color: var(--accent); }
.reveal .slides { text-align: left; font: 24px/1.4 system-ui, sans-serif; }
.reveal .slides section.slide { width: 1280px; height: 720px; padding: 40px 90px 24px;
  flex-direction: column; outline: none; }
.slide > .body { flex: 1 0 auto; display: flex; flex-direction: column; justify-content: center; }
.slide > .body > * { margin: 0.35em 0; }
h1 { font-size: 2.2em; line-height: 1.15; margin: 1.2em 0 0.4em; color: var(--accent); }
h2 { font-size: 1.45em; line-height: 1.2; margin: 0 0 0.4em; color: var(--accent); }
.question { font-size: 1.3em; font-weight: 600; margin: 0 0 1em; }
.small, figcaption, footer { font-size: 0.72em; color: var(--soft); }
.slide > footer { margin-top: auto; padding-top: 1em; }
figure { margin: 0; min-width: 0; }
figure img, figure svg { display: block; width: auto; max-width: 100%; height: auto;
  max-height: 18em; margin: 0 auto 0.6em; background: #fff; padding: 0.4em; }
.body:not(.columns) > figure img { height: 14em; object-fit: contain; }
.body > figure:only-child img { height: 17em; max-height: none; }
.body > figure img.broad.broad { width: min(100%, 43em); height: auto; max-height: 13em;
  object-fit: contain; }
figcaption p { margin: 0; }
.pasted-text, .pasted-inline { font-weight: 700; }
pre { background: var(--panel); padding: 0.8em 1em; overflow-wrap: anywhere; white-space: pre-wrap;
  font-size: 0.78em; line-height: 1.35; }
table { border-collapse: collapse; font-size: 0.72em; line-height: 1.3; }
caption { text-align: left; color: var(--soft); padding-bottom: 0.5em; }
th, td { text-align: left; vertical-align: top; padding: 0.25em 0.7em;
  border-bottom: 1px solid var(--panel); }
.body > table:has(tr:nth-child(8)) { font-size: 0.6em; }
td p, th p, li p { margin: 0; }
blockquote { margin: 0; } blockquote li { margin: 0.6em 0; }
div.math:has(.eqno) { display: flex; flex-direction: row-reverse; align-items: center; }
div.math:has(.eqno) > mjx-container { flex: 1; min-width: 0; }
div.math > mjx-container > svg { max-width: 100%; height: auto; }
.eqno { color: var(--soft); }
mjx-container g { stroke: none; } /* a line of no width is printed as the thinnest there is */
.body.columns { display: grid !important; grid-template-columns: 2fr 3fr; column-gap: 2em;
  align-content: center; align-items: center; }
.body.columns > figure { grid-column: 2; grid-row: 1 / span 9; }
.body.columns > figure img { max-height: 18em; }
.body.columns > :not(figure) { grid-column: 1; min-width: 0; }
aside.notes, #notes { display: none; }
.reveal .speaker-notes { background: var(--panel); color: var(--text); border: 0; }
.reveal .speaker-notes .notes-placeholder { display: none; }
.reveal .speaker-notes h2 { font-size: 1.1em; } .reveal .speaker-notes h3 { font-size: 1em; }
.reveal.measured .slides { position: static; width: 1280px; height: 720px; }
.reveal.measured .slides > section.slide { display: flex !important; visibility: hidden;
  position: absolute; top: 0; left: 0; }
@media print {
  :root { --text: #000; --paper: #fff; --soft: #444; --accent: #0b5a93; --panel: #eee; } }
html.reveal-print .reveal .slides section.slide { display: flex !important;
  padding: 40px 90px 24px !important; }
html.reveal-print .reveal .speaker-notes-pdf[data-layout] { font: 17px/1.35 system-ui, sans-serif;
  background: #fff; color: #000; width: 1280px; padding: 20px 90px 0; break-after: auto; }
html.reveal-print .reveal .speaker-notes-pdf h3 { font-size: 1em; margin: 0.6em 0 0; }
html.reveal-print .reveal .speaker-notes-pdf :is(p, ul) { margin: 0.2em 0; }
"""
_START = """
const stage = document.querySelector(".reveal"), notes = document.getElementById("notes");
const slides = [...document.querySelectorAll(".slide")];
const printing = /print-pdf|view=print/.test(location.search);

// What is too high or too broad for its slide gets smaller letters, until it fits.
function fit(slide) {
  for (let size = 24; size > 5; size -= 0.5) {
    slide.style.fontSize = size + "px";
    const end = slide.lastElementChild.getBoundingClientRect().bottom;
    const height = end - slide.getBoundingClientRect().top;
    if (height <= 697 && slide.scrollHeight <= 720 && slide.scrollWidth <= 1280) return;
  }
}

async function start() {
  if (window.MathJax) await MathJax.startup.promise;
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  stage.classList.add("measured");
  slides.forEach(fit);
  stage.classList.remove("measured");
  // The notes are the chapter's: of every slide for the speaker, and once on paper.
  for (const slide of printing ? slides.slice(-1) : slides) {
    const aside = document.createElement("aside");
    aside.className = "notes";
    aside.append(...[...notes.cloneNode(true).children].slice(1)); // their title is shown anyhow
    slide.append(aside);
  }
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0, center: false, display: "flex", hash: true,
    transition: "none", controlsTutorial: false, pdfSeparateFragments: false,
    showNotes: printing && "separate-page", plugins: [RevealNotes],
    keyboard: { 78: () => {
      Reveal.configure({ showNotes: !Reveal.getConfig().showNotes });
      Reveal.layout();
    } } });
  document.documentElement.dataset.ready = "yes";
}
start();
"""
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title>
<style>
{style}
</style>
<noscript><style>
.reveal .slides > section.slide {{ display: flex; position: static; height: auto; width: auto; }}
#notes {{ display: block; padding: 0 90px; }}
</style></noscript>
</head>
<body>
<main class="reveal">
<div class="slides">
{slides}
</div>
</main>
<aside id="notes" aria-label="Speaker notes">
<h2>Speaker notes</h2>
{notes}
</aside>
{scripts}
<script>{start}</script>
</body>
</html>
"""


def main() -> int:
    """Make the slides of the built book; return 0, or 1 if there is no book or a page is lost."""
    speak_to_any_console()
    try:
        written = make_slides(BUILT, BUILT.parent / "slides")
    except (OSError, ModuleNotFoundError) as error:
        print(in_words(error))
        return 1
    for path in written:
        print(path.relative_to(BUILT.parents[1]))
    return int(len(written) < len(_pages(BUILT)))


if __name__ == "__main__":
    sys.exit(main())
