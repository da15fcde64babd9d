"""The dataset card of an outlier set: a README.md with the metadata that the Hugging Face Hub reads, from the manifest.

https://huggingface.co/docs/hub/datasets-cards says what the metadata mean. Text that comes from strangers (labels,
names of sources) is escaped, so that it cannot become markup of the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curate import prose
from curate.publishing.rights import WITHDRAWN, SourceRights, set_license
from srood.citations import METHOD_BIBTEX
from srood.named_sets import dataset_info

SIZES = (
    *((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")),
    *((1e8, "10M<n<100M"), (1e9, "100M<n<1B"), (1e10, "1B<n<10B"), (1e11, "10B<n<100B"), (1e12, "100B<n<1T")),
)
TAGS = ("out-of-distribution-detection", "ood-detection", "outlier-exposure", "auxiliary-outliers", "srood")
COLUMNS = {
    "image": "RGB pixels",
    "key": "where the row came from: the source and its row or path",
    "sha256": "SHA-256 of the pixels, uint8 (height, width, 3) in row-major order",
    "label": "label in the source; -1 where it has none",
    "id_similarity": "cosine similarity to the nearest ID training image",
    "id_class": "class of that ID image",
    "cluster": "k-means cluster of the embedding; -1 for none",
    "id_ness": "how much it looks like ID images: 0 is the mean held-out ID image, larger is more like them",
    "energy": "free energy under the classifier that embedded it",
}
WITHDRAWAL = (
    "80 Million Tiny Images, the set that such outliers were once drawn from, was withdrawn by its makers in June 2020 "
    "for derogatory categories and offensive images, with the request to delete copies."
)


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        repo: ``owner/name``
        revision: the branch
        manifest: of the set
        fingerprint: of the set
        file: name of the manifest's file
        sources: with their rights
        features: name -> feature as `datasets.Features.to_dict` gives it
        num_bytes, download_bytes: of the rows as Arrow tables, and of the Parquet files
        shown: images on the contact sheet
        sheet: its file name; None without pixels
        license: identifier of the Hub, where it is to be another than follows from the sources
    """

    repo: str
    revision: str
    manifest: Mapping[str, Any]
    fingerprint: str
    file: str
    sources: Sequence[SourceRights]
    features: Mapping[str, Mapping[str, Any]]
    num_bytes: int
    download_bytes: int
    shown: int = 0
    sheet: str | None = None
    license: str | None = None


def dataset_card(facts: CardFacts) -> str:
    """The card's text, metadata first."""
    manifest, other = facts.manifest, facts.revision != "main"
    command, notes = prose.command(manifest, facts.file)
    id_spec = str(manifest["config"].get("id") or "its ID set")
    known = dataset_info(id_spec)
    return (
        _environment()
        .get_template("dataset_card.md")
        .render(
            metadata=metadata(facts).to_yaml().rstrip(),
            name=facts.repo.partition("/")[2],
            repo=facts.repo,
            at=f"@{facts.revision}" if other else "",
            revision_option=f" --revision {facts.revision}" if other else "",
            revision_argument=f', revision="{facts.revision}"' if other else "",
            id=id_spec,
            id_name=escape(known.title if known else id_spec),
            rows=f"{manifest['rows']:,}",
            size=manifest["config"]["image_size"],
            version=manifest["versions"]["srood"],
            index_only=facts.sheet is None,
            shown=facts.shown,
            sheet=facts.sheet,
            columns=[
                {"name": name, "type": type_name(feature), "what": COLUMNS.get(name, "")}
                for name, feature in facts.features.items()
            ],
            file=facts.file,
            command=command,
            command_notes=notes,
            stages=prose.stages(manifest),
            excluded=", ".join(sorted(manifest.get("excluded_labels") or {})),
            dropped=looked_for(manifest),
            forbidden=any(source.allowed == "no" for source in facts.sources),
            id_filter=prose.id_filter(manifest),
            sources=[
                {"name": s.name, "rows": f"{s.rows:,}", "license": s.license, "revision": s.revision}
                for s in facts.sources
            ],
            license_words=_license_words(facts),
            certificate=prose.certificate(manifest),
            contamination=prose.contamination(manifest)[0],
            limits=limits(facts.sources),
            citations=list(dict.fromkeys(source.citation for source in facts.sources if source.citation)),
            citation=METHOD_BIBTEX,
            fingerprint=facts.fingerprint,
            recipe=manifest["recipe"],
        )
    )


