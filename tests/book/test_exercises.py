"""Every exercise can be solved, cannot be passed by doing nothing, and refuses what is wrong."""

import ast
import re

import nbformat
import pytest

from tools.editions import BOOK, stub

CHAPTERS = sorted((BOOK / "chapters").glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
EXERCISE = re.compile(
    r"````\{exercise\} (Recall|Apply|Extend), (\d+) minutes: (.+)\n:label: (ex-[a-z-]+)\n\n"
    r"(.+?)\n\n```\{dropdown\} Hint\n(.+?)\n```\n````",
    flags=re.DOTALL,
)
# A backtick in the title would end the fence, and with it the drop-down.
ANSWER = re.compile(
    r"```\{dropdown\} ([^\n`]+)\n\*\*(Right|Wrong)\.\*\* (.+?)\n```", flags=re.DOTALL
)

#: For each exercise an answer that a student might well give: what to change in the solution.
WRONG = {
    "tolerances": ("deviation, 1", "deviation**2, 1"),
    "total-variance": (" + np.var(means, axis=0)", ""),
    "nats-told": ("-0.5 * np.log", "-np.log"),
    "two-clusters": ("max(agree, 1 - agree)", "agree"),
    "variance-kept": (" ** 2", ""),
    "typical": ("members[np.argmin((off**2).sum(axis=1))]", "np.argmin((off**2).sum(axis=1))"),
    "spread-labels": ("for i in most_typical", "for i in range(len(x))"),
    "pixel-price": (" + (1 - x) * np.log(1 - p)", ""),
    "kl-gaussians": ("(mean - to_mean) / to_sd", "mean - to_mean"),
    "slopes": ("np.mean(slope * noise)", "np.mean(slope)"),
    "tight-bound": (" - np.log(len(z))", ""),
    "hidden-beta": ("n_pixels / n_latents", "1"),
    "marks": ("loss.sum(axis=(1, 2)).mean()", "loss.mean()"),
    "same-kind": ("    np.fill_diagonal(distance, np.inf)\n", ""),
    "pca-draws": ("drawn = mean + ", "drawn = "),
    "brightness-gain": ("adc - adc_stroke", "adc_stroke - adc"),
    "count-patches": ("-(-rows // size)", "(rows // size + 1)"),
    "auroc": (" + 0.5 * (lesion == healthy)", ""),
    "put-back": ("np.nan", "0.0"),
    "shine-through": ("unweighted[known] / weighted[known]", "weighted[known] / unweighted[known]"),
    "purity-recall": ("hits / is_lesion.sum()", "hits / len(is_lesion)"),
    "both-sides": ("set(patients[train]) & set(patients[test])", "set(train) & set(test)"),
    "average-precision": ("purity[truth].mean()", "purity.mean()"),
    "price-of-lesion": ("return pixel * math.log(pixel / drawn) + paper", "return paper"),
    "best-of-guesses": ("range(n_methods)", "range(1)"),
    "alarm": (" * (1 - prevalence)", ""),
    "recall-at-purity": ("hits[pure]", "hits[np.cumprod(pure).astype(bool)]"),
    "strangers": (
        "distance[patients[:, None] == patients] = np.inf",
        "np.fill_diagonal(distance, np.inf)",
    ),
    "bootstrap-median": ("rng.integers(n, size=n)", "rng.permutation(n)"),
    "leak": (
        "GroupKFold(5).split(codes, groups=patients)",
        "KFold(5, shuffle=True).split(codes)",
    ),
    "residuals": ("np.maximum(off, 0)", "np.maximum(-off, 0)"),
    "contaminated": ("PCA(k).fit(train)", "PCA(k).fit(x)"),
    "restored": ("penalty * variance", "penalty"),
    "commonest": ("(counts.argmax() + 0.5)", "counts.argmax()"),
    "mirror-points": ("places - 2 * height", "places - height"),
    "patch-quantiles": ("np.quantile(patch[brain], shares)", "np.quantile(patch, shares)"),
    "unexplained-row": ("np.minimum(row, row - other)", "row - other"),
    "bound-mixture": ("- 1 - np.log(sd**2)", "- 1"),
    "first-ahead": ("break", "continue"),
    "balanced-rows": ("np.flatnonzero(labels), ", "np.arange(len(labels)), "),
    "mean-score": ("total / np.maximum(count, 1)", "total"),
    "block-dice": ("(lesion.sum() + painted)", "painted"),
    "whom-next": (" if name not in outlined", ""),
    "alarms-per-litre": ("(marked & brain)", "marked"),
    "whole-file": ("while file.read(2**20)", "if file.read(2**20)"),
    "mask-off": ("(0, n - 1)", "(0, 0)"),
    "how-unusual": ("- below + 1) / (len(reference) + 1)", "- below) / len(reference)"),
    "will-it-fit": (" * 4", ""),
    "many-workers": ("2 / gain_of_two - 1", "1 - gain_of_two / 2"),
    "mixed-order": ("rng.permutation(len(pairs))", "range(len(pairs))"),
}

#: More of them, harder to tell from the right one.
SUBTLER = [
    (
        "two-clusters",
        "max(agree, 1 - agree)",
        "np.mean([max(np.mean(labels[clusters == k] == d) for d in (0, 1)) for k in clusters])",
    ),
    (
        "same-kind",
        "np.mean(labels[nearest] == labels[:, None])",
        "np.mean(np.mean(labels[nearest] == labels[:, None], axis=1) > 0.5)",
    ),
    ("patch-quantiles", "patch[brain], shares", "patch[patch > 0], shares"),
    ("commonest", "(values // width)", "np.rint(values / width)"),
    ("bound-mixture", "off**2 + sd**2", "off**2 + sd"),
    ("first-ahead", "their <= our", "their < our"),
    ("block-dice", "reshape(rows, size, columns, size)", "reshape(columns, size, rows, size)"),
    ("whom-next", " - (1 - p) * np.log(1 - p)", ""),
    ("mask-off", "(0, n - 1)", "(n - 1,)"),
    ("hidden-beta", "n_pixels / n_latents", "n_pixels / 2"),
    ("count-patches", "(rows // size) * (columns // size)", "(rows // 28) * (columns // 28)"),
    ("put-back", "in zip(patches, locations)", "in zip(patches, [[0, 0, 0], [0, 0, 28]] * 9)"),
    ("shine-through", " / b_value", " / 1000"),
    (
        "price-of-lesion",
        "math.ceil(budget / price(pixel, drawn))",
        "int(budget / price(pixel, drawn)) + 1",
    ),
    (
        "strangers",
        "((codes[:, None] - codes) ** 2).sum(axis=2)",
        "abs(codes[:, None] - codes).sum(axis=2)",
    ),
    (
        "strangers",
        "((codes[:, None] - codes) ** 2).sum(axis=2)",
        "((codes[:, None] - codes) ** 2)[..., 0]",
    ),
    ("commonest", "+ 0.5) * width", ") * width + 5"),
    (
        "tolerances",
        "(brain, (x - mean) / np.where(brain, deviation, 1), 0)",
        "(deviation > 0, (x - mean) / np.where(deviation > 0, deviation, 1), 0)",
    ),
    (
        "mixed-order",
        "order += [pairs[i] for i in rng.permutation(len(pairs))]",
        "left = {p: iter(range(sizes[p])) for p in few}\n"
        "        whose = [pairs[i][0] for i in rng.permutation(len(pairs))]\n"
        "        order += [(p, next(left[p])) for p in whose]",
    ),
]


def exercises():
    """Each exercise's chapter, label, solution and check, as they follow each other."""
    for path in CHAPTERS:
        label = solution = None
        for cell in nbformat.read(path, 4).cells:
            tags = cell.metadata.get("tags", [])
            if found := EXERCISE.search(cell.source):
                label = found.group(4).removeprefix("ex-")
            elif "solution" in tags:
                solution = cell.source
            elif "check" in tags:
                yield path.stem, label, solution, cell.source


EXERCISES = list(exercises())
each_exercise = pytest.mark.parametrize(
    "solution, check",
    [(solution, check) for _, _, solution, check in EXERCISES],
    ids=[label for _, label, _, _ in EXERCISES],
)


def run(answer, check):
    """Run an answer and its check as a student would, in a fresh notebook."""
    namespace = {"__name__": "__main__"}
    exec(answer, namespace)
    exec(check, namespace)


@each_exercise
def test_the_solution_passes_and_says_so_in_a_line_or_two(solution, check, capsys):
    run(solution, check)
    said = capsys.readouterr().out.splitlines()
    assert 1 <= len(said) <= 2 and said[0].startswith("Right")


@each_exercise
def test_the_stub_fails_and_says_that_it_is_empty(solution, check):
    with pytest.raises(AssertionError, match="returns nothing yet"):
        run(stub(solution), check)


@pytest.mark.parametrize(
    "label, right, wrong", [(label, *change) for label, change in WRONG.items()] + SUBTLER
)
def test_a_plausible_wrong_answer_fails(label, right, wrong):
    ((solution, check),) = [(s, c) for _, name, s, c in EXERCISES if name == label]
    assert solution.count(right) == 1, "the solution has changed: so must its wrong answer"
    with pytest.raises(AssertionError):
        run(solution.replace(right, wrong), check)


def test_every_exercise_has_a_name_of_its_own_and_a_wrong_answer():
    labels = [label for _, label, _, _ in EXERCISES]
    assert len(set(labels)) == len(labels)
    assert set(labels) == set(WRONG)


@each_chapter
def test_exercises_are_graded_and_each_is_whole(path):
    cells = nbformat.read(path, 4).cells
    found = [EXERCISE.search(cell.source) for cell in cells]
    told = [one.groups() for one in found if one]
    assert 3 <= len(told) <= 5
    assert sum("{exercise}" in cell.source for cell in cells) == len(told)
    levels = [level for level, *_ in told]
    assert levels == sorted(levels, key="Recall Apply Extend".split().index)
    assert {"Recall", "Apply", "Extend"} == set(levels)
    for _, minutes, title, label, statement, hint in told:
        assert 3 <= int(minutes) <= 30 and len(title) > 10
        assert len(statement) > 80 and len(hint) > 40
        # In this order, and nothing between: statement, folded solution, check.
        (at,) = (i for i, cell in enumerate(cells) if f":label: {label}\n" in cell.source)
        start, solution, end, check = cells[at + 1 : at + 5]
        assert start.source == f"```{{solution-start}} {label}\n:class: dropdown\n```"
        assert solution.metadata == {"jupyter": {"source_hidden": True}, "tags": ["solution"]}
        assert end.source.endswith("```{solution-end}\n```")
        assert check.metadata == {"tags": ["check"]}
        # The reader of the page sees no stub, so the statement names what is to be written.
        for node in ast.parse(solution.source).body:
            if isinstance(node, ast.FunctionDef):
                assert f"`{node.name}({ast.unparse(node.args)})`" in statement


@each_chapter
def test_every_answer_of_a_question_says_why(path):
    questions = [
        cell.source
        for cell in nbformat.read(path, 4).cells
        if cell.source.startswith("**Question ")
    ]
    assert 2 <= len(questions) <= 3
    for number, question in enumerate(questions, 1):
        assert question.startswith(f"**Question {number}.** ") and "?" in question.split("```")[0]
        answers = ANSWER.findall(question)
        assert 3 <= len(answers) <= 4 and question.count("{dropdown}") == len(answers)
        assert [kind for _, kind, _ in answers].count("Right") == 1
        reasons = [reason for _, _, reason in answers]
        assert len(set(reasons)) == len(reasons) and min(map(len, reasons)) > 40


@each_chapter
def test_exercises_stand_last_and_leave_the_clock_alone(path):
    cells = nbformat.read(path, 4).cells
    headings = [
        line
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-2:] == ["## Check yourself", "## Exercises"]
    assert "minutes" in cells[-1].source  # how long the page ran, checks included
    for cell in cells:
        if {"solution", "check"} & set(cell.metadata.get("tags", [])):
            bound = {
                getattr(node, "id", getattr(node, "name", None)) or getattr(node, "asname", None)
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, (ast.FunctionDef, ast.alias))
                or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            }
            assert not bound & {"time", "started", "glue"}
