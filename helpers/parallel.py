"""Share out independent calculations, such as the training of several networks, among the cores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from joblib import Parallel, delayed
from tqdm.auto import tqdm

from helpers import hear, in_words, tell
from helpers.rehearsal import is_quick

if TYPE_CHECKING:
    from helpers.scans import Case

Result = TypeVar("Result")

# Joblib replaces a process that has grown, as each does in which TensorFlow has trained a network.
# Nothing is lost by it.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)


def in_parallel(calls: Iterable, unit: str = "call") -> list:
    """Run calls side by side, one a core, and show how many are done.

    In a rehearsal (`helpers.rehearsal`) they run one after the other in this process: there is so
    little to do that starting other processes would take longer. What they tell (`helpers.tell`) is
    told here, once.

    Parameters
    ----------
    calls : iterable of joblib.delayed calls
        Independent of each other; results and arguments must survive pickling.
    unit : str
        What one of them is, for the progress bar.

    Returns
    -------
    list
        What each call returned, in their order.

    Raises
    ------
    Exception
        Of the first call that fails, as it was raised there.

    Examples
    --------
    >>> from joblib import delayed
    >>> in_parallel([delayed(divmod)(n, 3) for n in (7, 9)])
    [(2, 1), (3, 0)]
    """
    calls = [(hear, (function, *given), settings) for function, given, settings in calls]
    results = Parallel(n_jobs=1 if is_quick() else -1, return_as="generator")(calls)
    return _told(tqdm(results, total=len(calls), unit=unit, leave=False))


def map_cases(
    function: Callable[[Case], Result], cases: Sequence[Case], *, client=None
) -> list[Result]:
    """Call a function on every case: on all cores of this machine, or on a cluster.

    Parameters
    ----------
    function : callable
        Takes a `helpers.scans.Case`; what it returns has to fit into memory for all cases.
    cases : sequence of Case
        The patients.
    client : distributed.Client, optional
        A Dask cluster to work on. It gives the work of a worker that dies to another one. The
        workers need this package, and the files under the same paths. Without a client, joblib
        uses the cores of this machine.

    Returns
    -------
    list
        What the function returned, in the order of the cases.

    Raises
    ------
    ValueError
        No case was given.
    ExceptionGroup
        The function failed on some cases; the message names each with its error. All other cases
        were gone through first.

    Examples
    --------
    >>> from joblib import parallel_config
    >>> from helpers.scans import Case
    >>> with parallel_config(backend="threading"):
    ...     map_cases(lambda case: case.dwi, [Case("a", "a_dwi.nii")])
    ['a_dwi.nii']
    """
    if not cases:
        raise ValueError("cases must name at least one patient, found none")
    attempt = partial(_attempt, function)
    if client is None:
        outcomes = in_parallel((delayed(attempt)(case) for case in cases), unit="scan")
    else:
        futures = client.map(partial(hear, attempt), cases, pure=False)
        results = (
            (error, []) if (error := future.exception()) else future.result() for future in futures
        )
        outcomes = _told(tqdm(results, total=len(cases), unit="scan", leave=False))
    errors = {
        case.subject_id: outcome
        for case, outcome in zip(cases, outcomes, strict=True)
        if isinstance(outcome, Exception)
    }
    if errors:
        listed = "\n".join(f"{name}: {in_words(error)}" for name, error in errors.items())
        raise ExceptionGroup(
            f"{len(errors)} of {len(cases)} patients failed, the others are done:\n{listed}\n",
            list(errors.values()),
        )
    return outcomes


def _told(heard: Iterable[tuple[Result, list[str]]]) -> list[Result]:
    """Tell what was heard from all calls, each thing once, and return what they returned."""
    results, told = [], []
    for result, messages in heard:
        results.append(result)
        told.append(messages)
    for message in dict.fromkeys(chain.from_iterable(told)):
        tell(message)
    return results


def _attempt(function: Callable[[Case], Result], case: Case) -> Result | Exception:
    try:
        return function(case)
    except Exception as error:  # whatever it is, it must not cost the other patients their work
        return error
