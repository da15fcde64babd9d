"""Which OOD sets an evaluation is about: sets by spec, and groups of sets, of which some may be out of reach."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from srood import manifests
from srood.datasets import resolve
from srood.errors import InputError


@dataclass(frozen=True)
class OodSet:
    """One OOD set of an evaluation.

    Attributes:
        spec: how it was asked for; its name in results
        groups: groups that it is a member of (``near``, ``far``, ``paper``); none where it was asked for by itself only
        required: whether it was asked for by itself
        canonical: the spec that it resolved to, ``textures:test`` for ``textures``; empty where it is missing
        reason: why it is missing; empty where it is not
    """

    spec: str
    groups: tuple[str, ...] = ()
    required: bool = True
    canonical: str = ""
    reason: str = ""


def find_sets(ood: Sequence[str], id_set: str) -> list[OodSet]:
    """Resolve all sets at once, reading no images: a set out of reach costs seconds of waiting for the Hub.

    Args:
        ood: specs of sets, and names of groups (manifests/ood)
        id_set: the ID set, which a group's members may depend on

    Returns:
        each set once, in the order asked for; members of a group that resolve nowhere with their `reason`.

    Raises:
        InputError: nothing was asked for, a set twice, a group that has no sets for this ID set, a set that was asked
            for by itself and resolves nowhere, or a group of which no set resolves.
    """
    if not ood:
        named = " or ".join(f"--ood {name}" for name in manifests.names("ood"))
        raise InputError(f"--ood: is missing; name OOD sets, like --ood textures --ood cifar100:test, or {named}")
    asked = [found for name in ood for found in (members(name, id_set) if is_group(name) else [OodSet(name)])]
    resolved = look_up(asked)
    for found in resolved:
        if found.required and found.reason:
            raise InputError(found.reason)
    for name in filter(is_group, ood):
        specs = [member.spec for member in members(name, id_set)]
        reasons = [found.reason for found in resolved if found.spec in specs]
        if all(reasons):
            raise InputError(f"--ood {name}: none of its {len(specs)} sets can be had; {reasons[0]}")
    merged: dict[str, OodSet] = {}
    for found in resolved:
        key = found.canonical or found.spec
        if Path(key).exists():  # a path may be written in several ways
            key = str(Path(key).resolve())
        before = merged.get(key)
        if before is None:
            merged[key] = found
            continue
        if found.required and before.required:
            also = f", also as {found.spec}" if found.spec != before.spec else ""
            raise InputError(f"--ood: {before.spec} is given twice{also}; give it once")
        groups = tuple(dict.fromkeys([*before.groups, *found.groups]))
        merged[key] = replace(before, groups=groups, required=before.required or found.required)
    return list(merged.values())


def look_up(wanted: Sequence[OodSet]) -> list[OodSet]:
    """Resolve sets, all at the same time; those that resolve nowhere get a `reason`."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(_resolved, wanted))


def is_group(name: str) -> bool:
    """Whether a name is that of a group; a folder of the same name is given as ``./name``."""
    return manifests.find("ood", name) is not None


def members(name: str, id_set: str) -> list[OodSet]:
    """The sets of a group, in its order.

    Raises:
        InputError: the group depends on the ID set and has none for this one.
    """
    path = manifests.find("ood", name)
    assert path is not None
    by_id: dict[str, dict[str, list[str]]] = manifests.read_yaml(path)["groups"]
    groups = by_id.get(id_set) or by_id.get("any")
    if groups is None:
        raise InputError(
            f"--ood {name}: has no sets for the ID set {id_set}, only for {', '.join(by_id)}; groups for it: "
            f"{', '.join(_for_any()) or 'none'}, or name OOD sets one by one"
        )
    own = "is the ID set"
    return [
        OodSet(spec, (group,), required=False, reason=own if spec.partition(":")[0] == id_set else "")
        for group, specs in groups.items()
        for spec in specs
    ]


def _for_any() -> list[str]:
    paths = {name: manifests.find("ood", name) for name in manifests.names("ood")}
    return [name for name, path in paths.items() if path is not None and "any" in manifests.read_yaml(path)["groups"]]


def _resolved(wanted: OodSet) -> OodSet:
    if wanted.reason:
        return wanted
    try:
        return replace(wanted, canonical=resolve(wanted.spec).spec)
    except InputError as error:
        return replace(wanted, reason=str(error))
