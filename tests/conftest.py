"""What several test files share."""

import os
import shutil

import distributed
import pytest
from hypothesis import settings
from playwright.sync_api import sync_playwright

# Two that test at a time keep what JAX compiled apart.
if (place := os.environ.get("JAX_COMPILATION_CACHE_DIR")) and "PYTEST_XDIST_WORKER" in os.environ:
    worker = os.path.join(place, os.environ["PYTEST_XDIST_WORKER"])
    os.environ["JAX_COMPILATION_CACHE_DIR"] = worker

# No test asserts a time: a busy machine is no failure, not even by hypothesis' own deadline.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def missing(reason):
    """Skip, or fail where the book is said to be built."""
    (pytest.fail if os.environ.get("BOOK_BUILT") else pytest.skip)(reason)


#: How far everything on the slide that is shown reaches, down and to the right.
REACH = """() => {
  const parts = [...document.querySelectorAll("section.present, section.present *")]
    .filter(part => !part.closest("mjx-assistive-mml, aside") && part.getClientRects().length)
    .map(part => part.getBoundingClientRect());
  return [Math.max(...parts.map(box => box.bottom)), Math.max(...parts.map(box => box.right))];
}"""


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no browser found: install Debian's `chromium` (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def client():
    """A Dask cluster of two worker processes on this machine, reachable from nowhere else."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
