"""The report's page in a real browser: what it asks for, what keys do, what it looks like to a machine."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from once import made_once
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

from pages import report  # noqa: E402
from reference_trees import write_studies  # noqa: E402
from scripts import script  # noqa: E402
from trees import write_run, write_study  # noqa: E402

from reg_sweep.report import write_report  # noqa: E402
from reg_sweep.report.figures.theme import THEMES  # noqa: E402
from reg_sweep.runs.reading import read_runs  # noqa: E402

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = [("light", DESKTOP), ("dark", PHONE)]
A4 = {"width": 688, "height": 1000}  # 210 mm less the margins


# What a test may change of the page: its marks, its fields, its address. What is hidden may say what it said last.
STATE = """() => {
    const copy = document.documentElement.cloneNode(true);
    copy.querySelectorAll('.readout[hidden], .cursor[visibility=hidden]').forEach(e => e.remove());
    copy.querySelectorAll('[class=""]').forEach(e => e.removeAttribute('class'));
    const fields = [...document.querySelectorAll('input')].map(i => i.value + i.checked);
    const shown = document.querySelectorAll(":popover-open").length;
    return [copy.outerHTML, location.hash, scrollX, shown, ...fields].join();
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    return made_once(tmp_path_factory, "browser", lambda: written(tmp_path_factory.mktemp("browser")))


def written(root: Path) -> str:
    """The page of a small tree with every status, several lambdas, weights, predictions, and a study."""
    script("benchmarks/make_runs.py").make_runs(
        root / "runs", 60, 4, 200, n_seeds=3, n_per_unfinished=12, with_weights=True
    )
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


@pytest.fixture(scope="module")
def _kept() -> list:
    """The page that tests share, and its state when it was opened."""
    return []


@pytest.fixture
def page(browser, address, _kept):
    """The page on a desktop: the one of the test before, unless that left it otherwise than it found it.

    To open it takes two seconds.
    """
    if not _kept:
        opened = browser.new_page(viewport=DESKTOP)
        opened.goto(address)
        _kept[:] = opened, opened.evaluate(STATE)
    page, before = _kept
    yield page
    page.set_viewport_size(DESKTOP)
    page.emulate_media(media="screen", color_scheme="light")
    page.mouse.move(0, 0)
    if page.evaluate(STATE) != before:
        page.close()
        _kept.clear()


@pytest.fixture
def open_page(browser, address):
    """Opens the page for a test alone; its console messages and its requests are kept."""
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


def all_columns(page) -> None:
    page.get_by_role("button", name="All columns").click()


def column(page, heading: str) -> tuple[object, list[str], list[str]]:
    """A heading's button, and the keys and texts of its column in the table of arms, from the top."""
    button = page.locator("#d1-table thead button", has_text=heading).first
    at = button.evaluate("b => b.closest('th').cellIndex")
    cells = page.locator(f"#d1-table tbody tr > :nth-child({at + 1})")
    return button, cells.evaluate_all("cs => cs.map(c => c.dataset.key ?? '')"), cells.all_inner_texts()


def status(page) -> str:
    """How many rows the table of arms shows."""
    return page.locator("[data-table='d1-table'] [role=status]").inner_text()


def test_the_page_is_silent_and_asks_for_nothing(open_page, address):
    page = open_page()
    page.locator(".legend button").first.click()
    page.wait_for_load_state("networkidle")
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]


def test_headings_sort_whole_rows_by_keyboard_up_and_down_numbers_words_and_gaps(page):
    all_columns(page)
    before = set(page.locator("#d1-table tbody tr").all_inner_texts())
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        column(page, "L1")[0].press(key)
        keys = [float(k) for k in column(page, "L1")[1]]
        assert keys == sorted(keys, reverse=order == "descending")
        assert len(set(keys)) > 1
        (sorted_by,) = page.locator("#d1-table th[aria-sort]").all()
        assert (sorted_by.inner_text(), sorted_by.get_attribute("aria-sort")) == ("L1", order)
    for _ in range(2):
        column(page, "Difference")[0].press("Enter")
        *keys, last = column(page, "Difference")[1]
        assert last == ""  # the baseline's
        assert all(keys)
    column(page, "Norm")[0].press("Enter")
    norms = column(page, "Norm")[2]
    assert norms == sorted(norms)
    assert len(set(norms)) > 1
    assert set(page.locator("#d1-table tbody tr").all_inner_texts()) == before


