"""What is done ahead: the results of `map`, one item before they are asked for, and no further."""

from threading import Event

import pytest

from lightning_cells.ahead import ahead


def test_results_come_in_their_order():
    assert list(ahead(lambda number: number**2, range(5))) == [0, 1, 4, 9, 16]
    assert list(ahead(str, [])) == []


def test_the_next_is_done_while_one_is_used():
    done = [Event() for _ in range(4)]

    def make(number):
        done[number].set()
        return number

    results = ahead(make, range(4))
    assert next(results) == 0
    assert done[1].wait(10)
    assert not done[2].is_set()
    assert next(results) == 1
    assert done[2].wait(10)
    results.close()
    assert not done[3].is_set()


def test_a_mistake_comes_where_its_result_would():
    results = ahead(lambda number: 1 / number, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
