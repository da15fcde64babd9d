"""Commands and links in README and docs are real ones."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from curate.cli import app as curate_app
from train.cli import app as srood_app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
APPS = {"curate": typer.main.get_command(curate_app), "srood": typer.main.get_command(srood_app)}


def commands(page: Path) -> list[str]:
    """Command lines in indented or fenced blocks; a backslash continues a line."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    return [match[1] for match in re.finditer(r"^(?: {4}|)((?:curate|srood) [a-z].*)$", text, flags=re.M)]


def test_the_pages_hold_commands():
    assert sum(len(commands(page)) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for line in commands(page):
        program, name, *rest = shlex.split(line, comments=True)
        if not re.fullmatch(r"[a-z-]+", name):
            continue  # prose that begins with the program's name
        subcommands = APPS[program].commands
        if name not in subcommands and not any(word.startswith("--") for word in rest):
            continue
        options = {option for parameter in subcommands[name].params for option in parameter.opts}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= options, f"{page.name}: {line}"


@pytest.mark.parametrize(
    ("program", "name"), [(program, name) for program, app in APPS.items() for name in app.commands], ids=" ".join
)
def test_every_command_says_how_it_is_used(program, name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        APPS[program].main([name, "--help"], prog_name=program)
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"Usage: {program} {name}" in text
    for parameter in APPS[program].commands[name].params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert option in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