def test_the_filter_leaves_rows_that_hold_every_word_as_a_whole_name_or_the_beginning_of_one(page):
    rows = page.locator("#d1-table tbody tr")

    def norms(words: str) -> list[str]:
        """The norms of the rows that are left."""
        page.get_by_label("Filter the arms").fill(words)
        return page.locator("#d1-table tbody tr:not([hidden]) > .text.more:nth-of-type(8)").all_text_contents()

    assert set(norms("bn")) == {"bn"}  # no gbn
    assert set(norms("gbn")) == set(norms("gb")) == {"gbn"}
    assert norms("nobody") == []
    n_left = len(norms("GBN l2"))
    texts = [text.lower() for text in page.locator("#d1-table tbody tr:visible").all_inner_texts()]
    assert 0 < len(texts) == n_left < rows.count()
    assert all("gbn" in text and "l2" in text for text in texts)
    assert status(page) == f"{n_left} of {rows.count()} shown"
    page.get_by_label("Filter the arms").press("Control+A")
    page.keyboard.press("Delete")
    assert page.locator("#d1-table tbody tr:visible").count() == rows.count()


def test_the_filter_finds_no_word_across_two_cells(open_page):
    page = open_page()  # the page reads its rows at the first filter
    row = page.locator("#d1-table tbody tr").first
    row.evaluate("r => { r.cells[7].textContent = 'two running'; r.cells[8].textContent = 'bn'; }")
    page.get_by_label("Filter the arms").focus()
    page.keyboard.type("running")
    assert row.is_visible()
    page.keyboard.press("Control+A")
    page.keyboard.type("runningbn")
    assert not row.is_visible()
    assert status(page).startswith("0 of")


def test_of_many_rows_the_first_are_shown_until_all_are_asked_for(page):
    all_columns(page)
    row = page.locator("#d1-table tbody tr").first.evaluate("r => r.outerHTML")
    page.evaluate("html => document.querySelector('#d1-table tbody').innerHTML = html.repeat(500)", row)
    column(page, "L1")[0].press("Enter")
    for n in (200, 500):
        assert page.locator("#d1-table tbody tr:visible").count() == n
        assert status(page) == f"{n} of 500 shown"
        if n == 200:
            page.get_by_role("button", name="Show all").press("Enter")


def test_the_columns_that_matter_fit_a_screen_of_1280_and_a_switch_shows_the_rest(page):
    table = page.locator(".scroll.tall").first
    assert table.evaluate("t => t.scrollWidth - t.clientWidth") <= 0
    assert not page.locator("#d1-table .more, .of-more").first.is_visible()
    assert page.locator(".of-more:visible").count() == 0  # nor is said what they hold
    all_columns(page)
    assert page.locator(".of-more:visible").count() == 2
    assert all(cell.is_visible() for cell in page.locator("#d1-table thead th").all())
    assert page.get_by_role("button", name="All columns").get_attribute("aria-pressed") == "true"
    all_columns(page)
    assert not page.locator("#d1-table .more").first.is_visible()


# ---- the forest plot, the curves, and the names that link them


def chart(page, n: int = 0):
    return page.locator(".chart").nth(n)


def at_share(page, share: float, n: int = 0) -> tuple[float, float]:
    """A place on a chart, at a share of its width."""
    chart(page, n).scroll_into_view_if_needed()
    box = chart(page, n).locator("svg").bounding_box()
    return box["x"] + share * box["width"], box["y"] + 0.4 * box["height"]


