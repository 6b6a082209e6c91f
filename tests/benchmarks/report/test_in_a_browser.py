"""The pages in a browser, where Chromium and Playwright are at hand: controls work, nothing is loaded or complained of,
and nothing is wider than the screen."""

from __future__ import annotations

import shutil

import pytest

from assay.attacks import get_attack
from assay.benchmarks.harness import instances, suite
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.records import recorded
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.report import comparison_page, instances_page, instances_run
from assay.benchmarks.report.competition import Peers
from assay.models import data as datasets
from assay.models import zoo
from assay.verify.registry import get_verifier
from tests.benchmarks import instance_files

# What is written with less contrast than 4.5 (WCAG 2.2), as the browser has it.
FAINT = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
  };
  const written = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => !["SCRIPT", "STYLE"].includes(element.tagName))
    .filter((element) => element.checkVisibility() && written(element))
    .filter((element) => {
      const style = getComputedStyle(element);
      const ends = [light(numbers(element.closest("svg") ? style.fill : style.color)), light(paper(element))];
      return (Math.max(...ends) + 0.05) / (Math.min(...ends) + 0.05) < 4.5;
    })
    .map((element) => element.textContent.trim());
}"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def comparison(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with Store(folder / "s") as store:
        store.begin("assay compare --with-a-long-option " + "x" * 300, "net", "digits")
        methods = [get_verifier(text) for text in ("ibp", "crown")]
        samples = datasets.load("digits").take(8)
        attack = get_attack("pgd(steps=20,restarts=2,random_start=true,loss=margin)")
        compare(zoo.load("digits-mlp-pgd"), samples, [0.02, 0.1], methods, [attack], name="m" * 200, store=store)
        (folder / "page.html").write_text(comparison_page.render(recorded.read(store)))
    return folder / "page.html"


@pytest.fixture(scope="module")
def many(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    with Store(folder / "s") as store:
        store.begin("assay compare", "net", "digits")
        samples = datasets.load("digits").take(30)
        compare(zoo.load("digits-mlp-pgd"), samples, [0.02], [get_verifier("ibp")], [], name="net", store=store)
        (folder / "page.html").write_text(comparison_page.render(recorded.read(store)))
    return folder / "page.html"


@pytest.fixture(scope="module")
def run(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    instance_files.suite(folder)
    with Store(folder / "s") as store:
        store.begin("assay bench", "auto", str(folder))
        outcome = suite.run(instances.find(folder), "auto", store)
        instances_run.keep(store, "auto", suite.Limits(), outcome, Peers())
        (folder / "page.html").write_text(instances_page.render(instances_run.read(store)))
    return folder / "page.html"


@pytest.fixture
def open_page(browser):
    """A function that opens a page, and fails afterwards if anything was asked for or complained of."""
    noise, contexts = [], []

    def opened(path, width=1024, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda request: noise.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not noise


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1600])
@pytest.mark.parametrize("which", ["comparison", "run"])
def test_the_page_fits_every_screen(open_page, request, which, width, scheme):
    page = open_page(request.getfixturevalue(which), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    shown = page.evaluate("[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility()).length")
    assert shown == page.evaluate("document.querySelectorAll('figure svg').length") / 2
    assert page.evaluate(FAINT) == []
    bright = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert bright == (scheme == "light")


def test_samples_are_searched_filtered_and_ordered(open_page, comparison):
    page = open_page(comparison)

    def shown():
        script = "[...document.querySelectorAll('.strip')].filter(s => !s.hidden).map(s => Number(s.dataset.index))"
        return page.evaluate(script)

    assert len(shown()) == 8
    page.get_by_label("Order").select_option("index")
    assert shown() == list(range(8))
    page.get_by_label("Search").first.fill("sample 3")
    assert shown() == [3]
    assert page.get_by_role("status").first.inner_text() == "1 of 8 samples"
    page.get_by_label("Search").first.fill("")
    page.get_by_label("Show").select_option("misclassified")
    wrong = shown()
    page.get_by_label("Show").select_option("certified@0.02")
    assert not set(wrong) & set(shown())
    assert shown()


def test_rows_are_sorted_and_filtered_by_keyboard(open_page, comparison):
    page = open_page(comparison)
    column = "[...document.querySelectorAll('#rows tbody tr')].filter(r => !r.hidden).map(r => r.cells[3].innerText)"
    heading = page.locator("#rows thead th", has_text="accuracy")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = [float(text.strip("\u2264\u2265 %")) for text in page.evaluate(column)]
    assert rising == sorted(rising)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    page.get_by_label("Side").select_option("method")
    assert all(text.startswith("\u2265") for text in page.evaluate(column))


def test_the_keyboard_reaches_the_results_first(open_page, comparison):
    page = open_page(comparison)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_stages_of_an_instance_unfold(open_page, run):
    page = open_page(run)
    detail = page.locator("#rows details").first
    assert not detail.locator("li").first.is_visible()
    detail.locator("summary").click()
    assert detail.locator("li").first.is_visible()


def test_without_scripts_everything_is_shown(browser, comparison):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(comparison.as_uri())
    assert page.locator(".strip").count() == 8
    assert page.locator(".strip").last.is_visible()
    assert not page.locator(".controls").first.is_visible()
    context.close()


def test_a_long_list_unfolds_and_is_printed_whole(open_page, many):
    page = open_page(many)
    shown = "[...document.querySelectorAll('.strip')].filter(s => s.checkVisibility()).length"
    button = page.get_by_role("button", name="Show all 30")
    assert page.evaluate(shown) == 24
    page.emulate_media(media="print")
    assert page.evaluate(shown) == 30
    assert not page.get_by_label("Search").first.is_visible()
    page.emulate_media(media="screen")
    page.get_by_label("Search").first.fill("sample 29")
    assert page.evaluate(shown) == 1
    assert not button.is_visible()
    page.get_by_label("Search").first.fill("")
    button.press("Enter")
    assert page.evaluate(shown) == 30
    assert page.evaluate("[...document.querySelectorAll('.strip')].indexOf(document.activeElement)") == 24
