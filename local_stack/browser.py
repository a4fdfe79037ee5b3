"""A real browser, driven as a person would: Debian's Chromium, by Playwright.

Playwright is not in the lock: the targets of the Makefile that need it install the version named there. Knows
Airflow's login form and nothing else of what is looked at.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_stack.errors import StackError

WIDTH, HEIGHT = 1400, 850
PATIENCE = 30_000  # milliseconds, for each element that is waited for
BROWSER_ARGUMENTS = (
    "--no-sandbox",  # containers and root have none
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def in_browser(use: Callable[[Any], None]) -> None:
    """Call ``use`` with an open page of Playwright's synchronous interface.

    StackError: Playwright or Chromium is missing, or the page does not do what was waited for.
    """
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ModuleNotFoundError as missing:
        raise StackError("Playwright is not installed. Run: make browser") from missing
    program = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
    if not Path(program).exists():
        raise StackError(f"There is no {program}. Install Debian's package chromium, or set CHROMIUM.")
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=list(BROWSER_ARGUMENTS))
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT},
                device_scale_factor=1, color_scheme="light", locale="en-GB", timezone_id="UTC",
            )  # fmt: skip
            page.set_default_timeout(PATIENCE)
            use(page)
            browser.close()
    except playwright.Error as error:
        raise StackError(f"The browser did not get on: {error}") from error


def log_in(page: Any, airflow_url: str, username: str, password: str) -> None:
    """Fill in Airflow's login form; its errors pass through."""
    page.goto(airflow_url)
    page.locator("input[name=username]").fill(username)
    page.locator("input[name=password]").fill(password)
    page.locator("button[type=submit]").click()
    page.wait_for_url(lambda address: "/auth/login" not in address)