@pytest.mark.parametrize("where", [".forest .name", "#d1-table .name", ".legend button"])
def test_an_arm_is_shown_alone_by_its_name_anywhere_by_click_and_by_keyboard(page, where):
    button = page.locator(f"{where}[data-arm='1']").first
    button.click()
    places = page.locator("[data-arm='1'][aria-pressed]")
    assert places.count() >= 3  # forest, table, legend
    assert all(place.get_attribute("aria-pressed") == "true" for place in places.all())
    keys = chart(page).locator(".line:not(.rest)").evaluate_all("ls => ls.map(l => l.dataset.key)")
    assert keys == ["1"]
    faded = page.locator(".arm.faded").evaluate_all("ms => ms.map(m => m.classList.contains('arm-1'))")
    assert faded
    assert not any(faded)
    button.press("Enter")
    assert page.locator(".faded").count() == 0
    assert page.locator("[data-of] [aria-pressed='true']").count() == 0


@pytest.mark.parametrize("where", [".choices button", "#d1-table .name"])
def test_an_arms_mistakes_are_shown_alone_by_its_name_with_its_curves(page, where):
    mistakes = page.locator("section[aria-labelledby='d1-mistakes'] details")
    n = mistakes.count()
    page.locator(f"{where}[data-arm='1']").click()
    assert mistakes.locator("visible=true >> ul.tiles").count() == 1
    assert mistakes.locator("visible=true").first.get_attribute("data-arm") == "1"
    assert chart(page).locator(".line:not(.rest)").evaluate_all("ls => ls.map(l => l.dataset.key)") == ["1"]
    page.locator("section[aria-labelledby='d1-mistakes'] .everyone").click()
    assert page.locator("section[aria-labelledby='d1-mistakes'] details:visible").count() == n


def test_of_many_arms_the_baseline_and_the_best_are_drawn_in_full_and_the_rest_are_grey_without_a_band(page):
    data = page.locator("#d1-numbers").evaluate("d => JSON.parse(d.textContent)")
    assert len(data["arms"]) > 8
    full = chart(page).locator(".line:not(.rest)").evaluate_all("ls => ls.map(l => Number(l.dataset.key))")
    assert set(full) == {data["base"], data["best"]}
    bands = chart(page).locator(".band").evaluate_all("bs => bs.map(b => Number(b.dataset.key))")
    assert set(bands) <= {data["base"], data["best"]}
    assert chart(page).locator(".line.rest").count() == len(data["arms"]) - 2


def test_the_pointer_tells_the_values_and_their_range_at_an_epoch(page):
    page.mouse.move(*at_share(page, 0.999))
    told = chart(page).locator(".readout")
    data = page.locator("#d1-numbers").evaluate("d => JSON.parse(d.textContent)")
    assert told.inner_text().startswith(f"Epoch {data['epochs'][-1]}")
    best = next(n for n, arm in enumerate(data["arms"]) if arm["key"] == data["best"])
    scale, steps, below, above = data["charts"][0]["values"][best]
    mean, low, high = (100 * v / scale for v in (sum(steps), sum(steps) - below[-1], sum(steps) + above[-1]))
    assert data["arms"][best]["label"] in told.inner_text()
    assert f"{mean:.2f} ({low:.2f} to {high:.2f})" in told.inner_text()
    page.mouse.move(2, 2)
    assert not told.is_visible()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.2, 0.93, [0.2, 0.3, 0.5, 0.7]), (0.3, 2.6, [0.5, 1, 2]), (1e-3, 40, [0.001, 0.01, 0.1, 1, 10])],
)
def test_a_log_axis_has_at_least_three_ticks(page, low, high, ticks):
    assert page.evaluate(f"logTicks({low}, {high})") == pytest.approx(ticks)
    assert len(page.evaluate(f"logTicks({low}, {1.4 * low})")) > 2


def test_dragging_enlarges_epochs_and_escape_shows_all(page):
    ticks = "[...document.querySelectorAll('.chart svg')][0].querySelectorAll('text[text-anchor=middle]')"
    epochs = f"[...{ticks}].map(t => t.textContent).filter(t => t !== 'epoch')"
    whole = page.evaluate(epochs)
    page.mouse.move(*at_share(page, 0.5))
    page.mouse.down()
    page.mouse.move(*at_share(page, 0.98), steps=3)
    page.mouse.up()
    assert int(page.evaluate(epochs)[0]) > int(whole[0])
    chart(page).focus()
    page.keyboard.press("Escape")
    assert page.evaluate(epochs) == whole


