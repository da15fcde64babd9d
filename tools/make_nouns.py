"""Write manifests/wordnet/nouns.tsv.gz: WordNet 3.0's nouns that a picture can show, with their hypernyms.

    python tools/make_nouns.py /usr/share/wordnet manifests/wordnet/nouns.tsv.gz

The folder holds WordNet 3.0's `data.noun` and `index.noun` (Debian: `apt-get install wordnet-base`), whose offsets are
ImageNet's WNIDs. Kept are the synsets at or below `ROOTS` but for those below `WITHOUT`, natural processes, and names
of single persons, places and groups. One line a synset, ordered by offset, with three fields between tabs: the offset;
the offsets of its hypernyms that are kept, separated by spaces; its words, separated by `|`, each with `#N` after it
where the synset is not the word's first but its Nth sense. The same WordNet gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple

ROOTS = {
    "00001930": "physical entity",
    "00031264": "group: forests, crowds, flocks",
    "06791372": "signal: traffic lights",
    "06793231": "sign: signboards and street signs",
    "00523513": "sport",
    "00027807": "shape",
}
WITHOUT = {"07992450": "taxonomic group: families and genera repeat the animals' and plants' words"}
PROCESS = 22  # lexicographer files, see manual page lexnames(5WN)
NAMED = {14, 15, 18}  # group, location, person: instances are names

LICENCE = """\
nouns.tsv.gz is made of WordNet 3.0 by tools/make_nouns.py, which leaves out what no picture shows. This notice belongs
to it.

"""


class Noun(NamedTuple):
    """One line of data.noun."""

    lexfile: int
    words: tuple[str, ...]
    hypernyms: tuple[str, ...]
    is_instance: bool


def read_data(folder: Path) -> tuple[dict[str, Noun], str]:
    """Offset -> noun, and the licence at the top of the file; the format is that of manual page wndb(5WN)."""
    nouns, licence = {}, []
    with open(folder / "data.noun", encoding="latin-1") as lines:
        for line in lines:
            if line.startswith(" "):
                licence.append(line.strip().partition(" ")[2].strip())
                continue
            fields = line.split(" | ", 1)[0].split()
            n_words = int(fields[3], 16)
            pointers = fields[5 + 2 * n_words :]
            up = [(pointers[i], pointers[i + 1]) for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")]
            nouns[fields[0]] = Noun(
                int(fields[1]),
                tuple(fields[4 : 4 + 2 * n_words : 2]),
                tuple(offset for _, offset in up),
                any(symbol == "@i" for symbol, _ in up),
            )
    return nouns, "\n".join(licence).strip()


def read_senses(folder: Path) -> dict[tuple[str, str], int]:
    """(word in lower case, offset) -> number of the sense, from 1, in WordNet's order of use."""
    senses = {}
    with open(folder / "index.noun", encoding="latin-1") as lines:
        for line in lines:
            if not line.startswith(" "):
                fields = line.split()
                offsets = fields[-int(fields[2]) :]
                senses.update({(fields[0], offset): number for number, offset in enumerate(offsets, 1)})
    return senses


def kept_nouns(nouns: dict[str, Noun]) -> list[str]:
    """Offsets of what is written, sorted."""
    hyponyms: dict[str, list[str]] = {}
    for offset, noun in nouns.items():
        for parent in noun.hypernyms:
            hyponyms.setdefault(parent, []).append(offset)
    found: set[str] = set()
    stack = list(ROOTS)
    while stack:
        offset = stack.pop()
        if offset not in found and offset not in WITHOUT:
            found.add(offset)
            stack.extend(hyponyms.get(offset, ()))
    return sorted(
        offset
        for offset in found
        if nouns[offset].lexfile != PROCESS and not (nouns[offset].is_instance and nouns[offset].lexfile in NAMED)
    )


def render(nouns: dict[str, Noun], senses: dict[tuple[str, str], int]) -> str:
    """The text before compression."""
    kept = set(kept_nouns(nouns))
    lines = []
    for offset in sorted(kept):
        noun = nouns[offset]
        words = []
        for word in noun.words:
            number = senses[word.lower(), offset]
            words.append(word if number == 1 else f"{word}#{number}")
        lines.append(f"{offset}\t{' '.join(up for up in noun.hypernyms if up in kept)}\t{'|'.join(words)}")
    return "\n".join(lines) + "\n"


def compress(text: str) -> bytes:
    """gzip without name and time."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(text.encode())
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the nouns of WordNet 3.0 that a picture can show.")
    parser.add_argument("wordnet", type=Path, help="the folder with data.noun and index.noun")
    parser.add_argument("out", type=Path, help="manifests/wordnet/nouns.tsv.gz")
    arguments = parser.parse_args()
    for name in ("data.noun", "index.noun"):
        if not (arguments.wordnet / name).is_file():
            sys.exit(f"error: {arguments.wordnet}: no {name} there; give WordNet 3.0's dict folder")
    nouns, licence = read_data(arguments.wordnet)
    text = render(nouns, read_senses(arguments.wordnet))
    content = compress(text)
    write(arguments.out, content)
    write(arguments.out.with_name("LICENSE"), (LICENCE + licence + "\n").encode())
    print(f"{arguments.out}: {text.count(chr(10))} synsets, {len(content):,} bytes")


if __name__ == "__main__":
    main()
