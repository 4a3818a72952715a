"""The live figures carry what they are given, and nothing that has to be fetched."""

import base64
import io
import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

from helpers import live_figures


def held(figure):
    """The figure's data, read back from its HTML as a browser reads it."""
    (text,) = re.findall(
        r'<script type="application/json">(.*?)</script>', figure._repr_html_(), flags=re.DOTALL
    )
    return json.loads(text)


def tiles(sheet):
    """The images of a sheet, one after the other, with the empty places behind them."""
    png = base64.b64decode(sheet["uri"].removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    height, width = sheet["height"], sheet["width"]
    return [
        pixels[row : row + height, column : column + width]
        for row in range(0, pixels.shape[0], height)
        for column in range(0, sheet["columns"] * width, width)
    ]


def decoder_weights(*widths, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=shape).astype(np.float32)
        for inputs, outputs in itertools.pairwise(widths)
        for shape in ((inputs, outputs), (outputs,))
    ]


def two_digits(**changes):
    arguments = {
        "points": np.array([[0.0, 1.0], [2.0, -3.5]]),
        "kind": np.array([0, 1]),
        "names": ["digit 0", "digit 1"],
        "images": np.stack([np.zeros((28, 28)), np.ones((28, 28))]),
        "title": "Two digits",
    }
    return live_figures.live_scatter(**arguments | changes)


def small_scan(**changes):
    lesion = np.zeros((3, 56, 84), bool)
    lesion[1, 4:6, 30:33] = True
    arguments = {
        "volume": np.random.default_rng(0).random((3, 56, 84)),
        "lesion": lesion,
        "locations": np.array([[1, 0, 0], [1, 0, 28], [2, 28, 56]]),
        "lesion_fraction": np.array([0, 6 / 784, 0]),
        "title": "A scan",
    }
    return live_figures.live_slices(**arguments | changes)


@pytest.mark.parametrize("shape", [(1, 5, 5), (7, 4, 9), (50, 28, 28), (3, 60, 20)])
def test_images_come_back_from_their_sheet_in_order(shape):
    images = np.random.default_rng(0).random(shape)
    back = tiles(live_figures._sprite("images", images))
    assert len(back) < shape[0] + live_figures._sprite("images", images)["columns"]
    np.testing.assert_allclose(np.stack(back[: shape[0]]) / 255, images, atol=0.5 / 255 + 1e-9)


def test_a_point_keeps_its_place_its_class_and_what_is_known_of_it():
    figure = two_digits(known={"patient": ["sub-1", "sub-2"], "lesion": np.array([0.0, 0.256])})
    data = held(figure)
    assert data["points"] == [[0, 1], [2, -3.5]]
    assert data["told"][1] == "digit 1\npatient: sub-2\nlesion: 0.26"
    assert [tile.mean() for tile in tiles(data["images"])[:2]] == [0, 255]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((2, 3))}, r"shape \(n, 2\), found shape \(2, 3\)"),
        ({"points": np.array([[0, np.nan], [0, 0]])}, "points must be finite"),
        ({"kind": np.array([0, 2])}, "kind must count from 0 to 1"),
        ({"images": np.zeros((3, 28, 28))}, "images: expected one for each of 2 points, found 3"),
        ({"known": {"patient": ["sub-1"]}}, "patient: expected one for each of 2 points, found 1"),
    ],
)
def test_a_scatter_that_does_not_fit_says_what(changes, message):
    with pytest.raises(ValueError, match=message):
        two_digits(**changes)


