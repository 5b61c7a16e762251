# SPDX-License-Identifier: GPL-2.0-only
"""A run as a mail: a reply to the series, if it has a Message-Id. mailbody.py has the text."""

from __future__ import annotations

import re
from email.headerregistry import HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import EmailPolicy

from harness.errors import UsageError
from harness.printable import clip, one_line, plain_name, printable
from harness.report import facts
from harness.report.evidence import Read
from harness.report.mailbody import body
from harness.results import Summary

# Left to itself, Python encodes a long Message-Id in headers that it does not know to hold one.
_HEADERS = HeaderRegistry()
for _name in ("in-reply-to", "references"):
    _HEADERS.map_to_type(_name, MessageIDHeader)  # type: ignore[arg-type]  # as its own registry
# Headers are folded at 78, as git does; a mail program does not show them so.
_POLICY = EmailPolicy(max_line_length=78, linesep="\n", header_factory=_HEADERS)


def mail(run: Summary, read: Read, tested_by: str | None = None) -> str:
    """The mail, headers and all, but for sender and recipients.

    `tested_by` is "Name <address>": it is named if the run says what it stands for (withheld()).
    UsageError if it is no such thing.
    """
    message = EmailMessage(_POLICY)
    message["Subject"] = _subject(run)
    if found := facts.message_id(run):
        message["In-Reply-To"] = message["References"] = f"<{found}>"
    tester = _address(tested_by)
    lines = list(body(run, read))
    if tester and not withheld(run):
        # No tag is ever folded, so this line alone may be longer.
        lines += ["", f"Tested-by: {tester}{' # emulated arm64' if run.emulated else ''}"]
    text = "\n".join(lines) + "\n"
    ascii_only = text.isascii()
    message.set_content(
        text,
        charset="us-ascii" if ascii_only else "utf-8",
        cte="7bit" if ascii_only else "8bit",
    )
    return message.as_bytes().decode()


def withheld(run: Summary) -> str:
    """Why nobody can say Tested-by on account of this run, "" if one can."""
    worse = [figure.metric for figure in run.figures if figure.verdict == "worse"]
    outcomes = {cell.outcome for cell in run.cells} | {check.outcome for check in run.checks}
    proven = any(cell.kernel == "patched" and cell.outcome == "pass" for cell in run.cells)
    reasons = {
        "it tested no series": not run.series,
        "it has not come to its end": bool(run.reason),
        f"its verdict is {run.verdict}": run.verdict != "pass",
        "something in it is not a pass": not outcomes <= {"pass", "skip"},
        "no cell passed with the series": not proven,
        "it was not a whole run": not run.whole,
        "it is not known to have tested the base that the series is for": (
            run.series_base not in ("same", "unnamed")
        ),
        f"it found a figure that is worse: {', '.join(map(plain_name, worse))}": bool(worse),
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)


def _address(text: str | None) -> str:
    if text is None:
        return ""
    if printable(text) != text or not re.fullmatch(
        r'[^\s<>"][^<>"\n\t]* <[^\s<>@]+@[^\s<>@]+>', text
    ):
        raise UsageError(f'--tested-by {text!r}: want "Name <name@example.org>"')
    return text


def _subject(run: Summary) -> str:
    if run.subject:
        subject = clip(one_line(run.subject), 250)
        return subject if re.match(r"re:", subject, re.I) else f"Re: {subject}"
    of = clip(one_line(run.series), 100) or "base kernel"
    return f"KVM/arm64 stage-2 page aging: {of}: {run.verdict}"
