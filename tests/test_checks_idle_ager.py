# SPDX-License-Identifier: GPL-2.0-only
"""Which part of page_idle's bitmap an ager writes, and what."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.checks.idle_ager import LOOP, densest, mask


def test_densest_part_of_the_bitmap() -> None:
    near = [640, 641, 700, 704]
    assert densest([64, *near, 10_000], words=2) == (10, (640, 641, 700, 704))
    assert densest([5, 640], words=1) == (0, (5,))
    assert densest([]) == (0, ())


def test_mask_is_of_whole_words() -> None:
    assert mask(10, [640]) == b"\1" + b"\0" * 7
    assert mask(10, [641, 704 + 63]) == b"\2" + b"\0" * 14 + b"\x80"


def test_loop_writes_at_its_place_until_its_input_ends(tmp_path: Path) -> None:
    bits, bitmap = tmp_path / "mask", tmp_path / "bitmap"
    bits.write_bytes(mask(2, [130, 192]))
    bitmap.write_bytes(bytes(40))
    with subprocess.Popen(
        ["sh", "-c", LOOP.format(mask=bits, bitmap=bitmap, word=2)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout and process.stdin
            assert process.stdout.readline() == b"\n"
            process.stdin.close()
            # The end of output: nothing that it started has it open still.
            process.stdout.read()
            process.wait(timeout=20)
        finally:
            process.kill()
    assert bitmap.read_bytes() == bytes(16) + b"\4" + bytes(7) + b"\1" + bytes(15)
