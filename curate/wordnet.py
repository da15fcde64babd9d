"""WordNet 3.0's nouns that a picture can show, and which of them a class name means.

The data is manifests/wordnet/nouns.tsv.gz, made by tools/make_nouns.py; its offsets, with "n" before them, are
ImageNet's WNIDs.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from curate.semantics import WNID, singulars, words_of
from srood import manifests
from srood.errors import InputError

PERSON = "n00007846"
WIDE = 300  # synsets below a last word from which it says too little of the class ("aquarium fish" is not every fish)


@dataclass(frozen=True)
class WordNet:
    """words: WNID -> its words. hyponyms, hypernyms: WNID -> WNIDs. senses: phrase -> WNIDs, the most usual first."""

    words: dict[str, tuple[str, ...]]
    hyponyms: dict[str, tuple[str, ...]]
    hypernyms: dict[str, tuple[str, ...]]
    senses: dict[str, tuple[str, ...]]

    def below(self, roots: Iterable[str]) -> set[str]:
        """WNIDs at or below the roots."""
        found: set[str] = set()
        stack = list(roots)
        while stack:
            wnid = stack.pop()
            if wnid not in found:
                found.add(wnid)
                stack.extend(self.hyponyms.get(wnid, ()))
        return found

    def phrase(self, wnid: str) -> str:
        """The words of a synset as one text."""
        return ", ".join(self.words[wnid])


@dataclass(frozen=True)
class Meaning:
    """What a class name means: WNID -> why it is taken. No synsets where WordNet does not know the name."""

    name: str
    synsets: dict[str, str]


@cache
def load() -> WordNet:
    """The packaged nouns.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read(manifests.folder() / "wordnet" / "nouns.tsv.gz")


def read(path: Path) -> WordNet:
    """Read a file that tools/make_nouns.py wrote.

    Raises:
        InputError: it is missing or damaged.
    """
    words: dict[str, tuple[str, ...]] = {}
    hypernyms: dict[str, tuple[str, ...]] = {}
    hyponyms: dict[str, list[str]] = {}
    ranked: dict[str, list[tuple[int, str]]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                offset, up, entries = line.rstrip("\n").split("\t")
                wnid = "n" + offset
                hypernyms[wnid] = tuple("n" + parent for parent in up.split())
                for parent in hypernyms[wnid]:
                    hyponyms.setdefault(parent, []).append(wnid)
                plain = []
                for entry in entries.split("|"):
                    word, _, number = entry.partition("#")
                    plain.append(word.replace("_", " "))
                    key = " ".join(word.lower().replace("_", " ").replace("-", " ").split())
                    ranked.setdefault(key, []).append((int(number or 1), wnid))
                words[wnid] = tuple(plain)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: WordNet's nouns cannot be read ({error}); install srood again") from error
    senses = {word: tuple(wnid for _, wnid in sorted(set(entries))) for word, entries in ranked.items()}
    return WordNet(words, {wnid: tuple(below) for wnid, below in hyponyms.items()}, hypernyms, senses)


def meaning(name: str, nouns: WordNet) -> Meaning:
    """The synsets that a class name stands for.

    A WNID in the name decides. Otherwise each of its phrases (between commas) is looked up as it is, in the singular,
    and without spaces. Of several phrases the synsets that have them all count, if there are such. Of a phrase with
    several senses all count, because a missed ID image does more harm than a lost outlier; but senses that are persons
    count only where the most usual one is a person, since "mouse" as a class is no timid man. A compound that WordNet
    does not have is read by its last words: "maple tree" is those senses of "maple" that are a tree, "lobster bisque"
    is a bisque, unless the last words mean more than `WIDE` synsets.
    """
    found = WNID.search(name)
    if found and found.group() in nouns.words:
        return Meaning(name, {found.group(): "named by its WNID"})
    phrases = [phrase for phrase in words_of(name) if re.search(r"[^\W\d_]{2}", phrase)]
    by_phrase = {phrase: senses_of(phrase, nouns) for phrase in phrases}
    known = {phrase: senses for phrase, senses in by_phrase.items() if senses}
    if not known:
        return Meaning(name, next((read for phrase in phrases if (read := compound(phrase, nouns))), {}))
    shared = set.intersection(*(set(senses) for senses in known.values())) if len(known) > 1 else set()
    if shared:
        return Meaning(name, {wnid: f"has the words {', '.join(known)}" for wnid in sorted(shared)})
    synsets: dict[str, str] = {}
    for phrase, senses in known.items():
        for wnid in senses:
            several = f"one of the {len(senses)} senses of '{phrase}', all taken"
            synsets.setdefault(wnid, several if len(senses) > 1 else f"the sense of '{phrase}'")
    return Meaning(name, synsets)


def senses_of(phrase: str, nouns: WordNet) -> tuple[str, ...]:
    """The senses of a phrase that a class can have, the most usual first; none where WordNet does not know it."""
    readings = singulars(phrase)
    for reading in [*readings, *(reading.replace(" ", "") for reading in readings)]:
        senses = nouns.senses.get(reading, ())
        if senses:
            persons = [wnid for wnid in senses if is_person(wnid, nouns)]
            return senses if senses[0] in persons else tuple(wnid for wnid in senses if wnid not in persons)
    return ()


def is_person(wnid: str, nouns: WordNet) -> bool:
    """Whether a synset is a kind of person."""
    stack, seen = [wnid], set()
    while stack:
        current = stack.pop()
        if current == PERSON:
            return True
        if current not in seen:
            seen.add(current)
            stack.extend(nouns.hypernyms[current])
    return False


def compound(phrase: str, nouns: WordNet) -> dict[str, str]:
    """WNID -> reason for a phrase of several words that WordNet lacks, by its last words; empty where that fails."""
    words = phrase.split()
    for cut in range(1, len(words)):
        rest, last = " ".join(words[:cut]), " ".join(words[cut:])
        heads = senses_of(last, nouns)
        if not heads:
            continue
        below = nouns.below(heads)
        kinds = [wnid for wnid in senses_of(rest, nouns) if wnid in below]
        if kinds:
            return {wnid: f"'{phrase}': a sense of '{rest}' that is a {last}" for wnid in kinds}
        if len(below) > WIDE:
            return {}
        return {wnid: f"'{phrase}' is not in WordNet, '{last}' is" for wnid in heads}
    return {}
