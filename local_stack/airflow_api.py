"""A small client of Airflow's REST API: trigger, wait for, clear and backfill runs, as in the UI.

Everything goes through the real API server, so what the demo shows is what the scheduler did. Run ids, task
ids and states are Airflow's own words.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from local_stack.errors import StackError

PAGE = 100
POLL_SECONDS = 0.5
RUN_ENDED = frozenset({"success", "failed"})

Report = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A DAG run. `state` is queued, running, success or failed."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    logical_date: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing of the run is left to do."""
        return self.state in RUN_ENDED


@dataclass(frozen=True)
class TaskInstance:
    """A task of a run; `map_index` is -1 unless it is mapped, `state` None until it is scheduled.

    `pid` is the process that works on the latest try, on the machine where it runs.
    """

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    label: str | None
    seconds: float | None
    pid: int | None = None
    started: datetime | None = None
    ended: datetime | None = None


class AirflowApi:
    """The API of one Airflow. Use as a context manager, which closes its connections."""

    def __init__(self, base_url: str, username: str, password: str) -> None:
        """Describe the API; nothing is asked yet.

        :param base_url: of the API server, such as http://127.0.0.1:18080
        """
        self._client = httpx.Client(base_url=base_url, timeout=60)
        self._login = {"username": username, "password": password}
        self._token: str | None = None

    def __enter__(self) -> Self:
        """Use as is."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def logged_in_as(self, username: str, password: str) -> "AirflowApi":
        """Return the same API for somebody else; to be closed by the caller."""
        return AirflowApi(str(self._client.base_url), username, password)

    def healthy_since(self, moment: datetime) -> set[str]:
        """Return which of metadatabase, scheduler, dag_processor and triggerer are healthy since `moment`.

        Without the moment, a component that was killed a while ago would still count. httpx.HTTPError: the
        API server does not answer yet.
        """
        health = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        found = {"metadatabase"} if health["metadatabase"]["status"] == "healthy" else set()
        for name in ("scheduler", "dag_processor", "triggerer"):
            beat = health[name][f"latest_{name}_heartbeat"]  # None where there never was one
            if beat and health[name]["status"] == "healthy" and datetime.fromisoformat(beat) > moment:
                found.add(name)
        return found

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or change it to what is given."""
        values = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        if self._ask("POST", "/pools", json=values, accept=(201, 409)).status_code == 409:
            change = {"pool": name, "slots": slots, "description": description, "include_deferred": False}
            self._ask("PATCH", f"/pools/{name}", json=change)

    def set_connection(self, conn_id: str, conn_type: str, **values: Any) -> None:
        """Create a connection, or change it; `values` as the API takes them, such as host."""
        connection = {"connection_id": conn_id, "conn_type": conn_type, **values}
        if self._ask("POST", "/connections", json=connection, accept=(201, 409)).status_code == 409:
            self._ask("PATCH", f"/connections/{conn_id}", json=connection)

    def dag_ids(self) -> set[str]:
        """Return the ids of all DAGs that were read without an error."""
        return {dag["dag_id"] for dag in self._pages("/dags", "dags", exclude_stale="true")}

    def bundle_version(self, dag_id: str) -> str | None:
        """Return the version of its bundle, such as a commit, that a DAG was read from last."""
        version: str | None = self._ask("GET", f"/dags/{dag_id}").json()["bundle_version"]
        return version

    def import_errors(self) -> list[str]:
        """Return what went wrong in DAG files: file and message."""
        return [f"{e['filename']}: {e['stack_trace']}" for e in self._pages("/importErrors", "import_errors")]

    def wait_for_dags(self, dag_ids: Iterable[str], seconds: float = 60) -> None:
        """Wait until these DAGs are known. StackError: they are not, with the import errors there are."""
        wanted = set(dag_ids)

        def missing() -> set[str]:
            return wanted - self.dag_ids()

        if not wait_until(lambda: not missing(), seconds):
            raise StackError("\n".join([f"Airflow knows no DAG {sorted(missing())}.", *self.import_errors()]))

    def pause(self, dag_id: str) -> None:
        """Stop a DAG's schedule."""
        self._ask("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run by its schedule; its newest tick that was missed runs at once."""
        self._ask("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(
        self, dag_id: str, logical_date: datetime | None = None, conf: dict[str, Any] | None = None
    ) -> Run:
        """Start a manual run; without a logical date, `conf` has to name the cohort."""
        values = {"logical_date": logical_date.isoformat() if logical_date else None, "conf": conf or {}}
        return _run(self._ask("POST", f"/dags/{dag_id}/dagRuns", json=values).json())

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return a run as it stands."""
        return _run(self._ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}").json())

    def runs(self, dag_id: str, **query: str) -> list[Run]:
        """List a DAG's runs, oldest logical date first; `query` as the API takes it, such as run_type."""
        found = self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="logical_date", **query)
        return [_run(values) for values in found]

    def mark_run(self, run: Run, state: str) -> None:
        """Say that a run is a success or has failed, as a person can."""
        self._ask("PATCH", f"/dags/{run.dag_id}/dagRuns/{run.run_id}", json={"state": state})

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """List the task instances of a run; mapped ones once per map index."""
        found = self._pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        return [
            TaskInstance(
                task_id=values["task_id"],
                map_index=values["map_index"],
                state=values["state"],
                try_number=values["try_number"],
                label=values["rendered_map_index"],
                seconds=values["duration"],
                pid=values["pid"],
                started=_moment(values["start_date"]),
                ended=_moment(values["end_date"]),
            )
            for values in found
        ]

    def result(self, run: Run, task_id: str) -> Any:
        """Return what a task gave, its XCom ``return_value``. StackError: it gave nothing."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._ask("GET", path, params={"stringify": "false"}).json()["value"]

    def log(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """Return the log of a task instance's latest try, a line per event and per error that it carries."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{task.try_number}"
        answer = self._ask("GET", path, params={"map_index": task.map_index, "full_content": "true"}).json()
        return "\n".join(line for event in answer["content"] for line in _lines(event))

    def answer(self, run: Run, task_id: str, option: str) -> None:
        """Answer what a task asks under required actions, as this user."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/-1/hitlDetails"
        self._ask("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def wait_for_run(self, run: Run, seconds: float = 600, report: Report | None = None) -> Run:
        """Wait until a run has ended, and return it; `report` gets a line whenever a task has moved on.

        StackError: it has not ended in time.
        """
        said = ""

        def ended() -> bool:
            nonlocal said, run
            run = self.run(run.dag_id, run.run_id)
            if report is not None:
                line = _progress(self.tasks(run.dag_id, run.run_id))
                if line != said:
                    said = line
                    report(line)
            return run.ended

        if not wait_until(ended, seconds):
            raise StackError(f"{run.dag_id} {run.run_id} is still {run.state} after {seconds:.0f} s: {said}")
        return run

    def clear(self, run: Run, task_ids: Iterable[str | tuple[str, int]] = ()) -> None:
        """Clear all tasks of a run, or the named ones with what comes after them: they run again.

        One of a mapped task's instances is named by task id and map index.
        """
        values: dict[str, Any] = {
            "dag_run_id": run.run_id,
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        names = list(task_ids)
        if names:
            values |= {"task_ids": names, "include_downstream": True}
        self._ask("POST", f"/dags/{run.dag_id}/clearTaskInstances", json=values)

    def backfill(
        self,
        dag_id: str,
        first: datetime,
        last: datetime,
        *,
        reprocess: str = "none",
        max_active_runs: int = 10,
        conf: dict[str, Any] | None = None,
    ) -> list[Run]:
        """Create a backfill of the logical dates from `first` to `last` and return its runs.

        :param reprocess: none, failed or completed: which dates that have a run already run again.
        """
        values = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "reprocess_behavior": reprocess,
            "max_active_runs": max_active_runs,
            "dag_run_conf": conf or {},
        }
        self._ask("POST", "/backfills", json=values)
        return self.runs(
            dag_id,
            run_type="backfill",
            logical_date_gte=first.isoformat(),
            logical_date_lte=last.isoformat(),
        )

    def wait_for_runs(
        self, runs: Iterable[Run], seconds: float = 600, report: Report | None = None
    ) -> list[Run]:
        """Wait until all these runs have ended, and return them; `report` gets a line when one has moved on.

        StackError: not all have ended in time.
        """
        current = list(runs)
        said = ""

        def ended() -> bool:
            nonlocal said, current
            current = [run if run.ended else self.run(run.dag_id, run.run_id) for run in current]
            counts = Counter(run.state for run in current)
            line = f"runs: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}"
            if report is not None and line != said:
                report(line)
            said = line
            return all(run.ended for run in current)

        if not wait_until(ended, seconds):
            raise StackError(f"Not all runs have ended after {seconds:.0f} s; {said}")
        return current

    def _pages(self, path: str, key: str, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            params = {**query, "limit": PAGE, "offset": len(found)}
            answer = self._ask("GET", path, params=params).json()
            found += answer[key]
            if not answer[key] or len(found) >= answer["total_entries"]:
                return found

    def _ask(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, Any] | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx.Response:
        answer = self._send(method, path, json, params)
        if answer.status_code == 401:  # the token has expired
            self._token = None
            answer = self._send(method, path, json, params)
        if answer.is_success or answer.status_code in accept:
            return answer
        raise StackError(f"Airflow refused {method} {path}: {answer.status_code} {answer.text[:1000]}")

    def _send(self, method: str, path: str, json: object, params: dict[str, Any] | None) -> httpx.Response:
        try:
            self._token = self._token or self._log_in()
            headers = {"Authorization": f"Bearer {self._token}"}
            return self._client.request(method, f"/api/v2{path}", json=json, params=params, headers=headers)
        except httpx.HTTPError as error:
            place = self._client.base_url
            raise StackError(f"Airflow's API at {place} cannot be reached: {error}") from None

    def _log_in(self) -> str:
        answer = self._client.post("/auth/token", json=self._login)
        if answer.status_code != 201:
            raise StackError(f"Airflow refused the login: {answer.status_code} {answer.text[:200]}")
        return str(answer.json()["access_token"])


def _lines(event: str | dict[str, Any]) -> list[str]:
    if isinstance(event, str):
        return [event]
    errors = event.get("error_detail") or []
    return [str(event["event"]), *(f"{error['exc_type']}: {error['exc_value']}" for error in errors)]


def _moment(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None


def _run(values: dict[str, Any]) -> Run:
    return Run(
        dag_id=values["dag_id"],
        run_id=values["dag_run_id"],
        state=values["state"],
        run_type=values["run_type"],
        logical_date=_moment(values["logical_date"]),
    )


def _progress(tasks: list[TaskInstance]) -> str:
    """Say how far each task is that has begun; mapped ones together."""
    by_task: dict[str, Counter[str]] = {}
    for task in tasks:
        if task.state is not None:
            by_task.setdefault(task.task_id, Counter())[task.state] += 1
    parts = []
    for task_id, states in by_task.items():
        each = [f"{n} {state}" if states.total() > 1 else state for state, n in sorted(states.items())]
        parts.append(f"{task_id} {', '.join(each)}")
    return "; ".join(parts) or "nothing has begun"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again until the condition holds; return whether it does in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
