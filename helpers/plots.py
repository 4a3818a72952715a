"""The book's figures: one palette, one look. Every function takes arrays and returns a figure."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from helpers import yes_or_no

# Two colours that survive colour-blindness and grey print: lesion and digit 0, healthy and digit 1.
BLUE, ORANGE = "#0072B2", "#D55E00"
GREY = "#6B7280"
# Further classes, where a figure has more than two.
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "^", "s", "D", "v", "P")
SEQUENTIAL = "viridis"

plt.rcParams.update(
    {
        "figure.dpi": 140,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "image.cmap": "gray",
        "image.interpolation": "nearest",
        "legend.edgecolor": "none",  # but a ground, where points lie beneath
    }
)


def image_grid(
    images: np.ndarray,
    *,
    columns: int = 10,
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    vmax: float | None = 1.0,
    width: float = 7.0,
) -> Figure:
    """Show images side by side, in grey, row by row.

    Parameters
    ----------
    images : ndarray, shape (n, rows, columns)
        Intensities; 0 is black, `vmax` is white.
    columns : int
        Images in a row.
    titles : sequence of str, optional
        One above each image.
    row_labels : sequence of str, optional
        One to the left of each row.
    vmax : float or None
        Intensity shown as white; None takes each image's own maximum.
    width : float
        Width of the figure in inches.

    Returns
    -------
    Figure

    Examples
    --------
    >>> len(image_grid(np.zeros((6, 28, 28)), columns=3).axes)
    6
    """
    rows = -(-len(images) // columns)
    cell = width / columns
    aspect = images.shape[1] / images.shape[2]
    height = rows * cell * aspect + (0.22 * rows if len(titles) else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for index, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if index < len(images):
            axis.imshow(images[index], vmin=0, vmax=vmax)
        if index < len(titles):
            axis.set_title(titles[index], pad=2)
        if index % columns == 0 and index // columns < len(row_labels):
            axis.set_ylabel(row_labels[index // columns])
    for axis in axes.flat[len(images) :]:
        axis.remove()
    return figure


def scatter_by_class(
    points: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    *,
    axis_names: tuple[str, str] = ("", ""),
    size: float = 5.0,
    ax: Axes | None = None,
) -> Axes:
    """Scatter points in the plane, one colour and one marker a class.

    A class with less than a tenth of the points is drawn last and larger, so that it can be seen.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Where the points lie.
    classes : ndarray of int, shape (n,)
        Class of each point, counting from 0; class 0 is blue, class 1 orange.
    names : sequence of str
        Name of each class, for the legend.
    axis_names : (str, str)
        What the two axes are, with units.
    size : float
        Area of a marker in square points.
    ax : Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For a class without a name, more classes than colours, or another number of classes than of
        points.

    Examples
    --------
    >>> axes = scatter_by_class(np.eye(2), np.array([0, 1]), ["digit 0", "digit 1"])
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['digit 0', 'digit 1']
    """
    if len(classes) != len(points) or len(names) > len(COLOURS):
        raise ValueError(
            f"classes must be one for each of {len(points)} points, of at most {len(COLOURS)} "
            f"names; found {len(classes)} classes and {len(names)} names"
        )
    if not np.isin(classes, range(len(names))).all():
        raise ValueError(
            f"classes must count from 0 to {len(names) - 1}, found {np.unique(classes)}"
        )
    ax = ax or plt.subplots(figsize=(5, 4.2))[1]
    for index in sorted(range(len(names)), key=lambda i: -np.sum(classes == i)):
        chosen = points[classes == index]
        rare = len(chosen) < 0.1 * len(points)
        ax.scatter(
            *chosen.T,
            s=4 * size if rare else size,
            alpha=1.0 if rare else 0.6,
            color=COLOURS[index],
            marker=MARKERS[index],
            linewidths=0,
            label=names[index],
        )
    handles, labels = ax.get_legend_handles_labels()
    order = np.argsort([list(names).index(label) for label in labels])
    legend = ax.legend([handles[i] for i in order], [labels[i] for i in order], loc="best")
    for handle in legend.legend_handles:
        handle.set(sizes=[30], alpha=1)
    ax.set(xlabel=axis_names[0], ylabel=axis_names[1])
    return ax


def decoded_plane(images: np.ndarray, values: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Show what the decoder draws on a square grid of the latent plane, as one picture.

    Parameters
    ----------
    images : ndarray, shape (n, n, rows, columns)
        ``images[i, j]`` is decoded from z = (values[j], values[i]).
    values : ndarray, shape (n,)
        The grid's coordinates, increasing, the same along both axes.
    ax : Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    Axes

    Examples
    --------
    >>> decoded_plane(np.zeros((3, 3, 28, 28)), np.array([-1, 0, 1])).get_xlabel()
    '$z_1$'
    """
    ax = ax or plt.subplots(figsize=(5, 5))[1]
    # Upside down twice: the axis points up, and within an image row 0 is the top.
    canvas = np.block([[image for image in row] for row in images[::-1]])
    half = (values[1] - values[0]) / 2
    extent = (values[0] - half, values[-1] + half, values[0] - half, values[-1] + half)
    ax.imshow(canvas, extent=extent, vmin=0, vmax=1)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    return ax


