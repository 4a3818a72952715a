"""The figures show what they are given."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text

from helpers import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_lesion_and_healthy_differ_in_hue_lightness_and_marker():
    def lightness(colour):
        return np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))

    assert (plots.COLOURS[0], plots.COLOURS[1]) == ("#0072B2", "#D55E00")
    assert abs(lightness(plots.BLUE) - lightness(plots.ORANGE)) > 0.03
    assert len(set(plots.MARKERS)) == len(plots.MARKERS)


def test_the_rare_class_is_drawn_last_and_the_legend_keeps_its_order():
    classes = np.array([0] + [1] * 19)
    axes = plots.scatter_by_class(np.random.default_rng(0).random((20, 2)), classes, ["a", "b"])
    common, rare = axes.collections
    assert (common.get_label(), rare.get_label()) == ("b", "a")
    assert (len(common.get_offsets()), len(rare.get_offsets())) == (19, 1)
    assert rare.get_sizes()[0] > common.get_sizes()[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]


def test_the_decoded_plane_puts_small_values_lower_left():
    images = np.zeros((2, 2, 3, 3))
    images[0, 0] = 1  # decoded from the smallest z_1 and z_2
    axes = plots.decoded_plane(images, np.array([-1.0, 1.0]))
    picture = axes.images[0]
    assert picture.get_extent() == [-2, 2, -2, 2]
    canvas = picture.get_array()
    assert canvas[3:, :3].all() and canvas.sum() == 9


def test_a_slice_without_lesion_gets_no_outline_and_one_with_it_does():
    lesion = np.zeros((56, 56), bool)
    assert not plots.show_slice(np.ones((56, 56)), lesion=lesion).collections
    lesion[10:20, 10:20] = True
    assert plots.show_slice(np.ones((56, 56)), lesion=lesion).collections


def test_the_grid_has_a_line_at_each_patch_edge():
    axes = plots.show_slice(np.ones((60, 90)), patch_size=(28, 28))
    assert len(axes.lines) == (2 + 1) + (3 + 1)
    assert max(line.get_xdata()[0] for line in axes.lines) == 3 * 28 - 0.5


def test_an_image_grid_shows_every_image_once():
    images = np.random.default_rng(0).random((7, 5, 5))
    figure = plots.image_grid(images, columns=3, titles=list("abcdefg"), row_labels=["x", "y"])
    assert len(figure.axes) == 7
    for axis, image, title in zip(figure.axes, images, "abcdefg", strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert axis.get_title() == title
    assert [axis.get_ylabel() for axis in figure.axes][::3] == ["x", "y", ""]


def test_the_concept_map_is_one_connected_whole_and_names_every_chapter():
    axis = plots.draw_concept_map().axes[0]
    boxes = [p for p in axis.patches if isinstance(p, FancyBboxPatch)]
    inside = [t.get_text() for t in axis.texts if "(" in t.get_text()]
    assert len(boxes) == len(inside)
    assert {text[text.index("(") + 1] for text in inside} == set("123456789")
    # Each arrow begins at the edge of one box and ends at the edge of another.
    arrows = [p for p in axis.patches if isinstance(p, FancyArrowPatch)]
    reached = {0}
    for _ in boxes:
        for arrow in arrows:
            start, end = (owner(boxes, place) for place in arrow._posA_posB)
            assert start != end
            if {start, end} & reached:
                reached |= {start, end}
    assert len(reached) == len(boxes)


def owner(boxes, place):
    """The one box on whose edge a place lies."""
    (found,) = (
        i
        for i, box in enumerate(boxes)
        if -0.01 <= place[0] - box.get_x() <= box.get_width() + 0.01
        and -0.01 <= place[1] - box.get_y() <= box.get_height() + 0.01
    )
    return found


@pytest.mark.parametrize("classes", [[0, 2], [-1, 0], [0, 0.5], [0, np.nan], ["0", "1"]])
def test_a_point_of_no_named_class_is_refused_not_left_out(classes):
    with pytest.raises(ValueError, match="classes must count from 0 to 1, found"):
        plots.scatter_by_class(np.eye(2), np.array(classes), ["a", "b"])


@pytest.mark.parametrize(
    ("classes", "names", "found"),
    [([0], "ab", "1 classes and 2 names"), ([0, 1], "abcdefg", "2 classes and 7 names")],
)
def test_each_point_has_a_class_and_each_class_a_colour(classes, names, found):
    with pytest.raises(ValueError, match=f"2 points, of at most 6 names; found {found}"):
        plots.scatter_by_class(np.eye(2), np.array(classes), list(names))


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_a_class_may_be_any_type_of_number(dtype):
    axes = plots.scatter_by_class(np.eye(2), np.array([0, 1], dtype), ["a", "b"])
    assert sum(len(drawn.get_offsets()) for drawn in axes.collections) == 2


@pytest.mark.parametrize("value", [0.5, 2, 255, np.nan])
def test_a_lesion_is_there_or_not(value):
    lesion = np.zeros((56, 56))
    lesion[10:20, 10:20] = value
    with pytest.raises(ValueError, match="lesion must hold 0 and 1 only"):
        plots.show_slice(np.ones((56, 56)), lesion=lesion)
    assert plots.show_slice(np.ones((56, 56)), lesion=np.sign(lesion) == 1) is not None
    with pytest.raises(ValueError, match=r"image's shape \(56, 56\), found \(56, 50\)"):
        plots.show_slice(np.ones((56, 56)), lesion=np.zeros((56, 50)))


def test_no_word_of_a_figure_is_under_8_points():
    curve = {"loss": [3, 2], "val_loss": [3, 2.5], "kl_loss": [0, 1], "val_kl_loss": [0, 1]}
    plots.draw_concept_map()
    plots.draw_architecture()
    plots.learning_curves(
        curve | {"reconstruction_loss": [3, 1], "val_reconstruction_loss": [3, 1]}
    )
    plots.image_grid(np.zeros((4, 5, 5)), columns=2, row_labels=["a", "b"])
    plots.scatter_by_class(np.eye(2), np.array([0, 1]), ["a", "b"])
    for number in plt.get_fignums():
        words = [text for text in plt.figure(number).findobj(Text) if text.get_text()]
        assert words and min(text.get_fontsize() for text in words) >= 8
    # What chapters draw themselves is of the size that is set for all, or says its own in points.
    for path in Path(__file__).parents[2].glob("chapters/*.ipynb"):
        for size in re.findall(
            r"(?:font|label|title)_?size=\\?\"?([\w.-]+)", path.read_text("utf-8")
        ):
            assert float(size) >= 8, path
