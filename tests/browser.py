"""A browser without a window for the tests that look at pages, and what they ask it."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from trecx import paths


def browser(scripts: bool = True) -> Any:
    """Debian's or another Chromium without a window; a skip that says what is missing."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: it is in requirements.lock")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,900"):
        options.add_argument(word)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    made = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    made.implicitly_wait(20)  # seconds that an element may take to appear: on a busy machine scripts come late
    return made


def axe() -> str:
    """The script of axe-core 4, from TRECX_AXE or the repository's node_modules; a skip where neither is there."""
    given = Path(os.environ.get("TRECX_AXE") or paths.ROOT / "node_modules/axe-core/axe.min.js")
    if not given.is_file():
        pytest.skip("needs axe-core 4: npm install --no-save axe-core, or TRECX_AXE=/path/to/axe.min.js")
    return given.read_text(encoding="utf-8")


def pages(html: Path) -> list[Path]:
    """The pages of a rendered book; the theme's templates are none."""
    return sorted(page for page in html.rglob("*.html") if "_static" not in page.parts)


def show(driver: Any, page: Path, width: int = 1300, theme: str = "light") -> None:
    """Open a page of the book in a window of this width, everything unfolded and nothing in motion."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())
    driver.execute_script(
        """const still = document.createElement("style");
        still.textContent = "*, ::before, ::after { transition: none !important; animation: none !important; }";
        document.head.append(still);
        document.documentElement.dataset.theme = arguments[0];
        for (const folded of document.querySelectorAll("details")) folded.open = true;""",
        theme,
    )


def violations(driver: Any, script: str) -> list[str]:
    """What axe finds on the page that is open: rule, and the first element."""
    driver.set_script_timeout(120)
    driver.execute_script(script)
    found: list[str] = driver.execute_async_script(
        """const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ["violations"] }).then((found) =>
          done(found.violations.map((v) => `${v.id}: ${v.nodes.length}, first ${v.nodes[0].html.slice(0, 120)}`)));"""
    )
    return found


def too_wide(driver: Any) -> list[str]:
    """The tables of the page whose last columns do not fit, and the page itself if it scrolls sideways."""
    found: list[str] = driver.execute_script(
        """const wide = [...document.querySelectorAll(".trecx-scroll, .bd-article table")]
          .filter((box) => box.scrollWidth > box.clientWidth + 1)
          .map((box) => (box.ariaLabel || box.textContent).trim().slice(0, 60));
        const page = document.documentElement;
        // Not `innerWidth`: on a phone it grows with a page that is too wide.
        return page.scrollWidth > page.clientWidth ? [...wide, "the page"] : wide;"""
    )
    return found