def show_slice(
    image: np.ndarray,
    *,
    lesion: np.ndarray | None = None,
    patch_size: tuple[int, int] | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    vmax: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Show one axial slice in grey, with the lesion's outline and the patch grid if asked for.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
        Intensities; row 0 is anterior, column 0 the patient's right (radiological convention).
    lesion : ndarray of bool, or of 0 and 1, same shape, optional
        Outlined in blue.
    patch_size : (int, int), optional
        Height and width of the patches whose grid is drawn.
    spacing : (float, float)
        Voxel size (row, column) in millimetres, for the aspect.
    vmax : float, optional
        Intensity shown as white; the slice's own maximum otherwise.
    title : str
        Above the slice.
    ax : Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For a lesion of another shape, or with other values than 0 and 1.

    Examples
    --------
    >>> show_slice(np.ones((56, 56)), patch_size=(28, 28), title="a slice").get_title()
    'a slice'
    """
    if lesion is not None:
        lesion = yes_or_no("lesion", lesion)
        if lesion.shape != np.shape(image):
            raise ValueError(
                f"lesion must have the image's shape {np.shape(image)}, found {lesion.shape}"
            )
    ax = ax or plt.subplots(figsize=(4, 4))[1]
    ax.imshow(image, vmin=0, vmax=vmax, aspect=spacing[0] / spacing[1])
    if lesion is not None and lesion.any():
        ax.contour(lesion, levels=[0.5], colors=BLUE, linewidths=1.2)
    if patch_size is not None:
        height, width = patch_size
        rows, columns = image.shape[0] // height, image.shape[1] // width
        for row in range(rows + 1):
            ax.plot([-0.5, columns * width - 0.5], [row * height - 0.5] * 2, color=ORANGE, lw=0.6)
        for column in range(columns + 1):
            ax.plot([column * width - 0.5] * 2, [-0.5, rows * height - 0.5], color=ORANGE, lw=0.6)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


def learning_curves(history: dict[str, list[float]]) -> Figure:
    """Plot loss, reconstruction and KL against the epoch, for fitting and held-out images.

    Parameters
    ----------
    history : dict
        Keras' ``history.history`` of a `helpers.vae.VAE` fitted with ``validation_data``.

    Returns
    -------
    Figure

    Examples
    --------
    >>> keys = ["loss", "reconstruction_loss", "kl_loss"]
    >>> history = {key: [2.0, 1.0] for key in keys + ["val_" + key for key in keys]}
    >>> [axis.get_title() for axis in learning_curves(history).axes]
    ['loss', 'reconstruction', 'KL']
    """
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.3))
    names = {"loss": "loss", "reconstruction_loss": "reconstruction", "kl_loss": "KL"}
    for axis, (key, name) in zip(axes, names.items(), strict=True):
        epochs = np.arange(1, len(history[key]) + 1)
        axis.plot(epochs, history[key], color=GREY, ls="--", label="training")
        axis.plot(epochs, history[f"val_{key}"], color=BLUE, label="held out")
        axis.set(title=name, xlabel="epoch")
    axes[0].set_ylabel("nats an image")
    axes[0].legend()
    return figure


def draw_architecture(pixels: int = 784, hidden_units: int = 256, latent_dim: int = 2) -> Figure:
    """Draw the variational autoencoder as boxes and arrows, encoder left, decoder right.

    Parameters
    ----------
    pixels, hidden_units, latent_dim : int
        Widths of the layers, written into the boxes.

    Returns
    -------
    Figure

    Examples
    --------
    >>> type(draw_architecture()).__name__
    'Figure'
    """
    figure, axis = plt.subplots(figsize=(7, 2.6))
    axis.set(xlim=(0, 14), ylim=(0, 5))
    axis.axis("off")
    boxes = {
        "x": (0.7, 2.5, 4.2, f"image\n$x$\n{pixels}", GREY),
        "h": (3.0, 2.5, 3.0, f"hidden\n{hidden_units}", BLUE),
        "mean": (5.4, 3.7, 1.5, f"mean\n$\\mu$  {latent_dim}", BLUE),
        "var": (5.4, 1.3, 1.5, f"log-variance\n$\\log\\sigma^2$  {latent_dim}", BLUE),
        "z": (8.2, 2.5, 1.5, f"latent\n$z$  {latent_dim}", GREY),
        "g": (10.8, 2.5, 3.0, f"hidden\n{hidden_units}", ORANGE),
        "y": (13.2, 2.5, 4.2, f"decoded\n$\\hat{{x}}$\n{pixels}", GREY),
    }
    widths = {"x": 1.1, "h": 1.3, "mean": 2.0, "var": 2.0, "z": 1.3, "g": 1.3, "y": 1.3}
    for key, (x, y, height, text, colour) in boxes.items():
        width = widths[key]
        corner = (x - width / 2, y - height / 2)
        style = {
            "boxstyle": "round,pad=0,rounding_size=0.12",
            "fc": "white",
            "ec": colour,
            "lw": 1.5,
        }
        axis.add_patch(FancyBboxPatch(corner, width, height, **style))
        axis.text(x, y, text, ha="center", va="center")
    for start, end in ["xh", ("h", "mean"), ("h", "var"), ("mean", "z"), ("var", "z"), "zg", "gy"]:
        _arrow(
            axis,
            (boxes[start][0] + widths[start] / 2, boxes[start][1]),
            (boxes[end][0] - widths[end] / 2, boxes[end][1]),
        )
    axis.text(8.2, 0.9, "noise $\\epsilon \\sim N(0, I)$", ha="center", va="center")
    _arrow(axis, (8.2, 1.15), (8.2, 1.75))
    axis.text(3.6, 4.85, "encoder $Q(z|x)$", ha="center", color=BLUE)
    axis.text(11.4, 4.85, "decoder $P(x|z)$", ha="center", color=ORANGE)
    return figure


def draw_graphical_model() -> Figure:
    """Draw the VAE as a directed graphical model: solid P(z)P(x|z), dashed Q(z|x).

    Returns
    -------
    Figure

    Examples
    --------
    >>> type(draw_graphical_model()).__name__
    'Figure'
    """
    figure, axis = plt.subplots(figsize=(2.6, 3))
    axis.set(xlim=(0, 4), ylim=(0, 4.6), aspect="equal")
    axis.axis("off")
    for y, text, filled in ((3.4, "$z$", "white"), (1.2, "$x$", "#D1D5DB")):
        axis.add_patch(Circle((2, y), 0.45, fc=filled, ec="black", lw=1.3))
        axis.text(2, y, text, ha="center", va="center", fontsize=12)
    axis.add_patch(Rectangle((0.5, 0.3), 3, 3.9, fill=False, ec=GREY))
    axis.text(3.4, 0.4, "$N$ images", ha="right", color=GREY)
    _arrow(axis, (2, 2.95), (2, 1.65), color=ORANGE)
    _arrow(axis, (1.66, 1.5), (1.66, 3.1), color=BLUE, curve=-0.5, style="--")
    axis.text(2.12, 2.3, "$P(x|z)$", color=ORANGE, va="center")
    axis.text(1.2, 2.3, "$Q(z|x)$", color=BLUE, ha="right", va="center", fontsize=8)
    return figure


def draw_concept_map() -> Figure:
    """Draw what the book is about as boxes, and how one leads to the next as arrows.

    The number in a box is the chapter that it comes from.

    Returns
    -------
    Figure

    Examples
    --------
    >>> len(draw_concept_map().axes)
    1
    """
    figure, axis = plt.subplots(figsize=(7, 6.05))
    axis.set(xlim=(0, 14), ylim=(0, 12.1))
    axis.axis("off")
    boxes = {  # column, row, colour
        "images without\nlabels (1)": (0, 3, GREY),
        "autoencoder (2)": (1, 3, BLUE),
        "VAE (2)": (2, 3, BLUE),
        "digits (3)": (3, 3, GREY),
        "scans (4)": (0, 2, GREY),
        "patches (4)": (1, 2, GREY),
        "latent space (5)": (2, 2, BLUE),
        "clusters (8)": (3, 2, BLUE),
        "the other side\nof the brain (8)": (0, 1, GREY),
        "unexplained\nbrightness (8)": (1, 1, GREY),
        "yardstick (6)": (2, 1, ORANGE),
        "a few labels (10)": (3, 1, ORANGE),
        "your own scans\n(11, 12)": (0, 0, GREY),
        "told the other\nside (9)": (1, 0, BLUE),
        "a map of what\nis unusual (9, 11)": (2, 0, BLUE),
        "what does not\nfit (7)": (3, 0, BLUE),
    }
    steps = (
        ("images without\nlabels (1)", "autoencoder (2)", "train"),
        ("autoencoder (2)", "VAE (2)", "a prior"),
        ("VAE (2)", "digits (3)", "tried on"),
        ("images without\nlabels (1)", "scans (4)", "such as"),
        ("scans (4)", "patches (4)", "cut into"),
        ("patches (4)", "latent space (5)", "placed in"),
        ("VAE (2)", "latent space (5)", "learns"),
        ("latent space (5)", "clusters (8)", "falls into"),
        ("scans (4)", "the other side\nof the brain (8)", "show"),
        ("the other side\nof the brain (8)", "unexplained\nbrightness (8)", "leaves"),
        ("patches (4)", "unexplained\nbrightness (8)", "measured by"),
        ("yardstick (6)", "latent space (5)", "judges"),
        ("a few labels (10)", "clusters (8)", "name"),
        ("your own scans\n(11, 12)", "the other side\nof the brain (8)", "show"),
        ("your own scans\n(11, 12)", "told the other\nside (9)", "given to"),
        ("unexplained\nbrightness (8)", "told the other\nside (9)", "rivals"),
        ("told the other\nside (9)", "a map of what\nis unusual (9, 11)", "draws"),
        ("yardstick (6)", "a map of what\nis unusual (9, 11)", "judges"),
        ("what does not\nfit (7)", "a map of what\nis unusual (9, 11)", "a first try"),
    )
    width, height = 2.5, 1.3
    places = {text: (1.3 + 3.8 * x, 1.1 + 3.3 * y) for text, (x, y, _) in boxes.items()}
    for text, (x, y) in places.items():
        style = {"boxstyle": "round,pad=0,rounding_size=0.12", "fc": "white", "lw": 1.5}
        corner = (x - width / 2, y - height / 2)
        axis.add_patch(FancyBboxPatch(corner, width, height, ec=boxes[text][2], **style))
        axis.text(x, y, text, ha="center", va="center", fontsize=8)
    for start, end, verb in steps:
        (x, y), (to_x, to_y) = places[start], places[end]
        aside, up = np.sign(to_x - x), np.sign(to_y - y)
        reach = np.array([aside * width / 2, up * height / 2])
        _arrow(axis, np.array([x, y]) + reach, np.array([to_x, to_y]) - reach)
        middle = (x + to_x) / 2, (y + to_y) / 2
        if up:
            axis.text(middle[0] + 0.15, middle[1], verb, va="center", fontsize=8, color="black")
        else:
            above = middle[0], middle[1] + 0.15
            axis.text(*above, verb, ha="center", va="bottom", fontsize=8, color="black")
    return figure


def _arrow(axis, start, end, *, color="black", curve=0.0, style="-"):
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9,
            color=color,
            linestyle=style,
            connectionstyle=f"arc3,rad={curve}",
            shrinkA=0,
            shrinkB=0,
        )
    )
