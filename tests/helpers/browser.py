"""Debian's Chromium, driven by playwright, for tests of the pages that occpipe writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no types
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM} (Debian's package chromium)")
_SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that asks nobody for anything by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, file: Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Iterator[Page]:
    """A page of this machine in a window of its own. At the end it must have no failure, and no request of another file."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda line: complaints.append(line.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    requests = [url for url in requests if not url.startswith(("data:", "blob:"))]
    assert {url.partition("#")[0] for url in requests} == {file.as_uri()}, "nothing is loaded but the page"
    context.close()


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds: rules that are broken, with the elements."""
    broken = Axe().run(page).response["violations"]
    return [(rule["id"], [str(node["target"]) for node in rule["nodes"]]) for rule in broken]


def too_wide(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))
