# SPDX-License-Identifier: GPL-2.0-only
"""Run the base kernel's checks many times over: what a false alarm rate is measured with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from harness.errors import EXIT_PASS
from harness.progress import Progress
from harness.run import Options, Run
from harness.runfolder import make_run_folder
from harness.verdict import EXIT_CODES, worst


def repeat(options: Options, count: int, progress: Progress) -> int:
    """Do `count` runs of the base kernel, each recorded in a folder of its own and with its own
    seed (the first one's plus 0, 1, 2 ...), and tell how they ended.

    Returns the exit code of the worst. A failure of the base kernel is a false alarm, unless
    Debian's kernel is broken.
    """
    parent = make_run_folder(options.output)
    verdicts: Counter[str] = Counter()
    for number in range(count):
        one = Run(
            replace(options, base_only=True, seed=options.seed + number, output=parent), progress
        )
        verdicts[one.execute().verdict] += 1
        progress.say(f"{number + 1} of {count}: {_tally(verdicts)}")
    progress.say(f"{count} runs: {_tally(verdicts)}")
    progress.console.print(str(parent), soft_wrap=True)
    found = worst([outcome for outcome in verdicts])  # type: ignore[misc]
    return EXIT_PASS if found == "pass" else EXIT_CODES[found]


def _tally(verdicts: Counter[str]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
