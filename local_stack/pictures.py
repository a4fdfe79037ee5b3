"""The pictures in docs/images, taken from the running local stack: ``make up``, then ``make pictures``.

A headless Chromium logs in to Airflow as a person does, and looks at what the stack has done and the inbox
holds. No mail is sent: it starts a dry run, and a run that awaits approval. The grid shows as many runs as
there are: backfill a week first. Playwright drives the browser; it is not in the lock, ``make pictures``
installs the version that the Makefile names. Users' names are in many scripts: without fonts for them no
picture is taken.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from local_stack.airflow_api import Run
from local_stack.airflow_environment import USERNAME, AirflowSecrets
from local_stack.browser import HEIGHT, WIDTH, in_browser, log_in
from local_stack.errors import StackError
from local_stack.mail_store import MailStore, Search
from local_stack.picture_runs import ASKING_TASK, CAMPAIGN, finished_dry_run, run_awaiting_approval
from local_stack.settings import Settings
from local_stack.stack import LocalStack

IMAGES = Path("docs") / "images"
LAST_TASK = "reconcile"
LIMITING_TASK = "limit_rate"
OPERATIONS_DAG = "lifecycle_operations"
FORM_HEIGHT = 1260  # pixels, for all of an operator's form
LOG_KEYS = "fw"  # of Airflow's UI: the whole screen, and lines wrapped
GRID_WIDER_BY = 160  # pixels
LARGEST_PICTURE = 300_000  # bytes
LANGUAGES_IN_OTHER_SCRIPTS = ("ar", "el", "he", "hi", "ja", "ko", "uk", "zh-cn")  # of the example names


class Photographer:
    """A browser's page, and the folder its pictures go to."""

    def __init__(self, page: Any, settings: Settings) -> None:
        """Use a page of Playwright's synchronous interface; its errors pass through."""
        self._page = page
        self._settings = settings

    def log_in(self) -> None:
        """Fill in Airflow's login form."""
        log_in(self._page, self._settings.airflow_url, USERNAME, AirflowSecrets.of(self._settings).password)

    def graph(self, run_id: str) -> None:
        """Take the graph of a run, coloured by the states of its tasks."""
        self._page.goto(f"{self._settings.airflow_url}/dags/{CAMPAIGN}/runs/{quote(run_id)}")
        self._page.get_by_label("Show Graph").click()
        self._page.get_by_label("Collapse Details Panel").click()
        self._page.locator(".react-flow__node").filter(has_text=LAST_TASK).wait_for()
        self._page.locator(".react-flow__controls-fitview").click()
        self._take("graph")

    def grid(self) -> None:
        """Take the DAG's page with the grid of its runs."""
        self._page.goto(f"{self._settings.airflow_url}/dags/{CAMPAIGN}")
        self._page.get_by_label("Show Grid").click()
        self._page.get_by_role("link", name=LAST_TASK).first.wait_for()
        self._page.locator("canvas").first.wait_for()
        self._widen_grid()
        self._take("grid")

    def operations(self) -> None:
        """Take the form in which an operator gives an order; it is not sent."""
        self._page.goto(f"{self._settings.airflow_url}/dags/{OPERATIONS_DAG}")
        self._page.get_by_role("button", name="Trigger").click()
        self._page.get_by_text("Reason").first.wait_for()
        self._page.set_viewport_size({"width": WIDTH, "height": FORM_HEIGHT})
        self._take("operations", height=FORM_HEIGHT)
        self._page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def approval(self, run: Run) -> None:
        """Take what a run asks under required actions; it is not answered."""
        self._page.goto(f"{self._task_page(run, ASKING_TASK)}/required_actions")
        self._page.get_by_text("unusual size").first.wait_for()
        self._take("approval", height=560)

    def dry_run(self, run: Run) -> None:
        """Take the table that a dry run writes into its log."""
        self._page.goto(self._task_page(run, LIMITING_TASK))
        self._page.get_by_text("would be mailed").first.wait_for()
        for key in LOG_KEYS:
            self._page.keyboard.press(key)
        self._take("dry_run", height=480)

    def _task_page(self, run: Run, task_id: str) -> str:
        return f"{self._settings.airflow_url}/dags/{run.dag_id}/runs/{quote(run.run_id)}/tasks/{task_id}"

    def inbox(self, mail: int, alert: int) -> None:
        """Take the list of the mails, one mail and one alert, given by their numbers in the inbox."""
        for name, path in (("inbox", ""), ("mail", f"messages/{mail}"), ("alert", f"messages/{alert}")):
            self._page.goto(f"{self._settings.inbox_url}/{path}")
            self._take(name)

    def _widen_grid(self) -> None:
        """Drag the line between grid and details to the right: as it is, the newest runs are cut off."""
        line = self._page.get_by_role("separator").first.bounding_box()
        x, y = line["x"] + line["width"] / 2, line["y"] + line["height"] * 0.8
        self._page.mouse.move(x, y)
        self._page.mouse.down()
        self._page.mouse.move(x + GRID_WIDER_BY, y, steps=10)
        self._page.mouse.up()

    def _take(self, name: str, height: int = HEIGHT) -> None:
        """Save what the page shows, once it has come to rest. StackError: the picture is too large.

        :param height: how much of the page, from its top, in pixels
        """
        self._page.wait_for_load_state("networkidle")
        self._page.mouse.move(WIDTH / 2, HEIGHT - 1)  # where nothing unfolds under it
        file = self._settings.project / IMAGES / f"{name}.png"
        file.write_bytes(self._resting_picture(height))
        size = file.stat().st_size
        if size > LARGEST_PICTURE:
            raise StackError(f"{IMAGES / file.name} has {size:,} bytes, more than {LARGEST_PICTURE:,}.")
        print(f"{IMAGES / file.name}  {size // 1000} kB")

    def _resting_picture(self, height: int) -> bytes:
        """Return the first picture that is the same twice: charts and graphs move into their place."""
        before = b""
        for _ in range(40):
            picture: bytes = self._page.screenshot(
                clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
                animations="disabled", caret="hide", scale="css",
            )  # fmt: skip
            if picture == before:
                return picture
            before = picture
            self._page.wait_for_timeout(250)
        raise StackError(f"The page {self._page.url} does not come to rest.")


