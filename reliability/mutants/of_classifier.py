"""Mutants of what a server's reply is taken to mean."""

from __future__ import annotations

from reliability.mutants.mutant import Mutant

_TESTS = "tests/unit/test_reply.py::"


def _mutant(name: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(name, "classifier", "delivery/reply.py", old, new, (_TESTS + test,))


CLASSIFIER = (
    _mutant(
        "silence after the dot is retried",
        "return Verdict.IN_DOUBT if phase is Phase.DOT else Verdict.RETRY",
        "return Verdict.RETRY",
        "test_no_answer_to_the_dot_is_in_doubt",
    ),
    _mutant(
        "silence before the dot is a doubt",
        "return Verdict.IN_DOUBT if phase is Phase.DOT else Verdict.RETRY",
        "return Verdict.IN_DOUBT",
        "test_no_answer_before_the_dot_is_retried",
    ),
    _mutant(
        "only 250 is an acceptance",
        "    if 200 <= code <= 299:\n        return Verdict.SENT",
        "    if code == 250:\n        return Verdict.SENT",
        "test_reply_to_the_dot",
    ),
    _mutant(
        "any 5xx after the dot rejects",
        "return Verdict.REJECTED if _names_recipient(code, enhanced) else Verdict.RETRY",
        "return Verdict.REJECTED",
        "test_reply_to_the_dot",
    ),
    _mutant(
        "a proxy's time-out after the dot is retried",
        'enhanced.startswith("4.4.")',
        'enhanced.startswith("4.9.")',
        "test_reply_to_the_dot",
    ),
    _mutant(
        "a bare 421 after the dot is retried",
        "(code == 421 and not temporary)",
        "(code == 420 and not temporary)",
        "test_reply_to_the_dot",
    ),
    _mutant(
        "a reply out of step is retried",
        "return Verdict.IN_DOUBT  # 3xx",
        "return Verdict.RETRY  # 3xx",
        "test_reply_to_the_dot",
    ),
    _mutant(
        "a bad sender domain rejects the recipient",
        "(?!0*[78]$)",
        "",
        "test_reply_to_rcpt_rejects_only_with_evidence_about_the_recipient",
    ),
    _mutant(
        "a policy refusal rejects the recipient",
        r"5\.2\.\d+",
        r"5\.[27]\.\d+",
        "test_reply_to_rcpt_rejects_only_with_evidence_about_the_recipient",
    ),
    _mutant(
        "a refused MAIL rejects the recipient",
        "if phase is Phase.RCPT and (",
        "if phase is not Phase.BODY and (",
        "test_reply_before_the_dot_and_not_to_rcpt_is_retried",
    ),
)
