"""What the documents tell a reader to type is what the commands accept, and their code runs."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from sora2.cli import COMMANDS
from sora2.studies.config import read_study
from sora2.train.compose import compose_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "checkpoints/README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A fenced block of a page: its language, its text.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
STARTS = re.compile(r"(time |srun |accelerate launch -m |\w+=\S+ )*(sora2|make|python)( |\.cli|$)")
INLINE = re.compile(r"`([^`]+)`")


def blocks(path, language):
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


def commands(page):
    """(words, whole) of the commands of a page. `whole`: a line to type, not a mention in a sentence."""
    text = page.read_text()
    typed = [line for name in ("bash", "") for block in blocks(page, name) for line in block.splitlines()]
    mentioned = [found.replace("\n", " ") for found in INLINE.findall(BLOCK.sub("", text))]
    for whole, lines in ((True, typed), (False, mentioned)):
        for line in filter(STARTS.match, lines):
            words = shlex.split(line, comments=True)
            first = next(i for i, w in enumerate(words) if w in ("sora2", "sora2.cli", "make", "python"))
            yield words[first:], whole


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        pytest.param(words, whole, id=f"{page.relative_to(ROOT)}: {shlex.join(words)[:80]}")
        for page in PAGES
        for words, whole in commands(page)
    ],
)
def test_command_is_accepted(words, whole):
    program, name, *rest = [*words, ""] if len(words) == 1 else words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert name in ("", *targets)
    elif program == "python":
        assert (ROOT / name).is_file()
    elif name == "train":
        compose_config([word for word in rest if whole or "=" in word])
    elif name != "COMMAND":
        parser = import_module(COMMANDS[name][0]).build_parser()
        if whole:
            parser.parse_args(rest)
        known = parser.format_help()
        assert all(word in known for word in rest if word.startswith("--"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", BLOCK.sub("", page.read_text())):
        assert (page.parent / target).exists(), target


def test_code_of_the_page_on_extending_runs():
    code = "\n".join(blocks(ROOT / "docs/extending.md", "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_study_of_the_page_on_extending_is_one(tmp_path):
    (tmp_path / "mine.yaml").write_text(blocks(ROOT / "docs/extending.md", "yaml")[0])
    assert list(read_study("mine", tmp_path).cells) == ["own", "shared"]
