"""The quick part of the trials of bad and mutated images."""

from collections import Counter
from pathlib import Path

from torture import bad_images, fuzz_images
from torture.trial import Effort


def test_bad_images_are_counted_by_their_reason(tmp_path: Path) -> None:
    trials = list(bad_images.trials(Effort(tmp_path, seed=1, quick=True)))
    assert [trial for trial in trials if not trial.passed] == []
    tried = Counter(trial.fault for trial in trials)
    for name in ("JPEG", "PNG", "WebP", "GIF", "TIFF", "BMP"):
        assert tried[f"{name} cut short"] == 20 and tried[f"{name}, 1 to 4 bits flipped"] == 10
    assert tried["turned by EXIF, all 8 ways"] == 8
    assert tried["a build of all of them from a folder"] == tried["Ghostscript beside an EPS file"] == 1


def test_mutated_images_are_decoded_or_counted(tmp_path: Path) -> None:
    trials = list(fuzz_images.trials(Effort(tmp_path, seed=1, quick=True)))
    assert [trial for trial in trials if not trial.passed] == []
    assert len(trials) == 3_001 and len({trial.fault for trial in trials}) == 10
    assert 300 < sum(trial.outcome == "an image" for trial in trials) < 2_000  # neither all refused nor all read
