"""The image sets of an experiment: where they are, what they hold, and which cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srood import datasets
from srood.errors import InputError
from train.evaluation import ood_sets
from train.evaluation.ood_sets import OodSet
from train.reproduce import made_sets


@dataclass(frozen=True)
class Inputs:
    """Image sets by the names that experiments give them; `folder` is where made ones go."""

    folder: Path
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def place(self, name: str, id_set: str) -> str:
        """The spec by which the rest of the program finds a set.

        Raises:
            InputError: it should be made, and there is no such set.
        """
        return str(made_sets.place(name, self.folder, id_set)) if made_sets.is_made(name) else name

    def identity(self, name: str, id_set: str) -> str:
        """Text that changes when the images of a set do. A made set need not be there yet.

        Raises:
            InputError: the set cannot be had.
        """
        key = (name, id_set)
        if key not in self._known:
            made = made_sets.is_made(name)
            self._known[key] = made_sets.identity(name, id_set) if made else datasets.resolve(name).fingerprint()
        return self._known[key]

    def id_identity(self, id_set: str) -> str:
        """The same of the training and test images of an ID set.

        Raises:
            InputError: the set cannot be had, or has no test images.
        """
        if made_sets.is_made(id_set):
            return self.identity(id_set, id_set)
        train, test = datasets.id_specs(id_set)
        if test is None:
            raise InputError(f"{id_set}: has no test images")
        return f"{self.identity(train, id_set)} {self.identity(test, id_set)}"

    def id_rows(self, id_set: str) -> int:
        """How many training images an ID set has; 0 where it has still to be made."""
        spec = self.place(id_set, id_set)
        if made_sets.is_made(id_set) and not Path(spec).exists():
            return 0
        return datasets.resolve(datasets.id_specs(spec)[0]).num_rows()

    def ood(self, names: Sequence[str], id_set: str) -> tuple[dict[str, str], dict[str, str]]:
        """OOD sets, groups of them resolved: the places of those that can be had, and why others cannot, by name.

        Raises:
            InputError: a group that has no sets for this ID set.
        """
        wanted = [
            one for name in names for one in (ood_sets.members(name, id_set) if _is_group(name) else [OodSet(name)])
        ]
        named = [one for one in wanted if not made_sets.is_made(one.spec)]
        reasons = {one.spec: one.reason for one in ood_sets.look_up(named)}
        found, missing = dict[str, str](), dict[str, str]()
        for one in wanted:
            reason = reasons.get(one.spec, "")
            if made_sets.is_made(one.spec):
                try:
                    self.identity(one.spec, id_set)
                except InputError as error:
                    reason = str(error)
            if reason:
                missing[one.spec] = reason
            else:
                found[one.spec] = self.place(one.spec, id_set)
        return found, missing


def _is_group(name: str) -> bool:
    return not made_sets.is_made(name) and ood_sets.is_group(name)