def license_notes(sources: Sequence[SourceRights], index_only: bool, confirmed: bool) -> str:
    """LICENSES.md: every source with its terms, and whether a person `confirmed` the right where it is not known."""
    template = _environment().get_template("licenses.md")
    return template.render(sources=sources, index_only=index_only, confirmed=confirmed)


def _environment() -> Environment:
    environment = Environment(  # nosec B701  # Markdown, not HTML; the filter below escapes what strangers wrote
        loader=PackageLoader("curate.publishing"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape
    return environment


def metadata(facts: CardFacts) -> Any:
    """The card's metadata, a `huggingface_hub.DatasetCardData`."""
    from huggingface_hub import DatasetCardData

    rows, license = int(facts.manifest["rows"]), facts.license or set_license(facts.sources)
    named: dict[str, Any] = (
        {"license_name": "of-the-sources", "license_link": "LICENSES.md"} if license == "other" else {}
    )
    split = {"name": "train", "num_bytes": facts.num_bytes, "num_examples": rows}
    index = ["index-only"] if facts.sheet is None else []
    return DatasetCardData(
        pretty_name=facts.repo.partition("/")[2],
        license=license,
        **named,
        task_categories=["image-classification"],
        size_categories=[next((name for most, name in SIZES if rows < most), "n>1T")],
        tags=[*TAGS, *index],
        source_datasets=["extended"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        dataset_info={
            "features": yaml_features(facts.features),
            "splits": [split],
            "download_size": facts.download_bytes,
            "dataset_size": facts.num_bytes,
        },
    )


def yaml_features(features: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Features in the form of a card's metadata, which `datasets` reads back to the same ones.

    https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
    """
    found: list[dict[str, Any]] = []
    for name, feature in features.items():
        if feature["_type"] == "Image":
            found.append({"name": name, "dtype": "image"})
        elif feature["_type"] == "ClassLabel":
            names = {str(number): label for number, label in enumerate(feature["names"])}
            found.append({"name": name, "dtype": {"class_label": {"names": names}}})
        else:
            found.append({"name": name, "dtype": feature["dtype"]})
    return found


def looked_for(manifest: Mapping[str, Any]) -> str:
    """What curation looked for and dropped, in a sentence."""
    found = []
    if (manifest.get("id_filter") or {}).get("recall") or manifest.get("excluded_labels"):
        found.append("images that show its classes")
    if (manifest.get("leak_certificate") or {}).get("protected"):
        found.append("copies of protected images")
    if not found:
        return "Neither images that show its classes nor copies of its images were looked for."
    text = " and ".join(found)
    return f"{text[0].upper()}{text[1:]} were looked for and dropped; below is how, and how well that works."


def type_name(feature: Mapping[str, Any]) -> str:
    """A feature's type for people."""
    if feature["_type"] == "ClassLabel":
        return f"one of {len(feature['names'])} classes"
    return "image" if feature["_type"] == "Image" else str(feature["dtype"])


def limits(sources: Sequence[SourceRights]) -> list[str]:
    """What a user must know that the figures do not say."""
    withdrawn = any(WITHDRAWN.search(source.name) for source in sources)
    here = "Rows of this set are from it." if withdrawn else "No source of this set is recorded as it."
    if any(source.name.lower().startswith("cifar") for source in sources):
        here += " CIFAR-10 and CIFAR-100, from which rows are, are labelled parts of it."
    return [
        "Nobody has looked at every image. Labels, thresholds and their error rates are stated above.",
        f"{WITHDRAWAL} {here}",
        "srood has no filter for offensive content: what the sources hold of it can be here. Rows that should not be "
        "here can be named by their key.",
        "Images can show people, who were not asked. No image is labelled with what or whom it shows beyond the "
        "source's own label.",
        "Images were brought to one size; how an image was resized and compressed is something that a classifier can "
        "learn instead of what it shows.",
        "It was checked against the sets named in the leak certificate, and against no other: before testing on "
        "another set, `curate audit` tells whether it holds the same pictures.",
    ]


def _license_words(facts: CardFacts) -> str:
    chosen = set_license(facts.sources)
    if facts.sheet is None:
        return "No image is passed on here; who makes the set again from its sources is bound by their terms."
    if chosen == "other":
        return "Each image stays under the terms of its source."
    listed = chosen if isinstance(chosen, str) else ", ".join(chosen)
    return f"Each image stays under the licence of its source ({listed})."


def escape(text: str) -> str:
    """Text of strangers on one line of Markdown, within a table too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\|<>\[\]*_`#~])", r"\\\1", line)
