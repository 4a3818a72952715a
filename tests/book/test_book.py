"""What must hold for every page of the book."""

import ast
import csv
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from nbclient import NotebookClient
from sklearn.linear_model import LogisticRegression

from helpers import metrics, patches, phantom, plots, vae
from helpers.brain import find_brain
from helpers.data import find_data

BOOK = Path(__file__).parents[2]
NOTEBOOKS = sorted((BOOK / "chapters").glob("*.ipynb"))
EXECUTED = BOOK / "_build" / "jupyter_execute" / "chapters"
PLOTTING = [
    name
    for name, function in inspect.getmembers(plots, inspect.isfunction)
    if function.__module__ == plots.__name__ and not name.startswith("_")
]
DRAWS = re.compile(r"\b(" + "|".join([*PLOTTING, r"plt\.\w+"]) + r")\(")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def figures(path):
    """Code cells that draw, as told by what they call."""
    return [cell for cell in cells(path, "code") if DRAWS.search(cell.source)]


def prose(path):
    """The notebook's text without code, mathematics, roles and link targets."""
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    text += "".join(
        "\n" + cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        for cell in cells(path, "code")
    )
    for noise in (
        r"```\{math\}.*?```",
        r"\{[\w:]+\}`[^`]*`",
        r"`[^`]*`",
        r"\$[^$]*\$",
        r"\]\([^)]*\)",
    ):
        text = re.sub(noise, " ", text, flags=re.DOTALL)
    return text


def literals(path):
    """Every number that stands in the notebook's code."""
    numbers = set()
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                numbers |= {node.value, 100 * node.value}
    return numbers


def test_there_are_chapters_and_figures_to_check():
    assert len(NOTEBOOKS) >= 8
    assert all(figures(path) for path in NOTEBOOKS)


@each_notebook
def test_no_outputs_are_stored(path):
    for cell in cells(path, "code"):
        assert not cell.outputs and cell.execution_count is None, (
            f"{path.name} holds outputs; in JupyterLab: Edit, Clear Outputs of All Cells, and save"
        )


@each_notebook
def test_every_figure_has_a_name_a_caption_and_alternative_text(path):
    names = []
    for cell in figures(path):
        settings = cell.metadata.get("mystnb", {})
        assert settings.get("figure", {}).get("name", "").startswith("fig-"), cell.source
        assert len(settings["figure"].get("caption", "")) > 40, cell.source
        assert len(settings.get("image", {}).get("alt", "")) > 40, cell.source
        names.append(settings["figure"]["name"])
    assert len(set(names)) == len(names)


@each_notebook
def test_no_result_is_typed(path):
    # A decimal or a percentage in the text is a setting that stands in the code, or it is glued.
    allowed = literals(path)
    for number in re.findall(r"(?<![\w.])\d+\.\d+|\d+(?= ?%)", prose(path)):
        assert any(np.isclose(float(number), value) for value in allowed), number


@each_notebook
def test_no_line_of_code_has_to_be_scrolled(path):
    for cell in cells(path, "code"):
        if "remove-cell" not in cell.metadata.get("tags", []):
            assert max(map(len, cell.source.splitlines())) <= 78, cell.source


@each_notebook
def test_the_data_may_lie_anywhere(path):
    # VAE_BOOK_OUTPUT and VAE_BOOK_DATA name folders that have nothing to do with the book's.
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert not re.search(r"(data_folder|find_data)\([^)]*\)\.parent", code)


@each_notebook
def test_every_chapter_shows_its_minutes_and_asks_a_question(path):
    text = cells(path, "markdown")[0].source
    assert "{glue:text}`minutes:.1f`" in text
    assert re.search(r"^# .*\n\n\*\*.*\?\*\*$", text, flags=re.MULTILINE)


# The chapters before them show digits, the appendix behind them shows no brain.
@pytest.mark.parametrize("path", NOTEBOOKS[3:-1], ids=lambda path: path.stem)
def test_every_picture_of_a_brain_says_whose_it_is(path):
    for cell in figures(path):
        assert "{glue:text}`which" in cell.metadata["mystnb"]["figure"]["caption"]
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert len(re.findall(r'glue\(\s*"which"', code)) == 1


def test_every_chapter_is_in_the_table_of_contents_and_the_other_way_round():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    listed = [toc["root"]] + [page["file"] for part in toc["parts"] for page in part["chapters"]]
    found = [
        path.relative_to(BOOK).with_suffix("").as_posix()
        for path in (BOOK / "chapters").iterdir()
        if path.suffix in (".md", ".ipynb")
    ]
    assert sorted(listed) == sorted(found)


