"""What a reader's browser makes of the built book, with the network refused."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import REACH, missing

from helpers.live_figures import live_decoder, live_scatter, live_slices
from helpers.plots import plt
from helpers.vae import build_dense_vae, keras
from tools.pdf import contents

BOOK = Path(__file__).parents[2]
HTML = BOOK / "_build" / "html"
PAGES = contents()
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}

CHAPTERS = [page for page in PAGES if page.split("/")[-1][:2].isdigit()]


def last_part(page):
    return page.split("/")[-1]


each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=last_part)


@contextmanager
def open_tab(chromium, size=DESKTOP):
    """A tab without a network; `tab.trouble` lists what it failed to load or complained of."""
    context = chromium.new_context(
        viewport=size, offline=True, reduced_motion="reduce", has_touch=True
    )
    tab = context.new_page()
    tab.trouble = []

    def complain(message):
        if message.type == "error":
            tab.trouble.append(f"console: {message.text}")

    tab.on("requestfailed", lambda request: tab.trouble.append(f"failed: {request.url[:200]}"))
    tab.on("pageerror", lambda error: tab.trouble.append(f"error: {error}"))
    tab.on("console", complain)
    yield tab
    context.close()


@pytest.fixture
def tab(chromium):
    with open_tab(chromium) as tab:
        yield tab


# To open a page takes seconds. Tests that leave it as it is, or nearly so, share one tab.


@pytest.fixture(scope="module", params=PAGES, ids=last_part)
def on_a_desk(chromium, request):
    with open_tab(chromium) as tab:
        yield visit(tab, request.param)


@pytest.fixture(scope="module", params=PAGES, ids=last_part)
def on_a_phone(chromium, request):
    with open_tab(chromium, PHONE) as tab:
        yield visit(tab, request.param)


def visit(tab, page):
    """Open a page of the book in a tab, and wait until nothing moves any more."""
    path = HTML / f"{page}.html"
    if not path.exists():
        missing(f"{path} is not built: run `jupyter-book build .`")
    tab.goto(path.as_uri())
    tab.evaluate("window.MathJax && MathJax.startup.promise")
    tab.evaluate("document.fonts.ready")
    tab.wait_for_function("!document.querySelector('.live:not([data-drawn=yes], [data-drawn=no])')")
    return tab


def violations(tab, within=None, **options):
    """What axe-core finds on the page, or in a part of it, one line for each element."""
    # Unasked it would read the style sheets once more, which a browser refuses to a file.
    options = {"preload": False, **options}
    context = {"include": [[within]]} if within else None
    found = Axe().run(tab, context=context, options=options).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


def test_a_page_that_asks_the_network_is_found_out(tab, tmp_path):
    path = tmp_path / "page.html"
    path.write_text('<img src="https://example.org/picture.png">')
    tab.goto(path.as_uri())
    assert tab.trouble[0] == "failed: https://example.org/picture.png"


def test_a_page_needs_nothing_that_is_not_in_the_book(on_a_desk):
    assert on_a_desk.locator(".math:not(:has(mjx-container))").count() == 0
    assert on_a_desk.locator("mjx-merror").count() == 0
    assert on_a_desk.trouble == []


def test_every_term_and_work_is_told_on_the_spot(on_a_desk):
    on_a_desk.wait_for_function("document.readyState == 'complete'")
    without = on_a_desk.evaluate(
        '() => [...document.querySelectorAll(\'article a[href*="glossary.html#term"],'
        ' article a.reference[href*="bibliography.html#"]\')]'
        ".filter(link => !bootstrap.Tooltip.getInstance(link)).map(link => link.href)"
    )
    assert not without


def test_a_page_is_no_wider_than_a_phone(on_a_phone):
    assert on_a_phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_no_word_of_a_figure_is_too_small_on_a_phone(on_a_phone):
    figures = on_a_phone.evaluate(
        "() => [...document.querySelectorAll('div.cell_output figure img')]"
        ".map(i => [i.closest('figure').id, i.clientWidth / i.naturalWidth,"
        " i.clientWidth / i.closest('.figure-frame').clientWidth])"
    )
    # 8 points is the smallest type of all figures, see test_no_word_of_a_figure_is_under_8_points.
    pixels = {name: 8 / 72 * plt.rcParams["figure.dpi"] * scale for name, scale, _ in figures}
    assert all(size >= 8.99 for size in pixels.values()), pixels
    # Nor is any larger than it needs to be: as much of a figure as can be is on the screen.
    assert all(pixels[name] < 9.1 or screens < 1.01 for name, _, screens in figures), figures


def test_what_goes_on_beyond_its_edge_says_so(on_a_phone):
    """Figures, tables and code."""
    goes_on, said = (
        on_a_phone.evaluate(
            "() => [...document.querySelectorAll('.figure-frame, div.output.text_html,"
            " .pst-scrollable-table-container, article pre')].filter(box => "
            f"{{ box.scrollLeft = 0; return {condition}; }}).map(box => box.innerText.slice(0, 40))"
        )
        for condition in ("box.scrollWidth > box.clientWidth + 1", "box.matches('.goes-on')")
    )
    assert goes_on == said


CODE_IS_SCROLLED_BY_KEYBOARD = """[...document.querySelectorAll("pre")].every(box =>
  (box.tabIndex == 0) ==
  (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight))"""


def test_a_figure_fits_again_when_a_phone_s_page_is_made_wide(on_a_phone):
    on_a_phone.set_viewport_size(DESKTOP)
    on_a_phone.wait_for_function("!document.querySelector('.figure-frame[tabindex]')")
    on_a_phone.wait_for_function(CODE_IS_SCROLLED_BY_KEYBOARD)
    on_a_phone.set_viewport_size(PHONE)
    # The theme looks a moment after the last change; the tests that follow share this page.
    on_a_phone.wait_for_function(CODE_IS_SCROLLED_BY_KEYBOARD)


# These come last: they press what can be pressed, and leave the page dark.

COLOURS = ["color-contrast", "link-in-text-block"]


def test_axe_finds_nothing_in_light_or_dark(on_a_desk):
    found = violations_once_all_is_pressed(on_a_desk)
    on_a_desk.emulate_media(color_scheme="dark")
    on_a_desk.wait_for_selector("html[data-theme=dark]", state="attached")
    # What does not hang on colours is the same in both.
    found += violations(on_a_desk, runOnly=COLOURS)
    assert not found, "\n".join(found)


def test_axe_finds_nothing_on_a_phone(on_a_phone):
    # To look at the colours takes most of the time, and on a phone those of the text are the same.
    found = violations_once_all_is_pressed(
        on_a_phone, rules={name: {"enabled": False} for name in COLOURS}
    )
    for scheme in ("light", "dark"):
        on_a_phone.emulate_media(color_scheme=scheme)
        on_a_phone.wait_for_selector(f"html[data-theme={scheme}]", state="attached")
        found += violations(on_a_phone, ".bd-header-article, .bd-content footer", runOnly=COLOURS)
    assert not found, "\n".join(found)


def violations_once_all_is_pressed(tab, **options):
    found = violations(tab, **options)
    answers = tab.locator(".quiz-letter").all()
    for answer in answers:
        answer.click()
    return found + (violations(tab, ".quiz", **options) if answers else [])


LEADS_TO = {  # on a page, a link and what its tip shows
    "term": ("05_lesions_in_latent_space", "glossary.html#term-Fold", "p"),
    "equation": ("02_from_autoencoder_to_vae", "#equation-", "mjx-container"),
    "work": ("07_what_does_not_fit", "bibliography.html#", "em"),
    "chapter": ("07_what_does_not_fit", "03_mnist.html#", "h1"),
    "figure": ("03_mnist", "#fig-architecture", "img"),
}


@pytest.mark.parametrize(("page", "address", "shown"), LEADS_TO.values(), ids=LEADS_TO)
def test_a_link_shows_what_it_leads_to(tab, page, address, shown):
    visit(tab, f"chapters/{page}")
    tab.wait_for_function("document.readyState == 'complete'")
    links = tab.locator(f"article a.reference[href*='{address}']:visible")
    links.first.focus()
    tip = tab.locator(".link-tip.show")
    tip.locator(shown).first.wait_for()
    assert tip.count() == 1
    assert not violations(tab, ".link-tip")
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= DESKTOP["width"]
    tab.keyboard.press("Escape")
    tip.wait_for(state="detached")
    links.first.hover()
    tip.locator(shown).first.wait_for()
    assert tab.trouble == []


@each_chapter
def test_no_slide_is_higher_than_the_screen(tab, page):
    path = BOOK / "_build" / "slides" / f"{page.split('/')[-1]}.html"
    if not path.exists():
        missing(f"{path} is not made: run `python -m tools.slides`")
    for width, height in ((1280, 720), (1024, 768)):
        tab.set_viewport_size({"width": width, "height": height})
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", state="attached")
        n_slides, too_large = tab.locator("section.slide").count(), []
        assert n_slides > 5
        for i in range(1, n_slides + 1):
            tab.wait_for_selector(f"#slide-{i}.present")
            down, right = tab.evaluate(REACH)
            if down > height or right > width:
                too_large.append((i, down, right))
            tab.keyboard.press("ArrowRight")
        assert not too_large
    assert tab.trouble == []


def test_the_mathematics_is_there_to_be_rendered(tab):
    visit(tab, "chapters/02_from_autoencoder_to_vae")
    tab.wait_for_selector("mjx-container")
    assert tab.locator(".math").count() > 20


@each_chapter
def test_questions_take_an_answer_by_keyboard_alone(tab, page):
    visit(tab, page)
    n = tab.locator(".quiz").count()
    assert n > 1 and tab.locator("details:has-text('Right.')").count() == 0
    tab.locator("#check-yourself .quiz-letter").first.evaluate(
        "() => location.hash = 'check-yourself'"
    )
    pressed = 0
    while pressed < n:
        tab.keyboard.press("Tab")
        now = tab.evaluate("[document.activeElement.className, document.activeElement.textContent]")
        if now == ["quiz-letter", "A"]:
            tab.keyboard.press("Enter")
            pressed += 1
            assert tab.locator(".quiz-verdict:not(:empty)").count() == pressed
            assert tab.locator(".quiz-why:visible").count() == pressed
    right = tab.locator(".quiz-right").count()
    told = f"Answered: {n} of {n}. Right at the first try: {right}."
    assert tab.locator(".quiz-tally [role=status]").inner_text() == told
    tab.reload()
    assert tab.locator(".quiz-tally [role=status]").inner_text() == told
    assert tab.trouble == []


def test_search_works_from_a_file(tab):
    visit(tab, PAGES[0])
    tab.keyboard.press("Control+k")
    tab.keyboard.type("stroke")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-results li a")
    assert tab.trouble == []


# --- live figures --------------------------------------------------------------------------------

LIVE = {
    "chapters/03_mnist": ["scatter", "decoder"],
    "chapters/04_from_scan_to_patches": ["slices"],
    "chapters/05_lesions_in_latent_space": ["scatter"],
    "chapters/08_better_clusters": ["scatter"],
    "chapters/09_told_the_other_side": ["slices"],
}


@pytest.mark.parametrize("page", LIVE)
def test_the_live_figures_of_the_book_are_drawn(tab, page):
    visit(tab, page)
    drawn = tab.locator(".live[data-drawn=yes]").all()
    assert [figure.get_attribute("data-kind") for figure in drawn] == LIVE[page]
    assert tab.trouble == []


@pytest.fixture
def show(tab, tmp_path):
    """Open a figure by itself, as a notebook would show it."""

    def show(figure):
        path = tmp_path / "figure.html"
        page = '<!doctype html><html lang="en"><meta charset="utf-8"><title>A figure</title><main>'
        path.write_text(page + figure._repr_html_() + "</main></html>", encoding="utf-8")
        tab.goto(path.as_uri())
        tab.wait_for_selector(".live[data-drawn=yes]")
        return tab

    yield show
    assert tab.trouble == []


def pixels(tab, selector):
    """The red channel of a canvas, as an array of rows."""
    width, height, values = tab.evaluate(
        """selector => {
            const c = document.querySelector(selector);
            const all = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            return [c.width, c.height, Array.from(all.filter((_, i) => i % 4 === 0))];
        }""",
        selector,
    )
    return np.array(values).reshape(height, width)


def said(tab):
    return tab.locator("output").inner_text()


def settle(tab):
    """Wait for the next frame to be drawn."""
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def place(tab, point):
    """Where on the screen a point of the scatter is drawn."""
    return tab.evaluate(
        """([x, y]) => {
            const view = Bokeh.index.roots[0];
            const box = view.el.getBoundingClientRect();
            const { x_scale, y_scale } = view.frame;
            return [box.x + x_scale.compute(x), box.y + y_scale.compute(y)];
        }""",
        point.tolist(),
    )


def test_the_explorer_draws_what_the_decoder_draws(show):
    keras.utils.set_random_seed(0)
    decoder = build_dense_vae(2).decoder
    # Larger weights than at the start, so that pixels lie all over the range.
    decoder.set_weights([4 * np.asarray(array) for array in decoder.get_weights()])
    tab = show(live_decoder(decoder.get_weights(), title="A decoder"))

    def check(z):
        settle(tab)
        assert said(tab) == f"z1 = {z[0]:.2f}, z2 = {z[1]:.2f}"
        expected = np.asarray(decoder(np.array([z])))[0]
        assert expected.max() - expected.min() > 0.2 or z == (0, 0)
        np.testing.assert_allclose(pixels(tab, ".live-picture") / 255, expected, atol=0.005)

    check((0, 0))
    plane = tab.locator(".live-plane")
    plane.press("ArrowRight")
    plane.press("ArrowRight")
    plane.press("ArrowUp")
    check((0.2, 0.1))
    plane.press("Shift+ArrowLeft")
    check((-0.3, 0.1))
    box = plane.bounding_box()
    tab.mouse.move(box["x"] + 5, box["y"] + 5)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.75)
    tab.mouse.up()
    check((2.0, -1.25))
    plane.press("Home")
    check((0, 0))
    for _ in range(6):
        plane.press("Shift+ArrowUp")
    check((0, 2.5))  # and no further


def test_a_point_shows_its_image_under_keys_pointer_and_finger(show):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    images = np.stack([np.full((28, 28), value) for value in (0.2, 0.4, 0.6, 0.8)])
    patients = ["sub-a", "sub-b", "sub-c", "sub-d"]
    tab = show(
        live_scatter(
            points,
            np.array([0, 0, 1, 1]),
            ["lesion", "healthy"],
            images,
            title="Four patches",
            known={"patient": patients, "share of lesion": np.array([0.5, 0.25, 0, 0])},
        )
    )
    plot = tab.locator(".live-main")

    def check(i):
        kind, share = ("lesion", "healthy")[i // 2], ("0.50", "0.25", "0.00", "0.00")[i]
        assert said(tab) == f"{kind}\npatient: {patients[i]}\nshare of lesion: {share}"
        assert (pixels(tab, ".live-picture") == round(255 * images[i, 0, 0])).all()

    plot.focus()
    check(0)
    for key, i in {"ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 3, "ArrowDown": 0}.items():
        plot.press(key)
        check(i)
    plot.press("ArrowLeft")
    check(0)  # nothing lies there
    tab.mouse.move(*place(tab, points[2]))
    check(2)
    tab.touchscreen.tap(*place(tab, points[3]))
    check(3)


def test_the_slices_follow_slider_keys_and_wheel(show):
    lesion = np.zeros((3, 56, 56), bool)
    lesion[1, 10:14, 20:24] = True
    volume = np.stack([np.full((56, 56), value) for value in (0.2, 0.4, 0.6)])
    locations = np.array([[z, row, column] for z in range(3) for row, column in [(0, 0), (28, 28)]])
    fraction = np.array([0, 0, 16 / 784, 0, 0, 0])
    tab = show(live_slices(volume, lesion, locations, fraction, title="A scan"))

    def check(z):
        assert said(tab).startswith(f"Slice {z} (0 to 2)\nLesion voxels: {16 * (z == 1)}\n")
        corner = pixels(tab, ".live-slice")[-1, 0]  # not in the grid, nor in the lesion
        assert corner == round(255 * volume[z, 0, 0])

    check(1)
    slider = tab.get_by_label("Slice", exact=True)
    slider.fill("2")
    check(2)
    slider.press("ArrowLeft")
    check(1)
    slider.press("ArrowUp")
    check(2)
    scan = tab.locator(".live-slice")
    scan.press("ArrowDown")
    scan.press("ArrowLeft")
    scan.press("ArrowLeft")
    check(0)
    scan.hover()
    tab.mouse.wheel(0, -100)
    check(1)
    scan.evaluate("canvas => canvas.blur()")
    tab.mouse.wheel(0, -100)
    check(1)  # the wheel scrolls the page

    plain = pixels(tab, ".live-slice")
    for name in ("lesion outline", "patch grid", "lesion map"):
        box = tab.get_by_label(name)
        before = pixels(tab, ".live-slice")
        box.set_checked(not box.is_checked())
        assert (pixels(tab, ".live-slice") != before).any(), name
    tab.get_by_label("lesion outline").check()
    for name in ("patch grid", "lesion map"):
        tab.get_by_label(name).uncheck()
    np.testing.assert_array_equal(pixels(tab, ".live-slice"), plain)


def test_slices_without_patches_offer_no_grid(show):
    lesion = np.zeros((3, 20, 20), bool)
    lesion[1, 5:9, 5:9] = True
    tab = show(live_slices(lesion * 1.0, lesion, np.empty((0, 3), int), np.empty(0), title="A map"))
    assert tab.locator("input[type=checkbox]").count() == 1
    assert said(tab) == "Slice 1 (0 to 2)\nLesion voxels: 16"


def test_live_figures_take_the_colours_of_the_page(show):
    tab = show(
        live_scatter(np.eye(2), np.array([0, 1]), ["a", "b"], np.zeros((2, 9, 9)), title="T")
    )
    colour = "Bokeh.documents[0].roots()[0].below[0].axis_label_text_color"
    assert tab.evaluate(colour) == "rgb(0, 0, 0)"
    tab.evaluate("document.body.style.color = 'rgb(250, 250, 250)'")
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(tab)
    assert tab.evaluate(colour) == "rgb(250, 250, 250)"