def test_filters_and_enlarged_epochs_are_kept_in_the_address_and_move_all_charts(page):
    page.get_by_label("Filter the arms").fill("norm=gbn l1=0")
    settings = "rows => rows.map(r => r.dataset.words.split(' ').slice(0, 3).sort().join(' '))"
    left = page.locator("#d1-table tbody tr:not([hidden])").evaluate_all(settings)
    assert left
    assert all("norm=gbn" in words and "l1=0.0" in words for words in left)
    chart(page).focus()
    page.keyboard.press("+")
    ends = "charts => charts.map(c => c.querySelector('text[text-anchor=middle]').textContent)"
    shown = page.locator("[data-charts=d1-numbers] .chart").evaluate_all(ends)
    assert len(set(shown)) == 1
    assert shown[0] != "1"
    assert "d1-table=norm%3Dgbn%20l1%3D0" in page.url
    page.reload()
    assert page.get_by_label("Filter the arms").input_value() == "norm=gbn l1=0"
    assert page.locator("[data-charts=d1-numbers] .chart").evaluate_all(ends) == shown


def test_keys_move_along_the_epochs_and_enlarge_them(page):
    chart(page).focus()
    page.keyboard.press("ArrowLeft")
    told = chart(page).locator(".readout")
    assert told.inner_text().startswith("Epoch 4")
    page.keyboard.press("ArrowLeft")
    assert told.inner_text().startswith("Epoch 3")
    page.keyboard.press("+")
    assert chart(page).get_by_role("button", name="Show all epochs").is_visible()
    chart(page).get_by_role("button", name="Show all epochs").press("Enter")
    assert not chart(page).get_by_role("button", name="Show all epochs").is_visible()


def test_what_the_axis_leaves_out_is_said_and_can_be_seen(page):
    page.locator(".cut", has_text="Axis cut").first.get_by_role("button").click()
    assert "Axis cut" not in chart(page).locator(".cut").inner_text()
    page.get_by_role("button", name="Show the later epochs larger").click()
    assert "Axis cut" in chart(page).locator(".cut").inner_text()


def test_a_metric_stands_beside_its_difference_to_the_baseline_on_a_wide_screen(page):
    page.set_viewport_size({"width": 1920, "height": 900})
    tops = [figure.bounding_box()["y"] for figure in page.locator("[data-charts] figure").all()]
    assert tops[::2] == tops[1::2]


def test_bands_and_differences_can_be_switched_off_and_on(page):
    bands, difference = page.locator(".chart .band"), page.locator("figure.difference").first
    for is_on in (True, False):
        assert (bands.count() > 0, difference.is_visible()) == (is_on, is_on)
        for label in ("Bands over seeds", "Show differences from the baseline"):
            page.get_by_label(label).press("Space")
    assert (bands.count() > 0, difference.is_visible()) == (True, True)


def test_differences_fit_their_axis_when_the_baseline_alone_is_chosen(page):
    base = page.evaluate("JSON.parse(document.getElementById('d1-numbers').textContent).base")
    page.locator(f".legend button[data-arm='{base}']").first.click()
    ticks = page.locator("figure.difference .chart svg").first.locator("text[text-anchor=end]").all_inner_texts()
    assert "+100" not in ticks
    page.get_by_role("button", name="All arms again").first.click()


def test_a_technical_word_is_explained_on_demand(page):
    word = page.locator("#word-moderated")
    assert not word.is_visible()
    page.get_by_role("button", name="moderated").press("Enter")
    assert "steadier" in word.inner_text()
    page.keyboard.press("Escape")
    assert not word.is_visible()


def test_the_forest_plots_words_are_the_tables(page):
    for row in page.locator(".forest li[data-arm]").all():
        key = row.get_attribute("data-arm")
        cells = page.locator(f"#d1-table tr[data-arm='{key}']")
        assert row.locator(".who .sub").inner_text() in cells.locator(".verdict-word").inner_text()
        assert row.locator(".says b").first.inner_text() in cells.inner_text()


