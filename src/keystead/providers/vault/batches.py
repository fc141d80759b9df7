"""Batches in as few requests as a server's limits allow.

OpenBao takes a thousand strings in the JSON of one request, names of fields included, and 32 MiB. A server that was
set up to take less says so, and gets halves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from keystead.errors import KMSError, PartialBatchError
from keystead.providers.vault.client import MAX_BODY_SIZE, body_size, string_count, too_large
from keystead.providers.vault.errors import RequestTooLargeError

T = TypeVar("T")

MAX_STRINGS: Final = 1000


def split(items: Sequence[Mapping[str, Any]], around: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return beginnings and ends of runs of ``items``, each as long as a request with the fields ``around`` takes.

    Raises:
        RequestTooLargeError: one item alone is more than that.
    """
    own_strings = string_count({**around, "batch_input": []})
    own_size = body_size({**around, "batch_input": []})
    runs: list[tuple[int, int]] = []
    start, strings, size = 0, own_strings, own_size
    for number, item in enumerate(items):
        item_strings, item_size = string_count(item), body_size(item) + 2
        if own_size + item_size > MAX_BODY_SIZE:
            raise too_large()
        if strings + item_strings > MAX_STRINGS or size + item_size > MAX_BODY_SIZE:
            runs.append((start, number))
            start, strings, size = number, own_strings, own_size
        strings += item_strings
        size += item_size
    if start < len(items):
        runs.append((start, len(items)))
    return runs


async def each_run(runs: Sequence[tuple[int, int]], ask: Callable[[int, int], Awaitable[list[T]]]) -> list[T]:
    """Return the results of all runs, in order; a run that the server calls too large is asked for in halves."""
    results: list[T] = []
    for start, end in runs:
        try:
            results += await ask(start, end)
        except RequestTooLargeError:
            if end - start < 2:
                raise
            middle = (start + end) // 2
            results += await each_run([(start, middle), (middle, end)], ask)
    return results


def all_or_partial(results: Sequence[T | KMSError], what: str) -> list[T]:
    """Return the results, if none of them is an error.

    Raises:
        KMSError: all of them are the same error, as of a key that is disabled.
        PartialBatchError: with every result, and every error in the place of one.
    """
    good = [one for one in results if not isinstance(one, KMSError)]
    failed = [one for one in results if isinstance(one, KMSError)]
    if failed and not good and len({type(one) for one in failed}) == 1:
        raise failed[0]
    if failed:
        raise PartialBatchError(f"{len(failed)} of {len(results)} {what} failed", results)
    return good
