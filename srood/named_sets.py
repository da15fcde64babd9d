"""What manifests/datasets says of the image sets that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from srood import manifests


@dataclass(frozen=True)
class DatasetInfo:
    """What manifests/datasets says of a named set."""

    name: str
    title: str
    splits: dict[str, str]
    hub_repo: str | None = None
    hub_revision: str = "main"
    image_column: str | None = None
    label_column: str | None = None
    id_splits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    license: str = "unknown"
    redistribution: str = "unknown"  # yes, no or unknown: whether images may be passed on
    citation: str = ""
    homepage: str = ""


@cache
def dataset_info(name: str) -> DatasetInfo | None:
    """What is known of a named set, or None where there is no such name."""
    path = manifests.find("datasets", name)
    if path is None:
        return None
    entry: dict[str, Any] = manifests.read_yaml(path)
    on_hub = entry.get("hub") or {}
    columns = entry.get("columns") or {}

    def triple(key: str) -> tuple[float, float, float] | None:
        value = entry.get(key)
        return (float(value[0]), float(value[1]), float(value[2])) if value else None

    return DatasetInfo(
        name=name,
        title=entry.get("title", name),
        splits=dict(entry.get("splits") or {}),
        hub_repo=on_hub.get("repo"),
        hub_revision=on_hub.get("revision") or "main",
        image_column=columns.get("image"),
        label_column=columns.get("label"),
        id_splits=tuple(entry.get("id_splits") or ()),
        class_names=tuple(str(c) for c in entry.get("classes") or ()),
        mean=triple("mean"),
        std=triple("std"),
        license=str(entry.get("license") or "unknown"),
        redistribution=str(entry.get("redistribution") or "unknown"),
        citation=str(entry.get("citation") or ""),
        homepage=str(entry.get("homepage") or ""),
    )


def recorded_info(entry: Mapping[str, Any]) -> DatasetInfo | None:
    """What is known of a source that a manifest records; None for a local file or folder, whatever it is called."""
    if str(entry.get("origin") or "").startswith("a local "):
        return None
    return dataset_info(str(entry.get("name") or "").partition(":")[0])
