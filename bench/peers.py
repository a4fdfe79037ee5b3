"""Others that send mail from a program: django-post_office with its queue, and Nodemailer with its pool.

Each lives in an environment of its own, made from a lock file in bench/peer_programs by pip or npm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from bench.contest import Contestant, Run
from bench.loops import example_message
from bench.sending_place import CAMPAIGN
from bench.sinks import Sink
from local_stack.errors import StackError
from local_stack.postgres import PostgresServer

PROGRAMS = Path(__file__).parent / "peer_programs"
POST_OFFICE, NODEMAILER = "django-post_office with queueing", "Nodemailer, pooled"
_CONNECTIONS = 32
_SEED = "Ada Example"


class Peers:
    """The peers' environments, in one folder that is kept: they are made the first time."""

    def __init__(self, folder: Path) -> None:
        """Describe them; `install` makes them."""
        self._folder = folder.resolve()
        self._python = self._folder / "post_office" / "bin" / "python"
        self._node = self._folder / "nodemailer"

    def install(self) -> None:
        """Make what is missing. StackError: node is not installed, or a package cannot be had."""
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise StackError(
                "Nodemailer needs node and npm, which are not on this machine. Install them, for example "
                "with: apt-get install nodejs npm"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._is_made("post_office.lock"):
            _run([sys.executable, "-m", "venv", "--clear", str(self._python.parents[1])])
            _run([
                str(self._python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
                "--no-deps", "--require-hashes", "-r", str(PROGRAMS / "post_office.lock"),
            ])  # fmt: skip
            self._note("post_office.lock")
        if not self._is_made("package-lock.json"):
            self._node.mkdir(exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PROGRAMS / name, self._node)
            _run(["npm", "ci", "--prefix", str(self._node), "--ignore-scripts", "--no-audit", "--no-fund"])
            self._note("package-lock.json")
        shutil.copy(PROGRAMS / "send_by_nodemailer.js", self._node)

    def contestants(
        self, folder: Path, server: PostgresServer, sink: Sink, size: int, certificate: Path | None = None
    ) -> list[Contestant]:
        """Both, sending the campaign's mail to the sink, with another name in each."""
        mail = json.dumps(_mail(folder / "include"))
        database = "post_office_tls" if certificate else "post_office"
        server.create_database(database)
        environment = {**os.environ, "DATABASE_URL": server.url(database)}
        if certificate:
            environment["SSL_CERT_FILE"] = str(certificate)
        post_office = [
            str(self._python), str(PROGRAMS / "send_by_post_office.py"), str(sink.port), str(size),
            *(["--tls"] if certificate else []),
        ]  # fmt: skip
        nodemailer = [
            "node", str(self._node / "send_by_nodemailer.js"), str(sink.port), str(size), str(_CONNECTIONS),
            *([str(certificate)] if certificate else []),
        ]  # fmt: skip
        return [
            Contestant(POST_OFFICE, lambda: _sent(post_office, mail, environment)),
            Contestant(NODEMAILER, lambda: _sent(nodemailer, mail, environment)),
        ]

    def _is_made(self, lock: str) -> bool:
        note = self._folder / lock
        return note.exists() and note.read_bytes() == (PROGRAMS / lock).read_bytes()

    def _note(self, lock: str) -> None:
        shutil.copy(PROGRAMS / lock, self._folder)


def _mail(include: Path) -> dict[str, str]:
    """The campaign's mail in parts, for those who put it together themselves."""
    message = example_message(include, CAMPAIGN)
    mail = message_from_bytes(message.content, policy=policy.default)
    if not isinstance(mail, EmailMessage):
        raise TypeError("the standard library gave another class than its policy says")
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    if text is None or html is None or _SEED not in html.get_content():
        raise StackError(f"The campaign's example mail has no text, no HTML, or not the name {_SEED} in it.")
    return {
        "sender": message.sender,
        "subject": str(mail["Subject"]),
        "text": text.get_content(),
        "html": html.get_content(),
    }


def _sent(command: Sequence[str], mail: str, environment: dict[str, str]) -> Run:
    done = subprocess.run(command, input=mail, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"{command[1]} failed: {done.stderr.strip()[-1000:]}")
    took = json.loads(done.stdout.splitlines()[-1])
    return Run(
        took["mails"], took["seconds"], took["cpu_seconds"] / took["mails"] * 1e6, recorded=took["mails"]
    )


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"{command[0]} failed while the peers were installed: {done.stderr.strip()[-1000:]}")
