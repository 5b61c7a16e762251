# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin that gives checks their cell and turns their ends into records.

A check is a pytest function. It may use the fixtures below, states what it expects and observes on
`claim`, and asserts. How it ends decides its outcome:

    AssertionError              fail       the kernel did not do what was expected
    Unproven                    unproven   what was expected could not be observed
    pytest.skip                 skip       it makes no sense in this cell
    HostDied, LinuxGuestDied,   decided by comparison with the base kernel (verdict.py)
    Hung
    anything else               error      ours or the lab's
"""

from __future__ import annotations

import os
import random
import re
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from harness import splatlog
from harness.checks import callbacks
from harness.checks.claim import Claim
from harness.checks.collect import Collector, evidence
from harness.contract import Contract
from harness.contract_load import load as load_contract
from harness.contract_load import load_step
from harness.deadline import Deadline
from harness.errors import (
    ConnectionCut,
    DeadlineExceeded,
    HarnessError,
    HostDied,
    Hung,
    InfraError,
    LinuxGuestDied,
)
from harness.guest_errors import GuestBroke, GuestDataLost, IdleBitmapShort
from harness.guests import Guest
from harness.hosts.console import Console
from harness.hosts.protocols import Shell
from harness.observe import klog, tracefs
from harness.observe.af import Expected
from harness.observe.errors import Impossible
from harness.observe.splats import distinct
from harness.observe.unproven import Unproven
from harness.records import append, of_cell
from harness.results import Check, Outcome

if TYPE_CHECKING:
    from harness.cell import CellSpec

ANSWER_SECONDS = 5.0
SELFTESTS = Path(__file__).parents[1] / "selftests/test_selftests.py"
TIMING = Path(__file__).parents[1] / "timing"
LINUX_GUEST = Path(__file__).parents[1] / "linux_guest/test_linux_guest.py"
# Checks with a hung guest after which the others are left out: each would wait to its deadline.
HUNG_LIMIT = 2
# Neither a cache nor a configuration file, of the harness's own tests or of anybody's, has a say.
PYTEST_ARGS = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--import-mode=importlib")


class CellPlugin:
    """Fixtures and hooks for the checks of one cell on one booted host."""

    def __init__(
        self,
        spec: CellSpec,
        shell: Shell,
        console: Console,
        probe: Shell,
        expected_af: tuple[Expected, ...] = (),
        begins: Callable[[str], None] | None = None,
    ) -> None:
        self._spec = spec
        self._shell = shell
        self._console = console
        self._probe = probe
        self._contract = (
            load_contract(spec.contract, spec.base_contract)
            if spec.becomes is None
            else load_step(spec.becomes, spec.base_contract)
        )
        self._records = spec.folder / "records.jsonl"
        # A cell that was cut off by a kill goes on from its records (harness/resume.py), and so
        # does one that lost its machine.
        self.checks = list(of_cell(self._records, goes_on=True).checks)
        """Those that have ended, in any boot of the cell."""
        self._collector = Collector(shell)
        self._claim: Claim | None = None
        self._error: BaseException | None = None
        self._phase = ""
        self._seconds = 0.0
        self._shown = 0
        """How much of the console was there before the check."""
        self._deadline = Deadline(spec.check_seconds)
        self._asked = False
        """Whether the kernel was asked for functions that it has under other names."""
        self._hung = sum(check.death == "livelock" for check in self.checks)
        self.death: HostDied | None = None
        """How the host died, if it did: no check after that means anything."""
        self._expected_af = expected_af
        self._begins = begins
        """Is told the name of each check before it does anything."""

    # ---- fixtures ---------------------------------------------------------------------------

    @pytest.fixture
    def cell(self) -> CellSpec:
        """The cell that the check runs in: host, kernel, KVM mode, AF mode, seed."""
        return self._spec

    @pytest.fixture
    def contract(self) -> Contract:
        """What the series promises (series.yaml), or the base kernel's contract."""
        return self._contract

    @pytest.fixture
    def expected_af(self) -> tuple[Expected, ...]:
        """Who must set guests' access flag on each kind of CPU, by what the host shows."""
        return self._expected_af

    @pytest.fixture
    def shell(self) -> Shell:
        """Commands and files on the host, as root."""
        return self._shell

    @pytest.fixture
    def console(self) -> Callable[[], str]:
        """All that the host's console has shown since it was switched on."""
        return self._console.text

    @pytest.fixture
    def claim(self) -> Claim:
        """Where the check states what it expects and observes, and keeps its evidence."""
        assert self._claim is not None
        return self._claim

    @pytest.fixture
    def deadline(self) -> Deadline:
        """When the check is ended, whatever it waits for."""
        return self._deadline

    @pytest.fixture
    def rng(self, request: pytest.FixtureRequest) -> random.Random:
        """Random numbers that depend on the run's seed and the check's name alone."""
        return random.Random(f"{self._spec.seed}:{request.node.name}")

    @pytest.fixture
    def guest(self, request: pytest.FixtureRequest, claim: Claim) -> Iterator[Callable[..., Guest]]:
        """A function that starts a guest (see Guest.start); all of them end with the check."""
        started: list[Guest] = []

        def start(**options: object) -> Guest:
            transcript = claim.path(f"guest{len(started) or ''}.txt")
            given = {"slowdown": self._spec.slowdown, **options}
            guest = Guest.start(self._shell, transcript=transcript, **given)  # type: ignore[arg-type]
            started.append(guest)
            return guest

        # Before the check has a trace of its own, and not where time is measured.
        if not self._asked and not request.node.path.is_relative_to(TIMING):
            self._asked = True
            tracefs.ALIASES.update(callbacks.learn(self._shell, start))
        yield start
        for asked, found in tracefs.ALIASES.items() if claim.observed else ():
            claim.observe(f"{asked}() is {found}() in this kernel")
        for guest in started:
            guest.close()

    @pytest.fixture(autouse=True)
    def _collected(self, claim: Claim) -> Iterator[None]:
        """vmstat, debugfs, lru_gen and the kernel log before and after each check, kept."""
        before = self._collector.before()
        yield
        if self.death is None:
            claim.save_all(evidence(before, self._collector.after()))

    # ---- hooks ------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put what judges the whole boot at its end, and leave out what has a record already."""
        done = {check.name for check in self.checks}
        config.hook.pytest_deselected(items=[item for item in items if item.name in done])
        items[:] = [item for item in items if item.name not in done]
        items.sort(key=lambda item: item.get_closest_marker("last") is not None)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare the markers of checks."""
        config.addinivalue_line("markers", "quick: the few checks that show most, in seconds")
        config.addinivalue_line("markers", "deep: shows more, and takes seconds in each cell")
        config.addinivalue_line("markers", "stress: shows what deep shows in yet more ways")
        config.addinivalue_line("markers", "selftests: the kernel's own KVM selftests")
        config.addinivalue_line("markers", "linux_guest: with a Linux guest under QEMU")
        config.addinivalue_line("markers", "last: judges the whole boot, so it runs last")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """One check from set-up to tear-down: a record of it is on disk before the next begins."""
        folder = self._spec.folder / check_folder(item.name)
        self._claim = Claim(folder, expected=_first_line(item))
        self._error, self._phase, self._seconds = None, "", 0.0
        self._shown = len(self._console.text())
        if self._begins is not None:
            self._begins(item.name)
        # Waits on the host have deadlines of their own; this one is for a check that loops.
        signal.signal(signal.SIGALRM, _too_long)
        self._deadline = Deadline(self._spec.check_seconds)
        signal.setitimer(signal.ITIMER_REAL, self._spec.check_seconds)
        try:
            result = yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        check = self._check(item)
        append(self._records, check)
        self.checks.append(check)
        self._claim = None
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Remember the first thing that went wrong; show unproven as skipped in pytest's output."""
        report = yield
        self._seconds += call.duration
        if call.excinfo is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            error = self._diagnosed(call.excinfo.value)
            # The first trouble is the one to tell, but a death outranks what came before it, and
            # any trouble a skip or a lack of proof.
            weak = (pytest.skip.Exception, Unproven)
            worse = isinstance(self._error, weak) and not isinstance(error, weak)
            # What was proven stays, though the host died while the check cleared up after it.
            proven = self._error if self._phase == "call" else None
            if isinstance(error, HostDied) and call.when == "call":
                proven = _assertion_before(call.excinfo.value)
            if isinstance(proven, AssertionError):
                self._error, self._phase = proven, "call"
            elif self._error is None or worse or isinstance(error, HostDied):
                self._error, self._phase = error, call.when
            if isinstance(error, Hung):
                self._hung += 1
                if self._hung == HUNG_LIMIT:
                    self.death = HostDied("livelock", f"{HUNG_LIMIT} checks hung.")
            if isinstance(error, HostDied):
                self.death = error
            if self.death is not None:
                item.session.shouldstop = str(self.death)
        if isinstance(self._error, Unproven) and report.failed:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 0, f"unproven: {self._error}")
        return report

    # ---- outcomes ---------------------------------------------------------------------------

    def _diagnosed(self, error: BaseException) -> BaseException:
        """A wait on the host that ran out of time is a hang, of all of it or of a part.

        Nothing more is asked of such a host: what hangs in its kernel may hold any lock.
        """
        if isinstance(error, BaseExceptionGroup):
            # Several fixtures failed to end: a death among them is what there is to tell.
            found = [self._diagnosed(one) for one in error.exceptions]
            return next((one for one in found if isinstance(one, HostDied)), found[0])
        if not isinstance(error, DeadlineExceeded):
            return error
        try:
            self._probe.run("true", Deadline(ANSWER_SECONDS * self._spec.slowdown))
        except (HostDied, ConnectionCut) as exc:
            return exc
        except HarnessError:
            return self._console.hung(f"{error}, and the host answers nothing else either")
        return HostDied("hang", f"{error}, while the host does answer other commands")

    def _check(self, item: pytest.Item) -> Check:
        assert self._claim is not None
        outcome, reason = self._outcome(item)
        error = self._error
        death = error.kind if isinstance(error, HostDied | LinuxGuestDied) else None
        return Check(
            cell=self._spec.cell.id,
            name=item.name,
            outcome=outcome,
            expected=self._claim.expected,
            observed=self._claim.observed or reason,
            evidence=tuple(
                str(path.relative_to(self._spec.run_folder)) for path in self._claim.evidence()
            ),
            reason=reason,
            death="livelock" if isinstance(error, Hung) else death,
            splats=splatlog.records(self._claim.splats),
            af_observed=self._claim.af_observed,
            af_cpus=self._claim.af_cpus,
            fast_path=self._claim.fast_path,
            seconds=round(self._seconds, 3),
        )

    def _outcome(self, item: pytest.Item) -> tuple[Outcome, str]:
        error = self._error
        if error is None and self._claim is not None and not self._claim.observed:
            return "unproven", "it observed nothing: a check says by claim.observe() what it saw"
        if error is None and self._claim is not None and self._claim.unjudged:
            return "unproven", f"not judged: {'; '.join(self._claim.unjudged)}"
        if error is None:
            return "pass", ""
        if isinstance(error, pytest.skip.Exception):
            return "skip", str(error.msg or "")
        if isinstance(error, Unproven):
            return "unproven", str(error)
        if isinstance(error, AssertionError | pytest.fail.Exception) and self._phase == "call":
            return "fail", _assertion(error)
        if isinstance(error, GuestDataLost | GuestBroke | IdleBitmapShort | Impossible):
            return "fail", str(error)
        self._keep_trace(error)
        if reported := self._reported(error):
            return "fail", f"the kernel reported {reported}; {error}"
        if isinstance(error, HarnessError):
            return "error", str(error)
        return "error", f"{item.name} itself is broken: {type(error).__name__}: {error}"

    def _reported(self, error: BaseException) -> str:
        """What the kernel said on the console in a check that could not go on; "" for nothing.

        One that writes to memory which it has freed takes along whatever is there, the guest or the
        connection. How a host died is compared with the base; so is this, by the reports.
        """
        assert self._claim is not None
        died = isinstance(error, HostDied | Hung | LinuxGuestDied)
        if died or not isinstance(error, InfraError):
            return ""
        said = self._console.text()[self._shown :]
        found = distinct(klog.splats(said))[: splatlog.MAX_FINDINGS]
        self._claim.splats = found
        return "; ".join(one.splat.title for one in found)

    def _keep_trace(self, error: BaseException) -> None:
        assert self._claim is not None
        self._claim.save("error.txt", "".join(traceback.format_exception(error)))


