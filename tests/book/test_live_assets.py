"""The built book serves what its live figures need, once."""

import os
from types import SimpleNamespace

from sphinx.extension import Extension

import live_assets
from helpers.live_figures import SERVED, LiveFigure


def test_bokeh_is_served_and_the_notebooks_are_told(monkeypatch):
    monkeypatch.setenv(SERVED, "")
    figure = LiveFigure("slices", "title", "use", {})
    assert "<style>" in figure._repr_html_()  # by hand, a figure brings its scripts along
    hooks = {}
    metadata = live_assets.setup(SimpleNamespace(connect=hooks.__setitem__))
    extension = Extension("live_assets", live_assets, **metadata)
    assert extension.parallel_read_safe and extension.parallel_write_safe
    config = SimpleNamespace(html_static_path=["_static"])
    hooks["config-inited"](None, config)
    own, bokeh = config.html_static_path
    assert own == "_static" and bokeh.endswith("bokeh.min.js") and os.path.getsize(bokeh) > 1e5
    assert "<style>" not in figure._repr_html_()
