"""Say on every page of a rehearsal that its numbers are not the book's.

Named in ``_config.yml`` as an extension of Sphinx; `helpers.rehearsal` tells what a rehearsal is.
"""

from __future__ import annotations

from helpers.rehearsal import is_quick

NOTICE = (
    "A quick rehearsal, with fewer patients and shorter training: "
    "the numbers on these pages are not the book's, and some sentences may not hold."
)


def setup(app) -> dict[str, bool]:
    """Put the notice on every page of a rehearsal; Sphinx calls this."""
    app.connect("config-inited", _announce)
    return {"parallel_read_safe": True}


def _announce(app, config) -> None:
    if is_quick():
        config.html_theme_options = {**config.html_theme_options, "announcement": NOTICE}
        # What a rehearsal computed must not be taken for the book's by the next build.
        config.nb_execution_cache_path += "_quick"
