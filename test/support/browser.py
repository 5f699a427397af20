"""A real headless Chromium for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def chromium(
    profile: Path, *, webgl: bool = True, dark: bool = False, size: tuple[int, int] = (1400, 1000)
) -> Iterator[Any]:
    """Yield a Selenium driver with an empty profile; skips the test where there is no Chromium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium; install requirements-dev.txt")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with chromedriver; install chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    webgl_flags = _SOFTWARE_WEBGL if webgl else ("--disable-gpu", "--disable-3d-apis")
    for flag in (*_QUIET, *webgl_flags, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    if dark:
        options.add_argument("--force-dark-mode")
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield page
    finally:
        page.quit()
