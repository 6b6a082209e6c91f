"""The page on a comparison: what it says, that nothing in it is taken for markup, and that it is complete."""

import re
from dataclasses import replace
from html import unescape

import pytest
import torch

from assay.attacks import get_attack
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.radii.radius_table import compare_radii
from assay.benchmarks.harness.records import recorded
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.report import colours, comparison_page, thumbnails
from assay.benchmarks.report.comparison_page import render
from assay.benchmarks.report.thumbnails import Album
from assay.models import data as datasets
from assay.models import zoo
from assay.verify.registry import get_verifier
from tests.benchmarks.harness_fakes import POINTS, Broken, Claims, Exact, Liar, Timid, dataset, identity, needle
from tests.benchmarks.report.html_checks import read
from tests.breadth import slow

EVIL = "<script>alert(1)</script>\u202e $x$ {{ 7*7 }} & \"'\u00e9\u4e2d"


def recorded_run(path, model, data, radii, methods, attacks, name="net", command="assay compare"):
    with Store(path) as store:
        store.begin(command, name, data.name)
        compare(model, data, radii, methods, attacks, name=name, store=store)
        return recorded.read(store)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Points, not images."""
    path = tmp_path_factory.mktemp("small") / "s"
    fgsm = get_attack("fgsm")
    return recorded_run(path, identity(), dataset(POINTS), [0.04, 0.08], [Timid(), Exact()], [fgsm])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Images, and a smoothed classifier beside the network."""
    path = tmp_path_factory.mktemp("digits") / "s"
    methods = [get_verifier(text) for text in ("ibp", "crown", "smoothing(n=100)")]
    data = datasets.load("digits").take(12)
    model = zoo.load("digits-mlp-pgd")
    return recorded_run(path, model, data, [0.05, 0.2], methods, [get_attack("fgsm"), get_attack("pgd")])


@pytest.mark.slow
def test_the_page_obeys_and_names_what_it_is_about(small):
    page = read(render(small))
    assert page.text.startswith("assay: net on points (test)")
    assert "How robust is net ?" in page.text
    assert "No soundness alarm" in page.text
    assert "\u2265 40.0%" in page.text
    assert "clean accuracy 60.0%" in page.text
    assert "To repeat it assay compare" in page.text
    assert not page.all("img")


def test_a_search_for_radii_has_its_bracket(tmp_path):
    with Store(tmp_path / "s") as store:
        store.begin("assay compare --radius", "net", "points")
        compare_radii(identity(), dataset(POINTS), [Exact()], [get_attack("fgsm")], name="net", store=store)
        page = read(render(recorded.read(store)))
    headings = [attributes.get("id") for tag, attributes in page.elements if tag == "h2"]
    assert headings == ["bracket-h", "radii-h", "samples-h", "settings-h"]
    assert "\u2265" in page.text
    assert len([a for tag, a in page.elements if "data-index" in a]) == len(POINTS)


@pytest.mark.slow
def test_every_row_and_every_sample_is_there(small):
    html = render(small)
    page = read(html)
    shown = [a for tag, a in page.elements if tag == "li" and "strip" in a.get("class", "").split()]
    assert [a["data-index"] for a in shown] == ["0", "1", "2", "3", "4"]
    assert [a["data-states"] for a in shown[:3]] == [
        "certified@0.04 broken@0.08",
        "certified@0.04 certified@0.08",
        "certified@0.04 certified@0.08",
    ]
    assert all("misclassified" in a["data-states"] for a in shown[3:])
    rows = [a for tag, a in page.elements if tag == "tr" and "data-side" in a]
    assert len(rows) == len(small.rows)


@pytest.mark.slow
def test_pictures_certificates_and_smoothed_classifiers(digits):
    page = read(render(digits))
    alts = [image["alt"] for image in page.all("img")]
    assert "sample 3" in alts
    broken = [s for s in digits.samples if s.nearest is not None]
    assert broken
    assert sum("changed it" in alt for alt in alts) == len(broken)
    assert sum(alt.startswith("what was changed") for alt in alts) == len(broken)
    assert "Smoothed classifiers" in page.text
    assert "smoothed(gaussian, 0.25)" in page.text
    assert len(page.all("table")) == 3
    assert "The price of tightness" in page.text


def test_names_are_never_markup_nor_mathematics(small):
    seats = tuple(replace(seat, name=EVIL, key=EVIL) for seat in small.about.seats)
    rows = tuple(replace(row, name=EVIL, key=EVIL) if row.name in ("fgsm", "exact") else row for row in small.rows)
    facts = {"model": EVIL, "data": EVIL, "origin": EVIL, "seats": seats, "versions": {EVIL: EVIL}}
    html = render(replace(small, about=replace(small.about, **facts), rows=rows, command=EVIL, alarms=(EVIL,)))
    page = read(html)  # one script, and no handlers
    assert "alert(1)</script>" not in html
    assert "\u202e" not in html
    shown = "<script>alert(1)</script> $x$ {{ 7*7 }} & \"'\u00e9\u4e2d"
    assert page.text.count(shown) >= 10
    labels = [unescape(label) for label in re.findall(r"<text [^>]*>([^<]*)</text>", html)]
    assert sum(label.startswith(shown[:31]) for label in labels) >= 2  # in the drawings, letter by letter


