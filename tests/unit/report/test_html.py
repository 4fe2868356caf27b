"""Report and leaderboard in a real browser: light and dark, phone and desk, on paper; accessible by axe."""

import pytest

from llmft.report import leaderboard
from llmft.report.html import write_report
from llmft.report.learning_curve import write_learning_curves
from tests.support.browser import browser, needs_browser, violations  # noqa: F401  (a fixture)
from tests.support.report_runs import EVIL, SETTINGS, make_run
from tests.unit.report.leaderboard.boards import add_study
from tests.unit.report.test_learning_curve import LOSSES
from tests.unit.report.test_learning_curve import runs as learning_runs

pytestmark = needs_browser
LONG = "pneumonoultramicroscopicsilicovolcanoconiosis" * 4


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run, one that was halted and whose texts are awkward, and a leaderboard of five, with a search; and two learning curves."""
    folder = tmp_path_factory.mktemp("pages")
    for seed in range(2):
        make_run(folder / f"a{seed}", seed=seed, model="good", loss=1.0 + seed / 50, test={"chrf": 50.0}, words="words")
        make_run(folder / f"b{seed}", seed=seed, model="bad", loss=1.5 + seed / 50, words="words")
    pytest.importorskip("optuna", reason="optuna is not installed")
    add_study(folder, 8)
    make_run(folder / "halted", words=f"{EVIL} {LONG}", status="halted")
    leaderboard.write_leaderboard(folder)
    write_learning_curves(folder, [*learning_runs(LOSSES), *learning_runs(LOSSES, model=LONG, spread=0.3)])
    made = {name: folder / f"{name}.html" for name in ("leaderboard", "learning_curve")}
    return made | {name: write_report(folder / name, SETTINGS) for name in ("a0", "halted")}


@pytest.fixture
def opened(browser, pages):  # noqa: F811
    """A page from disk: ``page = opened("a0", "dark", 375)``; what it asks the network for is in ``page.asked``."""
    contexts = []

    def make(name, scheme, width):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True)
        contexts.append(context)
        made = context.new_page()
        made.asked = []
        made.on("request", lambda request: made.asked.append(request.url))
        made.goto(pages[name].as_uri())
        return made

    yield make
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["a0", "halted", "leaderboard", "learning_curve"])
def test_a_page_is_accessible_and_fits(name, scheme, width, opened, pages):
    found = opened(name, scheme, width)
    assert violations(found) == {}
    found.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert violations(found) == {}
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    assert found.asked == [pages[name].as_uri()]
    ground = found.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}[scheme]


def test_a_plain_run_is_short_and_its_summary_fits_a_screen(opened):
    found = opened("a0", "light", 1280)
    assert found.evaluate("document.documentElement.scrollHeight") <= 6000
    ends = found.evaluate("['.verdict', '.summary'].map(s => document.querySelector(s).getBoundingClientRect().bottom)")
    assert ends[0] < ends[1] <= 1000
    assert found.locator(".summary figure").count() == 1
    assert found.locator(".summary .row").count() == 4  # as `report.examples` says


def test_closed_parts_show_the_first_lines_of_a_row_and_paper_shows_all(opened):
    found = opened("a0", "light", 1280)
    answer = found.locator(".row .text").first
    assert answer.is_visible()
    assert not found.locator("pre", has_text="objective:").is_visible()  # the config
    assert not found.locator(".row .more").first.is_visible()
    found.emulate_media(media="print")
    assert found.locator("pre", has_text="objective:").is_visible()
    assert found.locator(".row .more").first.is_visible()


@pytest.mark.parametrize("name", ["a0", "halted", "leaderboard"])
def test_a_page_on_paper_is_dark_on_white_and_is_not_cut_off(name, opened):
    found = opened(name, "dark", 720)  # what A4 has between its margins
    found.emulate_media(media="print")
    assert found.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert found.evaluate("document.documentElement.scrollWidth") <= 720
    assert violations(found) == {}


def test_axe_sees_what_is_wrong(opened):
    found = opened("a0", "light", 375)
    found.evaluate("document.querySelector('h1').style.color = '#eee'; document.documentElement.lang = ''")
    assert {"color-contrast", "html-has-lang"} <= set(violations(found))
