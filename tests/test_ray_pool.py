"""Ray actors that are lost: answers still come in order, and a call that always costs its actor ends the work."""

import os
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'srood[ray]'")

from curate.engines.ray_pool import LOSSES, Call, Pool  # noqa: E402
from srood.errors import InputError  # noqa: E402


@pytest.fixture(scope="module")
def two():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield
    ray.shutdown()


def start(problem: str = ""):
    # within a function, so that Ray sends the class itself: its processes do not import tests
    class Fragile:
        def __init__(self, problem: str = "") -> None:
            self.problem = problem

        def open(self) -> None:
            if self.problem:
                raise InputError(self.problem)

        def square(self, number: int) -> tuple[int, int]:
            return number**2, os.getpid()

        def end_once(self, number: int, marker: str) -> tuple[int, int]:
            if not Path(marker).exists():
                Path(marker).touch()
                os._exit(1)
            return self.square(number)

        def end(self) -> None:
            os._exit(1)

    actor = ray.remote(Fragile).options(num_cpus=1, max_restarts=0)
    return lambda: actor.remote(problem)


@pytest.fixture
def pool(two):
    made = Pool(start(), 2)
    yield made
    made.close()


def test_answers_come_in_order_also_those_of_lost_actors(pool, tmp_path):
    def runs():
        for first in range(0, 40, 4):
            yield [
                Call("", "end_once", (number, str(tmp_path / str(number)))) if number in (5, 6, 30) else square(number)
                for number in range(first, first + 4)
            ]

    def square(number):
        return Call("", "square", (number,))

    answers = list(pool.answers(runs()))
    assert [value for value, _ in answers] == [number**2 for number in range(40)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["30", "5", "6"]
    assert len({process for _, process in answers}) >= 3  # two, and those in place of lost ones


def test_no_more_is_asked_than_may_wait(pool):
    taken = []

    def runs():
        for number in range(50):
            taken.append(number)
            yield [Call("", "square", (number,))]

    answers = pool.answers(runs())
    assert next(answers)[0] == 0 and len(taken) == 4  # AHEAD for each of two actors
    assert next(answers)[0] == 1 and len(taken) == 5


def test_a_call_that_costs_every_actor_is_given_up_by_its_name(pool):
    calls = [[Call("one", "square", (1,))], [Call("two.parquet: the batch from row 8", "end", ())]]
    answers = pool.answers(calls)
    assert next(answers)[0] == 1
    with pytest.raises(InputError, match=f"^two.parquet: the batch from row 8: cost {LOSSES} workers ") as error:
        next(answers)
    assert "\n" not in str(error.value)


def test_what_keeps_an_actor_from_its_work_is_said_in_its_own_words(two):
    made = Pool(start("--source x.zip: no such file; check the path"), 1)
    with pytest.raises(InputError, match="^--source x.zip: no such file; check the path$"):
        list(made.answers([[Call("", "square", (1,))]]))
    made.close()
