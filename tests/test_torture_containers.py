"""The quick part of what `make torture` tries with hostile containers: every trial passes, and all kinds are there."""

from torture.archives import hostile_archives
from torture.checkpoints import QUICK, checkpoints
from torture.fuzz_sets import MUTATIONS, mutated_sets
from torture.hostile_hdf5 import hostile_hdf5
from torture.trial import Effort


def tried(area, folder):
    trials = list(area(Effort(folder, quick=True)))
    assert [trial for trial in trials if not trial.passed] == []
    return trials


def test_hostile_archives(tmp_path):
    faults = {trial.fault for trial in tried(hostile_archives, tmp_path)}
    assert {fault.partition(":")[0] for fault in faults} == {"zip", "tar", "Parquet", "npy", "list", "tiny_images.bin"}


def test_hostile_hdf5(tmp_path):
    faults = {trial.fault for trial in tried(hostile_hdf5, tmp_path)}
    assert {fault.partition(":")[0] for fault in faults} == {"HDF5 images", "shard", "manifest"}


def test_checkpoints_and_yaml(tmp_path):
    assert {trial.fault for trial in tried(checkpoints, tmp_path)} == set(QUICK)


def test_mutated_sets(tmp_path):
    trials = tried(mutated_sets, tmp_path)
    assert len(trials) == 100 and {trial.fault for trial in trials} == {fault for fault, _ in MUTATIONS}


def test_a_trespass_would_be_seen(tmp_path):
    """Files that a command opens are known, whichever library opens them; where strace is missing, those of Python."""
    from torture.forked import forked
    from torture.hostile import Outside, trespasses

    outside = Outside.make(tmp_path / "outside")
    given = tmp_path / "given"
    given.mkdir()
    (given / "list.txt").write_text("../outside/secret.png\n")
    watched = forked(True).run("python", "torture.reading", given / "list.txt", cwd=given)
    assert trespasses(watched, given, outside) == [f"read {outside.folder / 'secret.png'}"]
