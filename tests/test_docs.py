"""The documentation: every snippet and command runs as it stands, links lead somewhere, nothing is left out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
README = "../README.md"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# All pages in one process, each in a folder of its own: their blocks in order, Python in one namespace or into the file
# that its title names, and commands through the door of ``assay`` itself.
RUNNER = """
import json, os, shlex, sys
from pathlib import Path
from assay.__main__ import main
home = Path.cwd()
sys.path.insert(0, "")
for page, blocks in json.loads(sys.stdin.read()).items():
    print(page, file=sys.stderr)
    folder = home / page.replace("/", "-").strip(".-")
    folder.mkdir()
    os.chdir(folder)
    names = {}
    for language, title, text in blocks:
        if title:
            Path(title).write_text(text)
        elif language == "python":
            exec(compile(text, page, "exec"), names)
        else:
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "assay", line
                code = main(arguments)
                assert code == 0, (code, line)
    for name in ("net", "mine"):
        sys.modules.pop(name, None)
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and text of what a page runs."""
    found = FENCE.findall((DOCS / page).read_text())
    return [block for block in found if block[0] in ("python", "bash")]


@pytest.mark.slow
def test_every_snippet_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        input=json.dumps({page: found for page in [README, *PAGES] if (found := blocks(page))}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [README, *PAGES])
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", (DOCS / page).read_text()):
        found = (DOCS / page).parent / target
        assert target.startswith("https://") or found.exists(), target
        if anchor:  # as a heading makes it
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}, anchor


def test_the_readme_stays_one_screen() -> None:
    lines = (DOCS / README).read_text().splitlines()
    assert len(lines) <= 70
    assert sum("![" in line for line in lines) == 1


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"([\w/-]+\.md)\s*$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == PAGES


def test_what_runs_is_marked_as_such() -> None:
    """A command in a block of its own is in a fence, in which it is run."""
    for page in [README, *PAGES]:
        languages = {language for language, _, _ in FENCE.findall((DOCS / page).read_text())}
        assert languages <= {"python", "bash", "text", "toml", "yaml"}
    assert len([page for page in PAGES if blocks(page)]) >= 10
