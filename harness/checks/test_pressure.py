# SPDX-License-Identifier: GPL-2.0-only
"""Aging under memory pressure: what has not been used goes first, and nothing else goes.

A guest in a memcg has a hot region, which a vCPU reads all the time, a warm one, which is read now
and then, and a cold one, which is never touched again. memory.high is lowered step by step, and
swap is on zram. Three LRUs: MGLRU with its walk of page tables, MGLRU without it, the classic one.

What the kernel guarantees, and why (mm/vmscan.c of Linux 6.12): all of them begin at the old end,
which is the oldest generation, or the tail of the inactive list, and go on only when that is used
up; a page that was accessed since it was last looked at is kept and moved to the young end. Here
all pages are old before the touches, and less is reclaimed than the cold region has, so what goes
is cold: all of it, without exception. With the walk, hot and warm pages are in younger generations
before anything is reclaimed, so no warm page goes before the last cold one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import generations, notices, pressure
from harness.checks.claim import Claim
from harness.checks.counted import check_which, counters
from harness.checks.driver import check_path, expected, situation, wanted
from harness.checks.flushes import check_flushes
from harness.checks.mglru import Memcg, memcg_of, zram_swap
from harness.checks.overlap import AGE, TEST, UNMAP, slot_range
from harness.checks.pages import forget_references, mark_idle, populated, shorten
from harness.checks.pressure import Reading, Regions
from harness.checks.test_mmu_lock import check_taken
from harness.contract import Contract, Expectation
from harness.contract_file import Driver, LockRule
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list, lockdep, lru_gen
from harness.observe.memcg import BATCH
from harness.observe.trace import Counts, together
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

KERNEL = "6.12"
HOT, WARM, COLD = 64, 320, 640
PAGES = HOT + WARM + COLD
# Whether the warm region is read before a pass; the hot one always is.
PASSES = (False, True, True, False)
IDLE_PASSES = (None,) * 3
STEPS, STEP = 2, 192
REFAULTS = ("workingset_refault_anon", "workingset_activate_anon", "workingset_restore_anon")
SPINNER = 1


class Story:
    """What is seen step by step, kept as evidence as soon as it is known."""

    def __init__(self, vm: Guest, shell: Shell, claim: Claim, regions: Regions) -> None:
        self._vm = vm
        self._shell = shell
        self._claim = claim
        self._regions = regions
        self.model_differs: list[str] = []

    def read(self, step: str, counts: Counts | None = None) -> Reading:
        """The counters now; with what was recorded in the step that led here."""
        now = pressure.read(self._shell, self._vm.greeting.pid)
        present = frozenset(self._vm.pfns())
        regions = {
            name: len(pages - present)
            for name, pages in (
                ("hot", self._regions.hot),
                ("warm", self._regions.warm),
                ("cold", self._regions.cold),
            )
        }
        line = {
            "step": step,
            "uptime": now.uptime,
            "generations": [
                {"seq": one.seq, "age_ms": one.age_ms, "anon": one.anon, "file": one.file}
                for one in (now.lruvec.generations if now.lruvec else ())
            ],
            "active_anon": now.stat["active_anon"] // PAGE_SIZE,
            "inactive_anon": now.stat["inactive_anon"] // PAGE_SIZE,
            "absent": regions,
            "pgscan": now.stat["pgscan"],
            "pgsteal": now.stat["pgsteal"],
            "refaults": now.stat["workingset_refault_anon"],
            "notices": notices.cost(counts, self._vm, self._regions) if counts else None,
        }
        with self._claim.path("generations.jsonl").open("a") as file:
            file.write(f"{json.dumps(line)}\n")
        return now

    def keep(self, name: str, text: str) -> None:
        """Keep what was seen before it is judged."""
        self._claim.save(name, text)

    def compare(self, step: str, model: generations.Generations, now: Reading) -> None:
        """Note where the generations are not those of the model."""
        found = generations.differences(model, now.lruvec) if now.lruvec else ("no generations",)
        self.model_differs += [f"{step}: {text}" for text in found]

    def lost(self) -> frozenset[int]:
        """The tested pages that are not in memory."""
        return self._regions.all - self._vm.pfns().keys()


def by_no_walk(contract: Contract) -> Expectation:
    """What aging does where MGLRU's walk is switched off: it asks nobody, on whatever path."""
    return contract.expect_nobody("walk_pud_range", event=AGE)


