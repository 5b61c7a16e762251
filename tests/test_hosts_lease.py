# SPDX-License-Identifier: GPL-2.0-only
"""A machine is one run's at a time, whatever its clock does and however the run ends.

The scripts run in this machine's own sh; only /proc and the folders are the tests' own.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import leasing
from harness.hosts.lease import LATEST, LONGEST, Clock, Lease, Place, Seen, parse, replace_command
from harness.hosts.leasing import Busy, Held, LeaseLost, look, take, waited
from harness.hosts.protocols import Result, Shell

SHELL = LocalShell()
TOKEN = "0" * 32


@dataclass(frozen=True)
class Machine:
    """Clocks that a test sets, and the folders of a lease."""

    folder: Path

    @property
    def place(self) -> Place:
        lease, motd, boot_id, uptime = (
            str(self.folder / name) for name in ("var/lease", "run/motd.d/x", "boot_id", "uptime")
        )
        return Place(lease, motd, boot_id, uptime)

    @property
    def motd(self) -> str:
        path = Path(self.place.motd)
        return path.read_text() if path.exists() else ""

    def up(self, seconds: float) -> None:
        (self.folder / "uptime").write_text(f"{seconds:.2f} 1.00\n")

    def boot(self) -> None:
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self.up(1)

    def take(self, run: str = "run-1", *, seconds: int = 120) -> Held:
        return take(SHELL, run, place=self.place, seconds=seconds)

    def files(self) -> list[str]:
        return sorted(path.name for path in Path(self.place.folder).iterdir())

    def look(self) -> Seen:
        return look(SHELL, self.place)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.boot()
    made.up(1000)
    return made


def test_a_lease_names_its_holder_to_the_next_one_and_to_people(machine: Machine) -> None:
    assert machine.look().words() == "nobody has it, or ever had"
    held = machine.take("20261122-1")
    held.check()
    assert held.took_over is None
    with pytest.raises(Busy) as caught:
        machine.take("run-2")
    for told in (str(caught.value), machine.motd):
        assert leasing.owner() in told
        assert "for the run 20261122-1 since 20" in told
        assert ", until 20" in told
    held.release(SHELL)
    last = f"nobody has it; {leasing.owner()} had it last, for the run 20261122-1"
    assert machine.look().words() == last
    assert machine.motd == ""
    assert machine.take("run-2").took_over is None


def test_a_lease_that_is_renewed_holds_on(machine: Machine) -> None:
    held = machine.take()
    machine.up(1119)
    held.renew(SHELL)
    machine.up(1238)
    with pytest.raises(Busy):
        machine.take("run-2")


def test_a_machine_that_forgets_its_files_at_each_boot_stays_the_holders(machine: Machine) -> None:
    held = machine.take()
    shutil.rmtree(machine.place.folder)
    machine.boot()
    held.renew(SHELL)
    held.check()
    with pytest.raises(Busy):
        machine.take("run-2")


def test_unless_somebody_else_is_faster(machine: Machine) -> None:
    held = machine.take()
    shutil.rmtree(machine.place.folder)
    machine.boot()
    machine.take("run-2")
    with pytest.raises(LeaseLost, match="for the run run-2"):
        held.renew(SHELL)


def test_a_lease_that_is_over_is_not_taken_up_again(machine: Machine) -> None:
    held = machine.take(seconds=1)
    shutil.rmtree(machine.place.folder)
    machine.boot()
    held._clock = lambda: held._until + 1
    with pytest.raises(LeaseLost):
        held.renew(SHELL)
    assert machine.take("run-2").took_over is None


def test_a_lease_ends_with_its_time_and_its_successor_says_whose_it_was(machine: Machine) -> None:
    held = machine.take()
    machine.up(1119.9)
    with pytest.raises(Busy):
        machine.take("run-2")
    machine.up(1120)
    other = machine.take("run-2")
    assert other.took_over is not None
    assert other.took_over.run == "run-1"
    for _ in range(2):
        with pytest.raises(LeaseLost, match="for the run run-2"):
            held.renew(SHELL)
        with pytest.raises(LeaseLost):
            held.check()
    held.release(SHELL)
    other.renew(SHELL)
    other.check()
    assert "run-2" in machine.motd


def test_a_lease_that_ran_out_is_still_ours_if_nobody_took_it(machine: Machine) -> None:
    held = machine.take()
    machine.up(5000)
    held.renew(SHELL)
    held.check()
    assert machine.look().left == 120


def test_after_a_boot_a_lease_holds_for_its_time_from_the_boot(machine: Machine) -> None:
    held = machine.take(seconds=120)
    held.renew(SHELL, 600)
    machine.boot()
    machine.up(599)
    with pytest.raises(Busy):
        machine.take("run-2")
    machine.up(600)
    assert machine.take("run-2").took_over is not None


def test_a_holder_renews_in_the_next_boot(machine: Machine) -> None:
    held = machine.take()
    machine.boot()
    held.renew(SHELL)
    machine.up(120)
    with pytest.raises(Busy):
        machine.take("run-2")
    machine.up(121)
    machine.take("run-2")


def lease(**values: object) -> Lease:
    given = {
        "token": TOKEN,
        "owner": "a@b",
        "run": "r",
        "since": 0,
        "boot_id": "0" * 36,
        "up": 50.0,
        "seconds": 100,
    }
    return Lease.model_validate({**given, **values})


@pytest.mark.parametrize("wall", [0, 1, 1 << 31, 1 << 35])
def test_the_wall_clock_has_no_say(wall: int) -> None:
    clock = Clock("0" * 36, 149.0, wall)
    assert lease().left(clock) == 1
    assert lease().left(Clock("1" * 36, 99.0, wall)) == 1
    assert "until" in Seen(1, lease(), clock).words()


def test_no_clock_makes_a_lease_longer() -> None:
    assert lease().left(Clock("0" * 36, 0.0, 0)) == 100


def test_of_many_takers_one_wins(machine: Machine) -> None:
    takers = 12
    start = threading.Barrier(takers)

    def one(number: int) -> Held | None:
        start.wait()
        try:
            return machine.take(f"run-{number}")
        except Busy:
            return None

    with ThreadPoolExecutor(takers) as pool:
        held = [won for won in pool.map(one, range(takers)) if won]
    assert len(held) == 1
    held[0].renew(SHELL)
    # What all the others began is gone.
    assert machine.files() == ["lease.000000000001", "lease.000000000002"]


def test_takers_that_wait_get_it_one_after_another(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "POLL_SECONDS", 0.01)
    inside: list[int] = []
    most: list[int] = []

    def one(number: int) -> None:
        for _ in range(2):
            held = waited(partial(machine.take, f"run-{number}"), Deadline(60))
            inside.append(number)
            most.append(len(inside))
            held.renew(SHELL)
            inside.remove(number)
            held.release(SHELL)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert most == [1] * 8


def test_one_who_links_a_number_that_is_gone_has_lost(machine: Machine) -> None:
    """Between his look and his link the next lease came and went: link(2) alone would let him."""
    before = machine.look()
    machine.take("run-1").release(SHELL)
    machine.take("run-2")
    late = replace_command(machine.place, before, lease())
    assert SHELL.run(late).stdout == "lost\n"
    now = machine.look()
    assert now.number == 3
    assert now.lease is not None
    assert now.lease.run == "run-2"
    assert machine.files() == ["lease.000000000002", "lease.000000000003"]


def test_a_draft_of_a_taker_that_died_is_removed(machine: Machine) -> None:
    folder = Path(machine.place.folder)
    folder.mkdir(parents=True)
    (folder / f"draft.000000000001.{TOKEN}").write_text("half")
    held = machine.take()
    held.renew(SHELL)
    held.renew(SHELL)
    assert machine.files() == ["lease.000000000002", "lease.000000000003"]


@pytest.mark.parametrize(
    "text", ["", "{", "{}", lease().model_dump_json().replace("a@b", "a\\u001b[2J"), "x" * 9999]
)
def test_a_lease_that_cannot_be_read_frees_nothing(machine: Machine, text: str) -> None:
    folder = Path(machine.place.folder)
    folder.mkdir(parents=True)
    (folder / "lease.000000000007").write_text(text)
    with pytest.raises(InfraError, match="cannot be read") as caught:
        machine.take()
    assert str(folder) in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("seconds", [-1, LONGEST + 1])
def test_no_lease_is_for_ever(seconds: int) -> None:
    with pytest.raises(ValueError):
        lease(seconds=seconds)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "--\n",
        "lease.000000000001\n{}\n",
        "--\nno\n1.0 1\n7\n",
        f"--\n{'0' * 36}\n1.0 1\n{LATEST}\n",
    ],
)
def test_a_host_that_answers_nonsense_is_an_error(answer: str) -> None:
    with pytest.raises(InfraError, match="nonsense"):
        parse(answer, Place())


def test_a_folder_that_cannot_be_written_is_an_error(machine: Machine) -> None:
    (machine.folder / "var").write_text("")
    with pytest.raises(InfraError, match="exited 1"):
        machine.take()


def test_a_motd_that_cannot_be_written_costs_no_lease(machine: Machine) -> None:
    (machine.folder / "run").write_text("")
    held = machine.take()
    held.renew(SHELL)
    held.release(SHELL)
    assert machine.look().left == 0


def test_a_host_that_shows_no_lease_and_gives_none(machine: Machine) -> None:
    class Never(LocalShell):
        def run(
            self, command: str, deadline: Deadline | None = None, *, check: bool = True
        ) -> Result:
            if "ln" in command.split():
                return Result(command, 0, "lost\n", "")
            return super().run(command, deadline, check=check)

    with pytest.raises(Busy, match="not to be had: nobody has it, or ever had"):
        take(Never(), "run-1", place=machine.place)


class Late(LocalShell):
    """Between a look and a renewal, an earlier renewal by `held`'s holder arrives."""

    def __init__(self, machine: Machine) -> None:
        before = machine.look()
        assert before.lease is not None
        self._late = [replace_command(machine.place, before, before.lease)]

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if "ln" in command.split() and self._late:
            assert super().run(self._late.pop()).stdout == "won\n"
        return super().run(command, deadline, check=check)


