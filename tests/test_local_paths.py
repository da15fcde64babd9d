"""Of a path on this machine the last component is kept."""

from __future__ import annotations

import pytest

from train.local_paths import shorten, without_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/mini.h5", "mini.h5"),
        ("/home/me/photos/", "photos"),
        ("~/mini.h5", "mini.h5"),
        ("~me/a b/mini.h5", "mini.h5"),
        ("../me/mini.h5", "mini.h5"),
        ("runs/first/model.safetensors", "model.safetensors"),
        (r"C:\Users\me\mini.h5", "mini.h5"),
        (r"\\server\me\mini.h5", "mini.h5"),
        ("file:///home/me/mini.h5", "mini.h5"),
        ("/home/me/a.h5:0.5", "a.h5:0.5"),
        ("not found; tried /home/me/data/x.parquet, hf://owner/name@main/x", "not found; tried x.parquet, hf://owner/name@main/x"),
        ("hf://a/b@c/x.parquet: no room for '/home/me/.cache/b/x'", "hf://a/b@c/x.parquet: no room for 'x'"),
        ("timm:resnet18 was read from /home/me/x.bin", "timm:resnet18 was read from x.bin"),
        ("see file:///home/me/x.bin", "see x.bin"),
        ("cifar10:test", "cifar10:test"),
        ("hf://owner/name@0123:train", "hf://owner/name@0123:train"),
        ("https://huggingface.co/owner/name", "https://huggingface.co/owner/name"),
        ("timm:hf-hub:owner/name", "timm:hf-hub:owner/name"),
        ("share of ID/OOD images at 3 / 4", "share of ID/OOD images at 3 / 4"),
        ("cpu (Intel(R) Xeon(R) w/ AVX)", "cpu (Intel(R) Xeon(R) w/ AVX)"),
    ],
)  # fmt: skip
def test_of_a_path_the_last_component_is_kept(text, expected):
    assert shorten(text) == expected
    assert without_paths({"notes": [text]}) == {"notes": [expected]}
    assert shorten(expected) == expected  # pushing what was downloaded changes nothing


def test_a_path_with_spaces_is_known_by_its_key_and_names_stay_apart():
    document = {"outliers": ["a b/c.h5", "d/c.h5"], "class_names": ["a/b"], "ood": {"x y/t": 1, "z/t": 2, "t": 3}}
    expected = {"outliers": ["c.h5", "c.h5"], "class_names": ["a/b"], "ood": {"t (2)": 1, "t (3)": 2, "t": 3}}
    assert without_paths(document) == expected
