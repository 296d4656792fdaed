"""A real browser: Chromium without a window, driven by Playwright, cut off from every network and watched for complaints."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.studies import HOSTILE, large_study, report_json, small_study
from trtcalib.reports.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Kept by CI."""

INSIDE = ("file:", "data:", "blob:")


@dataclass(slots=True)
class Watched:
    """A page, and what must stay empty.

    Attributes:
        page: Playwright's page.
        complaints: Console messages and uncaught errors.
        requests: Addresses asked for outside the file.
        numbers: report.json.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def _unavailable(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; without it or Playwright tests are skipped, and fail where CI is set."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("playwright is not installed: pip install -e '.[test]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        _unavailable(f"none of {', '.join(BROWSERS)} is on PATH: on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        # Without its sandbox it starts as root too; it opens nothing but our own files.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def open_in(browser: Browser, path: Path, fragment: str = "", until: str = "plots", **options: Any) -> Watched:
    """Open a report without a network and wait until it is drawn."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, "offline": True, **options})
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page(), numbers=report_json(path))
    page = watched.page
    page.on("console", lambda message: watched.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on(
        "request", lambda request: watched.requests.append(request.url) if not request.url.startswith(INSIDE) else None
    )
    page.goto(path.as_uri() + fragment)
    if until:
        page.wait_for_selector(f"html[data-ready={until}]", state="attached")
    return watched


def check(watched: Watched) -> None:
    """Fail on whatever the page complained of or asked for."""
    assert watched.complaints == []
    assert watched.requests == []


@pytest.fixture
def open_report(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Open a report of its own: ``open_report(path, "#tensor=x", viewport=...)``; complaints and requests fail the test."""
    opened: list[Watched] = []

    def open_one(path: Path, fragment: str = "", until: str = "plots", **options: Any) -> Watched:
        opened.append(open_in(browser, path, fragment, until, **options))
        return opened[-1]

    yield open_one
    for watched in opened:
        watched.page.context.close()
        check(watched)


@pytest.fixture(scope="module")
def kept(browser: Browser, small: Path) -> Iterator[Watched]:
    """The small report, opened once: starting Plotly.js takes a second and more."""
    watched = open_in(browser, small)
    yield watched
    watched.page.context.close()


@pytest.fixture
def shown(kept: Watched) -> Iterator[Watched]:
    """The small report as it opens; complaints and requests fail the test."""
    page = kept.page
    page.fill("#filter", "")
    page.select_option("#show", "all")
    page.select_option("#cache-show", "all")
    if page.get_attribute("#table th:nth-child(3)", "aria-sort") != "descending":
        page.click("#table thead button:text-is('instability')")
    page.evaluate("scrollTo(0, 0)")
    yield kept
    check(kept)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a small real study and two of its caches."""
    folder = tmp_path_factory.mktemp("small")
    study = small_study(folder)
    write_report([study, folder / "b1.cache", folder / "b4.cache"], folder / "small.html")
    return folder / "small.html"


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of tensors with hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    write_report([large_study(folder, len(HOSTILE) + 20, HOSTILE)], folder / "hostile.html")
    return folder / "hostile.html"


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 1000 tensors in eight configurations."""
    folder = tmp_path_factory.mktemp("large")
    write_report([large_study(folder, 1000)], folder / "large.html")
    return folder / "large.html"
