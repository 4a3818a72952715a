"""The slides say and show what the pages do, and need nothing beside them."""

import base64
import gzip
import io
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import REACH
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pypdf import PdfReader

from tools import slides

FIRST = """(ch-why)=
# Why count

**How many are there?**

```{admonition} On this page
:class: tip
You will be able to
- count to three.

Running took {glue:text}`minutes:.1f` minutes.
Data: {glue:text}`which`.
```

## Step 1: collect

We begin with nothing.
A **count** is a number.
This sentence is said aside.
"""
GLUE = """from myst_nb import glue

glue("minutes", 0.1, display=False)
glue("which", "three made-up points", display=False)
glue("share", 0.3125, display=False)"""
SHOWN = "def count(things):\n    return len(things)"
DRAWN = """import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(2, 2))
ax.plot([1, 2, 3]);"""
LAST = """The share is {glue:text}`share:.2f`.

## Step 2: judge

Write $n$ for the **number**.

$$ n \\in \\{1, 2\\} $$

```{admonition} What you have seen
:class: note
- The share was {glue:text}`share:.2f`.
```
"""
PLAIN = """# Plain

**Is it plain?**

## It is

First.
Second.

Third.
Last.

```{warning}
Nobody should count on it.
Not even you.
```

| row |
|---|
ROWS

## Check yourself

Decide first.

**Question 1.** There are two.
How many are left without one?

```{dropdown} One.
**Right.** Two without one.
```

```{dropdown} None.
**Wrong.** Count again.
```

```{exercise} Apply, 10 minutes: count
Count them.
```
""".replace("ROWS", "\n".join(f"| {n} |" for n in range(30)))
GUIDE = """# For instructors

## Chapter 1: why count

### The point

Counting comes first.

## Chapter 2: plain

### The point

Not for the first chapter.
"""
CONF = """extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
extensions += ["sphinx_exercise", "sphinx_design"]
myst_enable_extensions = ["dollarmath"]
html_theme = "basic"
nb_execution_raise_on_error = True
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small book of two chapters and a guide, executed and built as the real one is."""
    book = tmp_path_factory.mktemp("book")
    chapters = book / "chapters"
    chapters.mkdir()
    figure = {"caption": "Three points on a line.", "name": "fig-line"}
    cells = [
        new_markdown_cell(FIRST),
        new_code_cell(GLUE, metadata={"tags": ["remove-cell"]}),
        new_code_cell(SHOWN, metadata={"tags": ["shown-once"]}),
        new_code_cell(
            DRAWN, metadata={"mystnb": {"figure": figure, "image": {"alt": "A rising line."}}}
        ),
        new_markdown_cell(LAST),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), chapters / "01_why.ipynb")
    (chapters / "02_plain.md").write_text(PLAIN)
    (chapters / "03_crowded.md").write_text(CROWDED)
    (chapters / "instructor_guide.md").write_text(GUIDE)
    (book / "conf.py").write_text(CONF)
    pages = ["01_why", "02_plain", "03_crowded", "instructor_guide"]
    toc = "\n".join(["```{toctree}", *(f"chapters/{page}" for page in pages), "```"])
    (book / "index.md").write_text(f"# Book\n\n{toc}")
    command = [sys.executable, "-m", "sphinx", "-q", str(book), str(book / "html")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return book / "html"


@pytest.fixture(scope="module")
def decks(built, tmp_path_factory):
    written = slides.make_slides(built, tmp_path_factory.mktemp("slides") / "new")
    assert [path.name for path in written] == ["01_why.html", "02_plain.html", "03_crowded.html"]
    return [BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in written]


@pytest.fixture
def deck(decks):
    return decks[0]


def body(deck, heading):
    """The text of the slides under a heading."""
    found = [s for s in deck.select(".slide") if s.h2 and s.h2.get_text() == heading]
    assert found
    return " ".join(" ".join(slide.get_text(" ") for slide in found).split())


def test_the_first_slide_has_title_question_objectives_and_data(deck):
    first = deck.select_one(".slide")
    assert first.h1.get_text() == "Why count"
    assert first.select_one(".question").get_text() == "How many are there?"
    assert first.li.get_text() == "count to three."
    assert first.select_one(".small").get_text() == "Data: three made-up points."


def test_a_slide_has_the_key_sentences_with_their_numbers_and_not_the_asides(deck):
    text = body(deck, "Step 1: collect")
    assert "A count is a number." in text
    assert "The share is 0.31 ." in text
    assert "aside" not in text


def test_where_no_sentence_stands_out_a_slide_has_the_first_and_the_last(decks):
    text = body(decks[1], "It is")
    assert "First." in text and "Last." in text
    assert "Second." not in text and "Third." not in text


def test_a_question_has_a_slide_with_all_its_answers_and_none_is_given_away(decks):
    text = body(decks[1], "Check yourself")
    assert "Question 1. There are two. How many are left without one? One. None." in text
    assert not decks[1].select("svg")  # what opens and closes on the page
    assert "Decide" not in text and "Right" not in text and "Wrong" not in text


def test_a_warning_is_read_whole(decks):
    assert "Nobody should count on it. Not even you." in body(decks[1], "It is")


def test_of_a_long_table_the_ends_are_shown(decks):
    cells = [cell.get_text() for cell in decks[1].select("td")]
    assert cells == [*"01234", "…", *map(str, range(25, 30))]


def test_an_exercise_is_named_and_not_given_away(decks):
    text = body(decks[1], "Check yourself")
    assert "Apply, 10 minutes: count" in text and "Count them." not in text


def test_a_figure_has_its_picture_caption_and_alternative_text(deck, built):
    (image,) = deck.select("img")
    (page,) = BeautifulSoup((built / "chapters/01_why.html").read_text(), "html.parser").select(
        "figure img"
    )
    header, data = image["src"].split(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(data) == (built / "chapters" / page["src"]).read_bytes()
    assert image["alt"] == "A rising line."
    assert (
        image.find_parent("figure").figcaption.get_text().strip()
        == "Fig. 1 Three points on a line."
    )


def test_code_is_on_a_slide_only_where_it_is_the_idea(deck):
    assert [code.get_text() for code in deck.select("pre")] == [SHOWN]


def test_the_last_slide_is_the_closing_box(deck):
    last = deck.select(".slide")[-1]
    assert last.h2.get_text() == "What you have seen"
    assert last.li.get_text() == "The share was 0.31."


def test_the_notes_are_those_of_the_chapter(decks):
    notes = [" ".join(deck.select_one("#notes").get_text(" ").split()) for deck in decks]
    assert "Counting comes first." in notes[0] and "Not for" not in notes[0]
    assert "Not for the first chapter." in notes[1] and "Counting" not in notes[1]


def test_mathematics_is_set_by_a_script_in_the_file_and_only_where_there_is_any(built, decks):
    script = (built / "_static" / "mathjax" / "tex-svg.js").read_text(encoding="utf-8")[:999]
    with_it, without = (str(deck) for deck in decks[:2])
    assert script in with_it and script not in without
    assert decks[0].select_one(".body div.math").get_text().strip() == "\\[ n \\in \\{1, 2\\} \\]"


def test_nothing_is_fetched_and_nothing_leads_away(decks):
    for deck in decks:
        assert not deck.select("link, a, iframe, script[src]")
        assert all(tag["src"].startswith("data:") for tag in deck.select("[src]"))


def test_who_cannot_see_or_has_no_mouse_can_follow(decks):
    for deck in decks:
        assert deck.html["lang"] == "en" and deck.title.get_text()
        assert len(deck.select("h1")) == 1 and len(deck.select("main")) == 1
        assert all(image.get("alt") for image in deck.select("img"))
        shown = deck.select(".slide")
        assert all(slide.find(["h1", "h2"]).get_text() for slide in shown)
        assert [s["aria-label"] for s in shown][-1] == f"Slide {len(shown)} of {len(shown)}"
        ids = [tag["id"] for tag in deck.select("[id]")]
        assert len(set(ids)) == len(ids)


# --- in a browser -------------------------------------------------------------------------------

CROWDED = """# Crowded

**Does it fit?**

## A table

| a | b |
|---|---|
ROWS

## A formula

$$ x = WIDE $$

## Words

- WORDS
"""
CROWDED = CROWDED.replace("ROWS", f"| {'many words ' * 40} | one |\n" * 12)
CROWDED = CROWDED.replace("WIDE", " + ".join(f"x_{{{n}}}" for n in range(90)))
CROWDED = CROWDED.replace("WORDS", "\n- ".join(["many words " * 20] * 25))


@pytest.fixture
def show(built, tmp_path, chromium):
    """Open a chapter's slides, without a network; a second window may come of it."""
    slides.make_slides(built, tmp_path)
    contexts = []

    def show(name, query="", width=1280, height=720):
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, offline=True, has_touch=True)
        context.set_default_timeout(180_000)  # for a machine that does other things meanwhile
        contexts.append(context)
        tab = context.new_page()
        tab.goto((tmp_path / name).as_uri() + query)
        tab.wait_for_selector("html[data-ready=yes]", state="attached")
        return tab

    yield show
    for context in contexts:
        context.close()


def at(tab):
    """Which slide is shown, from 1."""
    return int(tab.locator("section.present").get_attribute("id").removeprefix("slide-"))


def heard(tab):
    """What a tab complains of from now on."""
    trouble = []
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("requestfailed", lambda request: trouble.append(request.url))
    return trouble


def test_keys_and_a_finger_turn_the_slides(show):
    tab = show("01_why.html")
    n = tab.locator("section.slide").count()
    assert at(tab) == 1 and n > 3
    for key, number in (
        *(("ArrowRight", 2), ("PageDown", 3), ("ArrowLeft", 2), ("Space", 3)),
        *(("Home", 1), ("ArrowLeft", 1), ("End", n), ("ArrowRight", n)),
    ):
        tab.keyboard.press(key)
        tab.wait_for_selector(f"#slide-{number}.present")
    tab.wait_for_function(f"location.hash === '#/slide-{n}'")
    tab.reload()
    tab.wait_for_selector(f"#slide-{n}.present")
    hand = tab.context.new_cdp_session(tab)
    for kind, points in (
        ("touchStart", [{"x": 300, "y": 400}]),
        ("touchMove", [{"x": 600, "y": 400}]),
        ("touchEnd", []),
    ):
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    tab.wait_for_selector(f"#slide-{n - 1}.present")


def test_all_slides_are_seen_at_once(show):
    tab = show("01_why.html")
    tab.keyboard.press("o")
    tab.wait_for_selector(".reveal.overview")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Escape")
    tab.wait_for_selector(".reveal:not(.overview)")
    assert at(tab) == 2


def test_notes_are_shown_and_hidden_in_the_same_window(show):
    tab = show("01_why.html")
    notes = tab.locator(".speaker-notes")
    assert not notes.is_visible()
    tab.keyboard.press("n")
    tab.wait_for_selector(".reveal.show-notes")
    assert notes.is_visible() and "Counting comes first." in notes.inner_text()
    assert tab.evaluate(REACH)[1] <= notes.bounding_box()["x"], "the notes lie on the slide"
    tab.keyboard.press("ArrowRight")
    assert at(tab) == 2 and "Counting comes first." in notes.inner_text()
    tab.keyboard.press("n")
    tab.wait_for_selector(".reveal:not(.show-notes)")
    assert not notes.is_visible()


def test_a_second_window_has_notes_clock_and_the_next_slide(show):
    tab = show("01_why.html")
    trouble = heard(tab)
    with tab.context.expect_page() as opened:
        tab.keyboard.press("s")
    speaker = opened.value
    speaker.wait_for_selector("#upcoming-slide iframe")
    speaker.locator(".speaker-controls-notes", has_text="Counting comes first.").wait_for()
    assert speaker.locator(".clock-value").inner_text().strip(" AMP").replace(":", "").isdigit()
    current = speaker.frame_locator("#current-slide iframe")
    upcoming = speaker.frame_locator("#upcoming-slide iframe")
    upcoming.locator("section#slide-2.present").wait_for()
    tab.keyboard.press("ArrowRight")
    current.locator("section#slide-2.present").wait_for()
    upcoming.locator("section#slide-3.present").wait_for()
    speaker.keyboard.press("ArrowRight")  # the speaker's window turns the room's
    tab.wait_for_selector("#slide-3.present")
    assert trouble == []


def test_printed_each_slide_is_a_sheet_and_the_notes_come_last(show):
    tab = show("01_why.html", "?print-pdf")
    tab.wait_for_selector(".pdf-page")
    sheets = PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True, print_background=True))).pages
    n = tab.locator("section.slide").count()
    text = [sheet.extract_text() for sheet in sheets]
    assert [f"{i} / {n}" in words for i, words in enumerate(text, 1)] == [True] * n + [False]
    assert "Counting comes" in text[n] and "Why count" in text[0]
    assert "Counting comes" not in "".join(text[:n])


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1024, 768), (800, 1100)])
def test_what_is_too_high_or_too_wide_for_a_slide_is_made_smaller(show, width, height):
    tab = show("03_crowded.html", "", width, height)
    sizes = {}
    for i in range(1, tab.locator("section.slide").count() + 1):
        tab.wait_for_selector(f"#slide-{i}.present")
        down, right = tab.evaluate(REACH)
        assert down <= height and right <= width, i
        slide = tab.locator("section.present")
        sizes[slide.locator("xpath=./h1|./h2").inner_text()] = slide.evaluate(
            "s => s.style.fontSize"
        )
        tab.keyboard.press("ArrowRight")
    assert sizes.pop("Crowded") == "24px", "what fits is left as it is"
    assert sizes.pop("A formula") == "24px", "a formula gets smaller by itself"
    assert len(sizes) == 2 and all(6 < float(size[:-2]) < 24 for size in sizes.values()), sizes


