"""The report's page in a real browser: what it asks for, what keys do, what it looks like to a machine."""

import importlib.util
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

from trees import write_study  # noqa: E402

from reg_sweep.records import read_runs  # noqa: E402
from reg_sweep.report import write_report  # noqa: E402
from reg_sweep.report.figures.theme import THEMES  # noqa: E402

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """The page of a small tree with every status, several lambdas, weights, predictions, and a study."""
    path = Path(__file__).parents[2] / "benchmarks" / "make_runs.py"
    spec = importlib.util.spec_from_file_location("make_runs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_runs"] = module
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("browser")
    module.make_runs(root / "runs", 60, 4, 200, n_seeds=3, n_per_unfinished=12, with_weights=True)
    trials = [
        {
            "params": {"l1": run.config["l1"], "norm": run.config["norm"]["name"]},
            "state": "complete" if run.status == "complete" else "pruned",
            "values": [0.1 + 0.01 * n],
            "steps": [[1, 0.5]],
            "directory": str(run.path.relative_to(root / "runs")),
        }
        for n, run in enumerate(read_runs(root / "runs"))
    ]
    write_study(root / "runs", trials, kind="grid", importances={"l1": 0.7, "norm": 0.3})  # its trials are arms, too
    return write_report([root / "runs"], root / "report", progress=False).page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; its console messages and its requests are kept."""
    opened = []

    def open_it(viewport=DESKTOP, **options):
        page = browser.new_page(viewport=viewport, **options)
        opened.append(page)
        page.messages, page.requests = [], []
        page.on("console", lambda message: page.messages.append(message.text))
        page.on("pageerror", lambda error: page.messages.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address)
        return page

    yield open_it
    for page in opened:
        page.close()


def column(page, heading: str) -> tuple[object, list[str], list[str]]:
    """A heading's button, and the keys and texts of its column in the table of arms, from the top."""
    button = page.locator("#d1-table thead button", has_text=heading).first
    at = button.evaluate("b => b.closest('th').cellIndex")
    cells = page.locator(f"#d1-table tbody tr > :nth-child({at + 1})")
    return button, cells.evaluate_all("cs => cs.map(c => c.dataset.key ?? '')"), cells.all_inner_texts()


def test_the_page_is_silent_and_asks_for_nothing(open_page, address):
    page = open_page()
    page.locator(".legend button").first.click()
    page.wait_for_load_state("networkidle")
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]


