"""Figures that answer to pointer, finger and arrow keys, in the built page and in a notebook.

Each figure is a block of HTML with its data in it as JSON; ``_static/live_figures.js`` draws it and
``live_figures.css`` gives it its looks. The built book serves both, and Bokeh's script, once a page
(``_ext/live_assets.py``). In a notebook that is run by hand nobody serves them, so there every
figure brings them along.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from helpers import yes_or_no
from helpers.plots import BLUE, COLOURS, MARKERS, ORANGE, SEQUENTIAL

_STATIC = Path(__file__).resolve().parents[1] / "_static"
#: Set while the book is built, for the notebooks' kernels: its pages serve the scripts.
SERVED = "VAE_BOOK_SERVES_SCRIPTS"
_BOKEH_MARKERS = {"o": "circle", "^": "triangle", "s": "square", "D": "diamond"} | {
    "v": "inverted_triangle",
    "P": "cross",
}


@dataclass(frozen=True)
class LiveFigure:
    """What a notebook shows as a live figure.

    Attributes
    ----------
    kind : {"scatter", "decoder", "slices"}
        Which function of ``live_figures.js`` draws it.
    title : str
        What the figure shows; stands above it.
    use : str
        How to use it; stands below the title.
    data : dict
        What it is drawn from, ready for JSON.
    """

    kind: str
    title: str
    use: str
    data: dict

    def __repr__(self) -> str:
        return f"<live figure: {self.title}>"

    def _repr_html_(self) -> str:
        # "</" would end the element that the JSON stands in
        data = json.dumps(self.data, separators=(",", ":")).replace("</", "<\\/")
        # data-lm-suppress-shortcuts: the arrow keys are the figure's, not JupyterLab's
        figure = (
            f'<div class="live" data-kind="{self.kind}" data-lm-suppress-shortcuts="true"'
            f' role="group" aria-label="{escape(self.title)}">'
            f"<p><strong>{escape(self.title)}.</strong> {escape(self.use)}</p>"
            "<noscript><p>Scripts are off, so this figure stays empty; the one above it shows the"
            " same, standing still.</p></noscript>"
            f'<script type="application/json">{data}</script></div>'
        )
        return figure if os.environ.get(SERVED) else figure + self._scripts()

    def _scripts(self) -> str:
        scripts = [(_STATIC / "live_figures.js").read_text(encoding="utf-8")]
        if self.kind == "scatter":
            # a second start of Bokeh in one page would forget the figures of the first
            bokeh = bokeh_script().read_text(encoding="utf-8").replace("</script", "<\\/script")
            scripts.insert(0, f"if (!window.Bokeh) {{{bokeh}\n}}")
        style = f"<style>{(_STATIC / 'live_figures.css').read_text(encoding='utf-8')}</style>"
        return style + "".join(f"<script>{script}</script>" for script in scripts)


def live_scatter(
    points: np.ndarray,
    kind: np.ndarray,
    names: Sequence[str],
    images: np.ndarray,
    *,
    title: str,
    known: Mapping[str, Sequence] | None = None,
    axis_names: tuple[str, str] = ("", ""),
) -> LiveFigure:
    """Scatter points in the plane; a point under the pointer or the keys shows its image.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Where the points lie.
    kind : ndarray of int, shape (n,)
        Class of each point, counting from 0; colours and markers are those of `helpers.plots`.
    names : sequence of str
        Name of each class.
    images : ndarray, shape (n, rows, columns)
        What each point stands for, from 0 (black) to 1 (white).
    title : str
        What the figure shows.
    known : mapping of str to sequence of length n, optional
        What else is told of each point, by name; floats are shown with two decimals.
    axis_names : (str, str)
        What the two axes are, with units.

    Returns
    -------
    LiveFigure

    Raises
    ------
    ValueError
        If lengths differ, a class has no name, or a coordinate or an image is not finite.

    Examples
    --------
    >>> images = np.zeros((2, 28, 28))
    >>> live_scatter(np.eye(2), np.array([0, 1]), ["zero", "one"], images, title="Two digits")
    <live figure: Two digits>
    """
    from bokeh.embed import json_item

    points, kind, known = np.asarray(points), np.asarray(kind), dict(known or {})
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite, of shape (n, 2), found shape {points.shape}")
    for name, values in {"kind": kind, "images": images, **known}.items():
        if len(values) != len(points):
            raise ValueError(
                f"{name}: expected one for each of {len(points)} points, found {len(values)}"
            )
    if not np.isin(kind, range(len(names))).all():
        raise ValueError(f"kind must count from 0 to {len(names) - 1}, found {np.unique(kind)}")
    kind = kind.astype(int)  # True and 1.0 are 1, but choose no name

    told = [
        "\n".join([names[kind[row]], *(f"{key}: {_said(known[key][row])}" for key in known)])
        for row in range(len(points))
    ]
    return LiveFigure(
        "scatter",
        title,
        "Point at a dot or tap it, or walk from dot to dot with the arrow keys, to see its image.",
        {
            "plot": json_item(_bokeh_scatter(points, kind, names, axis_names)),
            "points": np.round(points, 4).tolist(),
            "told": told,
            "images": _sprite("images", images),
        },
    )


def live_decoder(
    weights: Sequence[np.ndarray],
    *,
    title: str,
    shape: tuple[int, int] = (28, 28),
    span: float = 2.5,
) -> LiveFigure:
    """Drag, or press arrow keys, over the latent plane and watch what a dense decoder draws.

    The browser computes it anew for every place, from the network's own weights.

    Parameters
    ----------
    weights : sequence of ndarray
        Matrix (inputs, outputs) and offset (outputs,) of each dense layer, in turn, as of Keras'
        ``decoder.get_weights()``. ReLU follows each layer but the last, which ends in a sigmoid.
        They are rounded to half precision.
    title : str
        What the figure shows.
    shape : (int, int)
        Rows and columns of a decoded image.
    span : float
        The plane is shown from -span to span along both axes.

    Returns
    -------
    LiveFigure

    Raises
    ------
    ValueError
        If the weights are not those of dense layers from two latents to an image of that shape.

    Examples
    --------
    >>> from helpers.vae import build_dense_vae
    >>> live_decoder(build_dense_vae().decoder.get_weights(), title="Untrained decoder")
    <live figure: Untrained decoder>
    """
    shapes = [np.shape(array) for array in weights]
    widths = [2, *(offset[0] for offset in shapes[1::2] if offset)]
    layers = list(itertools.pairwise(widths))
    expected = [size for inputs, outputs in layers for size in ((inputs, outputs), (outputs,))]
    if not layers or shapes != expected or widths[-1] != shape[0] * shape[1]:
        raise ValueError(
            f"weights must be matrix and offset of dense layers from 2 latents to {shape[0]} x "
            f"{shape[1]} pixels, found shapes {shapes}"
        )
    flat = np.concatenate([np.ravel(array) for array in weights])
    if not np.abs(flat).max() <= np.finfo(np.float16).max:
        raise ValueError("weights must be finite in half precision, some are not")
    return LiveFigure(
        "decoder",
        title,
        "Drag the cross over the plane, or move it with the arrow keys (Shift: far; Home: back).",
        {
            "weights": base64.b64encode(flat.astype("<f2").tobytes()).decode(),
            "widths": widths,
            "shape": list(shape),
            "span": span,
        },
    )


def live_slices(
    volume: np.ndarray,
    lesion: np.ndarray,
    locations: np.ndarray,
    lesion_fraction: np.ndarray,
    *,
    title: str,
    patch_size: tuple[int, int] = (28, 28),
) -> LiveFigure:
    """Scroll through a scan, with the lesion's outline, the patch grid and the lesion map.

    Parameters
    ----------
    volume : ndarray, shape (slices, rows, columns)
        Intensities from 0 (black) to 1 (white), of square voxels in the plane.
    lesion : ndarray of bool, or of 0 and 1, same shape
        Outlined along the edges of its voxels.
    locations : ndarray of int, shape (n, 3)
        First voxel (slice, row, column) of each patch; none, if there is no grid to show.
    lesion_fraction : ndarray, shape (n,)
        Share of lesion voxels in each patch.
    title : str
        What the figure shows.
    patch_size : (int, int)
        Height and width of a patch.

    Returns
    -------
    LiveFigure
        It starts at the slice with most lesion.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, the volume or a share is not finite, or the lesion
        holds other values than 0 and 1.

    Examples
    --------
    >>> volume, lesion = np.zeros((2, 56, 56)), np.zeros((2, 56, 56), bool)
    >>> live_slices(volume, lesion, np.array([[1, 0, 28]]), np.array([0.0]), title="A scan")
    <live figure: A scan>
    """
    if np.ndim(volume) != 3 or np.shape(lesion) != np.shape(volume):
        raise ValueError(
            "volume and lesion must have the same three axes, "
            f"found {np.shape(volume)} and {np.shape(lesion)}"
        )
    if np.shape(locations) != (len(lesion_fraction), 3):
        raise ValueError(
            f"locations must have shape ({len(lesion_fraction)}, 3), one for each lesion_fraction, "
            f"found {np.shape(locations)}"
        )
    lesion = yes_or_no("lesion", lesion)
    # JSON knows no NaN, and a page with one shows nothing.
    if not np.isfinite(lesion_fraction).all():
        raise ValueError(
            f"lesion_fraction must be finite, found {np.sum(~np.isfinite(lesion_fraction))} of "
            f"{len(lesion_fraction)} that are not: were the patches cut with a lesion mask?"
        )
    for z in locations[:, 0]:
        if not 0 <= z < len(volume):
            raise ValueError(
                f"locations: slice {z} does not lie in the volume's {len(volume)} slices"
            )
    colour = colormaps[SEQUENTIAL]
    top = max(float(np.max(lesion_fraction, initial=0)), 1e-6)
    patches = [[] for _ in volume]
    for (z, row, column), fraction in zip(locations.tolist(), lesion_fraction, strict=True):
        patches[z].append([row, column, round(float(fraction), 4), to_hex(colour(fraction / top))])
    voxels = lesion.sum(axis=(1, 2))
    return LiveFigure(
        "slices",
        title,
        "Choose a slice with the slider or the arrow keys, or click into it and turn the wheel.",
        {
            "slices": _sprite("volume", volume),
            "outlines": [_outline(mask) for mask in lesion],
            "patches": patches,
            "patch": list(patch_size),
            "voxels": voxels.tolist(),
            "start": int(voxels.argmax()),
            "colours": {"lesion": BLUE, "grid": ORANGE},
        },
    )


def bokeh_script() -> Path:
    """Find Bokeh's script, as its package brings it along.

    Examples
    --------
    >>> bokeh_script().name
    'bokeh.min.js'
    """
    # Imported here and below: a page without a scatter need not load Bokeh.
    from bokeh.util.paths import server_path

    return server_path() / "static" / "js" / "bokeh.min.js"


def _bokeh_scatter(points, kind, names, axis_names):
    from bokeh.models import ColumnDataSource, HoverTool, TapTool
    from bokeh.plotting import figure

    plot = figure(
        tools="pan,wheel_zoom,reset",
        active_drag=None,  # a page that is scrolled by a finger or a wheel must not be held up
        active_scroll=None,
        x_axis_label=axis_names[0],
        y_axis_label=axis_names[1],
        sizing_mode="stretch_width",
        height=400,
        background_fill_color=None,  # in the dark, no line of white is left over at the rim
        border_fill_color=None,
        outline_line_color=None,
    )
    # As in `plots.scatter_by_class`: a rare class is drawn last and larger.
    for index in sorted(range(len(names)), key=lambda i: -np.sum(kind == i)):
        rows = np.flatnonzero(kind == index)
        rare = len(rows) < 0.1 * len(points)
        x, y = points[rows].astype(np.float32).T
        plot.scatter(
            "x",
            "y",
            source={"x": x, "y": y, "row": rows.astype(np.int32)},
            marker=_BOKEH_MARKERS[MARKERS[index]],
            size=8 if rare else 5,
            color=COLOURS[index],
            alpha=1.0 if rare else 0.8,
            line_color=None,
            legend_label=names[index],
        )
    # The script moves this ring to the point whose image is shown.
    ring = ColumnDataSource({"x": [], "y": []}, name="chosen")
    for colour, width in (("black", 6), ("white", 2)):  # seen on any ground
        plot.scatter(
            "x", "y", source=ring, size=14, fill_color=None, line_color=colour, line_width=width
        )
    plot.add_tools(
        HoverTool(tooltips=None, visible=False), TapTool(behavior="inspect", visible=False)
    )
    legend = plot.legend[0]
    legend.items = sorted(legend.items, key=lambda item: names.index(item.label.value))
    plot.add_layout(legend, "above")
    plot.legend.orientation = "horizontal"
    plot.legend.click_policy = "hide"
    plot.toolbar.logo = None
    return plot


def _said(value) -> str:
    return f"{value:.2f}" if isinstance(value, float | np.floating) else str(value)


def _sprite(name: str, images: np.ndarray) -> dict:
    """Put images side by side into one PNG, row by row, in about a square."""
    if bad := np.count_nonzero(~np.isfinite(images)):
        raise ValueError(f"{name} must be finite, found {bad} pixels NaN or infinite")
    n, height, width = np.shape(images)
    columns = max(1, round((n * height / width) ** 0.5))
    rows = -(-n // columns)
    grey = np.zeros((rows * columns, height, width), np.uint8)
    grey[:n] = np.round(255 * np.clip(images, 0, 1))
    sheet = grey.reshape(rows, columns, height, width).swapaxes(1, 2)
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * height, columns * width)).save(file, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "columns": columns, "height": height, "width": width}


def _outline(mask: np.ndarray) -> list[list[int]]:
    """Find the voxel edges between mask and background, each as [row, column, row, column]."""
    padded = np.pad(mask.astype(np.int8), 1)
    row, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    across = np.stack([row, column, row, column + 1], axis=1)
    row, column = np.nonzero(np.diff(padded, axis=1)[1:-1])
    down = np.stack([row, column, row + 1, column], axis=1)
    return np.concatenate([across, down]).tolist()
