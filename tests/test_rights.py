"""Which sources may be passed on, and the licence that follows for a set."""

from __future__ import annotations

import pytest
import yaml

from curate.publishing.rights import check_rights, rights, set_license
from srood import manifests
from srood.errors import InputError


def source(name: str = "photos.parquet", license: str = "unknown", **more: object) -> dict[str, object]:
    return {"name": name, "license": license, "rows": 10, "revision": "unknown", **more}


def of(*sources: dict[str, object]) -> list:
    return rights({"sources": list(sources)})


@pytest.mark.parametrize(
    ("license", "allowed"),
    [
        ("cc0-1.0", "yes"),
        ("CC-BY-4.0", "yes"),
        ("cc-by-nc-sa-4.0", "yes"),
        ("mit", "yes"),
        ("apache-2.0", "yes"),
        ("cc-by-4.0; mit", "yes"),
        ("cc-by-nd-4.0", "no"),
        ("cc-by-nc-nd-4.0", "no"),
        ("ImageNet terms of access", "no"),
        ("scientific fair use only", "no"),
        ("may not be redistributed", "no"),
        ("mit; ImageNet terms of access", "no"),
        ("CC BY-ND 4.0", "no"),
        ("cc by-nc-nd 4.0", "no"),
        ("cc-by-nc-nd", "no"),
        ("do not redistribute", "no"),
        ("non-redistributable", "no"),
        ("redistribution prohibited", "no"),
        ("no derivatives", "no"),
        ("free to use and redistribute", "unknown"),
        ("unknown", "unknown"),
        ("other", "unknown"),
        ("cc-by-4.0; unknown", "unknown"),
        ("mitigated", "unknown"),
    ],
)
def test_a_licence(license, allowed):
    (found,) = of(source(license=license))
    assert found.allowed == allowed


def test_every_named_set_is_as_its_file_says():
    for name in manifests.names("datasets"):
        entry = yaml.safe_load((manifests.folder() / "datasets" / f"{name}.yaml").read_text(encoding="utf-8"))
        split = next(iter(entry["splits"]))
        (found,) = of(source(f"{name}:{split}", str(entry["license"])))
        assert found.allowed == entry["redistribution"], name
        if repo := (entry.get("hub") or {}).get("repo"):  # named by its repository, and with another word for a licence
            (found,) = of(source(f"{repo}:train", "mit"))
            assert found.allowed == entry["redistribution"], repo
    assert of(source("tiny-imagenet:corpus"))[0].allowed == "no"
    for name in ("tiny_images.bin", "300K_random_images.npy"):
        for license in ("mit", "unknown"):
            assert of(source(name, license))[0].allowed == "no"


@pytest.mark.parametrize(
    ("name", "license", "allowed"),
    [
        ("mnist", "unknown", "unknown"),
        ("tiny-imagenet", "unknown", "unknown"),
        ("tiny-imagenet", "cc0-1.0", "yes"),
        ("tiny-imagenet", "ImageNet terms", "no"),
        ("tiny_images.bin", "cc0-1.0", "no"),
    ],
)
def test_a_local_file_or_folder_is_no_named_set_by_its_name(name, license, allowed):
    for origin in ("a local folder", "a local file"):
        (found,) = of(source(name, license, origin=origin))
        assert (found.allowed, found.homepage, found.citation) == (allowed, "", "")
    if name == "tiny-imagenet":
        assert "whether it is Tiny ImageNet" in found.why
    for origin in (f"$SROOD_DATA/{name}/corpus*.parquet", f"hf://owner/{name}@1234"):
        assert of(source(f"{name}:corpus", license, origin=origin))[0].allowed == of(source(name, license))[0].allowed


def test_what_may_not_be_passed_on_is_refused_whatever_anybody_confirms():
    sources = of(source(license="mit"), source("tiny-imagenet:corpus", "ImageNet terms"), source("x.zip"))
    for confirmed in (False, True):
        with pytest.raises(
            InputError, match=r"may not be passed on: tiny-imagenet:corpus \(licence: ImageNet .*--index"
        ):
            check_rights(sources, confirmed)
    with pytest.raises(InputError, match=r"not known whether .*: x.zip \(licence: unknown\); .*--rights-confirmed"):
        check_rights(of(source(license="mit"), source("x.zip")))
    check_rights(of(source(license="mit"), source("x.zip")), confirmed=True)
    check_rights(of(source(license="mit")))


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["mit"], "mit"),
        (["cc-by-4.0", "CC-BY-4.0"], "cc-by-4.0"),
        (["mit", "cc-by-4.0"], ["cc-by-4.0", "mit"]),
        (["cc-by-4.0; mit"], ["cc-by-4.0", "mit"]),
        (["mit", "unknown"], "other"),
        (["MIT (as tagged on the Hub)"], "other"),
        ([], "other"),
    ],
)
def test_the_licence_of_a_set(licenses, expected):
    assert set_license(of(*(source(f"{i}.zip", license) for i, license in enumerate(licenses)))) == expected