@pytest.mark.parametrize("says", ["<b>+27.53</b> (+10.10 to +44.96)", "<b>+0.00</b> (no spread over seeds)"])
def test_wide_numbers_of_the_forest_plot_keep_out_of_the_next_plot(page, says):
    cell = page.locator(".forest li[data-arm] .says").first
    before = cell.inner_html()
    fits = "(cell, says) => { cell.innerHTML = says; return cell.scrollWidth <= cell.clientWidth }"
    assert cell.evaluate(fits, says)
    assert cell.evaluate(fits, before)


@pytest.mark.parametrize("row", [".forest li[data-arm] .who", "#d1-table tbody th"])
def test_a_label_of_two_lines_stands_right_of_its_dot(page, row):
    page.set_viewport_size(PHONE)
    name = page.locator(row).first.locator(".name")
    whole = name.inner_text()
    name.evaluate("name => { name.textContent = 'a long name '.repeat(9) }")
    dot, lines = page.locator(row).first.evaluate(
        """row => [row.querySelector('.swatch').getBoundingClientRect().right,
                   [...row.querySelector('.name').getClientRects()].map(line => line.left)]"""
    )
    name.evaluate("(name, whole) => { name.textContent = whole }", whole)
    assert len(lines) > 1
    assert min(lines) > dot


def heads_stand_above_plots(page) -> bool:
    """Whether each heading of the forest plot begins where its plot does."""
    starts = "es => es.map(e => Math.round(e.getBoundingClientRect().left))"
    heads, plots = (page.locator(f".forest {of}").evaluate_all(starts) for of in (".head .what", ".axis .plot"))
    return heads == plots


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_each_heading_of_the_forest_plot_stands_above_its_plot(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert heads_stand_above_plots(page)


def test_everything_that_can_be_used_is_reached_by_tab(open_page):
    page = open_page()
    selector = "a[href], button, input, summary, [tabindex='0']"
    usable = page.locator(selector).evaluate_all("es => es.filter(e => e.checkVisibility()).length")
    reached = set()
    for _ in range(usable + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"[...document.querySelectorAll({selector!r})].indexOf(document.activeElement)"))
    assert len(reached - {-1}) == usable