def shown_once(number, **given):
    """Run the cells of a chapter that are tagged shown-once; return what they define."""
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
    namespace = {"np": np, **given}
    tagged = [c for c in cells(path, "code") if "shown-once" in c.metadata.get("tags", [])]
    assert tagged
    for cell in tagged:
        exec(cell.source, namespace)
    return namespace


def test_the_losses_shown_in_chapter_2_are_the_helpers():
    shown = shown_once("02")
    rng = np.random.default_rng(0)
    x, decoded = rng.uniform(0.01, 0.99, (2, 6, 28, 28)).astype(np.float32)
    mean, log_var, noise = rng.normal(size=(3, 6, 4)).astype(np.float32)

    def same(by_hand, helper):
        np.testing.assert_allclose(np.asarray(by_hand), np.asarray(helper), rtol=1e-5)

    same(shown["reconstruction_loss"](x, decoded), vae.reconstruction_loss(x, decoded))
    same(shown["kl_divergence"](mean, log_var), vae.kl_divergence(mean, log_var))

    # The layer draws its own noise, so it is told apart by where it puts mean and spread.
    zero = np.zeros_like(noise)
    same(shown["sample"](mean, log_var, zero), vae.Sampling()([mean, np.full_like(mean, -1e4)]))
    spread = np.asarray(vae.Sampling()([np.zeros((20_000, 1)), np.full((20_000, 1), 0.8)])).std()
    expected = np.asarray(shown["sample"](0.0, 0.8, 1.0))
    assert spread == pytest.approx(expected, rel=0.03)


def test_the_loss_written_out_in_chapter_3_is_the_helpers():
    given = {
        "keras": vae.keras,
        "ops": vae.keras.ops,
        "Sampling": vae.Sampling,
        "kl_divergence": vae.kl_divergence,
        "reconstruction_loss": vae.reconstruction_loss,
    }
    helper = vae.build_dense_vae(3, input_shape=(6, 6), hidden_units=8)
    by_hand = shown_once("03", **given)["WrittenOut"](helper.encoder, helper.decoder)
    x = np.random.default_rng(0).uniform(size=(7, 6, 6)).astype(np.float32)
    y_pred = helper(x)
    expected = helper.compute_loss(x, y_pred=y_pred)
    found = by_hand.compute_loss(x, y_pred=tuple(y_pred.values()))
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-6)
    assert [part.shape for part in by_hand(x)] == [part.shape for part in y_pred.values()]

    # Keras trains by it: the weights move, and `evaluate` gives the loss, but for its own noise.
    by_hand.compile(optimizer="adam")
    before = helper.encoder.get_weights()
    by_hand.fit(x, epochs=1, verbose=0)
    assert not np.array_equal(before[0], helper.encoder.get_weights()[0])
    helper.compile()
    losses = by_hand.evaluate(x, verbose=0), helper.evaluate(x, verbose=0, return_dict=True)["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def shown_in_chapter_4(head):
    return shown_once("04", head=head, ml=np.prod(head.spacing) / 1000)


@pytest.mark.parametrize("seed", [0, 5, 11])
def test_the_skull_comes_off_in_chapter_4_as_the_helper_takes_it(seed):
    head = phantom.simulate_case(seed, skull=True)
    by_hand, helper = shown_in_chapter_4(head)["found"], find_brain(head.dwi, head.spacing)
    for found in (helper, head.brain):
        assert 2 * np.sum(by_hand & found) / (by_hand.sum() + found.sum()) > 0.97
    assert by_hand[head.lesion].all()


def test_the_patch_loop_shown_in_chapter_4_is_the_helpers():
    cut_patches = shown_in_chapter_4(phantom.simulate_case(0, skull=True))["cut_patches"]
    volume = np.random.default_rng(0).random((3, 60, 85), dtype=np.float32)
    by_hand, locations = cut_patches(volume)
    cut = patches.extract_patches(volume)
    np.testing.assert_array_equal(cut.patches, by_hand)
    np.testing.assert_array_equal(cut.locations, locations)


def test_the_readout_shown_in_chapter_5_is_the_helpers():
    held_out_score = shown_once("05")["held_out_score"]
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 3)), rng.random(60) < 0.4
    folds = metrics.patient_folds(np.repeat(list("abcdef"), 10), n_folds=3)
    arguments = LogisticRegression(), [(x[fit], x[hold]) for fit, hold in folds], folds, labels
    np.testing.assert_array_equal(held_out_score(*arguments), metrics.held_out_score(*arguments))


# --- the built book ---------------------------------------------------------------------------