def take_pictures(settings: Settings) -> None:
    """Take all pictures. StackError: the stack does not run, or has not sent what there is to show."""
    _require_fonts()
    stack = LocalStack(settings)
    if not stack.is_running():
        raise StackError("The local stack is not running. Start it with: make up")
    with stack.api() as api:
        runs = api.runs(CAMPAIGN, run_type="scheduled", state="success")
        if not runs:
            raise StackError(
                f"No scheduled run of {CAMPAIGN} has succeeded; see {settings.airflow_url}/dags/{CAMPAIGN}."
            )
        store = MailStore(settings.mails)
        mail, alert = _newest(store, Search(campaign=CAMPAIGN)), _newest(store, Search(alerts_only=True))
        (settings.project / IMAGES).mkdir(parents=True, exist_ok=True)

        def take(page: Any) -> None:
            photographer = Photographer(page, settings)
            photographer.log_in()
            photographer.graph(runs[-1].run_id)
            photographer.grid()
            photographer.operations()
            photographer.inbox(mail, alert)
            photographer.approval(run_awaiting_approval(stack, api))
            photographer.dry_run(finished_dry_run(api))

        in_browser(take)


def _newest(store: MailStore, search: Search) -> int:
    found = store.mails(search, limit=1)
    if not found:
        kind = "alert" if search.alerts_only else f"mail of {search.campaign}"
        raise StackError(f"The inbox holds no {kind} to take a picture of.")
    return found[0].number


def _require_fonts() -> None:
    """Raise StackError when names would be shown as empty boxes."""
    try:
        missing = [language for language in LANGUAGES_IN_OTHER_SCRIPTS if not _has_font(language)]
    except FileNotFoundError:
        raise StackError("There is no fc-list. Install Debian's package fontconfig, and fonts.") from None
    if missing:
        raise StackError(
            f"No font shows names in {', '.join(missing)}. Install Debian's packages fonts-noto-core and "
            "fonts-noto-cjk, or others that do."
        )


def _has_font(language: str) -> bool:
    found = subprocess.run(["fc-list", f":lang={language}"], capture_output=True, text=True, check=True)
    return bool(found.stdout.strip())


def main() -> int:
    """Take the pictures of the stack that the environment names; return the exit code."""
    try:
        take_pictures(Settings.from_environment())
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