def assert_accessible(page, **options) -> None:
    """That axe finds nothing wrong, with all that can be folded unfolded."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    # What passes is told in a word, which is ten times as fast.
    found = axe.Axe().run(page, options={"resultTypes": ["violations", "incomplete"], **options})
    assert found.violations_count == 0, found.generate_report()
    assert [v for v in found.response["incomplete"] if v["id"] != "color-contrast"] == []


@pytest.mark.parametrize(("scheme", "viewport"), LOOKS, ids=["light", "dark phone"])
def test_axe_finds_nothing_wrong(open_page, scheme, viewport):
    assert_accessible(open_page(viewport, color_scheme=scheme))


def tree(root: Path, kind: str) -> Path:
    """Runs of arms, or searches for one objective and two, with what confirms them."""
    if kind == "one run":
        write_run(root)
    elif kind == "studies":
        write_studies(root)
    else:
        script("benchmarks/make_runs.py").make_runs(root, int(kind.split()[0]), 3, 50, n_seeds=3)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one run", "18 runs", "180 runs", "studies"])
def test_axe_finds_nothing_wrong_on_a_page_of_any_size_and_kind(browser, tmp_path, kind):
    report(tree(tmp_path / "runs", kind), out=tmp_path / "report")  # blank pictures: others see them drawn
    page = browser.new_page(viewport=DESKTOP)
    page.goto((tmp_path / "report" / "index.html").as_uri())
    assert_accessible(page, rules={"color-contrast": {"enabled": kind != "180 runs"}})
    page.close()


def test_only_tables_and_figures_scroll_sideways(page):
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_table_is_shaded_where_it_goes_on_to_the_right(open_page):
    page = open_page(PHONE)
    table = page.locator(".scroll.tall").first
    page.evaluate("document.querySelectorAll('#d1-table tbody *').forEach(e => e.style.color = 'transparent')")

    def edge() -> np.ndarray:
        image = Image.open(io.BytesIO(table.screenshot())).convert("L")
        return np.asarray(image, float)[80:300, -8:-2].mean()

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        table.evaluate("t => t.scrollLeft = 0")
        shaded = edge()
        table.evaluate("t => t.scrollLeft = t.scrollWidth")
        assert abs(shaded - edge()) > 10, scheme


def test_figures_take_the_colours_of_the_theme(page):
    drawn = page.locator(".arm-3 [style*='--arm3']").first
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        stroke = drawn.evaluate("mark => getComputedStyle(mark).stroke + getComputedStyle(mark).fill")
        red, green, blue = bytes.fromhex(THEMES[scheme]["arm3"].removeprefix("#"))
        assert f"rgb({red}, {green}, {blue})" in stroke


def test_without_scripts_everything_is_there_but_the_controls(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#d1-table tbody tr").first.is_visible()
    assert page.locator("svg.figure").first.is_visible()
    assert page.locator(".forest svg[role='img']").first.is_visible()
    assert page.locator("#d1-table .more").first.is_visible()
    assert not page.get_by_label("Filter the arms").is_visible()
    assert not page.get_by_text("Bands over seeds").is_visible()
    page.get_by_role("button", name="moderated").press("Enter")
    assert "steadier" in page.locator("#word-moderated").inner_text()


INK = "rgb(27, 31, 36)"  # stays dark on paper


def printed(page, **media) -> None:
    """The page as it is printed."""
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", **media)
    page.wait_for_timeout(100)


def test_paper_gets_what_the_screen_folds_away(page):
    folded = page.locator("details:not([open])").count()
    assert folded > 0
    printed(page, color_scheme="dark")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == INK
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded


def test_on_a4_no_figure_and_no_table_is_cut(page):
    page.set_viewport_size(A4)
    printed(page)
    wide = "[...document.querySelectorAll('figure, figure svg, table, .forest, .legend')]"
    cut = f"{wide}.filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.evaluate(f"{cut}.map(e => e.outerHTML.slice(0, 80))") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= A4["width"]
    assert page.locator(".more:visible, .of-more:visible, .chart-switches:visible").count() == 0
    assert heads_stand_above_plots(page)
    assert page.locator("figure").first.evaluate("f => getComputedStyle(f).breakInside") == "avoid"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")


# ---- other programs' runs


@pytest.fixture(scope="module", params=["a CSV", "TensorBoard"])
def strangers_page(request, browser, tmp_path_factory):
    """The page of a table with a grid, a failed run and markup in a name; or of TensorBoard's events."""
    root = tmp_path_factory.mktemp("strangers")
    source = root / "results.csv"
    if request.param == "TensorBoard":
        source = root / "tensorboard"
        shutil.copytree(Path(__file__).parents[1] / "readers" / "data" / "tensorboard", source)
    else:
        rows = [
            f"{method},{wd},{seed},{epoch},{0.5 + gain + wd + 0.013 * (seed * epoch % 5)},{1.5 - gain - 0.1 * epoch}"
            for method, gain in (("<b>a-method-with-a-long-name</b>", 0), ("new", 0.2), ("another", 0.1))
            for wd in (0, 0.01, 0.1)
            for seed in (1, 2, 3)
            for epoch in (1, 2, 3)
        ]
        lost = "new,0.1,4,1,,"
        source.write_text("\n".join(["method,wd,seed,epoch,val_acc,val_loss", *rows, lost]))
    page = browser.new_page()
    page.goto(write_report([source], root / "report", progress=False).page.as_uri())
    yield page
    page.close()


def test_the_page_of_other_programs_runs_is_whole_on_paper(strangers_page):
    strangers_page.set_viewport_size(A4)
    strangers_page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    printed(strangers_page, color_scheme="dark")
    assert strangers_page.evaluate("getComputedStyle(document.body).color") == INK
    assert strangers_page.evaluate("document.documentElement.scrollWidth") <= A4["width"]
    assert strangers_page.locator("details:not([open])").count() == 0


@pytest.mark.parametrize(("scheme", "viewport"), LOOKS, ids=["light", "dark phone"])
def test_axe_finds_nothing_wrong_on_the_page_of_other_programs_runs(strangers_page, scheme, viewport):
    strangers_page.set_viewport_size(viewport)
    strangers_page.emulate_media(media="screen", color_scheme=scheme)
    assert_accessible(strangers_page)
    assert strangers_page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
