"""general-code: a Python solution scores 1 when it passes every test of the reference, else 0.

Tests run in `reward.sandbox`; what they must give is compared here, outside, so the solution cannot see or fake it.
The format of references is described in `reward.reading.code_tests`.
"""

import time
from collections.abc import Mapping
from typing import Any

from reward.reading.code_tests import CodeTest, Suite, passes, read_suite
from reward.sandbox.session import SandboxDied, Session, open_session
from reward.types import Status, Verdict, Verifier

MAX_CHARS = 100_000
TOTAL_SECONDS = 20.0  # all tests of one solution together


def prepare(reference: str, params: Mapping[str, Any]) -> Suite:
    """The tests of a reference. ValueError: unreadable, or without any test."""
    return read_suite(reference)


def verify(extracted: str, prepared: Suite, params: Mapping[str, Any]) -> Verdict:
    """1.0 when every test passes, else 0.0; `tests_passed` is the share passed before the first failure.

    SandboxUnavailable: this machine cannot contain untrusted code; the message names the failed probes.
    """
    if len(extracted) > MAX_CHARS:
        return Verdict(0.0, "rejected", trace=(f"the solution is longer than {MAX_CHARS} characters",))
    total, passed = len(prepared.tests), 0
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with open_session(extracted) as session:
            for test in prepared.tests:
                failure = _run(session, test, prepared, deadline)
                if failure is not None:
                    return _failed(passed, total, *failure)
                passed += 1
    except SandboxDied as error:
        return _failed(passed, total, "crash", str(error))
    return Verdict(1.0, "ok", {"tests_passed": 1.0}, (f"all {total} tests pass",))


def _run(session: Session, test: CodeTest, suite: Suite, deadline: float) -> tuple[Status, str] | None:
    """None when the test passes, else the status and the reason."""
    seconds = min(suite.time_limit_seconds, deadline - time.monotonic())
    if seconds <= 0:
        return "timeout", f"all tests together took over {TOTAL_SECONDS:g} s"
    outcome = session.run(test.request, seconds)
    if outcome.end == "timeout":
        return "timeout", f"the next one took over {seconds:.1f} s"
    if outcome.end == "exit":
        return "ok", "the next one raised, was killed or left early"
    if outcome.end == "output":
        return "ok", "the next one wrote too much"
    if not passes(test, outcome.stdout, outcome.record, suite.float_tolerance):
        return "ok", "the next one gave a wrong result"
    return None


def _failed(passed: int, total: int, status: Status, reason: str) -> Verdict:
    return Verdict(
        0.0, status, {"tests_passed": passed / total}, (f"{passed} of {total} tests pass; {reason}",)
    )


DEFAULTS = {"code_block": True}
VERIFIER = Verifier(prepare, verify, DEFAULTS, isolated=True, deadline_seconds=TOTAL_SECONDS + 10.0)
