"""Pages in a real browser: Debian's chromium or a Chrome, found here, never downloaded; and axe's look at them."""

import os
import shutil

import pytest

BROWSER = os.environ.get("LLMFT_TEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason="no chromium or google-chrome here (LLMFT_TEST_BROWSER=PATH names another)"
    ),
]


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER)
        yield opened
        opened.close()


def violations(page):
    """What axe finds on the page: rule, and the elements that break it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found}
