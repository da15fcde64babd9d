"""Fill the label exclusions of manifests/exclusions from WordNet 3.0.

    python tools/make_exclusions.py /usr/share/wordnet manifests/exclusions/*.yaml

The folder holds WordNet 3.0's `data.noun` (Debian: `apt-get install wordnet-base`). ImageNet's ids are "n" and
the offset of a noun synset in exactly that file, so another WordNet version will not do.

Each YAML file is both input and output. Written by hand: `name`, `roots` (ID class -> synsets that show it, with
reasons), `without` (synsets below a root, left out with all that is below them) and `not_words`. Filled in here:
the words of each root, `synsets` (per ID class every synset at or below a root, with all its words) and
`ambiguous` (words that WordNet also gives to a noun outside these synsets). The same WordNet and the same
hand-written part give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

HEADER = """\
# Corpus labels that show an ID class of {name}: `curate build` drops their rows when this is the ID set.
#
# Source: WordNet 3.0, whose noun offsets are ImageNet's WNIDs. WordNet 3.0 Copyright 2006 by Princeton
# University. All rights reserved. Licence: the WordNet 3.0 licence
# (https://wordnet.princeton.edu/license-and-commercial-use); it lets anyone use, copy, change and pass on the
# database without fee as long as this notice stays, and gives no warranty of any kind. The choice of roots is
# this project's own (Apache-2.0).
#
# Made by: python tools/make_exclusions.py /usr/share/wordnet {path}
#
# To change it: edit `roots` (which synsets show a class, and why), `without` (what is below a root and left
# out all the same) or `not_words` (words that never count by themselves) and run the command again. `synsets` and
# `ambiguous` are written by the command. Without WordNet at hand, add or delete lines `nXXXXXXXX: word, word`
# under `synsets`, or give `curate build --exclude-labels FILE` a plain list: one label or WNID a line.
"""

# A word alone is safe as plain YAML; everything else is quoted.
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ./'-]*(, [A-Za-z0-9][A-Za-z0-9 ./'-]*)*")
YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


class Synset(NamedTuple):
    """A noun synset: its words, and the offsets of its direct hyponyms (instances among them)."""

    words: tuple[str, ...]
    hyponyms: tuple[str, ...]


def read_nouns(folder: Path) -> dict[str, Synset]:
    """Offset (8 digits) -> synset, from `data.noun`; the format is that of manual page wndb(5WN)."""
    nouns = {}
    with open(folder / "data.noun", encoding="latin-1") as lines:
        for line in lines:
            if line.startswith(" "):  # the licence at the top
                continue
            fields = line.split(" | ", 1)[0].split()
            n_words = int(fields[3], 16)
            words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * n_words : 2])
            pointers = fields[5 + 2 * n_words :]
            hyponyms = [pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("~", "~i")]
            nouns[fields[0]] = Synset(words, tuple(hyponyms))
    return nouns


def descendants(nouns: dict[str, Synset], roots: list[str], without: set[str]) -> list[str]:
    """Offsets at or below the roots, sorted, not entering what `without` names."""
    found: set[str] = set()
    stack = list(roots)
    while stack:
        offset = stack.pop()
        if offset not in found and offset not in without:
            found.add(offset)
            stack.extend(nouns[offset].hyponyms)
    return sorted(found)


def quoted(text: str) -> str:
    """The text as a YAML value on one line."""
    if PLAIN.fullmatch(text) and text.lower() not in YAML_WORDS:
        return text
    return "'" + text.replace("'", "''") + "'"


def render(path: Path, nouns: dict[str, Synset]) -> str:
    """The whole text of an exclusion file, from its hand-written part and WordNet."""
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    lines = [
        HEADER.format(name=old["name"], path=f"manifests/exclusions/{path.name}"),
        f"name: {old['name']}",
        "",
        "roots:",
    ]
    cuts, not_words = old.get("without") or [], old.get("not_words") or {}
    without = {entry["wnid"][1:] for entry in cuts}
    synsets = {}
    for label, roots in old["roots"].items():
        lines.append(f"  {label}:")
        for root in roots:
            words = ", ".join(nouns[root["wnid"][1:]].words)
            lines.append(f"  - {{wnid: {root['wnid']}, words: {flow(words)}, why: {flow(root['why'])}}}")
        synsets[label] = descendants(nouns, [root["wnid"][1:] for root in roots], without)
    lines += ["", "without:" if cuts else "without: []"]
    for entry in cuts:
        words = ", ".join(nouns[entry["wnid"][1:]].words)
        lines.append(f"- {{wnid: {entry['wnid']}, words: {flow(words)}, why: {flow(entry['why'])}}}")
    lines += ["", "not_words:" if not_words else "not_words: {}"]
    lines += [f"  {quoted(word)}: {flow(why)}" for word, why in not_words.items()]
    lines += ["", "synsets:"]
    for label, offsets in synsets.items():
        lines.append(f"  {label}:")
        lines += [f"    n{offset}: {quoted(', '.join(nouns[offset].words))}" for offset in offsets]
    lines += ["", "ambiguous:"]
    lines += [f"- {quoted(word)}" for word in ambiguous_words(nouns, synsets)]
    return "\n".join(lines) + "\n"


def flow(text: str) -> str:
    """The text quoted, for use between braces."""
    return "'" + text.replace("'", "''") + "'"


def ambiguous_words(nouns: dict[str, Synset], synsets: dict[str, list[str]]) -> list[str]:
    """Words, lower case, of an excluded synset that also belong to a noun that is not excluded."""
    excluded = {offset for offsets in synsets.values() for offset in offsets}
    inside = {word.lower() for offset in excluded for word in nouns[offset].words}
    outside = {word.lower() for offset, noun in nouns.items() if offset not in excluded for word in noun.words}
    return sorted(inside & outside)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill label exclusion files from WordNet 3.0.")
    parser.add_argument("wordnet", type=Path, help="the folder with data.noun")
    parser.add_argument("files", type=Path, nargs="+", help="manifests/exclusions/NAME.yaml")
    arguments = parser.parse_args()
    if not (arguments.wordnet / "data.noun").is_file():
        sys.exit(f"error: {arguments.wordnet}: no data.noun there; give WordNet 3.0's dict folder")
    nouns = read_nouns(arguments.wordnet)
    for path in arguments.files:
        text = render(path, nouns)
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
        print(f"{path}: {sum(line.startswith('    n') for line in text.splitlines())} synsets")


if __name__ == "__main__":
    main()
