"""What a reader's browser makes of the built book, with the network refused."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

BOOK = Path(__file__).parents[1]
HTML = BOOK / "_build" / "html"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text())
PAGES = [TOC["root"]] + [page["file"] for part in TOC["parts"] for page in part["chapters"]]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.split("/")[-1])


def missing(reason):
    """Skip, or fail where the book is said to be built."""
    (pytest.fail if os.environ.get("BOOK_BUILT") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no browser found: install Debian's `chromium` (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A tab without a network; `tab.trouble` lists what it failed to load or complained of."""
    context = chromium.new_context(viewport=DESKTOP, offline=True, reduced_motion="reduce")
    tab = context.new_page()
    tab.trouble = []

    def refuse(route):
        tab.trouble.append(f"not from a file: {route.request.url[:200]}")
        route.abort()

    tab.route(lambda url: not url.startswith(("file:", "data:", "blob:")), refuse)
    tab.on("requestfailed", lambda request: tab.trouble.append(f"failed: {request.url[:200]}"))
    tab.on("pageerror", lambda error: tab.trouble.append(f"error: {error}"))
    tab.on(
        "console",
        lambda message: (
            tab.trouble.append(f"{message.type}: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    yield tab
    context.close()


def visit(tab, page):
    """Open a page of the book, and wait until nothing moves any more."""
    path = HTML / f"{page}.html"
    if not path.exists():
        missing(f"{path} is not built: run `jupyter-book build .`")
    tab.goto(path.as_uri())
    tab.wait_for_load_state("networkidle")
    tab.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")


def violations(tab):
    """What axe-core finds on the page, one line for each element."""
    return [
        f"{found['id']} ({found['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for found in Axe().run(tab).response["violations"]
        for node in found["nodes"]
    ]


@each_page
def test_a_page_needs_nothing_that_is_not_in_the_book(tab, page):
    visit(tab, page)
    assert tab.locator(".math:not(:has(mjx-container))").count() == 0
    assert tab.locator("mjx-merror").count() == 0
    assert tab.trouble == []


@each_page
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_in_light_or_dark(tab, page, size):
    tab.set_viewport_size(size)
    visit(tab, page)
    found = []
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        tab.wait_for_selector(f"html[data-theme={theme}]", state="attached")
        found += [f"{theme}: {line}" for line in violations(tab)]
    assert not found, "\n".join(found)


@each_page
def test_a_page_is_no_wider_than_a_phone(tab, page):
    tab.set_viewport_size(PHONE)
    visit(tab, page)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_mathematics_is_there_to_be_rendered(tab):
    visit(tab, "chapters/02_from_autoencoder_to_vae")
    tab.wait_for_selector("mjx-container")
    assert tab.locator(".math").count() > 20


def test_search_works_from_a_file(tab):
    visit(tab, TOC["root"])
    tab.keyboard.press("Control+k")
    tab.keyboard.type("stroke")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#search-results li a")
    assert tab.trouble == []
