"""The token: from where it is taken, and that it is nowhere else."""

from __future__ import annotations

import io
import os
import sys

import pytest
from published_sets import contents, download

from srood.errors import InputError
from srood.hub_token import use_token


@pytest.fixture(autouse=True)
def environment_restored(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")  # so that it is put back at the end
    monkeypatch.delenv("HF_TOKEN")


def test_from_a_file_and_from_standard_input(tmp_path, token, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    use_token(str(file))
    assert os.environ["HF_TOKEN"] == token
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"  {token}2 \nmore\n"))
    use_token("-")
    assert os.environ["HF_TOKEN"] == f"{token}2"
    use_token(None)
    assert os.environ["HF_TOKEN"] == f"{token}2"


@pytest.mark.parametrize("text", ["", "\n", "two words", "caf\u00e9", "a\x00b"])
def test_what_is_no_token(tmp_path, text):
    file = tmp_path / "file"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="^--token: the file holds no token; it must be one line of plain characters$"):
        use_token(str(file))
    assert "HF_TOKEN" not in os.environ


@pytest.mark.parametrize(
    "given",
    ["hf_Secret", " hf_Secret", "api_org_Secret", "Bearer hf_Secret", "HF_TOKEN=hf_Secret", "hf_jwt_" + "Secret" * 99],
)
def test_the_token_itself_is_refused_and_not_repeated(tmp_path, monkeypatch, curate, built_set, given):
    monkeypatch.chdir(tmp_path)
    code, out, err = curate("publish", built_set, "owner/things", "--token", given)
    assert (code, out) == (2, "") and err.startswith("error: --token: names no text file that can be read")
    assert "Secret" not in err
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="names no text file"):
        use_token("file")


@pytest.mark.parametrize("failure", [None, 401, 403, 500])
def test_it_goes_to_the_hub_alone(writable_hub, slept, built_set, tmp_path, token, monkeypatch, curate, failure):
    monkeypatch.delenv("HF_TOKEN")
    file = tmp_path / "token-file"
    file.write_text(token)
    if failure:
        writable_hub.fail_next(failure, times=99, path="/commit/")
    code, out, err = curate("publish", built_set, "owner/things", "--token", file)
    assert code == (2 if failure else 0)
    assert token not in out + err and "hf_" not in out + err
    assert not [r for r in writable_hub.requests if token.encode() in r.body]
    assert {r.token for r in writable_hub.requests if r.method == "PUT"} == {None}  # its address is signed
    assert {r.token for r in writable_hub.requests if r.method != "PUT"} == {token}
    if not failure:
        back = download(tmp_path / "back")
        code, out, err = curate("pull", "owner/things", "--token", file, "--out", tmp_path / "sets")
        assert code == 0 and token not in out + err
        written = back | contents(tmp_path / "sets") | contents(built_set.parent)
        assert not [name for name, data in written.items() if token.encode() in data]
