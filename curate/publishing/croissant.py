"""Croissant metadata of a published set (https://docs.mlcommons.org/croissant/docs/croissant-spec.html, version 1.0).

Every file is there with its SHA-256; the rows are a record set over the Parquet files, in the form that the Hub itself
uses: a repository, and in it a set of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srood.citations import METHOD_BIBTEX

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# the specification asks for a hash of every file; a repository has none, and this is what the Hub puts in its place
NO_HASH = "https://github.com/mlcommons/croissant/issues/80"
ENCODINGS = {".parquet": "application/x-parquet", ".h5": "application/x-hdf5", ".json": "application/json"}


def croissant(
    repo: str,
    revision: str,
    description: str,
    license: Sequence[str],
    features: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    files: Mapping[str, tuple[int, str]],
    endpoint: str,
) -> dict[str, Any]:
    """The JSON-LD document.

    Args:
        repo, revision: where the set is published
        description: of the set, plain text
        license: names or addresses of licences
        features: name -> feature as `datasets.Features.to_dict` gives it
        columns: name -> what the column is
        files: name in the repository -> size in bytes and SHA-256 (hex)
        endpoint: address of the Hub
    """
    url = f"{endpoint}/datasets/{repo}"
    objects: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": "repo",
            "name": "repo",
            "description": "The repository on the Hugging Face Hub.",
            "contentUrl": f"{url}/tree/{revision}",
            "encodingFormat": "git+https",
            "sha256": NO_HASH,
        },
        {
            "@type": "cr:FileSet",
            "@id": "rows-parquet",
            "name": "rows-parquet",
            "description": "The rows, as Parquet files.",
            "containedIn": {"@id": "repo"},
            "encodingFormat": ENCODINGS[".parquet"],
            "includes": "data/train-*.parquet",
        },
    ]
    for name, (size, sha256) in files.items():
        objects.append(
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": f"{url}/resolve/{revision}/{name}",
                "contentSize": f"{size} B",
                "encodingFormat": ENCODINGS["." + name.rpartition(".")[2]],
                "sha256": sha256,
            }
        )
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": repo.partition("/")[2],
        "description": description,
        "url": url,
        "license": list(license),
        "citeAs": METHOD_BIBTEX,
        "keywords": ["out-of-distribution detection", "outlier exposure", "image classification"],
        "creator": {
            "@type": "Organization",
            "name": repo.partition("/")[0],
            "url": f"{endpoint}/{repo.partition('/')[0]}",
        },
        "distribution": objects,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "description": "One record a row of the set.",
                "field": [_field(name, feature, columns.get(name, "")) for name, feature in features.items()],
            }
        ],
    }


def _field(name: str, feature: Mapping[str, Any], what: str) -> dict[str, Any]:
    extract: dict[str, Any] = {"fileSet": {"@id": "rows-parquet"}, "extract": {"column": name}}
    if feature["_type"] == "Image":
        extract["transform"] = {"jsonPath": "bytes"}
    names = feature.get("names")
    return {
        "@type": "cr:Field",
        "@id": f"rows/{name}",
        "name": name,
        "description": what + (f"; the classes in order: {', '.join(names)}" if names else ""),
        "dataType": _data_type(feature),
        "source": extract,
    }


def _data_type(feature: Mapping[str, Any]) -> str:
    if feature["_type"] == "Image":
        return "sc:ImageObject"
    kind = str(feature.get("dtype", "int64"))
    if kind == "string":
        return "sc:Text"
    return "sc:Float" if kind.startswith("float") else "sc:Integer"
