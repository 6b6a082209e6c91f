"""The bibliography: every method and attack has its sources, and no entry is of something else."""

import re
from pathlib import Path

import pytest

from assay.__main__ import main
from assay.attacks.registry import ATTACKS
from assay.benchmarks.report import references
from assay.verify.core.errors import InputError
from assay.verify.registry import VERIFIERS

ROOT = Path(__file__).parents[3]
OURS = {"attack", "random", "grid"}  # a wrapper, and baselines that nobody published
FIELDS = ["title", "author", "year", "eprint", "archivePrefix"]


def test_every_method_and_attack_is_cited_and_every_entry_is_of_one():
    named = {name for _, names in references.entries() for name in names}
    assert named == {*VERIFIERS, *ATTACKS} - OURS


def test_every_entry_is_named_in_the_sources_and_complete():
    code = "".join(path.read_text() for room in ("verify", "attacks") for path in (ROOT / room).rglob("*.py"))
    numbers, keys = [], []
    for entry, names in references.entries():
        assert names
        assert re.findall(r"^  (\w+) = \{.+\},$", entry, re.MULTILINE) == FIELDS
        assert entry.count("{") == entry.count("}")
        (number,) = re.findall(r"eprint = \{(\d{4}\.\d{4,5})\}", entry)
        assert f"arXiv:{number}" in code
        numbers.append(number)
        keys += re.findall(r"^@misc\{(\w+),$", entry, re.MULTILINE)
    assert len(set(numbers)) == len(set(keys)) == len(numbers)


def test_each_entry_is_given_once_and_options_do_not_matter():
    cited, own = references.of(["autoattack", "apgd(steps=3)", "random"])
    assert sum("croce2020reliable" in entry for entry in cited) == 1
    assert sum("croce2020minimally" in entry for entry in cited) == 1
    assert own == ["random"]
    assert not any("keywords" in entry for entry in cited)
    with pytest.raises(InputError, match="did you mean 'crown'"):
        references.of(["crwn"])


def test_the_command(capsys):
    assert main(["cite", "crown,autoattack"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("@misc{zhang2018efficient,")
    assert "@misc{andriushchenko2020square," in out
    assert err == ""
    assert main(["cite"]) == 40
    assert main(["cite", "crown", "--store", "x"]) == 40
    assert main(["cite", "--store", "nowhere.sqlite"]) == 40
