"""Groups of OOD sets: their members, what is missing and why, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from digits_images import digits, write_parquet
from hub_server import HubServer, point_client_at

from srood import manifests
from srood.datasets import resolve
from srood.errors import InputError
from srood.named_sets import dataset_info
from train.evaluation.ood_sets import find_sets

PAPER = ["textures", "svhn", "places365", "lsun-crop", "lsun-resize", "isun"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub of this machine that holds nothing yet, so that a set out of reach is so at once."""
    with HubServer() as running:
        point_client_at(running, tmp_path / "hf", monkeypatch)
        monkeypatch.setenv("SROOD_DATA", str(tmp_path / "data"))
        yield running


def local(folder: Path, name: str) -> None:
    images, labels = digits()
    write_parquet(folder / "data" / name / "test.parquet", images[:3], labels[:3])


def test_every_member_of_every_group_is_a_named_set_with_that_split():
    for name in manifests.names("ood"):
        groups = manifests.read_yaml(manifests.find("ood", name))["groups"]
        for by_group in groups.values():
            for spec in [spec for specs in by_group.values() for spec in specs]:
                named, _, split = spec.partition(":")
                info = dataset_info(named)
                assert info is not None, spec
                assert (split or "test") in info.splits, spec


def test_openood_depends_on_the_id_set(hub, tmp_path):
    local(tmp_path, "textures")
    found = find_sets(["openood"], "cifar10")
    near = [("cifar100", ("near",)), ("tiny-imagenet:valid", ("near",))]
    far = [(name, ("far",)) for name in ("mnist", "svhn", "textures", "places365")]
    assert [(entry.spec, entry.groups) for entry in found] == near + far
    assert [entry.spec for entry in find_sets(["openood"], "cifar100")][:2] == ["cifar10", "tiny-imagenet:valid"]
    with pytest.raises(
        InputError, match=r"--ood openood: has no sets for the ID set mnist, only for cifar10, cifar100; .*paper"
    ):
        find_sets(["openood"], "mnist")


def test_members_out_of_reach_are_missing_with_the_reason_and_others_are_found_here_and_on_the_hub(hub, tmp_path):
    local(tmp_path, "textures")
    info = dataset_info("svhn")
    local(tmp_path / "on-hub", "cropped_digits")
    repo = tmp_path / "on-hub" / "data"
    (repo / "cropped_digits" / "test.parquet").rename(repo / "cropped_digits" / "test-00000-of-00001.parquet")
    hub.add(info.hub_repo, repo, commit=info.hub_revision)

    found = find_sets(["paper"], "a-folder-of-mine")
    assert [entry.spec for entry in found] == PAPER
    assert [entry.canonical for entry in found] == ["textures:test", "svhn:test", "", "", "", ""]
    assert resolve("svhn").num_rows() == 3
    for entry in found[2:]:
        assert not entry.required
        assert f"$SROOD_DATA/{entry.spec}/test*.parquet (no such file)" in entry.reason
        assert "no such dataset repository" in entry.reason
    assert [entry.reason for entry in found[:2]] == ["", ""]


def test_a_set_of_two_groups_or_also_named_by_itself_is_evaluated_once(hub, tmp_path):
    local(tmp_path, "textures")
    found = find_sets(["textures:test", "paper", "openood"], "cifar10")
    specs = [entry.spec for entry in found]
    assert len(specs) == len(set(specs)) == 6 + 3  # svhn, textures and places365 are in both groups
    first = found[0]
    assert (first.spec, first.groups, first.required) == ("textures:test", ("paper", "far"), True)
    assert next(entry for entry in found if entry.spec == "svhn").groups == ("paper", "far")


def test_what_is_refused(hub, tmp_path):
    local(tmp_path, "textures")
    folder = tmp_path / "data" / "textures"
    cases = [
        ([], "--ood: is missing; .*--ood openood or --ood paper"),
        (["textures", "textures"], "textures is given twice"),
        (["textures", "textures:test"], "textures is given twice"),
        ([str(folder), f"{folder}/../textures"], "textures is given twice, also as .*/../textures; give it once"),
        (["paper", "svhn"], r"^svhn: not found; tried \$SROOD_DATA"),  # asked for by itself
        (["textures", str(folder), "no-such-set"], "^no-such-set: no such file, folder or named set"),
    ]
    for ood, message in cases:
        with pytest.raises(InputError, match=message):
            find_sets(ood, "cifar10")
    (folder / "test.parquet").unlink()
    with pytest.raises(InputError, match="--ood paper: none of its 6 sets can be had; textures: not found"):
        find_sets(["paper"], "cifar10")
    local(tmp_path, "svhn")
    with pytest.raises(InputError, match="--ood paper: none of its 6 sets can be had; textures: not found"):
        find_sets(["paper"], "svhn")  # the only one that can be had is the ID set


def test_the_id_set_is_no_ood_set_of_a_group(hub, tmp_path):
    local(tmp_path, "textures")
    local(tmp_path, "svhn")
    reasons = {entry.spec: entry.reason for entry in find_sets(["paper"], "svhn")}
    assert (reasons["textures"], reasons["svhn"]) == ("", "is the ID set")