def test_slides_are_light_or_dark_as_the_reader_s_system_has_it(show):
    tab, lightness = show("01_why.html"), {}
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        lightness[scheme] = tab.evaluate(
            """() => ["color", "backgroundColor"].map(name => {
                const slide = document.querySelector("section.present");
                const own = name === "color" ? slide : document.body;
                return Math.max(...getComputedStyle(own)[name].match(/\\d+/g).map(Number));
            })"""
        )
    text, paper = lightness["light"]
    assert text < 100 and paper > 200
    text, paper = lightness["dark"]
    assert text > 200 and paper < 100


def test_without_reveal_js_the_command_says_what_is_missing(copied, monkeypatch, capsys):
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    assert slides.main() == 1
    assert "pip install sphinx-revealjs" in capsys.readouterr().out


def test_the_guide_has_notes_for_every_chapter_of_the_book():
    chapters = Path(__file__).parents[2] / "chapters"
    guide = (chapters / "instructor_guide.md").read_text(encoding="utf-8").lower()
    found = sorted(chapters.glob("[0-9][0-9]_*.ipynb"))
    assert len(found) >= 8
    for path in found:
        first = nbformat.read(path, 4).cells[0].source
        title = next(line[2:] for line in first.splitlines() if line.startswith("# "))
        assert f"\n## chapter {int(path.stem[:2])}: {title.lower()}\n" in guide, title