@pytest.fixture
def executed(path):
    """The chapter as it was run; a rebuild from kept results leaves one without outputs."""
    found = EXECUTED / path.name
    if found.exists() and any(cell.outputs for cell in cells(found, "code")):
        return found
    reason = f"{found} has no outputs: delete _build and run `jupyter-book build .`"
    if os.environ.get("BOOK_BUILT"):
        pytest.fail(reason)
    pytest.skip(reason)


NOTICE = "MNIST was neither found nor downloaded"  # meant for the reader, where it appears


@each_notebook
def test_no_warning_or_error_is_on_the_page(executed):
    for cell in cells(executed, "code"):
        if "remove-output" in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            text = output.get("text", "")
            if NOTICE in text:
                continue
            assert output.get("name") != "stderr", text
            assert "warning" not in text.lower(), text


@each_notebook
def test_every_picture_on_the_page_has_a_caption(executed):
    drawn = 0
    for cell in cells(executed, "code"):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert "caption" in cell.metadata["mystnb"]["figure"], cell.source
            drawn += 1
    assert drawn >= 2


def test_the_story_ends_on_a_scan_of_one_s_own_without_a_mask(tmp_path):
    if not os.environ.get("BOOK_BUILT"):
        pytest.skip("the reference of the chapter is trained when the book is built")
    (path,) = (path for path in NOTEBOOKS if path.stem == "11_your_own_scans")
    notebook = nbformat.read(path, 4)
    sources = [cell.source for cell in notebook.cells]
    told = next(source for source in sources if "put these lines at the end" in source)
    lines = re.search(r"```python\n(.*?)```", told, re.DOTALL)[1]
    assert "my_mask = None" in lines
    lines = lines.replace('"where/my/scans/are"', repr(str(tmp_path / "scans")))

    scan = phantom.write_cohort(tmp_path / "phantom", 1)[0].dwi
    (tmp_path / "scans").mkdir()
    shutil.copy(scan, tmp_path / "scans" / "sub-anna_dwi.nii.gz")
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells[first].source += "\n" + lines
    end = next(i for i, source in enumerate(sources) if "## Check yourself" in source)
    notebook.cells = notebook.cells[:end]
    NotebookClient(notebook, resources={"metadata": {"path": path.parent}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "1 patient: sub-anna; mask: None" in code[1].outputs[0].text
    drawn = [cell for cell in code if "fig-own-map" in str(cell.metadata)]
    assert any("image/png" in output.get("data", {}) for output in drawn[0].outputs)


def test_ten_patients_of_soop_are_what_a_page_judges_on(tmp_path, monkeypatch):
    root, mask = (
        tmp_path / "soop",
        "derivatives/lesion_masks/sub-N/dwi/sub-N_space-TRACE_desc-lesion",
    )
    for number in range(10):
        head = phantom.simulate_case(7000 + number, skull=True)
        for name, values in {
            "sub-N/dwi/sub-N_rec-TRACE_dwi": head.dwi,
            "sub-N/dwi/sub-N_rec-ADC_dwi": 1000 - head.dwi,
            f"{mask}Acute_mask": head.lesion,
            f"{mask}Chronic_mask": 0 * head.lesion,
        }.items():
            image = sitk.GetImageFromArray(values.astype(np.int16))
            image.SetSpacing(head.spacing[::-1])
            path = root / f"{name}.nii.gz".replace("sub-N", f"sub-{number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
    for variable, value in {"DATA": tmp_path, "OUTPUT": tmp_path / "out", "QUICK": 1}.items():
        monkeypatch.setenv(f"VAE_BOOK_{variable}", str(value))
    (path,) = (path for path in NOTEBOOKS if path.stem == "07_what_does_not_fit")
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, resources={"metadata": {"path": path.parent}}).execute()
    shown = json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "SOOP, 10 patients" in shown and "synthetic" not in shown


@pytest.mark.parametrize("stem", ["04_from_scan_to_patches", "11_your_own_scans"])
def test_a_real_head_goes_from_its_files_to_the_page_where_it_is_found(stem):
    if not os.environ.get("BOOK_BUILT"):
        pytest.skip("which data a page ran on is known when the book is built")
    soop = find_data("soop")
    if soop is None or not (soop / "sub-3").is_dir():
        pytest.skip("SOOP's sub-3 is not in the data folder")
    assert "SOOP, sub-3 (a real patient)" in glued(EXECUTED / f"{stem}.ipynb")["which"]


def test_the_messages_that_chapter_11_explains_are_those_that_come():
    path = EXECUTED / "11_your_own_scans.ipynb"
    if not os.environ.get("BOOK_BUILT"):
        pytest.skip("what a page printed is known when the book is built")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    (table,) = [text for text in texts if text.startswith("| the message says |")]
    messages = [row.split(" | ")[0].strip("| ") for row in table.split("\n\n")[0].splitlines()[2:]]
    assert len(messages) >= 13
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = " ".join("".join(output.get("text", "")) for output in outputs)
    printed = re.sub(r"\s+", " ", printed)
    # Who may list everything sees no refusal of that: the words are in the helper.
    refusal = "expected a folder that can be listed, found"
    assert refusal in (BOOK / "helpers" / "scans.py").read_text(encoding="utf-8")
    known = f"{printed} {refusal}"
    for message in messages:
        parts = re.sub(r" \(or size, spacing, direction\)", "", message).split("…")
        for part in filter(None, (part.strip() for part in parts)):
            assert part in known, f"{message!r}: {part!r} is in no message"


# --- claims: each number in the text, and the interval in which its sentence is true -------------

with (BOOK / "tests" / "claims.csv").open(encoding="utf-8", newline="") as file:
    CLAIMS = list(csv.DictReader(file))
GLUED = re.compile(r"\{glue:text\}`(\w+)")


def glued(path):
    """What an executed chapter glued, by name."""
    outputs = json.loads(path.with_suffix(".glue.json").read_text(encoding="utf-8"))
    return {name: ast.literal_eval(o["data"]["text/plain"]) for name, o in outputs.items()}


@each_notebook
def test_every_sentence_with_a_number_of_ours_is_a_claim(path):
    claimed = {(c["key"], c["sentence"]) for c in CLAIMS if c["chapter"] == path.stem}
    said = {
        (key, line.strip())
        for cell in cells(path, "markdown")
        for line in cell.source.splitlines()
        for key in GLUED.findall(line)
        if key not in ("minutes", "which")
    }
    assert said == {(key, line) for key, line in claimed if key != "which"}


def test_no_claim_is_so_wide_that_it_says_nothing():
    for claim in CLAIMS:
        if claim["upper"]:
            lower, upper = float(claim["lower"]), float(claim["upper"])
            middle = abs(lower + upper) / 2
            assert lower <= upper and upper - lower <= max(0.12, 0.6 * middle), claim


#: Words that a page computes from an interval. Where an end of it lies near zero, another machine's
#: last digits may move the word by one step; the page then prints the other word, and stays true.
STEPS = (
    ("is behind", "cannot be told apart from", "is ahead of"),
    ("a loss", "neither surely a gain nor a loss", "a gain"),
    ("are behind", "cannot be told apart from", "are ahead of"),
    ("less", "neither surely more nor surely less", "more"),
    ("is ahead of some, and not of all, of", "is ahead of"),
    ("none", "one", "two", "three", "all four"),
)


def holds(value, claim):
    if claim["upper"]:
        return float(claim["lower"]) <= value <= float(claim["upper"])
    for words in STEPS:
        if {value, claim["lower"]} <= set(words):
            return abs(words.index(value) - words.index(claim["lower"])) <= 1
    return value in claim["lower"].split(" | ")


def test_a_word_may_move_by_a_step_and_no_further():
    ahead = {"lower": "is ahead of", "upper": ""}
    assert holds("is ahead of", ahead) and holds("cannot be told apart from", ahead)
    assert not holds("is behind", ahead) and not holds("a gain", ahead)
    assert holds("b", {"lower": "a | b", "upper": ""})
    assert holds("x", {"lower": "x", "upper": ""}) and not holds("y", {"lower": "x", "upper": ""})
    assert holds(0.5, {"lower": "0.4", "upper": "0.6"})
    assert not holds(0.7, {"lower": "0.4", "upper": "0.6"})


@each_notebook
def test_every_claim_holds(executed):
    values = glued(executed)
    claims = [claim for claim in CLAIMS if claim["chapter"] == executed.stem]
    stand_in = any(
        NOTICE in output.get("text", "")
        for cell in cells(executed, "code")
        for output in cell.outputs
    )
    made_on = next((c["lower"] for c in claims if c["key"] == "which"), None)
    if stand_in or values.get("which") != made_on:
        pytest.skip(f"the claims were made on {made_on or 'MNIST'}, the page ran on other data")
    broken = []
    for claim in claims:
        value, lower, upper = values[claim["key"]], claim["lower"], claim["upper"]
        if not holds(value, claim):
            broken.append(f"{claim['key']} = {value}, not {lower} to {upper}: {claim['sentence']}")
    assert not broken, "\n".join(broken)
