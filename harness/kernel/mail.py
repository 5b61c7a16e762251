# SPDX-License-Identifier: GPL-2.0-only
"""Mails as git and lore write them: mboxes split, bodies decoded, subjects understood."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.message import EmailMessage

# The line that begins a mail in an mbox: "From ", an address or a commit, and a date with a time.
_FROM = re.compile(rb"^From \S+ .*\d\d:\d\d:\d\d .*$")
_TAGS = re.compile(r"^\s*(?:\[[^\]]*\]\s*)+")


@dataclass(frozen=True)
class Mail:
    """One message: `body` is its text, decoded, with LF line ends, in the bytes that it had."""

    subject: str
    author: str
    message_id: str | None
    body: bytes


@dataclass(frozen=True)
class Place:
    """What a subject says of a patch's place: revision (v3 is 3), number, and of how many.

    A subject without such tags is patch 1 of 1 in revision 1; a cover letter has number 0.
    """

    revision: int
    number: int
    total: int
    numbered: bool


def split(data: bytes) -> list[bytes]:
    """The messages of an mbox (mboxrd: ">From " in a body loses one ">"), or the one message."""
    data = data.replace(b"\r\n", b"\n") if _is_crlf(data) else data
    messages: list[list[bytes]] = []
    after_blank = True
    for line in data.splitlines(keepends=True):
        if after_blank and _FROM.match(line.rstrip(b"\n")):
            messages.append([])
        elif not messages:
            messages.append([line])
        else:
            messages[-1].append(re.sub(rb"^>(>*From )", rb"\1", line))
        after_blank = line in (b"\n", b"")
    return [b"".join(lines) for lines in messages]


def parse(data: bytes) -> Mail:
    """One message; text without mail headers, a bare diff, becomes the body of a nameless mail."""
    if not re.match(rb"[!-9;-~]+: ?", data):
        return Mail("", "", None, data)
    message = email.message_from_bytes(data, policy=email.policy.SMTP.clone(utf8=True))
    assert isinstance(message, EmailMessage)
    body = _body(message)
    author, body = _in_body_author(_header(message, "From"), body)
    return Mail(_header(message, "Subject"), author, _message_id(message), body)


def place(subject: str) -> Place | None:
    """Where the tags of a subject ("[RFC PATCH v3 2/5] ...") put it; None for a reply."""
    if re.match(r"\s*(re|aw|fwd?)\s*:", subject, re.IGNORECASE):
        return None
    tags = _TAGS.match(subject)
    words = re.split(r"[\s\[\],]+", tags.group() if tags else "")
    revision = next((int(w[1:]) for w in words if re.fullmatch(r"[vV]\d+", w)), 1)
    for word in words:
        if counted := re.fullmatch(r"(\d+)/(\d+)", word):
            return Place(revision, int(counted[1]), int(counted[2]), numbered=True)
    return Place(revision, 1, 1, numbered=False)


def thread(message_id: str) -> str:
    """What the Message-Ids of one series have in common, as git send-email makes them.

    "20230217041230.2417228-3-a@example.org" is mail 3 of those with one time and process.
    """
    return re.sub(r"^(\d{14}\.\d+)-\d+-", r"\1-", message_id)


def title(subject: str) -> str:
    """A subject without its tags."""
    return _TAGS.sub("", subject).strip()


def _is_crlf(data: bytes) -> bool:
    """Whether the mails were stored with CRLF: then their headers have it too."""
    return data[:4096].split(b"\n", 1)[0].endswith(b"\r")


def _header(message: EmailMessage, name: str) -> str:
    return re.sub(r"\s*\n\s*", " ", str(message.get(name, ""))).strip()


def _message_id(message: EmailMessage) -> str | None:
    found = re.search(r"<([^<>\s]+)>", str(message.get("Message-ID", "")))
    return found[1] if found else None


def _body(message: EmailMessage) -> bytes:
    """The text parts of a message in their order: a patch may be attached to it."""
    parts = [
        part.get_payload(decode=True)
        for part in message.walk()
        if part.get_content_maintype() == "text" and part.get_content_subtype() != "html"
    ]
    text = b"\n".join(part for part in parts if isinstance(part, bytes))
    # A mail's own line ends are no part of a patch; a patch of a CRLF file keeps one of two.
    headers = re.findall(rb"^(?:diff --git|\+\+\+) [^\n]*$", text, re.MULTILINE)
    if headers and all(line.endswith(b"\r") for line in headers):
        text = text.replace(b"\r\n", b"\n")
    return text


def _in_body_author(author: str, body: bytes) -> tuple[str, bytes]:
    """A "From:" line at the head of the body names the author where another one sent the mail."""
    found = re.match(rb"\s*From: ([^\n]+)\n", body)
    if not found:
        return author, body
    return found[1].decode(errors="replace").strip(), body[found.end() :]