@pytest.mark.parametrize("dtype", [int, bool, float, np.uint8])
def test_a_class_may_be_any_type_of_number(dtype):
    told = held(two_digits(kind=np.array([0, 1], dtype)))["told"]
    assert told == ["digit 0", "digit 1"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_cannot_be_shown_are_refused(value):
    images = np.zeros((2, 28, 28))
    images[1, 2, 3] = value
    with pytest.raises(ValueError, match="images must be finite, found 1 pixels"):
        two_digits(images=images)
    volume = np.zeros((3, 56, 84))
    volume[0, 0, :2] = value
    with pytest.raises(ValueError, match="volume must be finite, found 2 pixels"):
        small_scan(volume=volume)


@pytest.mark.parametrize("dtype", [bool, np.uint8, int, np.float32])
def test_the_outline_is_the_same_in_any_type_of_mask(dtype):
    lesion = np.zeros((3, 56, 84))
    lesion[1, 4:6, 30:33] = 1
    assert held(small_scan(lesion=lesion.astype(dtype))) == held(small_scan())


@pytest.mark.parametrize("value", [0.5, 2, 255, -1, np.nan])
def test_a_lesion_is_there_or_not(value):
    lesion = np.zeros((3, 56, 84))
    lesion[1, 4:6, 30:33] = value
    with pytest.raises(ValueError, match="lesion must hold 0 and 1 only, found"):
        small_scan(lesion=lesion)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_patches_cut_without_a_mask_have_no_share_to_show(value):
    share = np.array([0, value, value])
    with pytest.raises(ValueError, match="lesion_fraction must be finite, found 2 of 3"):
        small_scan(lesion_fraction=share)


def test_the_decoder_keeps_its_weights_to_half_precision():
    weights = decoder_weights(2, 16, 12)
    data = held(live_figures.live_decoder(weights, shape=(3, 4), title="A decoder"))
    assert data["widths"] == [2, 16, 12]
    back = np.frombuffer(base64.b64decode(data["weights"]), "<f2")
    np.testing.assert_allclose(
        back, np.concatenate(list(map(np.ravel, weights))), rtol=2**-11, atol=1e-7
    )


@pytest.mark.parametrize(
    "weights",
    [
        [],
        decoder_weights(3, 16, 12),
        decoder_weights(2, 16, 13),
        decoder_weights(2, 16, 12)[:3],
        [np.zeros((2, 16)), np.zeros(16), np.zeros((15, 12)), np.zeros(12)],
        [np.zeros((1, 1, 2, 12)), np.zeros(12)],
    ],
    ids=["none", "three latents", "13 pixels", "no offset", "layers do not meet", "convolution"],
)
def test_a_decoder_that_is_not_dense_or_does_not_fit_is_refused(weights):
    with pytest.raises(ValueError, match="from 2 latents to 3 x 4 pixels, found shapes"):
        live_figures.live_decoder(weights, shape=(3, 4), title="A decoder")


@pytest.mark.parametrize("value", [1e6, np.inf, np.nan])
def test_weights_beyond_half_precision_are_refused(value):
    weights = decoder_weights(2, 12)
    weights[0][0, 0] = value
    with pytest.raises(ValueError, match="finite in half precision"):
        live_figures.live_decoder(weights, shape=(3, 4), title="A decoder")


def test_the_outline_of_a_lesion_is_as_long_as_its_perimeter():
    edges = held(small_scan())["outlines"]
    assert [len(outline) for outline in edges] == [0, 2 * (2 + 3), 0]
    # Every edge parts a lesion voxel from one that is none.
    corners = np.array(edges[1])
    assert corners[:, [0, 2]].min() == 4 and corners[:, [0, 2]].max() == 6
    assert corners[:, [1, 3]].min() == 30 and corners[:, [1, 3]].max() == 33


def test_a_hole_and_the_border_of_the_picture_are_outlined_too():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    assert len(live_figures._outline(mask)) == 12 + 4


def test_a_scan_starts_at_its_lesion_and_a_patch_keeps_its_place():
    data = held(small_scan())
    assert data["start"] == 1
    assert data["voxels"] == [0, 6, 0]
    places = [[patch[:3] for patch in patches] for patches in data["patches"]]
    assert places == [[], [[0, 0, 0], [0, 28, round(6 / 784, 4)]], [[28, 56, 0]]]
    colours = [patch[3] for patches in data["patches"] for patch in patches]
    assert colours[0] == colours[2] != colours[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lesion": np.zeros((3, 56, 83), bool)}, r"found \(3, 56, 84\) and \(3, 56, 83\)"),
        ({"locations": np.zeros((2, 3), int)}, r"shape \(3, 3\).*found \(2, 3\)"),
        ({"locations": np.full((3, 3), 3)}, "slice 3 .* 3 slices"),
    ],
)
def test_a_scan_that_does_not_fit_says_what(changes, message):
    with pytest.raises(ValueError, match=message):
        small_scan(**changes)


FIGURES = {
    "scatter": two_digits,
    "decoder": lambda: live_figures.live_decoder(decoder_weights(2, 784), title="A decoder"),
    "slices": small_scan,
}


@pytest.mark.parametrize("kind", FIGURES)
def test_a_notebook_gets_its_scripts_and_the_book_serves_them(kind, monkeypatch):
    figure = FIGURES[kind]()
    alone = figure._repr_html_()
    monkeypatch.setenv(live_figures.SERVED, "1")
    served = figure._repr_html_()
    assert alone.startswith(served)
    assert len(re.findall(r"<script>", served)) == 0
    assert len(re.findall(r"<script>", alone)) == (2 if kind == "scatter" else 1)
    assert not re.search(r"(src|href)=", served)


def test_a_title_cannot_end_the_element_it_stands_in():
    title = '</script><b>"bold" & more'
    figure = two_digits(title=title, names=[title, "digit 1"])
    assert title not in figure._repr_html_()
    assert held(figure)["told"][0] == title