def test_headings_sort_by_keyboard_up_and_down(open_page):
    page = open_page()
    button, *_ = column(page, "L1")
    button.focus()
    page.keyboard.press("Enter")
    _, keys, _ = column(page, "L1")
    assert [float(k) for k in keys] == sorted(map(float, keys))
    assert len(set(keys)) > 1
    assert page.locator("#d1-table th[aria-sort]").all_inner_texts() == ["L1"]
    assert page.locator("#d1-table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    _, keys, _ = column(page, "L1")
    assert [float(k) for k in keys] == sorted(map(float, keys), reverse=True)
    assert page.locator("#d1-table th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_cells_without_a_number_sort_last_both_ways(open_page):
    page = open_page()
    for _ in range(2):
        column(page, "Difference")[0].press("Enter")
        keys = column(page, "Difference")[1]
        assert keys[-1] == ""  # the baseline's
        assert all(keys[:-1])


def test_words_sort_as_words(open_page):
    page = open_page()
    column(page, "Norm")[0].press("Enter")
    norms = column(page, "Norm")[2]
    assert norms == sorted(norms)
    assert len(set(norms)) > 1


def test_a_row_stays_whole_when_sorted(open_page):
    page = open_page()

    def rows() -> set[str]:
        return set(page.locator("#d1-table tbody tr").all_inner_texts())

    before = rows()
    column(page, "Test loss")[0].press("Enter")
    assert rows() == before


def test_the_filter_leaves_rows_that_hold_every_word(open_page):
    page = open_page()
    page.get_by_label("Filter the arms").focus()
    page.keyboard.type("GBN l2")
    shown = page.locator("#d1-table tbody tr:visible")
    texts = [text.lower() for text in shown.all_inner_texts()]
    n = page.locator("#d1-table tbody tr").count()
    assert 0 < len(texts) < n
    assert all("gbn" in text and "l2" in text for text in texts)
    assert page.locator("[data-table='d1-table'] [role=status]").inner_text() == f"{len(texts)} of {n} shown"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert shown.count() == n


def test_the_filter_finds_no_word_across_two_cells(open_page):
    page = open_page()
    row = page.locator("#d1-table tbody tr").first
    row.evaluate("r => { r.cells[7].textContent = 'two running'; r.cells[8].textContent = 'bn'; }")
    page.get_by_label("Filter the arms").focus()
    page.keyboard.type("running")
    assert row.is_visible()
    page.keyboard.press("Control+A")
    page.keyboard.type("runningbn")
    assert not row.is_visible()
    assert page.locator("[data-table='d1-table'] [role=status]").inner_text().startswith("0 of")


def test_of_many_rows_the_first_are_shown_until_all_are_asked_for(open_page):
    page = open_page()
    rows = page.locator("#d1-table tbody tr")
    row = rows.first.evaluate("r => r.outerHTML")
    page.evaluate("html => document.querySelector('#d1-table tbody').innerHTML = html.repeat(500)", row)
    column(page, "L1")[0].press("Enter")
    assert page.locator("#d1-table tbody tr:visible").count() == 200
    status = page.locator("[data-table='d1-table'] [role=status]")
    assert status.inner_text() == "200 of 500 shown"
    page.get_by_role("button", name="Show all").press("Enter")
    assert page.locator("#d1-table tbody tr:visible").count() == 500
    assert status.inner_text() == "500 of 500 shown"


def test_the_legend_switches_an_arm_off_and_on_by_keyboard(open_page):
    page = open_page()
    button = page.locator(".legend button[data-arm='1']")
    marks, others = page.locator(".arm-1"), page.locator(".arm-2")
    assert marks.count() > 4
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert not any(mark.is_visible() for mark in marks.all())
    assert all(mark.is_visible() for mark in others.all())
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert all(mark.is_visible() for mark in marks.all())


def test_everything_that_can_be_used_is_reached_by_tab(open_page):
    page = open_page()
    selector = "a[href], button, input, summary, [tabindex='0']"
    usable = page.locator(selector).evaluate_all("es => es.filter(e => e.checkVisibility()).length")
    reached = set()
    for _ in range(usable + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"[...document.querySelectorAll({selector!r})].indexOf(document.activeElement)"))
    assert len(reached - {-1}) == usable


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_wrong(open_page, scheme, viewport):
    page = open_page(viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    unsure = [v for v in found.response["incomplete"] if v["id"] != "color-contrast"]
    assert unsure == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_only_tables_and_figures_scroll_sideways(open_page, width):
    page = open_page({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_is_shaded_where_it_goes_on_to_the_right(open_page, scheme):
    page = open_page(PHONE, color_scheme=scheme)
    table = page.locator(".scroll.tall").first
    page.evaluate("document.querySelectorAll('#d1-table tbody *').forEach(e => e.style.color = 'transparent')")

    def edge() -> np.ndarray:
        image = Image.open(io.BytesIO(table.screenshot())).convert("L")
        return np.asarray(image, float)[80:300, -8:-2].mean()

    shaded = edge()
    table.evaluate("t => t.scrollLeft = t.scrollWidth")
    assert abs(shaded - edge()) > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_take_the_colours_of_the_theme(open_page, scheme):
    page = open_page(color_scheme=scheme)
    drawn = page.locator(".arm-3 [style*='--arm3']").first
    stroke = drawn.evaluate("mark => getComputedStyle(mark).stroke + getComputedStyle(mark).fill")
    red, green, blue = bytes.fromhex(THEMES[scheme]["arm3"].removeprefix("#"))
    assert f"rgb({red}, {green}, {blue})" in stroke


def test_without_scripts_everything_is_there_but_the_controls(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#d1-table tbody tr").first.is_visible()
    assert page.locator("svg.figure").first.is_visible()
    assert not page.get_by_label("Filter the arms").is_visible()


def test_paper_gets_what_the_screen_folds_away(open_page):
    page = open_page()
    folded = page.locator("details:not([open])").count()
    assert folded > 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"  # ink stays dark on paper
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded
