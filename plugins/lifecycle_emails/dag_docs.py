"""What Airflow's UI shows about the DAGs: their documentation, that of their tasks, and the words they use.

Text made from a campaign's file. Must not know Airflow: the DAG factory hands the text over.
"""

from lifecycle_emails.campaign import Campaign

# ruff: noqa: E501  (a row of a Markdown table is one line)

FIVE_WORDS = """\
| word | meaning |
|---|---|
| **campaign** | one lifecycle e-mail: a file, a query, a template |
| **cohort** | the users created on one day; a run mails one cohort |
| **sent** | the mail server accepted the mail. Once sent, never sent again |
| **held** | not mailed, for a reason that is written down: `suppressed`, `capped`, `stale` (too late), \
`invalid_address`, `left_audience`, `render_failed`, `daily_limit` |
| **cap** | how many lifecycle e-mails a user may get in a rolling window, over all campaigns |
"""

_CAMPAIGN_DOC = """\
# {id}

{description}Every day at {time} ({timezone}) this DAG mails the users who were created {offset_days} day{plural} before. \
Each of them is mailed **at most once**, whatever is cleared, retried, backfilled or run twice: the sends ledger in \
Postgres decides, Airflow only drives.

| | |
|---|---|
| campaign | `include/campaigns/{id}.yaml` |
| users | `include/audiences/{audience}`, connection `{source_conn_id}` |
| text | `include/templates/{template}/` |
| cap | rule set `{frequency_cap}` of `include/frequency_caps.yaml`; who is over it is {on_cap} |
| deadline | {max_lateness_days} day{lateness_plural} after its scheduled run a cohort is `stale` and not mailed any more |
| mail server | connection `{smtp_conn_id}` |

{notes}## In five words

{five_words}
## When a run is red

Look at the log of `reconcile` first: its last lines name every problem and what to do about it. **Clearing a task is \
always safe**: nobody is mailed twice.

| task | what it means | what to do |
|---|---|---|
| `extract_cohort` | the query could not be read, or a file has a mistake | mend what the log names, clear the task |
| `filter_ledger`, `limit_rate` | the ledger could not be reached | check the connection of the ledger, clear the task |
| `check_volume`, `approve_volume`, `record_approval` | a cohort of unusual size could not be looked at, asked about \
or decided on; it is not sent | mend what the log names, clear the task |
| `send_batch` | users are left after all retries: the mail server refused or was away | mend it, clear the task. Or do \
nothing: the next scheduled run goes on with them until the deadline |
| `alert` | a callback failed. Mail was not held up by it | mend it, clear the task; else the next run and the \
maintenance DAG try again |
| `reconcile` | something is open: it says what. A mail `in_doubt` was handed to the server, which never answered: only \
a person can settle it | do what it says, then clear it: green |

A run that shows *awaiting input* asks whether a cohort of unusual size goes out: answer `approve_volume` under required \
actions. A task shown as *skipped* had nothing to do; for `send_batch` it may also mean that sending is halted or the mail \
server is stopped: its log says so, and nothing is lost.

## Run it by hand

**Trigger** with a `cohort_date` mails the users created on that day who have not been mailed yet; with `dry_run` \
nobody is, and the log of `limit_rate` names who would be, and who not and why. It waits until the DAG's other runs are done; \
`lifecycle dry-run {id}` on a terminal answers at once. A **backfill** over past days is safe: who has been mailed is not \
mailed again, and what is past its deadline is `stale`. Its end is a moment: write `--to-date 2026-05-31T23:59`, since a \
date alone is its midnight, before that day's run.
"""

MAINTENANCE_DOC = """\
# Lifecycle e-mails: maintenance

Looks after the sends ledger of all campaigns, every few minutes. It reports, sweeps and retries; it plans \
nothing and mails no user, but for one mail that tries a stopped mail server.

- Mails whose answer never came become `in_doubt`, and the team is told. They are never sent again by themselves: \
a mail log settles them where one is configured, and `lifecycle settle` by your word.
- A ledger that went back in time (a restored backup) halts all sending until `lifecycle restored`.
- What is past its deadline becomes held (`stale`).
- Days that no run has planned are found and reported.
- A mail server that was stopped is tried with one mail, and started again when it accepts it.
- Alerts that a campaign's own run could not deliver are delivered through the callbacks of this DAG.

{notes}## In five words

{five_words}
## When a run is red

Read the log of the red task. `maintain` needs the ledger; `deliver_alerts` failed in a callback. Both try again with \
the next run; nothing is lost meanwhile.
"""

OPERATIONS_DOC = """\
# Lifecycle e-mails: for operators

**Trigger** opens a form: one run is one order. It is carried out once, in your name and with your reason, and \
written into the ledger's audit (`lifecycle actions` lists it). Clearing or retrying the run repeats nothing. \
What to do when: `docs/runbook.md`, by symptom.

| action | what it does | what it needs |
|---|---|---|
| `halt` | stops sending within seconds, in running tasks too. Nothing is lost | a campaign, or none for all |
| `resume` | lifts exactly that halt. What waited goes out with the next scheduled run; to send it now, clear \
`send_batch` of the halted run | the same campaign, or none |
| `settle_as_sent` | mails in doubt did arrive: never sent again | campaign; users, or dates, or everybody |
| `settle_to_send_again` | mails in doubt did not arrive: judged again. Ask the mail provider first | the same |
| `release` | judges users again whom the server rejected, or whom the cap refused for good | campaign, users |
| `release_cohort` | lets a cohort go out that was refused for its size; one that still awaits approval is approved \
under required actions | campaign, its date as first and last |
| `extend` | lengthens deadlines. The first run names how many users it may reach and fails; the second, with that \
number as `approved_users`, does it. Extended before, it wants `earlier_extensions` too | campaign, dates, days |
| `suppress`, `unsuppress` | never mail these users; lift that | users; a campaign, or none for all |
| `send_test` | one mail, its subject marked [test], to the address of the connection `recipient`. No cap, no halt and \
no suppression concerns it, and the user whose mail it shows gets nothing | campaign; a user, or none for an example |

{notes}## What it never does

- Mail anybody past suppression or cap: who is settled to be sent again or released is judged again by the next run.
- Send again what a mail server has accepted, or settle a mail that may still be in flight.
- Keep an e-mail address: Airflow's database keeps what stands in the form. By address: `lifecycle suppress --address` \
and `lifecycle send-test --to`, which keep a keyed hash.

## If no worker is free

This DAG goes first in line, but needs a free slot like any other. `lifecycle halt --reason ...` on a terminal needs \
only the ledger. With the ledger out of reach nothing is sent anyway.

## In five words

{five_words}
## When a run is red

The last line of the log says why, and nothing was changed: an order that makes no sense, one that the ledger \
forbids, or somebody was faster. Trigger a new run. If the ledger was out of reach, clear the task.
"""

TASK_DOCS = {
    "extract_cohort": (
        "Gives every user of the cohort a row in the ledger: ids only. A scheduled run also takes earlier "
        "cohorts that are still open or were never planned. **Result:** users found, new, moved, known."
    ),
    "filter_ledger": (
        "Holds users who are suppressed or past the deadline, each with a reason. Those mailed already are "
        "counted and left alone. **Result:** counts by reason."
    ),
    "limit_rate": (
        "Reserves a slot of the frequency cap for every user, or holds the user as `capped` and records an "
        "alert. **Result:** the groups of batches to send; the XCom `counts` has the figures."
    ),
    "check_volume": (
        "Compares the size of each cohort with those of the last four weeks. One far outside them, too many or too "
        "few, or of a source that is not fresh, awaits approval: no run sends it. **Result:** verdict by cohort."
    ),
    "approve_volume": (
        "Asks a person, under required actions, whether cohorts of unusual size go out. No answer in time means "
        "*Do not send*. Skipped when nothing awaits approval."
    ),
    "record_approval": (
        "Writes into the ledger who approved or refused, and why. **Result:** the cohorts approved and refused."
    ),
    "limit_rate_approved": (
        "Does what `limit_rate` does, for the cohorts that a person has approved. Skipped when there are none."
    ),
    "send_approved": "Does what `send_batch` does, for the cohorts that a person has approved.",
    "alert_approved": "Does what `alert` does, once the users of approved cohorts are judged by the cap.",
    "send_batch": (
        "Sends the ready users of some batches, each through the ledger's gate, so that a retry, a clear or a"
        " second worker cannot send twice. One mapped task for each group, named by batches and size."
    ),
    "alert": (
        "Tells the team who would have exceeded the frequency cap. Runs beside the sending: mail never waits"
        " for it. Skipped when there is nothing to tell."
    ),
    "reconcile": (
        "Waits for outstanding answers, prints what became of everybody, and is red when anything is open, "
        "with what to do about it."
    ),
    "maintain": (
        "Sweeps the ledger: what is overdue becomes `in_doubt` or held, gaps between cohorts are found."
    ),
    "probe_providers": (
        "Tries each stopped mail server with one mail that is due; one that accepts it is used again. Skipped"
        " when none is stopped."
    ),
    "operate": (
        "Carries out the order of this run's form, once, in the name of whoever triggered it. **Result:** action,"
        " actor, and what came of it in words."
    ),
    "deliver_alerts": "Delivers alerts that are still undelivered, through the callbacks of this DAG.",
}


def campaign_doc(campaign: Campaign, notes: str | None) -> str:
    """Return the documentation of a campaign's DAG in Markdown; ``notes`` is its DAG file's docstring."""
    on_cap = {"defer": "judged again by later runs until the deadline", "drop": "left out for good"}
    return _CAMPAIGN_DOC.format(
        id=campaign.id,
        description=_lead(campaign.description),
        notes=_section(notes),
        time=f"{campaign.time_of_day:%H:%M}",
        timezone=campaign.timezone,
        offset_days=campaign.offset_days,
        plural=_plural(campaign.offset_days),
        audience=campaign.audience,
        source_conn_id=campaign.source_conn_id,
        template=campaign.template,
        frequency_cap=campaign.frequency_cap,
        on_cap=on_cap[campaign.on_cap],
        max_lateness_days=campaign.max_lateness_days,
        lateness_plural=_plural(campaign.max_lateness_days),
        smtp_conn_id=campaign.smtp_conn_id,
        five_words=FIVE_WORDS,
    )


def maintenance_doc(notes: str | None) -> str:
    """Return the documentation of the maintenance DAG in Markdown; ``notes`` is its DAG file's docstring."""
    return MAINTENANCE_DOC.format(notes=_section(notes), five_words=FIVE_WORDS)


def operations_doc(notes: str | None) -> str:
    """Return the documentation of the operators' DAG in Markdown; ``notes`` is its DAG file's docstring."""
    return OPERATIONS_DOC.format(notes=_section(notes), five_words=FIVE_WORDS)


def _lead(description: str) -> str:
    """A quotation: Airflow's page puts no space between two paragraphs."""
    return f"> {' '.join(description.split())}\n\n" if description.strip() else ""


def _section(notes: str | None) -> str:
    return f"## In this DAG's file\n\n{notes.strip()}\n\n" if notes and notes.strip() else ""


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