def test_alarms_come_first(tmp_path):
    run = recorded_run(tmp_path / "s", needle(), dataset([[0.6, 0.4]]), [0.1], [Liar()], [Claims()])
    html = render(run)
    page = read(html)
    heads = [tag for tag, a in page.elements if tag == "section"]
    assert heads
    first = next(a for tag, a in page.elements if tag == "section")
    assert first["class"] == "alarms"
    assert "1 soundness alarm" in page.text
    assert "liar verifies sample 0 at eps 0.1, claims falsifies it" in page.text
    assert "No soundness alarm" not in page.text
    (strip,) = [a for tag, a in page.elements if tag == "li" and "strip" in a.get("class", "").split()]
    assert "disputed" in strip["data-states"]


@pytest.mark.slow
def test_what_is_not_known_is_said(small):
    page = read(render(replace(small, unknown=("the time of day",), faults=("row 3",))))
    assert "What this report does not know the time of day" in page.text
    assert "cannot be trusted was left out: row 3" in page.text


def test_nobody_who_could_run_leaves_a_page_too(small):
    refused = {"reasons": {"unsupported": 3}, "explanations": {"unsupported": "no softmax"}, "verified": 0}
    rows = tuple(replace(row, falsified=2, **refused) if row.name != "clean" else row for row in small.rows)
    page = read(render(replace(small, rows=rows)))
    assert "unsupported: no softmax" in page.text


FGSM = get_attack("fgsm")


@pytest.mark.parametrize(
    ("methods", "attacks", "points", "radii"),
    [
        pytest.param([], [FGSM], POINTS, [0.04, 0.08], id="attacks alone"),
        pytest.param([Exact()], [], POINTS, [0.04, 0.08], id="methods alone"),
        pytest.param([Exact()], [FGSM], POINTS, [0.0], id="eps 0"),
        pytest.param([Exact()], [FGSM], [[0.2, 0.6]], [0.04], id="all wrong"),
        slow([Exact()], [FGSM], [[0.7, 0.3]], [0.01], id="one sample"),
        slow([Broken("unsupported")], [FGSM], POINTS, [0.04], id="refused"),
        pytest.param([Broken("unsupported")], [], POINTS, [0.04], id="nobody ran"),
    ],
)
def test_whatever_was_asked_has_its_page(tmp_path, methods, attacks, points, radii):
    run = recorded_run(tmp_path / "s", identity(), dataset(points), radii, methods, attacks)
    assert "How robust is net ?" in read(render(run)).text


@pytest.mark.slow
def test_many_samples_stay_small_and_are_counted(digits, monkeypatch):
    monkeypatch.setattr(comparison_page, "STRIPS", 5)
    page = read(render(digits))
    assert "7 more of the 12 samples are in the store alone: this page shows 5." in page.text


@pytest.mark.slow
def test_five_hundred_colour_images_stay_below_five_megabytes(digits):
    broken = next(sample for sample in digits.samples if sample.nearest is not None)
    noise = torch.rand(500, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # the worst that PNG can meet
    samples = []
    for index, x in enumerate(noise):
        record = broken.nearest.record
        record = replace(record, result=replace(record.result, counterexample=x.flip(0)))
        said = tuple(replace(each, record=record) if each is broken.nearest else each for each in broken.said)
        samples.append(replace(broken, index=index, x=x, said=said))
    about = replace(digits.about, n=500)
    html = render(replace(digits, samples=tuple(samples), about=about))
    page = read(html)
    assert 2_000_000 < len(html.encode()) < 5_000_000
    with_pictures = len(page.all("img")) // 3
    assert 250 < with_pictures < 500
    assert f"{with_pictures} of the samples have their pictures here" in page.text
    assert len([a for tag, a in page.elements if tag == "li" and "strip" in a.get("class", "").split()]) == 500


def test_pictures_are_what_they_show():
    import io
    from base64 import b64decode

    import numpy as np
    from PIL import Image

    x = torch.tensor([[0.0, 1.0], [0.5, 2.0]])
    links = Album(0.0, 2.0).strip(x, x + torch.tensor([[0.5, -0.5], [0.0, 0.25]]))
    images = [np.asarray(Image.open(io.BytesIO(b64decode(link.partition(",")[2])))) for link in links]
    assert images[0].tolist() == [[0, 128], [64, 255]]
    assert images[1].tolist() == [[64, 64], [64, 255]]
    assert images[2][0, 0].tolist() == thumbnails.MORE.tolist()
    assert images[2][0, 1].tolist() == thumbnails.LESS.tolist()
    assert images[2][1, 0].tolist() == thumbnails.NONE.tolist()
    assert Album(0, 1).strip(torch.zeros(7), None) == []
    assert Image.open(io.BytesIO(b64decode(Album(0, 1).strip(torch.zeros(400, 200), None)[0][22:]))).size == (48, 96)


@pytest.mark.parametrize("dark", [False, True])
def test_letters_have_enough_contrast(dark):
    paper = colours.VARIABLES["paper"][dark]
    letters = [name for name in colours.VARIABLES if name.endswith("-text") or name in ("ink", "soft")]
    assert len(letters) == 12
    worst = min(colours.contrast(colours.VARIABLES[name][dark], paper) for name in letters)
    assert worst >= 4.5


@pytest.mark.slow
def test_drawings_follow_the_page_into_the_dark(small):
    html = render(small)
    drawings = "".join(re.findall(r"<svg .*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in drawings
    assert "var(--cool-0)" in drawings
    tags = "".join(re.findall(r"<[^>]*>", drawings))
    assert not set(re.findall(r"#[0-9a-f]{6}\b", tags)) - {"#b0b0b0"}  # every colour is one of the page's