def test_a_late_renewal_of_our_own_is_no_strangers(machine: Machine) -> None:
    held = machine.take()
    shell = Late(machine)
    with pytest.raises(InfraError, match="another one of our own") as caught:
        held.renew(shell)
    assert not isinstance(caught.value, LeaseLost)
    held.check()
    held.renew(shell)
    held.check()


def test_a_late_renewal_of_our_own_keeps_no_machine_that_was_given_back(machine: Machine) -> None:
    held = machine.take()
    held.release(Late(machine))
    assert machine.look().left == 0


def test_renewals_that_meet_share_no_draft(machine: Machine) -> None:
    before = machine.look()
    one, two = (replace_command(machine.place, before, lease()) for _ in range(2))
    assert one != two


def test_the_holder_counts_for_himself(machine: Machine) -> None:
    """A machine that cannot be reached may be another's as soon as our time is over."""
    now = [500.0]
    taken = machine.look()
    held = Held(lease(), 600.0, machine.place, None, lambda: now[0])
    assert taken.lease is None
    now[0] = 599.9
    held.check()
    now[0] = 600.0
    with pytest.raises(LeaseLost, match="ran out"):
        held.check()


def test_time_counts_from_before_the_machine_was_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is over for the holder before it is over there, however slow the answers are."""
    now = [500.0]

    class Slow(LocalShell):
        def run(
            self, command: str, deadline: Deadline | None = None, *, check: bool = True
        ) -> Result:
            now[0] += 10
            return super().run(command, deadline, check=check)

    monkeypatch.setattr(leasing, "boottime", lambda: now[0])
    held = take(Slow(), "run-1", place=machine.place, seconds=120)
    assert held._until == 500 + 120
    held._clock, asked = lambda: now[0], now[0]
    held.renew(Slow(), 90)
    assert held._until == asked + 90


def test_a_thread_renews_while_the_body_runs(machine: Machine) -> None:
    held = machine.take()
    renewed = threading.Event()

    class Watched(LocalShell):
        def run(
            self, command: str, deadline: Deadline | None = None, *, check: bool = True
        ) -> Result:
            done = super().run(command, deadline, check=check)
            if machine.look().number > 2:
                renewed.set()
            return done

    with held.renewing(lambda deadline: nullcontext(Watched()), every=0.01):
        assert renewed.wait(20)
    at = machine.look().number
    assert at > 2
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_a_renewal_that_fails_is_tried_again_over_a_new_connection(machine: Machine) -> None:
    held = machine.take()
    opened: list[Deadline] = []
    renewed = threading.Event()

    class Cut(LocalShell):
        """One whose connection breaks never works again."""

        def __init__(self, works: bool) -> None:
            self._works = works

        def run(
            self, command: str, deadline: Deadline | None = None, *, check: bool = True
        ) -> Result:
            assert deadline is opened[-1]
            if not self._works:
                raise InfraError("cut")
            done = super().run(command, deadline, check=check)
            if "won" in done.stdout:
                renewed.set()
            return done

    def connect(deadline: Deadline) -> AbstractContextManager[Shell]:
        opened.append(deadline)
        return nullcontext(Cut(len(opened) > 2))

    with held.renewing(connect, every=0.01):
        assert renewed.wait(20)
    held.check()
    assert {deadline.budget for deadline in opened} == {leasing.TRY_SECONDS}


def test_a_mistake_in_renewing_does_not_stay_unsaid(machine: Machine) -> None:
    held = machine.take()

    def connect(deadline: Deadline) -> AbstractContextManager[Shell]:
        raise ValueError("a mistake")

    with held.renewing(connect, every=0.01):
        for thread in threading.enumerate():
            if thread.name == "lease":
                thread.join(20)
        with pytest.raises(InfraError, match="broke") as caught:
            held.check()
    assert str(caught.value.__cause__) == "a mistake"
