"""Work that is done while the result of the work before it is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(call: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """Does what `map` does, in a thread that is one item ahead.

    Args:
        call: is made in the thread, for one item after the other.
        items: is read where the results are used.

    Yields:
        The results, in their order.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        try:
            latest = None
            for item in items:
                following = thread.submit(call, item)
                if latest is not None:
                    yield latest.result()
                latest = following
            if latest is not None:
                yield latest.result()
        finally:
            thread.shutdown(cancel_futures=True)
