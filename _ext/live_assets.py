"""Serve Bokeh's script from the book, for the live figures that need it.

Named in ``_config.yml`` as an extension of Sphinx. Script and style of the figures themselves lie
in ``_static``, whose files Jupyter Book serves and names on every page.
"""

from __future__ import annotations

import os

from helpers.live_figures import SERVED, bokeh_script


def setup(app) -> dict[str, bool]:
    """Tell the notebooks' kernels that the pages bring the scripts; Sphinx calls this."""
    os.environ[SERVED] = "1"
    app.connect("config-inited", _serve_bokeh)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _serve_bokeh(app, config) -> None:
    config.html_static_path += [str(bokeh_script())]
