"""Run the notebooks of the book side by side, one a core, before Sphinx reads them one by one.

Named in ``_config.yml`` as an extension of Sphinx. A notebook says little to the next one, and much
of what it does keeps one core busy only. What they print goes where MyST-NB keeps it and looks for
it, so that it finds every notebook run.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from joblib import Parallel, cpu_count, delayed, parallel_config
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.execute import ExecutionError
from myst_nb.core.read import standard_nb_read
from sphinx.util import logging

#: A kernel holds a gigabyte or two.
AT_MOST = 4
#: Chapters to begin with; the others follow as they stand. What 5 and 9 compute, later ones take,
#: and if both began at once, both would compute it.
ORDER = ("05", "01", "02", "03", "04", "09")


def setup(app) -> dict[str, bool]:
    """Have the notebooks run before pages are read; Sphinx calls this."""
    app.connect("env-before-read-docs", _run_all)
    app.connect("env-updated", _write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _run_all(app, env, names: list[str]) -> None:
    """Run what was not run yet of the notebooks among these pages."""
    if app.config.nb_execution_mode != "cache":
        return
    folder = env.mystnb_config.execution_cache_path
    cache, paths = get_cache(folder), [Path(env.doc2path(name)) for name in names]
    todo = [path for path in paths if path.suffix == ".ipynb" and not _is_kept(cache, path)]
    todo.sort(key=lambda path: (*ORDER, path.name[:2]).index(path.name[:2]))
    cores = cpu_count()
    at_once = min(AT_MOST, cores, len(todo))
    if at_once < 2:
        return
    # No more threads than there are cores for a page: others would wait for each other.
    share, timeout = cores // at_once, app.config.nb_execution_timeout
    with parallel_config("loky", n_jobs=at_once, inner_max_num_threads=share):
        runs = Parallel(return_as="generator_unordered")(
            delayed(_run)(path, folder, timeout, share) for path in todo
        )
        logger, failed = logging.getLogger(__name__), []
        for path, seconds, trouble in runs:
            if trouble:  # told at once; the other pages are run all the same, and kept
                failed.append(str(path))
                logger.warning(
                    "Executing notebook failed:\n%s", trouble, location=env.path2doc(path)
                )
            else:
                logger.info("%s: executed in %.2f seconds", path.name, seconds)
    if failed:
        raise ExecutionError(", ".join(failed))


def _write_all(app, env) -> None:
    """Write each notebook with its outputs, which MyST-NB leaves out where it finds them kept."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(env.mystnb_config.execution_cache_path)
    for name in env.found_docs:
        path = Path(env.doc2path(name))
        written = Path(env.mystnb_config.output_folder, f"{name}.ipynb")
        if path.suffix == ".ipynb" and written.exists() and _is_kept(cache, path):
            _, whole = cache.merge_match_into_notebook(_read(path))
            written.write_text(nbformat.writes(whole), encoding="utf-8")


def _read(path: Path) -> nbformat.NotebookNode:
    return standard_nb_read(path.read_text(encoding="utf-8"))


def _is_kept(cache, path: Path) -> bool:
    try:
        cache.match_cache_notebook(_read(path))
    except KeyError:
        return False
    return True


def _run(path: Path, folder: str, timeout: int, share: int) -> tuple[Path, float, str | None]:
    """Run a notebook, keep its outputs, and return how long it took and how it failed."""
    os.environ["LOKY_MAX_CPU_COUNT"] = str(share)  # joblib's, as OMP_NUM_THREADS is set already
    notebook = _read(path)
    run = single_nb_execution(notebook, cwd=path.parent, timeout=timeout, allow_errors=False)
    if run.err is None:
        # As MyST-NB keeps it, down to the seconds.
        kept = CacheBundleIn(notebook, str(path), data={"execution_seconds": run.time})
        get_cache(folder).cache_notebook_bundle(kept, check_validity=False, overwrite=True)
    return path, run.time, run.exc_string