# --- a teacher's own pages ------------------------------------------------------------------------

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
IN_ADDRESS = "data:image/png;base64," + base64.b64encode(PNG).decode()
TEACHER = f"""# Mine

![before any heading](before.png)

## A figure

A **word** on it.

```{{figure}} sub/figure.png
:alt: with a caption
What is to be seen.
```

## An image

```{{image}} drawing.svg
:alt: drawn
```

## In a sentence

A **word** with ![müde Maus](<müde Maus.png>) in it.
Another **word**.

## On the web

![a dot](https://example.org/dot.png)

## In its address

![tiny]({IN_ADDRESS})

## In a list

- ![listed](../above.png) is above.

## In a note

```{{note}}
![noted](before.png)
```

## In a warning

```{{warning}}
Mind the step.

![warned](before.png)
```

#### Far below

![deep](before.png)

## As the web has it

<img src="sub/only here.svg" alt="written out" width="50">

## Drawn on the page

<svg viewBox="0 0 9 9"><title>a line</title><line x2="9" y2="9"/></svg>

<svg viewBox="0 0 9 9"><style>.faint {{opacity: 0.5}}</style><defs><linearGradient id="fade"><stop
stop-color="red"/></linearGradient><circle id="dot" r="4"/></defs><rect fill="url(#fade)" width="9"
height="9"/><use href="#dot" class="faint"/></svg>

## In pieces

<picture><source srcset="https://example.org/a.webp"><img src="../_images/before.png"
srcset="https://example.org/b.png 2x" alt="chosen"></picture>

## Moving

<iframe src="https://example.org/film"></iframe>
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A teacher's page, built, between another two."""
    book = tmp_path_factory.mktemp("taught")
    for name, content in {
        "chapters/before.png": PNG,
        "chapters/sub/figure.png": PNG,
        "chapters/müde Maus.png": PNG,
        "chapters/drawing.svg": SVG,
        "chapters/sub/only here.svg": SVG,
        "above.png": PNG,
        "chapters/11_mine.md": TEACHER.encode(),
        "chapters/12_next.md": b"# Next\n\n## One\n\nA **word**.\n",
        "conf.py": CONF.encode(),
        "index.md": b"# B\n\n```{toctree}\nchapters/11_mine\nchapters/12_next\n```\n",
    }.items():
        (book / name).parent.mkdir(parents=True, exist_ok=True)
        (book / name).write_bytes(content)
    command = [sys.executable, "-m", "sphinx", "-q", str(book), str(book / "html")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return book / "html"


@pytest.fixture
def copied(taught, tmp_path, monkeypatch):
    """The same, to damage."""
    shutil.copytree(taught, tmp_path / "_build" / "html")
    monkeypatch.setattr(slides, "BUILT", tmp_path / "_build" / "html")
    return tmp_path / "_build" / "html"


def test_every_picture_of_a_teacher_is_on_a_slide_of_its_heading(taught, tmp_path, capsys):
    (path, _) = slides.make_slides(taught, tmp_path)
    deck = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    found = {}
    for slide in deck.select(".slide"):
        for image in slide.select("img"):
            found.setdefault(slide.h2.get_text(), []).append((image["alt"], image["src"]))
    png, svg = (
        f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        for kind, content in (("png", PNG), ("svg+xml", SVG))
    )
    assert found == {
        "Mine": [("before any heading", png)],
        "A figure": [("with a caption", png)],
        "An image": [("drawn", svg)],
        "In a sentence": [("müde Maus", png)],
        "In its address": [("tiny", IN_ADDRESS)],
        "In a list": [("listed", png)],
        "In a note": [("noted", png)],
        "In a warning": [("warned", png)],
        "Far below": [("deep", png)],
        "As the web has it": [("written out", svg)],
        "In pieces": [("chosen", png)],
    }
    assert "What is to be seen." in deck.find("img", alt="with a caption").parent.get_text()
    assert "Another word ." in body(deck, "In a sentence")
    assert len(deck.select(".slide svg line")) == 1
    # What a drawing refers to within itself: by an address, by a name, by a class.
    assert len(deck.select("svg #fade, svg #dot, svg style")) == 3
    assert "Mind the step." in body(deck, "In a warning")
    assert "On the web: a dot" in body(deck, "On the web")
    assert "iframe https://example.org/film" in body(deck, "Moving")
    links = [a["href"] for a in deck.select("a")]
    assert links == ["https://example.org/dot.png", "https://example.org/film"]
    assert not deck.select(
        "iframe, source, [srcset], [src]:not([src^='data:'])"
    )  # nothing is fetched
    told = capsys.readouterr().out
    assert f"{taught / 'chapters' / '11_mine.html'}: " in told
    assert "https://example.org/dot.png" in told and "https://example.org/film" in told


@pytest.mark.parametrize(
    "address",
    [
        "../_images/before.png?v=3#x",
        "../_images/m%C3%BCde Maus.png",
        "../_images/m%C3%BCde%20Maus.png",
        "../_images/müde Maus.png",
        "/_images/before.png",
        "./.././_images/before.png",
        "../_images/100 %.png",
        "../_images/100%20%25.png",
    ],
)
def test_a_picture_is_found_however_its_address_is_written(copied, address):
    page = copied / "chapters" / "11_mine.html"
    for name in ("100 %.png", "müde Maus.png"):
        (copied / "_images" / name).write_bytes(PNG)
    assert slides.find_picture(address, page, copied).read_bytes() == PNG
    as_file = (copied / "_images" / "100 %.png").as_uri()
    assert slides.find_picture(as_file, page, copied).name == "100 %.png"


@pytest.mark.parametrize(
    "address", ["//example.org/a.png", "HTTPS://example.org/a.png", "data:,", "DATA:image/png,"]
)
def test_what_lies_elsewhere_is_not_looked_for(copied, address):
    assert slides.find_picture(address, copied / "chapters" / "11_mine.html", copied) is None


@pytest.mark.parametrize("how", ["removed", "empty", "a folder", "no address", "of a mail"])
def test_a_picture_that_is_missing_is_told_of_with_its_page(copied, capsys, how):
    page, picture = copied / "chapters" / "11_mine.html", copied / "_images" / "figure.png"
    address = "../_images/figure.png"
    if how in ("no address", "of a mail"):
        new = {"no address": "", "of a mail": "cid:picture"}[how]
        text = page.read_text(encoding="utf-8")
        assert address in text
        page.write_text(text.replace(address, new), encoding="utf-8")
        address = new
    elif how == "empty":
        picture.write_bytes(b"")
    else:
        picture.unlink()
        if how == "a folder":
            picture.mkdir()
    assert slides.main() == 0
    assert f"{page}: expected a picture, found none at {address!r}" in capsys.readouterr().out
    written = copied.parent / "slides" / "11_mine.html"
    deck = BeautifulSoup(written.read_text(encoding="utf-8"), "html.parser")
    text = body(deck, "A figure")
    assert "A picture is missing here: with a caption" in text and "What is to be seen." in text


@pytest.mark.parametrize(
    "content",
    [b"", b"<html></html>", "<h1>Für Elise</h1>".encode("latin-1"), b"\x89PNG", bytes(99), None],
    ids=["empty", "no text", "latin-1", "a picture", "zeros", "a folder"],
)
def test_a_damaged_page_costs_that_page_alone(copied, capsys, content):
    page, target = copied / "chapters" / "11_mine.html", copied.parent / "slides"
    assert slides.main() == 0
    page.unlink()
    page.mkdir() if content is None else page.write_bytes(content)
    capsys.readouterr()
    assert slides.main() == 1
    assert [path.name for path in target.iterdir()] == ["12_next.html"]  # and not an older one
    assert f"{page}: no slides can be made of this page: " in capsys.readouterr().out


ODD = {
    "half an address": "http://[bad",
    "a place for a name": "https://[your-host]/a.png",
    "a long name": "a" * 5000 + ".png",
    "a long address on the way": "../" * 2000 + "a.png",
    "a packed drawing that is none": "../_images/odd.svgz",
    "half a packed drawing": "../_images/half.svgz",
    "a packed drawing with noise": "../_images/noise.svgz",
    "a file with an odd address": "file://[bad/a.png",
}


@pytest.mark.parametrize("address", ODD.values(), ids=ODD)
@pytest.mark.parametrize("tag", ["img", "object", "image", "iframe"])
def test_an_odd_address_costs_that_picture_alone(copied, capsys, address, tag):
    packed = gzip.compress(SVG)
    for name, content in {
        "odd": SVG,
        "half": packed[: len(packed) // 2],
        "noise": packed[:12] + b"\xff" * 40 + packed[-8:],
    }.items():
        (copied / "_images" / f"{name}.svgz").write_bytes(content)
    html = {
        "img": f'<img src="{address}">',
        "object": f'<object type="image/svg+xml" data="{address}"></object>',
        "image": f'<svg viewBox="0 0 9 9"><image href="{address}"/><circle r="4"/></svg>',
        "iframe": f'<iframe src="{address}"></iframe>',
    }[tag]
    page = copied / "chapters" / "12_next.html"
    text = page.read_text(encoding="utf-8").replace("</h2>", f"</h2>{html}", 1)
    page.write_text(text, encoding="utf-8")
    assert slides.main() == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{page}: ")]
    said = address[:50].removeprefix("../_images/")
    assert len(told) == 1 and said in told[0] and len(told[0]) < 800
    deck = (copied.parent / "slides" / page.name).read_text(encoding="utf-8")
    deck = BeautifulSoup(deck, "html.parser")
    assert "A word ." in body(deck, "One") and not deck.select("img, image, iframe")
    assert bool(deck.select(".slide circle")) == (tag == "image")
    words = "Not on the slides: iframe" if tag == "iframe" else "A picture is missing here"
    assert tag == "iframe" or words in body(deck, "One")


@pytest.mark.parametrize("name", ["href", "xlink:href"])
def test_a_picture_in_a_drawing_is_in_the_file(copied, capsys, name):
    page = copied / "chapters" / "12_next.html"
    drawn = f'<svg viewBox="0 0 9 9"><image {name}="../_images/before.png"/></svg>'
    far = f'<svg><image {name}="https://example.org/a.png"/><circle r="4"/></svg>'
    text = page.read_text(encoding="utf-8").replace("</h2>", f"</h2>{drawn}{far}", 1)
    page.write_text(text, encoding="utf-8")
    assert slides.main() == 0
    deck = (copied.parent / "slides" / page.name).read_text(encoding="utf-8")
    deck = BeautifulSoup(deck, "html.parser")
    (image,) = deck.select("svg image")
    assert image[name] == IN_ADDRESS and "On the web" in body(deck, "One")
    assert f"{page}: the slides link to what lies on the web" in capsys.readouterr().out


@pytest.mark.parametrize("odd", ["a file", "a link to itself", "a link to nothing"])
def test_what_stands_in_the_place_of_the_slides_is_told(copied, capsys, odd):
    place = copied.parent / "slides"
    if odd == "a file":
        place.write_text("mine")
    else:
        place.symlink_to(place if odd == "a link to itself" else copied / "nothing")
    assert slides.main() == 1
    kind = "a file" if odd == "a file" else "something else"
    assert capsys.readouterr().out == f"{place}: expected a folder, found {kind}\n"


def test_a_folder_where_a_deck_goes_costs_that_deck_alone(copied, capsys):
    target = copied.parent / "slides"
    (target / "11_mine.html").mkdir(parents=True)
    (target / "11_mine.html" / "work.txt").write_text("mine")
    assert slides.main() == 1
    page = copied / "chapters" / "11_mine.html"
    assert f"{page}: no slides can be made of this page: " in capsys.readouterr().out
    assert (target / "12_next.html").is_file()
    assert (target / "11_mine.html" / "work.txt").read_text() == "mine"


@pytest.mark.parametrize("leads", ["to itself", "to nothing", "to a file"])
def test_a_deck_is_not_written_through_a_link(copied, leads):
    target, elsewhere = copied.parent / "slides", copied.parent / "elsewhere"
    target.mkdir()
    deck = target / "11_mine.html"
    deck.symlink_to(deck if leads == "to itself" else elsewhere)
    if leads == "to a file":
        elsewhere.write_text("mine")
    assert slides.main() == 0
    assert "Mine" in deck.read_text(encoding="utf-8") and not deck.is_symlink()
    assert elsewhere.exists() == (leads == "to a file")
    assert leads != "to a file" or elsewhere.read_text() == "mine"


TWO_TITLES = """# One title

**Why?**

## First

A **word**.

# Another title

The **second** part.

![seen](before.png)

## Below it

A **third** word.

# Last title

```{admonition} What you have seen
All of it.
```
"""
BOXES = """# Boxes

## Drawn

```{exercise}
Look at this.

![asked](before.png)

:::{dropdown} Hint
![hinted](before.png)
:::
```

```{exercise} Apply, 5 minutes: named
Look again.
```
"""


@pytest.fixture(scope="module")
def odd_pages(tmp_path_factory):
    book = tmp_path_factory.mktemp("odd")
    cells = [
        new_markdown_cell("# Hidden\n\n## Only shown\n\nA **word**."),
        new_code_cell("print('printed')", metadata={"tags": ["shown-once", "remove-input"]}),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    (book / "chapters").mkdir()
    nbformat.write(new_notebook(cells=cells, metadata=kernel), book / "chapters/23_hidden.ipynb")
    (book / "chapters" / "before.png").write_bytes(PNG)
    (book / "chapters" / "21_two.md").write_text(TWO_TITLES)
    (book / "chapters" / "22_boxes.md").write_text(BOXES)
    (book / "chapters" / "mine.md").write_text("# Mine\n")
    (book / "conf.py").write_text(CONF.replace('["dollarmath"]', '["dollarmath", "colon_fence"]'))
    pages = "\n".join(f"chapters/{page}" for page in ("21_two", "22_boxes", "23_hidden", "mine"))
    (book / "index.md").write_text(f"# B\n\n```{{toctree}}\n{pages}\n```\n")
    command = [sys.executable, "-m", "sphinx", "-q", str(book), str(book / "html")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return book / "html"


def test_pages_that_are_written_otherwise_lose_nothing_without_a_word(odd_pages, tmp_path, capsys):
    written = slides.make_slides(odd_pages, tmp_path)
    told = capsys.readouterr().out
    decks = [BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in written]
    two, boxes, hidden = decks
    headings = list(dict.fromkeys(slide.find(["h1", "h2"]).text for slide in two.select(".slide")))
    assert headings == ["One title", "First", "Another title", "Below it", "What you have seen"]
    assert "The second part." in body(two, "Another title")
    assert [image["alt"] for image in two.select("img")] == ["seen"]
    assert "third" in body(two, "Below it") and "All of it." in two.text
    assert two.text.count("third") == 1
    assert [image["alt"] for image in boxes.select("img")] == ["asked"]
    text = body(boxes, "Drawn")
    assert "Exercise" in text and "Apply, 5 minutes: named" in text
    assert "Look at this" not in text and "Look again" not in text
    page = odd_pages / "chapters" / "22_boxes.html"
    assert f"{page}: the slides do not show this picture, which is folded in an exercise" in told
    assert "A word ." in body(hidden, "Only shown") and not hidden.select("pre")
    names = "No slides of pages whose name does not begin with two digits: chapters/mine.html\n"
    assert names in told


def test_an_exercise_without_a_title_costs_no_page(copied):
    box = '<div class="exercise admonition"><p>Count.</p></div>'
    page = copied / "chapters" / "12_next.html"
    text = page.read_text(encoding="utf-8").replace("</h2>", f"</h2>{box}", 1)
    page.write_text(text, encoding="utf-8")
    assert slides.main() == 0
    deck = (copied.parent / "slides" / page.name).read_text(encoding="utf-8")
    assert "Exercise" in body(BeautifulSoup(deck, "html.parser"), "One")


@pytest.mark.parametrize(
    "page",
    [
        "<body><main><p>Only text.</p></main></body>",
        "<article><p>A text.</p><section><h2>One</h2><p>A <strong>word</strong>.</p></section>",
        '<div role="main"><p>Text</p><img src="../_images/before.png"></div>',
        "<body>Text",
        "<h1>The book</h1><nav>menu</nav><main><h1>For print</h1><article>Text</article></main>",
    ],
)
def test_a_page_without_a_title_goes_by_its_name(copied, capsys, page):
    path = copied / "chapters" / "13_my_own_page.html"
    path.write_text(page)
    assert slides.main() == 0
    assert f"{path}: expected a title, found none" in capsys.readouterr().out
    written = copied.parent / "slides" / path.name
    deck = BeautifulSoup(written.read_text(encoding="utf-8"), "html.parser")
    assert deck.h1.get_text() == "my own page" and "menu" not in deck.get_text()
    assert len(deck.select("img")) == page.count("<img")


def test_a_title_around_the_chapter_is_not_its_title(copied):
    page = "<main><h1>For print</h1><article><section><h1>Mine</h1><p>Why?</p></section></article>"
    (copied / "chapters" / "13_mine.html").write_text(page)
    assert slides.main() == 0
    deck = (copied.parent / "slides" / "13_mine.html").read_text(encoding="utf-8")
    assert BeautifulSoup(deck, "html.parser").h1.get_text() == "Mine"


@pytest.mark.parametrize("content", [b"\xff", None], ids=["latin-1", "a folder"])
def test_a_damaged_guide_costs_the_notes_alone(copied, capsys, content):
    guide = copied / "chapters" / "instructor_guide.html"
    guide.mkdir() if content is None else guide.write_bytes(content)
    assert slides.main() == 0
    assert f"{guide}: it cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_any_console_is_told_of_any_page(copied, monkeypatch, encoding):
    (copied / "chapters" / "13_数据.html").write_text("<body>Text")
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert slides.main() == 0
    shown.flush()
    assert b"13_\\u6570\\u636e.html: expected a title" in shown.buffer.getvalue()