@dataclass(frozen=True)
class Scene:
    """A guest that is touched, aged and squeezed."""

    vm: Guest
    shell: Shell
    memcg: Memcg
    session: Session
    regions: Regions
    story: Story

    def prepare(self, under: pressure.Lru) -> Reading:
        """All pages in memory and old, and the hot ones read all the time from now on."""
        last = cpu_list.last(self.shell)
        populated(self.vm)
        mark_idle(self.vm)
        forget_references(self.vm, self.shell)
        if under == "classic":
            # KVM's faults leave all pages on the active list, from where they would come to the
            # inactive one without their access flags, used or not.
            self.vm.advise("cold", self.regions.all)
            self.vm.drain()
        # Commands and drivers of aging run on CPU 0, and the guest shall run meanwhile.
        self.vm.pin(SPINNER, last)
        self.vm.spin(self.regions.hot, write=False, vcpu=SPINNER)
        start = self.story.read("start")
        inactive = start.stat["inactive_anon"] // PAGE_SIZE
        if under == "classic" and inactive < PAGES:
            raise Unproven(f"only {inactive} pages are on the inactive list")
        return start

    def touch(self, *, warm: bool) -> None:
        """Have every hot page read after a TLB invalidation, and the warm ones if it is asked."""
        self.vm.flush()
        if warm:
            self.vm.touch(self.regions.warm, write=False)
        self.vm.spin_wait(2 * HOT, vcpu=SPINNER)

    def age(self, passes: Sequence[bool | None], start: Reading) -> tuple[Counts, ...]:
        """Make a generation for each pass, before which hot pages are read, and warm ones if true.

        None: the walk is off, so that nothing of what was read will be found.
        """
        if start.lruvec is None:
            raise Unproven("lru_gen does not show the guest's memcg")
        model = generations.new(start.lruvec, self.regions.all)
        found: list[Counts] = []
        for number, warm in enumerate(passes):
            self.touch(warm=bool(warm))
            self.session.start()
            self.memcg.walk()
            found.append(self.session.stop())
            self.story.keep(f"trace-pass-{number}.txt", found[-1].raw)
            accessed = self.regions.hot | (self.regions.warm if warm else frozenset())
            model = model.aged(accessed if warm is not None else frozenset())
            now = self.story.read(f"pass-{number}", found[-1])
            self.story.compare(f"pass {number}", model, now)
        return tuple(found)

    def squeeze(self, name: str, steps: Iterable[int]) -> tuple[Counts, int]:
        """Reclaim so many pages in each step, before which the hot ones are read.

        Returns how many tested pages must have gone by then as well.
        """
        found: list[Counts] = []
        least = 0
        for number, pages in enumerate(steps):
            self.touch(warm=False)
            self.session.start()
            done = self.memcg.squeeze(pages)
            counts = self.session.stop()
            self.story.keep(f"trace-{name}-{number}.txt", counts.raw)
            found.append(counts)
            now = self.story.read(f"{name}-{number}", counts)
            # The kernel tries 16 times, then leaves it at that.
            above = done.used - done.high
            assert above <= BATCH, f"{above} pages too many are in use for memory.high"
            least = pressure.least_lost(done, now, PAGES)
        return together(found), least

    def down_to_warm(self) -> Iterator[int]:
        """Steps until warm pages go, which cannot take them all: a step has fewer."""
        for _ in range(2 * COLD // STEP):
            if self.story.lost() & self.regions.warm:
                return
            yield STEP


def check_lost(claim: Claim, regions: Regions, lost: frozenset[int], least: int) -> None:
    """Assert that no page went but cold ones, as many as had to, and that some are left."""
    claim.observe(f"{len(lost)} of {len(regions.cold)} cold pages reclaimed, {least} had to be")
    for name, pages in (("hot", regions.hot), ("warm", regions.warm)):
        wrong = lost & pages
        assert not wrong, (
            f"{len(wrong)} {name} pages were evicted, while {len(regions.cold - lost)} cold ones "
            f"stayed: {shorten(wrong)}"
        )
    if least <= 0:
        raise Unproven(f"memory.high was met, but need not have cost a tested page ({least})")
    assert len(lost) >= least, f"{len(lost)} tested pages are gone where {least} have to be"
    assert lost < regions.cold, "all cold pages were evicted, although fewer had to be"


def check_once(
    claim: Claim,
    expectation: Expectation,
    recordings: Sequence[Counts],
    vm: Guest,
    pages: frozenset[int],
) -> None:
    """Assert that in each recording KVM was asked once about each of these pages, or never at all.

    Not in all of them together: a page that is asked about twice and then not at all would do.
    """
    if expectation.event is None:
        claim.not_judged("how often KVM is asked: by the contract this path has no event to count")
        return
    times = 1 if expectation.reaches_kvm else 0
    for number, counts in enumerate(recordings):
        wrong = notices.notices(counts, vm).once(pages, times)
        assert not wrong, (
            f"KVM is to be asked about each page {times} times in each of {len(recordings)} "
            f"passes, but in pass {number} {wrong}"
        )
    claim.observe(f"{len(recordings)} times {times} calls for each of {len(pages)} pages")


def check_locks(claim: Claim, promise: LockRule | None, counts: Counts, vm: Guest) -> None:
    """Assert that each call to age tested pages took the MMU lock as the contract has it.

    Only a debug kernel shows who takes it.
    """
    if promise is None:
        return
    start, end = slot_range(vm)
    # Others are for memory that may be in no slot: then KVM has nothing to lock.
    events = (
        replace(one, name="elsewhere")
        if one.name == AGE and not start <= one.fields["start"] < end
        else one
        for one in counts.in_order(AGE, TEST, UNMAP, lockdep.ACQUIRE)
    )
    check_taken(claim, "calls to age tested pages", lockdep.taken_by(AGE, events), promise, 0)


def check_order(claim: Claim, regions: Regions, lost: frozenset[int]) -> None:
    """Assert that warm pages went, all cold ones before them, and no hot one."""
    warm, left = lost & regions.warm, regions.cold - lost
    claim.observe(f"then {len(warm)} warm pages reclaimed, {len(left)} cold ones left")
    assert not left, f"{len(warm)} warm pages were evicted before {len(left)} cold ones"
    hot = lost & regions.hot
    assert not hot, f"{len(hot)} hot pages were evicted before warm ones: {shorten(hot)}"
    if not warm or warm == regions.warm:
        raise Unproven(f"{len(warm)} warm pages were reclaimed, so nothing is said of their order")


def check_refaults(
    claim: Claim,
    before: Reading,
    after: Reading,
    lost: frozenset[int],
    recent: int,
    under: pressure.Lru,
    late: Callable[[], Reading],
) -> None:
    """Assert that the pages that came back are those that went, and are told to be refaults.

    `recent` of them must be told to be restored: see must_be_restored().
    """
    rise = {name: after.stat[name] - before.stat[name] for name in REFAULTS}
    words = ", ".join(f"{name} {number}" for name, number in rise.items())
    claim.observe(f"{len(lost)} pages read again: {words}")
    refaults, activated, restored = rise.values()
    # Pages of the guest's owner may come back at the same time.
    others = before.swapped - len(lost)
    wrong = []
    if not len(lost) <= refaults <= len(lost) + others:
        wrong.append(
            f"{refaults} refaults of {len(lost)} pages that were read again and up to {others} "
            "others"
        )
    if not restored <= activated <= refaults:
        wrong.append(f"more restored than activated, or refaults: {rise}")
    # MGLRU restores what comes back by a fault while its generation is the oldest still.
    if under != "classic" and restored != activated:
        wrong.append(f"{activated} pages activated, {restored} restored")
    if restored < recent:
        wrong.append(f"{restored} pages restored, where at least {recent} must be")
    pressure.judge(claim, pressure.Wrong(own=tuple(wrong)), before, late)


def must_be_restored(regions: Regions, lost: frozenset[int], under: pressure.Lru) -> int:
    """How many of the lost pages must be restored when a fault brings them back.

    For MGLRU those of which the generation is the oldest still (mm/workingset.c,
    lru_gen_refault()). With the walk that is the generation of the warm ones, some of which are
    left; without it all were in one, and of that cold ones are left. A kernel that has three
    generations may make one more meanwhile, but then the oldest stays (should_run_aging()). The
    classic LRU goes by how much was reclaimed and activated since: it says nothing for sure.
    """
    if under == "classic":
        return 0
    return len(lost & regions.warm if under == "walk" else lost)


def keep_tiers(claim: Claim, shell: Shell, name: str) -> None:
    """Keep what MGLRU counted of refaults, evictions and walks for each generation, if it does."""
    text = shell.run(f"cat {lru_gen.DEBUGFS_FULL}", check=False).stdout
    if text:
        claim.save(name, text)


def check_sums(
    claim: Claim,
    before: Reading,
    after: Reading,
    lost: frozenset[int],
    under: pressure.Lru,
    late: Callable[[], Reading],
) -> None:
    """Assert that the counters agree with one another and with the page tables."""
    wrong = pressure.contradictions(before, after, mglru=under != "classic")
    # Less by what the guest's owner has beside the tested pages.
    others = before.stat["anon"] // PAGE_SIZE - PAGES
    swapped = after.swapped - before.swapped
    if not 0 <= swapped - len(lost) <= others:
        wrong = wrong.also(
            f"{swapped} pages are in swap, {len(lost)} of the tested ones are absent, and there "
            f"are {others} others"
        )
    if pressure.judge(claim, wrong, before, late):
        claim.observe(f"all sums agree, with {swapped} pages in swap")


@pytest.mark.deep
@pytest.mark.parametrize("under", ["walk", "no_walk", "classic"])
def test_pressure(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
    under: pressure.Lru,
) -> None:
    """The cold region goes first, the hot one stays, and all counters tell the same."""
    here = situation(cell)
    if under == "walk" and not contract.expect("mglru_walk", here).reaches_kvm:
        pytest.skip(f"MGLRU's walk asks KVM for no page here (AF at stage 1: {here.stage1_af})")
    regions = pressure.lay_out(rng, hot=HOT, warm=WARM, cold=COLD)
    summed = contract.kernel == KERNEL
    claim.expect(
        f"hot {shorten(regions.hot)}, warm {shorten(regions.warm)}, cold {shorten(regions.cold)}: "
        f"of {STEPS} times {STEP} pages that are reclaimed all are cold; KVM is asked once for "
        "each page in a pass and when it is evicted" + "; the sums of all counters agree" * summed
    )
    if not summed:
        claim.not_judged(
            f"sums of counters, refaults and sizes of generations: read in Linux {KERNEL} alone"
        )
    walks = under == "walk"
    aging = expected(contract, "mglru_walk", cell) if walks else by_no_walk(contract)
    driver: Driver = "classic" if under == "classic" else "eviction"
    off = pressure.clears(under, contract.lru_gen_bit)
    eviction = contract.expect(driver, here, bit_off=off)
    counting = contract.expect_counters(here)
    plain = (wanted(aging, "mglru_walk"), wanted(eviction, driver))
    with (
        pressure.lru(shell, under),
        zram_swap(shell),
        guest(pages=PAGES, vcpus=2) as vm,
        memcg_of(vm, shell) as memcg,
        tracing(shell, notices.recorded(*plain)) as session,
    ):
        story = Story(vm, shell, claim, regions)
        scene = Scene(vm, shell, memcg, session, regions, story)
        start = scene.prepare(under)
        story.keep("counters-start.txt", start.raw)
        late = partial(pressure.read_late, shell, vm.greeting.pid)
        alone = partial(pressure.judged_alone, start, late)
        counted = counters(vm, shell)
        if under != "classic":
            passes = scene.age(PASSES if under == "walk" else IDLE_PASSES, start)
        if under != "walk":
            # Those are not kept by their generation or list, but by their access flags.
            scene.touch(warm=True)
        squeezed, least = scene.squeeze("cold", STEPS * [STEP])
        lost = story.lost()
        with alone():
            check_lost(claim, regions, lost, least)
            assert not (summed and story.model_differs), "; ".join(story.model_differs)
        if under != "classic":
            whole = together(passes)
            aging = check_path(claim, aging, session, whole, vm)
            with alone():
                check_once(claim, aging, passes, vm, regions.all)
            check_flushes(claim, contract.expect_flushes(here), *passes)
            if cell.debug:
                check_locks(claim, contract.expect_mmu_lock(here).get("aging"), whole, vm)
        eviction = check_path(claim, eviction, session, squeezed, vm, regions.all, partly=True)
        check_which(claim, counting, counted, counters(vm, shell))
        # Without the walk, eviction looks around each young page that it meets.
        apart = lost & regions.apart() if under == "no_walk" else lost
        with alone():
            check_once(claim, eviction, [squeezed], vm, apart)
        if under == "walk":
            # Generation by generation: the last cold page goes before the first warm one.
            squeezed, _ = scene.squeeze("warm", scene.down_to_warm())
            lost = story.lost()
            with alone():
                check_order(claim, regions, lost)
                check_once(claim, eviction, [squeezed], vm, lost & regions.warm)
        pressed = story.read("pressed")
        claim.save("counters-pressed.txt", pressed.raw)
        keep_tiers(claim, shell, "lru_gen_full-pressed.txt")
        if summed:
            check_sums(claim, start, pressed, lost, under, late)
        # What was taken comes back, and nothing else has to.
        vm.touch(lost, write=False)
        back = story.read("back")
        claim.save("counters-back.txt", back.raw)
        keep_tiers(claim, shell, "lru_gen_full-back.txt")
        if summed:
            check_sums(claim, start, back, story.lost(), under, late)
            recent = must_be_restored(regions, lost, under)
            check_refaults(claim, pressed, back, lost, recent, under, late)
        vm.verify(regions.all)
