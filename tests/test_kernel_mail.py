# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import base64
import quopri

import pytest

from harness.kernel import diff, mail
from harness.kernel.mail import Place

DIFF = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b = c\n"


@pytest.mark.parametrize(
    ("subject", "place"),
    [
        ("[PATCH 2/5] mm: x", Place(1, 2, 5, True)),
        ("[RFC PATCH v3 02/11] KVM: x", Place(3, 2, 11, True)),
        ("[PATCH mm-unstable v1 3/5] kvm/arm64: x", Place(1, 3, 5, True)),
        ("[PATCH][v2] x", Place(2, 1, 1, False)),
        ("[PATCH v2 0/5] cover", Place(2, 0, 5, True)),
        ("mm: x 2/5", Place(1, 1, 1, False)),
        ("Re: [PATCH 2/5] mm: x", None),
        ("RE: [PATCH 2/5] mm: x", None),
    ],
)
def test_the_place_of_a_patch_stands_in_its_subject(subject: str, place: Place | None) -> None:
    assert mail.place(subject) == place


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("20230217041230.2417228-1-a@example.org", "20230217041230.2417228-6-a@example.org", True),
        ("20230217041230.2417228-1-a@example.org", "20230526234435.662652-1-a@example.org", False),
        ("20230217041230.2417228-1-a@example.org", "20230217041230.2417228-1-b@example.org", False),
        ("1-2-3@example.org", "1-3-3@example.org", False),
    ],
)
def test_the_mails_of_one_thread(one: str, other: str, same: bool) -> None:
    assert (mail.thread(one) == mail.thread(other)) is same


def test_title_is_the_subject_without_tags() -> None:
    assert mail.title("[RFC PATCH v3 02/11] KVM: x [y]") == "KVM: x [y]"


def test_an_mbox_is_split_at_from_lines_with_a_date_only() -> None:
    box = (
        b"From mboxrd@z Thu Jan  1 00:00:00 1970\nSubject: one\n\n"
        b"text\n\nFrom here on it is slow.\n\n>From afar\n\n"
        b"From 01234 Mon Sep 17 00:00:00 2001\nSubject: two\n\nx\n"
    )
    first, second = mail.split(box)
    assert first == (b"Subject: one\n\ntext\n\nFrom here on it is slow.\n\nFrom afar\n\n")
    assert second == b"Subject: two\n\nx\n"


@pytest.mark.parametrize("coding", ["base64", "quoted-printable", "8bit"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bodies_are_decoded_and_mail_line_ends_dropped(coding: str, end: str) -> None:
    text = ("Grüße\n---\n" + DIFF).replace("\n", end).encode()
    body = {
        "base64": base64.encodebytes(text),
        "quoted-printable": quopri.encodestring(text, quotetabs=True),
        "8bit": text,
    }[coding]
    head = (
        "From: A Person <a@example.org>\nSubject: [PATCH] x\nMessage-ID: <7@example.org>\n"
        f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {coding}\n\n"
    )
    message = mail.parse(head.encode() + body)
    assert message.author == "A Person <a@example.org>"
    assert message.message_id == "7@example.org"
    assert "Grüße".encode() in message.body
    assert diff.extract(message.body) == DIFF.encode()


def test_a_folded_and_encoded_subject_is_one_line() -> None:
    message = mail.parse(b"Subject: [PATCH v2\n 1/2] =?utf-8?q?gr=C3=BCn?=\n is it\n\nx\n")
    assert message.subject == "[PATCH v2 1/2] grün is it"


def test_an_author_in_the_body_goes_before_the_sender() -> None:
    message = mail.parse(
        b"From: List <list@example.org>\nSubject: x\n\nFrom: A Person <a@example.org>\n\nWhy.\n"
    )
    assert message.author == "A Person <a@example.org>"


def test_an_attached_patch_counts_and_html_does_not() -> None:
    message = mail.parse(
        b'Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n'
        b"--b\nContent-Type: text/plain\n\nsee it\n"
        b"--b\nContent-Type: text/html\n\n<p>not this</p>\n"
        b"--b\nContent-Type: text/x-patch\nContent-Disposition: attachment\n\n"
        + DIFF.encode()
        + b"\n--b--\n"
    )
    assert b"not this" not in message.body
    assert diff.extract(message.body).startswith(b"--- a/x\n")


def test_a_bare_diff_is_a_mail_without_headers() -> None:
    bare = b"diff --git a/x b/x\n" + DIFF.encode()
    assert mail.parse(bare).body == bare
    assert mail.parse(bare).subject == ""
