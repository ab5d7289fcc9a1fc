"""Makes docs/images/report.png, the picture of the report page, with Chromium.

    python scripts/screenshot_report.py results/NAME

The page is made anew (``rlprune report``) and pictured from its top.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from rlprune.results.report import PAGE, report

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1100, 1400


def main() -> None:
    """Pictures the page of one run."""
    run = Path(sys.argv[1])
    report(run, max_drop=1.0)
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto((run / PAGE).resolve().as_uri())
        page.wait_for_selector("#frontier .chart svg")
        page.locator('#frontier .hit[aria-label*="on the frontier (val)"]').first.hover()
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