def check_folder(name: str) -> str:
    """The folder of a check's evidence in that of its cell."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _first_line(item: pytest.Item) -> str:
    """What a check without a word on `claim` expects: the first line of its docstring."""
    text = (getattr(getattr(item, "obj", None), "__doc__", None) or item.name).strip()
    return str(text.splitlines()[0])


def _assertion_before(error: BaseException) -> AssertionError | None:
    """The failed assertion in whose wake an error was raised."""
    at = error.__context__
    while at is not None and not isinstance(at, AssertionError):
        at = at.__context__
    return at


class CheckTooLong(InfraError):
    """A check did not come to its end, although every wait of its own on the host did."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise CheckTooLong("the check took longer than a check may")


def _assertion(error: BaseException) -> str:
    """The assertion's own message, without pytest's rendering of the operands."""
    return str(error).split("\nassert ")[0].strip() or "assertion failed"


def check_paths(
    extra: tuple[Path, ...], *, selftests: bool = False, linux_guest: bool = False
) -> tuple[str, ...]:
    """The checks that come with the harness, or the ones that the user points at instead.

    The kernel's own selftests and those with a Linux guest come on top where they are asked for.
    """
    paths = [*(extra or (Path(__file__).parent,))]
    paths += [SELFTESTS] if selftests else []
    paths += [LINUX_GUEST] if linux_guest else []
    return tuple(str(path) for path in paths)
