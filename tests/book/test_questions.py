"""The questions of all chapters take an answer, in a real browser and without a built book."""

import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from test_exercises import ANSWER, CHAPTERS

from tools.editions import BOOK

CONF = """extensions = ["myst_parser", "sphinx_design"]
extensions += ["sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath"]
html_theme = "basic"
html_static_path = ["_static"]
html_js_files = ["questions.js"]
html_css_files = ["questions.css"]
"""
PLAIN = """# Other drop-downs

**Question 1.** Is it asked?

```{dropdown} Yes.
**Right.** It is.
```

```{dropdown} No.
**Right.** It is not.
```

```{dropdown} More
Something else.
```
"""
LETTERS = "node => { const c = node.cloneNode(true);" + (
    "c.querySelectorAll('.math').forEach(m => m.remove());"
    "return c.textContent.replace(/\\s+/g, ''); }"
)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def questions(path):
    """The questions of a chapter, as they were written."""
    cells = nbformat.read(path, 4).cells
    return [cell.source for cell in cells if cell.source.startswith("**Question ")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page for each chapter with nothing but its questions, made by Sphinx as the book is."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(BOOK / "_static", source / "_static")
    (source / "conf.py").write_text(CONF, encoding="utf-8")
    (source / "index.md").write_text("# Questions\n", encoding="utf-8")
    (source / "plain.md").write_text(PLAIN, encoding="utf-8")
    for path in CHAPTERS:
        text = "\n\n".join(["# A chapter", "## Check yourself", *questions(path)])
        (source / f"{path.stem}.md").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", source, source / "html"]
    # What is referred to is in the rest of the book.
    subprocess.run(command, check=True, capture_output=True)
    return source / "html"


@pytest.fixture
def context(chromium):
    context = chromium.new_context(offline=True, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def tab(context, pages):
    """A tab that opens a chapter's questions by `tab.visit`, and fails if their script does."""
    tab, trouble = context.new_page(), []
    tab.on("pageerror", lambda error: trouble.append(error.stack or str(error)))
    tab.on("requestfailed", lambda request: trouble.append(request.url[:200]))
    tab.visit = lambda stem: (
        tab.goto((pages / f"{stem}.html").as_uri()),
        tab.evaluate("window.MathJax && MathJax.startup.promise"),
    )
    yield tab
    # Sphinx' own script does not bear a browser without storage.
    assert [one for one in trouble if "sphinx_highlight.js" not in one] == []


FIRST = CHAPTERS[0].stem


def asked(tab, number=1):
    return tab.locator(".quiz").nth(number - 1)


def button(tab, number, letter):
    return asked(tab, number).get_by_role("button").nth("ABCD".index(letter))


def right_letters(path):
    """Which answer of each question is right, as its text says."""
    kinds = [[kind for _, kind, _ in ANSWER.findall(question)] for question in questions(path)]
    return ["ABCD"[all_of_one.index("Right")] for all_of_one in kinds]


def tally(tab):
    return tab.get_by_role("status").inner_text()


def shown(tab):
    """What is unfolded, question by question: the letter, and what it is called."""
    return tab.locator(".quiz").evaluate_all(
        """all => all.map(quiz => [...quiz.querySelectorAll(".quiz-choice")]
            .filter(choice => !choice.querySelector(".quiz-why").hidden)
            .map(choice => choice.querySelector(".quiz-letter").textContent
                + choice.querySelector(".quiz-verdict").textContent))"""
    )


@each_chapter
def test_every_answer_is_called_what_its_text_calls_it(tab, path):
    tab.visit(path.stem)
    asked_here = questions(path)
    n, right = len(asked_here), right_letters(path)
    assert tab.locator(".quiz").count() == n and tab.locator("details").count() == 0
    assert tally(tab) == f"Answered: 0 of {n}. Right at the first try: 0."
    assert shown(tab) == [[]] * n
    for number, source in enumerate(asked_here, 1):
        for i, (_, kind, _) in enumerate(ANSWER.findall(source)):
            letter = "ABCD"[i]
            button(tab, number, letter).click()
            mark = "✓ right" if kind == "Right" else "✗ wrong"
            assert shown(tab)[number - 1][i] == letter + mark
            why = asked(tab, number).locator(".quiz-why").nth(i)
            assert why.is_visible() and why.inner_text().startswith(f"{kind}. ")
    # All were tried, from A on: what counts is the first.
    score = f"Answered: {n} of {n}. Right at the first try: {right.count('A')}."
    assert tally(tab) == score
    assert tab.locator(".math:not(:has(mjx-container))").count() == 0


@each_chapter
def test_no_word_of_a_question_is_lost(context, pages, path):
    """The same words in the same order as on a page without scripts."""
    words = []
    for scripts in (True, False):
        browser = context.browser
        silent = browser.new_context(offline=True, java_script_enabled=scripts)
        page = silent.new_page()
        page.goto((pages / f"{path.stem}.html").as_uri())
        if scripts:
            page.locator(".quiz-letter, .quiz-verdict, .quiz-tally").evaluate_all(
                "all => all.forEach(one => one.remove())"
            )
            assert page.locator(".quiz-why:visible").count() == 0
        else:
            assert page.locator("details.sd-dropdown").count() == sum(
                source.count("{dropdown}") for source in questions(path)
            )
            page.locator("summary").first.click()
            assert page.locator("details").first.locator("strong").is_visible()
        words.append(page.locator("section section").evaluate(LETTERS))
        silent.close()
    assert words[0] == words[1] and len(words[0]) > 500


@pytest.mark.parametrize("stem", [path.stem for path in CHAPTERS[:2]])
def test_an_answer_is_given_and_forgotten_by_keyboard_alone(tab, stem):
    (path,) = [path for path in CHAPTERS if path.stem == stem]
    right = right_letters(path)
    tab.visit(stem)

    def focused():
        return tab.evaluate("document.activeElement.textContent")

    tab.keyboard.press("Tab")
    while focused() != "A":
        tab.keyboard.press("Tab")
    first = tab.evaluate("document.activeElement.id")
    for key in ("Enter", "Space"):  # both press a button
        for number, letter in enumerate(right, 1):
            while not tab.evaluate(
                "([n, l]) => document.activeElement.id === document"
                ".querySelectorAll('.quiz')[n].querySelectorAll('button')[l].id",
                [number - 1, "ABCD".index(letter)],
            ):
                tab.keyboard.press("Tab")
            tab.keyboard.press(key)
            assert focused() == letter  # the focus stays where it was
            assert shown(tab)[number - 1] == [f"{letter}✓ right"]
        n = len(right)
        assert tally(tab) == f"Answered: {n} of {n}. Right at the first try: {n}."
        while focused() != "Forget my answers":
            tab.keyboard.press("Tab")
        tab.keyboard.press(key)
        assert shown(tab) == [[]] * n
        assert tally(tab) == f"Answered: 0 of {n}. Right at the first try: 0."
        assert tab.evaluate("document.activeElement.id") == first
        assert not tab.get_by_text("Forget my answers").is_visible()


def test_what_is_pressed_twice_is_folded_and_stays_answered(tab):
    tab.visit(FIRST)
    one = button(tab, 1, "B")
    one.click()
    assert one.get_attribute("aria-expanded") == "true"
    one.click()
    assert one.get_attribute("aria-expanded") == "false" and shown(tab)[0] == []
    assert tally(tab).startswith("Answered: 1 of ")
    one.click()
    assert len(shown(tab)[0]) == 1


def test_a_second_try_tells_why_and_does_not_count(tab):
    tab.visit(FIRST)
    (first, *_) = right_letters(CHAPTERS[0])
    wrong = next(letter for letter in "ABC" if letter != first)
    button(tab, 1, wrong).click()
    button(tab, 1, first).click()
    assert sorted(shown(tab)[0]) == sorted([f"{first}✓ right", f"{wrong}✗ wrong"])
    assert "Answered: 1 of" in tally(tab) and "first try: 0" in tally(tab)


def test_a_screen_reader_is_told_question_answer_and_verdict(tab):
    tab.visit(FIRST)
    source = questions(CHAPTERS[0])[0]
    text = source.split("```")[0].replace("**", "").split()
    group = tab.get_by_role("group", name=" ".join(text))
    answers = ANSWER.findall(source)
    for letter, (answer, kind, _) in zip("ABCD", answers, strict=False):
        one = group.get_by_role("button", name=f"{letter} {answer}", exact=True)
        one.press("Enter")
        mark = {"Right": "✓ right", "Wrong": "✗ wrong"}[kind]
        assert group.get_by_role("button", name=f"{letter} {answer} {mark}", exact=True).count()
        # The why appears within what is read out when it changes.
        why = tab.locator(f"#{one.get_attribute('aria-controls')}") if one.count() else None
        assert why is None or why.locator("xpath=ancestor::*[@aria-live='polite']").count() == 1
    spoken = group.locator("[aria-live=polite]")
    assert spoken.count() == len(answers)
    assert all(text.strip().startswith(("Right.", "Wrong.")) for text in spoken.all_inner_texts())


def test_answers_are_remembered_by_the_page_and_by_no_other(tab):
    tab.visit(FIRST)
    button(tab, 2, "C").click()
    button(tab, 2, "A").click()
    button(tab, 1, "B").click()
    before = shown(tab), tally(tab)
    tab.reload()
    assert (shown(tab), tally(tab)) == before and "Answered: 2" in before[1]
    tab.visit(CHAPTERS[1].stem)
    assert tally(tab).startswith("Answered: 0")
    tab.visit(FIRST)
    tab.get_by_text("Forget my answers").click()
    tab.reload()
    assert tally(tab).startswith("Answered: 0")
    assert tab.evaluate("Object.keys(localStorage).length") == 0


def test_of_two_tries_the_first_counts_after_coming_back(tab):
    (first, *_) = right_letters(CHAPTERS[0])
    wrong = next(letter for letter in "ABC" if letter != first)
    tab.visit(FIRST)
    button(tab, 1, wrong).click()
    tab.reload()
    button(tab, 1, first).click()
    assert "first try: 0" in tally(tab)
    tab.reload()
    assert "first try: 0" in tally(tab) and len(shown(tab)[0]) == 2


NOT_OURS = {
    "no JSON": "{",
    "a number": "3",
    "null": "null",
    "a list": "[1, 2]",
    "numbers for lists": None,
    "answers that are none": [99, -1, 0.5, "1", None, "length"],
}


@pytest.mark.parametrize("kept", NOT_OURS.values(), ids=NOT_OURS)
def test_what_the_browser_kept_may_be_anything(tab, kept):
    tab.visit(FIRST)
    button(tab, 1, "A").click()
    place = tab.evaluate("Object.keys(localStorage)[0]")
    if not isinstance(kept, str):
        ours = json.loads(tab.evaluate("place => localStorage.getItem(place)", place))
        kept = json.dumps(dict.fromkeys(ours, kept if kept else 7))
    tab.evaluate("([place, kept]) => localStorage.setItem(place, kept)", [place, kept])
    tab.reload()
    assert tally(tab).startswith("Answered: 0") and shown(tab)[0] == []
    button(tab, 1, "A").click()
    assert tally(tab).startswith("Answered: 1")


def test_a_question_that_was_rewritten_has_not_been_answered(tab, pages):
    tab.visit(FIRST)
    for number in (1, 2):
        button(tab, number, "A").click()
    path = pages / f"{FIRST}.html"
    page = path.read_text(encoding="utf-8")
    word = questions(CHAPTERS[0])[0].split("**")[2].split()[1]
    changed = page.replace(f" {word} ", " another ", 1)
    assert changed != page
    try:
        path.write_text(changed, encoding="utf-8")
        tab.reload()
        assert shown(tab)[0] == [] and len(shown(tab)[1]) == 1
        assert tally(tab).startswith("Answered: 1")
    finally:
        path.write_text(page, encoding="utf-8")


REFUSED = {
    "no storage at all": """Object.defineProperty(window, "localStorage",
        { get() { throw new Error("refused"); } });""",
    "a full one": """Storage.prototype.setItem = () => {
        throw new DOMException("full", "QuotaExceededError"); };""",
}


@pytest.mark.parametrize("script", REFUSED.values(), ids=REFUSED)
def test_a_browser_that_keeps_nothing_is_no_hindrance_and_is_told(tab, script):
    tab.add_init_script(script)
    tab.visit(FIRST)
    button(tab, 1, "A").click()
    assert tally(tab).startswith("Answered: 1")
    assert tally(tab).endswith("This browser keeps no answers once the page is left.")
    tab.reload()
    assert tally(tab).startswith("Answered: 0") and "keeps no answers" not in tally(tab)


def test_drop_downs_that_are_no_answers_stay_as_they_are(tab):
    tab.visit("plain")
    assert tab.locator("details").count() == 3
    assert tab.locator(".quiz, .quiz-tally").count() == 0


@pytest.mark.parametrize("path", CHAPTERS[:2], ids=lambda path: path.stem)
def test_axe_finds_nothing_before_and_after_an_answer(tab, path):
    tab.visit(path.stem)
    here = {"include": [["section section"]]}
    for _ in range(2):
        found = Axe().run(tab, context=here, options={"preload": False}).response["violations"]
        assert not found, [(rule["id"], rule["nodes"][0]["html"]) for rule in found]
        for one in tab.locator(".quiz-letter").all():
            one.click()
