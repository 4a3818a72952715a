"""Run the notebooks of the book side by side, one a core, before Sphinx reads them one by one.

Named in ``_config.yml`` as an extension of Sphinx. A notebook says little to the next one, and much
of what it does keeps one core busy only. What they print goes where MyST-NB keeps it and looks for
it, so that it finds every notebook run. On one core, with little memory (or with the variable
``LOKY_MAX_CPU_COUNT=1``) it runs them itself, one after the other.
"""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
from joblib import Parallel, cpu_count, delayed, parallel_config
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import standard_nb_read
from sphinx.errors import SphinxError
from sphinx.util import logging

#: Notebooks at a time, and what each of them may take of the memory, in bytes.
AT_MOST, MEMORY = 4, 2 * 2**30
#: Chapters to begin with; the others follow as they stand. What 5 and 9 compute, later ones take,
#: and where two begin at once, both compute it. Long ones come early: one that is left over at the
#: end runs alone.
ORDER = ("05", "01", "02", "03", "04", "09", "08", "11", "10")


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
    todo = [path for path in paths if path.suffix == ".ipynb" and _is_to_be_run(cache, path)]
    todo.sort(key=lambda path: (*ORDER, path.name[:2]).index(path.name[:2]))
    cores = cpu_count()
    at_once = min(AT_MOST, cores, psutil.virtual_memory().available // MEMORY, len(todo))
    if at_once < 2:
        return
    # No more threads than there are cores for a page: others would wait for each other.
    logger, failed = logging.getLogger(__name__), []
    logger.info("running %d notebooks, %d at a time", len(todo), at_once)
    share, timeout = cores // at_once, app.config.nb_execution_timeout
    with parallel_config("loky", n_jobs=at_once, inner_max_num_threads=share):
        runs = Parallel(return_as="generator_unordered")(
            delayed(_run)(path, timeout, share) for path in todo
        )
        for path, notebook, seconds, trouble in runs:
            if trouble:  # the other pages are run all the same, and kept
                failed.append(str(path))
                # At once: warnings are held back until all pages are read.
                logger.info("%s: failed: %s", path.name, trouble.strip().splitlines()[-1])
                logger.warning(
                    "Executing notebook failed:\n%s", trouble, location=env.path2doc(path)
                )
            else:
                # As MyST-NB keeps it, down to the seconds. Not where it ran: two pages of the same
                # cells are kept in one place, and would be in each other's way.
                kept = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
                cache.cache_notebook_bundle(kept, check_validity=False, overwrite=True)
                logger.info("%s: executed in %.2f seconds", path.name, seconds)
    if failed and app.config.nb_execution_raise_on_error:
        raise SphinxError(f"{len(failed)} notebooks failed: {', '.join(failed)}")


def _write_all(app, env) -> None:
    """Write each notebook with its outputs, which MyST-NB leaves out where it finds them kept."""
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(env.mystnb_config.execution_cache_path)
    for name in env.found_docs:
        path = Path(env.doc2path(name))
        written = Path(env.mystnb_config.output_folder, f"{name}.ipynb")
        if path.suffix == ".ipynb" and written.exists():
            with suppress(KeyError):  # one that failed is not kept
                _, whole = cache.merge_match_into_notebook(_read(path))
                written.write_text(nbformat.writes(whole), encoding="utf-8")


def _read(path: Path) -> nbformat.NotebookNode:
    return standard_nb_read(path.read_text(encoding="utf-8"))


def _is_to_be_run(cache, path: Path) -> bool:
    try:
        cache.match_cache_notebook(_read(path))
    except KeyError:
        return True
    except Exception as error:  # MyST-NB stops at it, and does not say which it was
        logging.getLogger(__name__).warning("%s: cannot be read: %s", path, error)
        return False
    return False


def _run(
    path: Path, timeout: int, share: int
) -> tuple[Path, nbformat.NotebookNode | None, float, str | None]:
    """Run a notebook, and return it with its outputs, how long it took and how it failed."""
    os.environ["LOKY_MAX_CPU_COUNT"] = str(share)  # joblib's, as OMP_NUM_THREADS is set already
    started = time.perf_counter()
    for trials_left in reversed(range(3)):
        notebook = _read(path)
        try:
            run = single_nb_execution(
                notebook, cwd=path.parent, timeout=timeout, allow_errors=False
            )
            break
        except Exception:  # its kernel died, say for want of memory
            # Two kernels that begin at once may want one port: then this one never began.
            has_begun = any(cell.get("execution_count") for cell in notebook.cells)
            if has_begun or not trials_left:
                return path, None, time.perf_counter() - started, traceback.format_exc()
    return path, notebook, run.time, run.exc_string
