"""Stored script in rows, answers, names and reasons never runs: report and leaderboard, opened in a real browser."""

import json
import re

import pytest

from llmft.report import leaderboard
from llmft.report.html import write_report
from tests.support.browser import browser, needs_browser  # noqa: F401 (a fixture)
from tests.support.report_runs import SETTINGS, make_run

pytestmark = needs_browser
SCRIPTS = (
    "<script>window.ran=1</script><img src=x onerror='window.ran=1'><svg onload=window.ran=1></svg>"
    '"><iframe srcdoc="<script>parent.ran=1</script>"></iframe><a href="javascript:window.ran=1">x</a>'
    "</title></style></svg><script>window.ran=1</script><!--<base href=//x>-->{{ 7*7 }}&lt;script&gt;window.ran=1&lt;/script&gt;"
)
POLICY = re.compile(r"<meta[^>]*Content-Security-Policy[^>]*>", re.IGNORECASE)


@pytest.mark.parametrize("policy", [True, False])
def test_stored_script_does_not_run_in_any_page(policy, browser, tmp_path):  # noqa: F811
    """With the page's policy, and without it: the escaping alone must do."""
    run = make_run(tmp_path / "runs" / "run", words=SCRIPTS, status="finished")
    failed = make_run(tmp_path / "runs" / "failed", words=SCRIPTS, status="failed")
    record = json.loads((failed / "run.json").read_text())
    (failed / "run.json").write_text(json.dumps({**record, "reason": SCRIPTS}))
    made = [write_report(run, SETTINGS)]
    leaderboard.write_leaderboard(tmp_path / "runs")
    made += list((tmp_path / "runs").glob("*.html"))
    assert len(made) == 2
    for file in made:
        text = file.read_text()
        assert POLICY.search(text)
        assert "window.ran" in text
        file.write_text(text if policy else POLICY.sub("", text))
        asked = []
        opened = browser.new_page()
        opened.on("request", lambda request, asked=asked: asked.append(request.url))
        opened.goto(file.as_uri())
        for summary in opened.locator("summary").all():
            summary.click(force=True)
        opened.wait_for_timeout(300)
        assert opened.evaluate("window.ran") is None
        assert opened.evaluate("document.querySelectorAll('script, img, iframe, a[href^=javascript]').length") == 0
        assert asked == [file.as_uri()]
        opened.close()
