import subprocess
import sys
from pathlib import Path

import pytest

from bench.variants import BY_STANDARD_LIBRARY, PACKAGE, VARIANTS, Replacement, Variant


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_differs_from_the_package_in_its_patches_alone(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]

    copy = variant.copy(tmp_path) / PACKAGE.name

    patched = {replacement.file for replacement in variant.replacements}
    files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert {f for f in files if (copy / f).read_bytes() != (PACKAGE / f).read_bytes()} == patched


def test_variant_refuses_a_text_that_does_not_stand_exactly_once(tmp_path: Path) -> None:
    variant = Variant((Replacement("message.py", "no such text", ""),))

    with pytest.raises(RuntimeError, match=r"message\.py holds 0 times .* in step with it: no such text"):
        variant.copy(tmp_path)


def test_messages_of_the_standard_library_say_what_the_packages_own_say(tmp_path: Path) -> None:
    folder = VARIANTS[BY_STANDARD_LIBRARY].copy(tmp_path)

    assert _said(folder) == _said(PACKAGE.parent)


def _said(folder: Path) -> str:
    """What a mail of the example campaign says, made by the package in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", _SAY], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


_SAY = """
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path

from lifecycle_emails.campaign import load_campaign
from lifecycle_emails.message import MessageTemplates

include = Path("include")
templates = MessageTemplates.load(include, load_campaign(include, "day4_follow_up"))
now = datetime(2026, 11, 24, 6, tzinfo=UTC)
profile = {"user_id": 1, "full_name": "Zoë " + 30 * "Müller ", "locale": "en", "created_at": now}
mail = message_from_bytes(
    templates.render(profile, "zoe@example.com", "<1@example.com>", now).content, policy=policy.default
)
names = sorted({*mail.keys()} - {"Content-Type", "MIME-Version"})
print([(name, str(mail[name])) for name in names])
print([mail.get_body((kind,)).get_content().replace(chr(13), "").rstrip() for kind in ("plain", "html")])
"""
