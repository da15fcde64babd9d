"""Ray actors that answer calls, given back in the order of the calls; what a lost actor was asked is asked of another.

Actors are neither restarted nor their calls repeated by Ray itself: a restarted actor waits for a free place on some
machine, and its calls with it, while others could answer them. Here a new actor joins when it has found its place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from srood.errors import InputError

LOST = (RayActorError, ObjectLostError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)
LOSSES = 3  # actors that one call, or the start of actors, may cost
AHEAD = 2  # runs an actor may have been given of which nothing was taken yet: bounds memory


@dataclass(frozen=True)
class Call:
    """A method of an actor with its arguments; `what` names it to people."""

    what: str
    method: str
    arguments: tuple[Any, ...]


@dataclass
class _Asked:
    call: Call
    actor: int
    answer: ray.ObjectRef
    losses: int = 0


class Pool:
    """Actors of one kind. Each has a method `open` that makes it ready and raises what keeps it from that."""

    def __init__(self, start: Callable[[], Any], count: int) -> None:
        """`start` starts one of `count` actors."""
        self._start, self._count = start, count
        self._actors: dict[int, Any] = {}
        self._opening: dict[int, ray.ObjectRef] = {}  # those that are not ready yet
        self._started = self._losses = 0
        for _ in range(count):
            self._add()

    def answers(self, runs: Iterable[Sequence[Call]]) -> Iterator[Any]:
        """The answer to each call, in order. The calls of a run go to one actor, one after the other.

        Raises:
            InputError: an actor raised it, or one call has cost LOSSES actors.
        """
        asked: deque[_Asked] = deque()
        runs, longest, more = iter(runs), 1, True
        while True:
            while more and len(asked) < AHEAD * self._count * longest:
                run = next(runs, None)
                if run is None:
                    more = False
                    break
                longest = max(longest, len(run))
                actor = self._least_busy(asked)
                asked.extend(_Asked(call, actor, self._ask(actor, call)) for call in run)
            if not asked:
                return
            yield self._first_answer(asked)
            asked.popleft()

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors, self._opening = {}, {}

    def _add(self) -> None:
        self._actors[self._started] = self._start()
        self._opening[self._started] = self._actors[self._started].open.remote()
        self._started += 1

    def _ask(self, actor: int, call: Call) -> ray.ObjectRef:
        return getattr(self._actors[actor], call.method).remote(*call.arguments)

    def _first_answer(self, asked: deque[_Asked]) -> Any:
        first = asked[0]
        while True:
            try:
                return _get(first.answer)
            except LOST as error:
                if first.actor in self._actors:  # else it was lost with a call before this one
                    first.losses += 1  # actors work in order: it was the one that was worked at
                    if first.losses == LOSSES:
                        raise InputError(
                            f"{first.call.what}: cost {LOSSES} workers ({_line(error)}); see that they have the "
                            "memory, then run the same command again: it goes on from here"
                        ) from error
                    self._replace(first.actor)
                # what stood behind it is asked again in its turn: right behind, it could take this answer along
                first.actor = self._least_busy(asked)
                first.answer = self._ask(first.actor, first.call)

    def _replace(self, lost: int) -> None:
        """Start an actor in place of one that was lost."""
        ray.kill(self._actors.pop(lost))  # one that lives, but not its answers, goes too
        self._opening.pop(lost, None)
        self._add()

    def _least_busy(self, asked: Iterable[_Asked]) -> int:
        self._admit()
        refs = {one.answer: one.actor for one in asked}
        busy: list[ray.ObjectRef] = []
        if refs:
            _, busy = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
        load = Counter(refs[ref] for ref in busy)
        return min((actor for actor in self._actors if actor not in self._opening), key=lambda actor: load[actor])

    def _admit(self) -> None:
        """Take in the actors that have become ready; wait for one where there is none."""
        while self._opening:
            none = len(self._opening) == len(self._actors)
            numbers = {ref: number for number, ref in self._opening.items()}
            ready, _ = ray.wait(list(numbers), num_returns=1, timeout=None if none else 0)
            if not ready:
                return
            number = numbers[ready[0]]
            del self._opening[number]
            try:
                _get(ready[0])
            except LOST as error:
                del self._actors[number]
                self._losses += 1
                if self._losses > LOSSES * self._count:
                    raise InputError(
                        f"--engine ray: workers end as they start ({_line(error)}); "
                        "every machine needs srood[ray], the same version"
                    ) from error
                self._add()


def _get(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None  # its own line, not the actor's traceback
        raise


def _line(error: BaseException) -> str:
    """What Ray says last of an error, without its guesses."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return last.strip().partition(" Some common causes")[0].rstrip(".")
