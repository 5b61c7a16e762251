# SPDX-License-Identifier: GPL-2.0-only
"""Drive kvm-guest, the KVM user built from guests/, on a host.

docs/guest-protocol.md says what each command does and what it disturbs. The host is lost
territory: every reply is held to the form, the bounds and the sums that the protocol gives it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline
from harness.guest_line import Line
from harness.guest_replies import (
    EXITS,
    FLAGS,
    HARVEST,
    MARK,
    RACE,
    RING_MAX,
    SPIN,
    Entries,
    Harvest,
    IdleMark,
    RaceReply,
    Reply,
    Slot,
    SpinReply,
    TouchReply,
    parse_greeting,
)
from harness.guest_words import (
    Advice,
    Ager,
    Backing,
    Chunk,
    Churn,
    Holder,
    ManualLog,
    MoveHow,
    Opponent,
    Second,
    access,
)
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Process, Shell
from harness.ranges import format_ranges

PROGRAM = f"{PROGRAMS}/kvm-guest"


class Guest:
    """A running kvm-guest; a context manager that ends it.

    Methods raise GuestHung when a vCPU hangs, DeadlineExceeded when the program gives no answer,
    HostDied when its host died, Unproven where it needs page_idle and the kernel has none, and
    InfraError for a malformed reply or any other error. After
    an answer that did not come, nothing more can be asked of it.
    """

    def __init__(
        self,
        process: Process,
        greeting_command: str,
        *,
        pages: int,
        vcpus: int,
        backing: Backing,
        second: Second | None,
        timeout: float,
        slowdown: float,
        transcript: Path | None,
        deadline: Deadline | None,
    ) -> None:
        self.slowdown = slowdown
        self.dump_refusal: str | None = None
        """Why the dump of its stage 2 is no evidence (stage2.REASONS); None until it is asked."""
        self._pages = pages
        self.line = Line(
            process,
            pages=pages,
            timeout=timeout,
            slowdown=slowdown,
            transcript=transcript,
            deadline=deadline,
        )
        """For several commands in one exchange (harness/guest_exchanges.py)."""
        text = self.line.greeting(greeting_command)
        self.greeting = parse_greeting(greeting_command, text, second=second is not None)
        made = (self.greeting.pages, self.greeting.vcpus, self.greeting.backing)
        if made != (pages, vcpus, backing):
            Reply(greeting_command, text, pages).bad("not the machine that was asked for")

    @classmethod
    def start(
        cls,
        shell: Shell,
        *,
        backing: Backing = "anon",
        pages: int = 4096,
        file: str | None = None,
        skew: int = 0,
        ipa_skew: int = 0,
        low: bool = False,
        far: bool = False,
        wide: bool = False,
        eager_split: Chunk | None = None,
        shared_payload: bool = False,
        manual_log: ManualLog | None = None,
        ring: int | None = None,
        second: Second | None = None,
        vcpus: int = 1,
        cgroup: str | None = None,
        timeout: float = 20.0,
        slowdown: float = 1.0,
        transcript: Path | None = None,
        deadline: Deadline | None = None,
    ) -> Guest:
        """Start the program on a host and wait until its vCPUs are parked.

        `file` is the path on the host that a backing of that name is made of: it must not exist
        or be empty. With `skew` the slot's memory begins that many pages after a multiple of 2 MiB,
        with `ipa_skew` its guest physical address does: blocks of stage 2 fit only if both are the
        same, and then not at the ends. With `low` the slot is at guest physical address 0, below
        256 MiB. With `far` it lies across 512 GiB, half of it on each side,
        where one of the first tables of stage 2 ends and another begins; with `wide` across the
        middle of all addresses that the host can give a guest, 48 bits at most. With `eager_split`
        the dirty log splits all blocks when it is switched on, by 2 MiB or 1 GiB each (Linux 6.5).
        With `shared_payload` what the guest's code lives in is shared memory, which is not reaped
        with its owner, so that stage 2 keeps something beyond the slot. With `manual_log`
        clear_log() clears the dirty log, which has no page or all at first, and dirty() only
        reads it (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). With `ring` each vCPU has a dirty ring of so
        many entries, a power of two from 256 on, for harvest() and reset_rings(), and dirty_log()
        switches the log of the payload's memslot too. With `second` vCPU 0 alone
        has the pages by that slot: the others have them by a second memslot, or are of a second VM;
        shared memory is mapped twice then. With `cgroup` the program is in that one from the first,
        so that its memory, and what KVM allocates for it, are charged there. `timeout` is what one
        command may take, in seconds, on a kernel that is `slowdown` times as slow as usual;
        `deadline` bounds all of them together.
        Every line sent and received is appended to the file `transcript`.
        """
        argv = [PROGRAM, "--backing", backing, "--pages", str(pages)]
        argv += ["--file", file] if file else []
        argv += ["--skew", str(skew)] if skew else []
        argv += ["--ipa-skew", str(ipa_skew)] if ipa_skew else []
        argv += ["--low"] if low else []
        argv += ["--far"] if far else []
        argv += ["--wide"] if wide else []
        argv += ["--eager-split", eager_split] if eager_split else []
        argv += ["--shared-payload"] if shared_payload else []
        argv += ["--manual-log", manual_log] if manual_log else []
        argv += ["--ring", str(ring)] if ring else []
        argv += ["--second", second] if second else []
        argv += ["--vcpus", str(vcpus), "--timeout", f"{timeout * slowdown:g}"]
        if cgroup is not None:
            join = f'echo $$ > {shlex.quote(cgroup)}/cgroup.procs && exec "$@"'
            argv = ["sh", "-c", join, "sh", *argv]
        process = shell.start(argv)
        try:
            return cls(
                process,
                " ".join(argv),
                pages=pages,
                vcpus=vcpus,
                backing=backing,
                second=second,
                timeout=timeout,
                slowdown=slowdown,
                transcript=transcript,
                deadline=deadline,
            )
        except BaseException:
            process.close()
            raise

    @property
    def vm_dir(self) -> str:
        """The name of the VM's folder in debugfs/kvm."""
        return f"{self.greeting.pid}-{self.greeting.vmfd}"

    @property
    def slot(self) -> Slot:
        """Where the tested pages lie in the guest."""
        return Slot(self.greeting.slot_ipa, self.greeting.pages)

    @property
    def second_dir(self) -> str:
        """As vm_dir, of the VM that has the pages by the second way; ValueError without one."""
        if self.greeting.second_vmfd is None:
            raise ValueError("this guest has its pages in one memslot")
        return f"{self.greeting.pid}-{self.greeting.second_vmfd}"

    @property
    def second_slot(self) -> Slot:
        """As slot, by the second way; ValueError without one."""
        if self.greeting.second_ipa is None:
            raise ValueError("this guest has its pages in one memslot")
        return Slot(self.greeting.second_ipa, self.greeting.pages)

    def populate(self) -> TouchReply:
        """Have vCPU 0 write to every tested page."""
        return self._touches("populate", 0, self._pages)

    def touch(self, pages: Iterable[int], *, write: bool, vcpu: int = 0) -> TouchReply:
        """Have a vCPU load from or store to each of the pages once, in rising order."""
        return self._touch(access(write), pages, vcpu)

    def touch_in_order(self, pages: Sequence[int], *, write: bool, vcpu: int = 0) -> TouchReply:
        """As touch(), in the order given; no page may stand there twice."""
        command = f"touch {access(write)} {vcpu} {','.join(map(str, pages)) or '-'}"
        return self._touches(command, vcpu, len(pages))

    def touch_aging(
        self, pages: Iterable[int], *, write: bool, pause: int, vcpu: int = 0
    ) -> TouchReply:
        """As touch(), from `pause` microseconds after the moment that page_idle begins to age.

        Aged are the pages that the last idle_mark() marked.
        """
        asked = frozenset(pages)
        command = f"touch-aging {access(write)} {vcpu} {format_ranges(asked)} {pause}"
        return self._touches(command, vcpu, len(asked))

    def touch_both(
        self, written: Iterable[int], read: Iterable[int], *, writer: int, reader: int, pause: int
    ) -> TouchReply:
        """Have one vCPU write to pages, and from `pause` microseconds later on another read others.

        The reply is of the reader.
        """
        asked = frozenset(read)
        write = f"{writer} {format_ranges(frozenset(written))}"
        command = f"touch-both {write} {reader} {format_ranges(asked)} {pause}"
        return self._touches(command, reader, len(asked))

    def write_dropped(self, pages: Iterable[int], *, writer: int, reader: int) -> None:
        """Have one vCPU write to each page, which is dropped as soon as the host has it for that.

        Then another vCPU reads it. Of private memory; GuestDataLost if a value is neither zero nor
        what was written.
        """
        self._act(f"write-dropped {writer} {reader}", pages)

    def plant(self, pages: Iterable[int]) -> None:
        """Make the pages ones that fetch() can run and walk() can go through.

        kvm-guest writes to them itself: young to the host's own stage 1, and no guest's access.
        """
        self._act("plant", pages)

    def fetch(self, pages: Iterable[int], *, vcpu: int = 0) -> TouchReply:
        """Have a vCPU execute one instruction in each of the pages, which plant() put there."""
        return self._touch("fetch", pages, vcpu)

    def walk(self, pages: Iterable[int], *, vcpu: int = 0) -> TouchReply:
        """Have the translation of a vCPU's own addresses read each of the pages, as a table.

        plant() has to have made them tables. Nothing else in the guest accesses them.
        """
        return self._touch("walk", pages, vcpu)

    def hafdbs(self) -> int:
        """What the guest is told of its CPU by ID_AA64MMFR1_EL1.HAFDBS (Arm ARM, D24.2).

        0: it changes nothing in the guest's tables by itself; from 1 on it sets AF there, from 2 on
        it makes entries writable as well.
        """
        reply = self.line.ask("hafdbs", ("hafdbs",))
        hafdbs = reply.number("hafdbs")
        reply.agree(hafdbs < 16, "a field of four bits has more")
        return hafdbs

    def set_af(self, pages: Iterable[int], *, vcpu: int = 0) -> TouchReply:
        """As walk(), by an entry of each page that is without AF: the vCPU's CPU sets it.

        It needs hafdbs() of 1. plant() takes AF from the entry again.
        """
        return self._touch("set-af", pages, vcpu)

    def set_dirty(self, pages: Iterable[int], *, vcpu: int = 0) -> TouchReply:
        """The same by a store, for which the CPU makes that entry writable as well.

        It needs hafdbs() of 2.
        """
        return self._touch("set-dirty", pages, vcpu)

    def entries(self, pages: Iterable[int]) -> Entries:
        """What the guest's CPU did to the entries that set_af() and set_dirty() use.

        As kvm-guest reads them in its own mapping of pages that are planted; GuestDataLost if
        anything else in them has changed.
        """
        asked = frozenset(pages)
        command = f"entries {format_ranges(asked)}"
        reply = self.line.ask(command, ("pages", "young", "dirty"))
        reply.agree(reply.number("pages") == len(asked), "another number of pages")
        entries = Entries(reply.page_set("young"), reply.page_set("dirty"))
        reply.agree(entries.young | entries.dirty <= asked, "pages that were not asked for")
        return entries

    def verify(self, pages: Iterable[int]) -> None:
        """Raise GuestDataLost unless each page holds what the guest last wrote to it.

        kvm-guest reads the pages itself, so they are young to the host's own stage 1 after it.
        """
        self._act("verify", pages)

    def pfns(self) -> dict[int, int]:
        """The PFN of each tested page that is present, by page."""
        reply = self.line.ask("pfns", ("present", "map"))
        pfns = reply.pfns("map")
        reply.agree(reply.number("present") == len(pfns), "present is not the map's size")
        return pfns

    def flags(self) -> dict[str, int]:
        """How many present pages have each flag of /proc/kpageflags; "present" counts them.

        Names are those of Documentation/admin-guide/mm/pagemap.rst, in lower case.
        """
        names = ("present", *FLAGS)
        reply = self.line.ask("flags", names)
        counts = {name: reply.number(name) for name in names}
        most = max(counts.values())
        reply.agree(most == counts["present"] <= self._pages, "a count is too large")
        return counts

    def flagged(self, name: str) -> frozenset[int]:
        """The present pages that have a flag of /proc/kpageflags, by its name in flags()."""
        if name not in FLAGS:
            raise ValueError(f"no flag is named {name!r}")
        reply = self.line.ask(f"flagged {name}", ("count", "pages"))
        return reply.counted_set("pages")

    def drain(self) -> None:
        """Move new pages from the per-CPU batches of all CPUs to the LRU lists."""
        self.line.ask("drain", ())

    def idle_mark(self) -> IdleMark:
        """Mark every tested page idle by page_idle, which clears its access flags."""
        return IdleMark.of(self.line.ask("idle-mark", MARK))

    def idle_read(self) -> frozenset[int]:
        """The pages that are idle still; PagesMoved if one changed its PFN since idle_mark().

        This clears the access flags of marked pages. A huge page answers for all of its pages.
        """
        return self.line.ask("idle-read", ("count", "idle")).counted_set("idle")

    def flush(self) -> None:
        """Force a stage-2 TLB invalidation of the tested slot; vCPUs may spin meanwhile.

        It takes write permission from the stage-2 entries and keeps their access flags.
        """
        self.line.ask("flush", ())

    def stage2(self) -> str:
        """The text of the VM's debugfs file stage2_page_tables, read by kvm-guest itself."""
        return self.line.ask("stage2", ("dump",)).dump()

    def dirty_log(self, on: bool) -> None:
        """Switch the dirty log of the tested slot."""
        self.line.ask(f"dirty-log {'on' if on else 'off'}", ())

    def dirty(self) -> frozenset[int]:
        """The pages written since the last call or since the dirty log was switched on.

        With a manual log, those that are in it.
        """
        reply = self.line.ask("dirty", ("count", "dirty"))
        return reply.counted_set("dirty")

    def clear_log(self, pages: Iterable[int]) -> None:
        """Take pages from a manual dirty log, and write permission from those that were in it.

        It is one KVM_CLEAR_DIRTY_LOG, of as many words of 64 pages as these are in, and
        invalidates cached translations.
        """
        self._act("clear-log", pages)

    def harvest(self, vcpu: int = 0, entries: int = RING_MAX) -> Harvest:
        """Harvest so many entries of a vCPU's dirty ring at most, in their order.

        Told are also those that kvm-guest has harvested since the last call because that ring was
        full, and reset at once.
        """
        reply = self.line.ask(f"harvest {vcpu} {entries}", HARVEST)
        found = Harvest.of(reply)
        reply.agree(reply.number("vcpu") == vcpu, "another vCPU")
        reply.agree(bool(found.full) or found.entries <= entries, "more entries than asked for")
        return found

    def reset_rings(self) -> tuple[int, int]:
        """Have KVM reset what was harvested: it takes write permission from those pages.

        How many entries were harvested since the start, and how many KVM says that it has reset.
        """
        reply = self.line.ask("reset-rings", ("harvested", "reset"))
        return reply.number("harvested"), reply.number("reset")

    def readonly(self, on: bool) -> None:
        """Make the tested slot anew, as read-only memory of the guest or as what it was.

        The pages stay with what they hold; stage 2 maps none of them. No vCPU may spin.
        """
        self.line.ask(f"readonly {'on' if on else 'off'}", ())

    def move_slot(self) -> None:
        """Move the tested slot to another guest physical address and back, its log as it is.

        The pages stay with what they hold; stage 2 maps none of them. No vCPU may spin.
        """
        self.line.ask("move-slot", ())

    def tested_slot(self, on: bool) -> None:
        """Delete the tested slot, its dirty log as it is, or make it anew, without a log.

        The pages stay with what they hold; the guest has none of them meanwhile. No vCPU may spin.
        """
        self.line.ask(f"slot {'on' if on else 'off'}", ())

    def slot_beyond(self) -> tuple[int, int, int, int]:
        """Ask for a slot of the last page that the VM has addresses for, of that and the next one,
        and of the next alone, and move the tested slot there; the errno of each, 0 if KVM did it.
        None of them stays. No vCPU may spin.
        """
        names = ("before", "across", "beyond", "moved")
        reply = self.line.ask("slot-beyond", names)
        before, across, beyond, moved = map(reply.number, names)
        return before, across, beyond, moved

    def refused(self) -> frozenset[int]:
        """The pages of which a store came out to kvm-guest since the last time.

        Those of a read-only slot came with the value that the guest was to write, which is in no
        memory; for those that mprotect() has made read-only KVM_RUN failed with EFAULT.
        """
        reply = self.line.ask("refused", ("count", "pages"))
        return reply.counted_set("pages")

    def spin(self, pages: Iterable[int], *, write: bool, vcpu: int = 0) -> SpinReply:
        """Have a vCPU touch the pages in turn without end; returns when it has touched each."""
        command = f"spin {access(write)} {vcpu} {format_ranges(pages)}"
        return self._spins(command, vcpu)

    def spin_count(self, vcpu: int = 0) -> SpinReply:
        """How far a spin is; this does not make the vCPU exit."""
        return self._spins(f"spin-count {vcpu}", vcpu)

    def spin_wait(self, touches: int, vcpu: int = 0) -> SpinReply:
        """Wait until a spin has begun and ended that many more touches; no exit is made."""
        return self._spins(f"spin-wait {vcpu} {touches}", vcpu)

    def spin_stop(self, vcpu: int = 0) -> SpinReply:
        """End a spin."""
        return self._spins(f"spin-stop {vcpu}", vcpu)

    def pin(self, vcpu: int, cpu: int, *, fifo: bool = False) -> int:
        """Bind a vCPU's thread to one CPU of the host; returns the thread's id.

        With `fifo` it is of class SCHED_FIFO, which a spin without exits needs from Linux 6.12 on:
        the deadline server of the fair class interrupts a fair thread every second. Nothing else
        runs on that CPU then, work of the kernel included: call drain() before the spin begins.
        """
        how = "fifo" if fifo else "other"
        reply = self.line.ask(f"pin {vcpu} {cpu} {how}", ("vcpu", "cpu", "tid"))
        same = (reply.number("vcpu"), reply.number("cpu")) == (vcpu, cpu)
        reply.agree(same, "another vCPU or CPU")
        return reply.number("tid")

    def advise(self, advice: Advice, pages: Iterable[int]) -> None:
        """Give madvise(2) advice on pages.

        `dontneed` drops what they hold, but for shared memory; `remove` does it for that alone,
        by a hole in its file. After
        `free` the kernel may drop what they hold until the guest writes to them, and nothing says
        whether it did: touch() and verify() expect that it did not.
        """
        self._act(f"advise {advice}", pages)

    def mprotect(self, pages: Iterable[int], *, write: bool) -> None:
        """Let kvm-guest itself read and write pages, or only read them (mprotect(2)).

        A guest's store to a page that may only be read reaches no memory: refused() names it.
        """
        self._act(f"mprotect {access(write)}", pages)

    def uffd_protect(self, on: bool, pages: Iterable[int]) -> None:
        """Protect pages of the backing anon against writes by userfaultfd(2), or no more.

        Nobody waits for the faults: a guest's store there ends as with mprotect().
        """
        self._act(f"uffd-protect {'on' if on else 'off'}", pages)

    def protect_written(self) -> None:
        """Protect pages of the backing anon that were written (PAGEMAP_SCAN of Linux 6.7).

        A store, the guest's or the VMM's, makes its page writable again; none ends KVM_RUN.
        """
        self.line.ask("pagemap-scan protect", ())

    def scan_written(self) -> frozenset[int]:
        """The pages that were written since the last scan, which are protected then as well."""
        return self.line.ask("pagemap-scan get", ("count", "pages")).counted_set("pages")

    def replace(self, pages: Iterable[int]) -> None:
        """Put new memory where pages of the backing anon are; the old is unmapped (munmap(2))."""
        self._act("replace", pages)

    def take(self, pages: Iterable[int]) -> None:
        """Leave nothing where pages of memory of the backing `anon` are (munmap(2)).

        The memslot stays. A guest's store there reaches no memory: refused() names it. replace()
        puts memory there again.
        """
        self._act("take", pages)

    def move(self, how: MoveHow, pages: Iterable[int]) -> None:
        """Move pages to other addresses of kvm-guest (mremap(2)), until move_back().

        With "leave" the guest has new memory in their place (MREMAP_DONTUNMAP; anonymous memory
        alone), with "uffd" as well (UFFDIO_MOVE of Linux 6.8). With "away" there is nothing, and it
        is as after take(); kvm-guest itself may not touch the place either, so no verify().
        """
        self._act(f"move {how}", pages)

    def look_at_moved(self) -> None:
        """Raise GuestDataLost unless each page that was moved still has what it held then."""
        self.line.ask("moved look", ("pages",))

    def move_back(self) -> None:
        """Put the pages back that were moved; what the guest had there meanwhile is dropped."""
        self.line.ask("moved back", ("pages",))

    def reset(self) -> None:
        """Have the guest start anew: KVM_ARM_VCPU_INIT of each vCPU, which has run before.

        What the tested pages hold stays. They are in stage 2 no more where the CPU lacks
        FEAT_S2FWB.
        """
        reply = self.line.ask("reset", ("vcpus",))
        reply.agree(reply.number("vcpus") == self.greeting.vcpus, "another number of vCPUs")

    def lock(self, on: bool, pages: Iterable[int] | None = None) -> None:
        """Lock pages into memory, all if none are named, or let go of them again (mlock(2))."""
        chosen = range(self._pages) if pages is None else pages
        self._act(f"lock {'on' if on else 'off'}", chosen)

    def snapshot(self) -> None:
        """Have a child of kvm-guest keep the pages as they are, by copy on write (fork(2)).

        kvm-guest reads each page before, so they are young to the host's own stage 1.
        """
        self.line.ask("snapshot take", ())

    def look_at_snapshot(self) -> None:
        """Raise GuestDataLost unless the child still has what each page held then.

        That is what the guest wrote there, and the entry that set_af() and set_dirty() use.
        """
        reply = self.line.ask("snapshot look", ("pages",))
        reply.agree(reply.number("pages") == self._pages, "another number of pages")

    def drop_snapshot(self) -> None:
        """End the child."""
        self.line.ask("snapshot drop", ())

    def race(
        self,
        seed: int,
        *,
        rounds: int,
        agers: int,
        ager: Ager = "page-idle",
        opponent: Opponent = "unmap",
    ) -> RaceReply:
        """All vCPUs touch random pages while agers age them and an opponent does its part.

        Raises GuestDataLost if a vCPU reads or does what it must not, or the dirty log misses a
        page; GuestHung if one makes no progress; GuestSlow if all do, but not in time. What the
        pages held before is dropped; at the end each vCPU reads all of them, so they are young.
        """
        reply = self.line.ask(f"race {seed} {rounds} {agers} {ager} {opponent}", RACE)
        race = RaceReply(*(reply.number(name) for name in RACE))
        reply.agree(race.rounds == rounds, "another number of rounds")
        return race

    def churn(self, count: int, kind: Churn = "idle") -> int:
        """Ask for so many further VMs, end each that is made, and return how many were made.

        `idle` ones never run. A vCPU of those that `run` reads all tested pages; they have their
        blocks split and dirty rings as this VM has, and the dirty log on to their end if it is on
        here. `slots` ones read as well, between changes of the memslot of these pages: it has its
        log switched on and off, is moved away and back, deleted and made again. An `owner` is a
        process of its own for each, which makes it and ends without closing it. Those that are
        `too-large` ask for more bits of IPA than there are: KVM refuses to make them, or does
        not heed it (pKVM), and then all are made.
        """
        reply = self.line.ask(f"churn {count} {kind}", ("asked", "made"))
        made = reply.number("made")
        reply.agree(reply.number("asked") == count, "another number of VMs")
        allowed = (0, count) if kind == "too-large" else (count,)
        reply.agree(made in allowed, f"{made} of {count} VMs made")
        return made

    def crowd(self, count: int) -> None:
        """Make so many further VMs that live at the same time, and then end all of them.

        A vCPU of each reads all tested pages, another never runs. GuestBroke if one does not do
        so; GuestNoMemory if it does not for ENOMEM.
        """
        reply = self.line.ask(f"crowd {count}", ("asked", "made"))
        made = reply.number("made")
        reply.agree((reply.number("asked"), made) == (count, count), f"{made} of {count} VMs made")

    def makes_protected(self) -> bool:
        """Whether KVM makes a protected VM here: it is ended at once, and never runs."""
        reply = self.line.ask("protected-vm", ("made",))
        made = reply.number("made")
        reply.agree(made in (0, 1), "neither made nor refused")
        return bool(made)

    def give(self, keeper: str, what: Holder = "vm") -> None:
        """Send an fd that holds the VM to the keeper of that name (harness/keeper.py).

        That of the VM or of vCPU 0, or a new one that the statistics of either are read from.
        """
        if not re.fullmatch(r"[0-9a-z]{1,32}", keeper, re.ASCII):
            raise ValueError(f"not the name of a keeper: {keeper!r}")
        self.line.ask(f"give {keeper} {what}", ())

    def close(self) -> None:
        """End the program, and wait until it and its VM are gone; closing twice does nothing.

        Raises DeadlineExceeded if they do not go: what hangs in a VM's teardown must not pass.
        """
        self.line.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def timed(self, command: str, names: Sequence[str]) -> tuple[Reply, int]:
        """The reply to a command, and what it took by the host's own clock, in nanoseconds."""
        clock = ("clock", ("ns",))
        first, reply, last = self.line.ask_all((clock, (command, names), clock))
        took = last.number("ns") - first.number("ns")
        last.agree(took >= 0, "the clock went back")
        return reply, took

    def _act(self, command: str, pages: Iterable[int]) -> None:
        asked = frozenset(pages)
        reply = self.line.ask(f"{command} {format_ranges(asked)}", ("pages",))
        reply.agree(reply.number("pages") == len(asked), "another number of pages")

    def _touch(self, how: str, pages: Iterable[int], vcpu: int) -> TouchReply:
        asked = frozenset(pages)
        return self._touches(f"touch {how} {vcpu} {format_ranges(asked)}", vcpu, len(asked))

    def _touches(self, command: str, vcpu: int, pages: int) -> TouchReply:
        reply = self.line.ask(command, ("vcpu", "pages", *EXITS))
        result = TouchReply(reply.number("vcpu"), reply.number("pages"), reply.exits())
        reply.agree((result.vcpu, result.pages) == (vcpu, pages), "not what was asked")
        return result

    def _spins(self, command: str, vcpu: int) -> SpinReply:
        return SpinReply.of(self.line.ask(command, SPIN), vcpu)
