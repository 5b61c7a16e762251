# SPDX-License-Identifier: GPL-2.0-only
"""Whether events met, on made-up traces."""

from __future__ import annotations

from harness.checks.overlap import (
    AGE,
    AGED,
    TEST,
    TESTED,
    UNMAP,
    Window,
    acts,
    askings,
    between,
    entered,
    in_first_vm,
    meetings,
    most_threads,
    overlapping,
    stays,
    windows,
)
from harness.observe.trace import MARK, Counts, Event, Wanted, returned

PAGE = 4096


def event(name: str, time: int, pid: int, first: int = 0, pages: int = 1) -> Event:
    start = first * PAGE
    fields = {"start": start, "end": start + pages * PAGE}
    return Event(time, 0, "task", pid, name, "", fields)


def window(begin: int, end: int, pid: int = 1, first: int = 0, pages: int = 8) -> Window:
    return Window(pid, begin, end, first * PAGE, (first + pages) * PAGE)


def age(time: int, pid: int = 2, first: int = 0) -> Event:
    return event(AGE, time, pid, first)


def test_a_window_is_open_from_the_notice_to_the_return_of_its_own_thread() -> None:
    unmaps = [event(UNMAP, 10, 1, 0, 8), event(UNMAP, 12, 3, 64)]
    returns = [event("walk()", 15, 3), event("walk()", 20, 1)]
    assert windows(unmaps, returns) == (window(12, 15, 3, 64, 1), window(10, 20))


def test_a_question_is_about_one_page_and_lasts_until_all_vms_were_asked() -> None:
    hva = 7 * PAGE + 5
    asked = [Event(time, 0, "kdamond.0", 9, TEST, "", {"hva": hva}) for time in (10, 14)]
    back = Event(20, 0, "kdamond.0", 9, returned(TESTED), "", {"ret": 0})
    wanted = Wanted((TEST,), returns={TESTED: ""})
    counts = Counts(wanted, {}, 0, {}, (*asked, back), "")
    assert askings(counts) == (Window(9, 14, 20, hva, hva + 1),)


def test_of_several_vms_the_first_that_is_asked_is_told_apart() -> None:
    def asks(time: int, page: int, pid: int = 9) -> Event:
        return Event(time, 0, "kdamond.0", pid, TEST, "", {"hva": page * PAGE})

    def back(time: int, pid: int = 9) -> Event:
        return Event(time, 0, "kdamond.0", pid, returned(TESTED), "", {"ret": 0})

    asked = (
        *(asks(10, 1), asks(15, 1), asks(17, 1), asks(18, 4, pid=8), back(20), back(21, pid=8)),
        # A VM that says that it is young ends it; of what began before the trace nothing is known.
        *(asks(30, 2), back(35), back(40), asks(50, 3)),
    )
    counts = Counts(Wanted((TEST,), returns={TESTED: ""}), {}, 0, {}, asked, "")
    assert in_first_vm(counts, TEST, TESTED) == (
        Window(9, 10, 15, PAGE, PAGE + 1),
        Window(8, 18, 21, 4 * PAGE, 4 * PAGE + 1),
        Window(9, 30, 35, 2 * PAGE, 2 * PAGE + 1),
    )


def test_each_aging_is_told_with_the_functions_that_its_thread_entered_meanwhile() -> None:
    def entry(name: str, time: int, pid: int) -> Event:
        return Event(time, 0, "task", pid, name, "", {})

    def back(time: int, pid: int) -> Event:
        return Event(time, 0, "task", pid, returned(AGED), "", {"ret": 0})

    recorded = (
        # What is entered before and after it, or by others, is not its own.
        *(entry("slow", 5, 2), age(10), entry("fast", 11, 2), entry("slow", 11, 3), back(20, 2)),
        *(entry("slow", 25, 2), age(30), age(31, pid=3), entry("slow", 32, 3), back(33, 3)),
        *(back(40, 2), age(50)),
    )
    wanted = Wanted((AGE,), ("fast", "slow"), returns={AGED: ""}, entries=("fast", "slow"))
    counts = Counts(wanted, {}, 0, {}, recorded, "")
    assert entered(counts, ("fast", "slow")) == (
        (window(10, 20, 2, 0, 1), frozenset({"fast"})),
        (window(31, 33, 3, 0, 1), frozenset({"slow"})),
        (window(30, 40, 2, 0, 1), frozenset()),
    )
    assert [names for _, names in entered(counts, ["fast"])] == [{"fast"}, set(), set()]


def test_spans_overlap_by_their_time_in_another_thread() -> None:
    asked = (window(10, 20, pid=9), window(30, 40, pid=9))
    spans = (window(5, 9), window(5, 10), window(15, 16), window(20, 35), window(21, 29))
    assert overlapping(spans, asked) == 3
    assert overlapping(spans, (window(0, 99),)) == 0


def test_a_notice_without_a_walk_opens_nothing() -> None:
    unmaps = [event(UNMAP, 10, 1, 99), event(UNMAP, 30, 1, 0, 8)]
    assert windows(unmaps, [event("walk()", 40, 1)]) == (window(30, 40),)
    assert not windows(unmaps, [])


def test_a_return_without_a_notice_closes_nothing() -> None:
    assert not windows([], [event("walk()", 40, 1)])


def test_only_the_same_pages_at_the_same_time_in_another_thread_meet() -> None:
    spans = (window(10, 20),)
    assert meetings(spans, [age(15)]) == 1
    assert meetings(spans, [age(9), age(21)]) == 0
    assert meetings(spans, [age(15, first=8)]) == 0
    assert meetings(spans, [age(15, pid=1)]) == 0


def test_an_event_counts_once_however_many_windows_it_is_in() -> None:
    assert meetings((window(10, 20), window(12, 30, pid=3)), [age(15)]) == 1


def test_a_long_window_is_not_hidden_by_a_short_one_after_it() -> None:
    spans = (window(10, 100), window(12, 13, pid=3), window(14, 15, pid=3))
    assert meetings(spans, [age(50), age(60)]) == 2


def test_a_short_window_before_a_long_one_does_not_end_the_search() -> None:
    spans = (window(10, 100), window(5, 6, pid=3))
    assert meetings(spans, [age(4), age(50)]) == 1


def test_where_an_event_has_no_address_its_time_alone_counts() -> None:
    marked = Event(15, 0, "task", 2, "f()", "", {"ret": 0})
    late = Event(25, 0, "task", 2, "f()", "", {"ret": 0})
    assert meetings((window(10, 20),), [marked, late], Window.lasts) == 1
    assert meetings((window(10, 20, pid=2),), [marked], Window.lasts) == 0


def test_threads_count_by_the_window_that_has_most_of_them() -> None:
    spans = [window(0, 10), window(20, 40), window(50, 60, pid=4)]
    events = [age(5), age(25), age(26, pid=3), age(27, pid=3), age(30, pid=1), age(55, pid=3)]
    assert most_threads(spans, events) == 2
    assert most_threads(spans, [*events, age(39, pid=4)]) == 3
    assert most_threads(spans, [age(5, first=9), age(15)]) == 0
    assert most_threads([window(0, 10)], [age(5, first=9)], Window.lasts) == 1
    assert most_threads([], events) == 0


def mark(begins: int, time: int, pid: int = 1, first: int = 0, pages: int = 8) -> Event:
    fields = {"begins": begins, "start": first * PAGE, "end": (first + pages) * PAGE}
    return Event(time, 0, "task", pid, MARK, "", fields)


def test_an_act_lasts_from_mark_to_mark() -> None:
    marks = [mark(1, 10), mark(0, 20), mark(1, 30, first=4, pages=1), mark(0, 31, first=4, pages=1)]
    assert acts(marks) == (window(10, 20), window(30, 31, first=4, pages=1))


def test_an_act_with_one_end_is_none() -> None:
    assert not acts([mark(0, 5), mark(1, 10)])
    # The trace began in the middle of one.
    assert acts([mark(0, 5), mark(1, 10), mark(0, 20)]) == (window(10, 20),)
    assert acts([mark(1, 10, pid=1), mark(0, 20, pid=2), mark(0, 30, pid=1)]) == (window(10, 30),)


def test_reads_of_the_dirty_log_are_told_from_other_acts() -> None:
    marks = [mark(1, 10), mark(0, 20), mark(2, 30), mark(0, 40), mark(2, 50)]
    assert acts(marks) == (window(10, 20), window(30, 40))
    assert acts(marks, log_reads=True) == (window(30, 40),)


def test_a_vcpu_is_in_the_guest_from_entry_to_exit_of_its_thread() -> None:
    entries = [event("kvm:kvm_entry", time, pid) for time, pid in ((10, 1), (12, 3), (40, 1))]
    exits = [event("kvm:kvm_exit", time, pid) for time, pid in ((5, 1), (20, 1), (30, 3))]
    spans = stays(entries, exits, 0, 8 * PAGE)
    assert spans == (window(10, 20), window(12, 30, pid=3))
    # An ager on another CPU meets whoever is in the guest, and a vCPU's own thread is no ager.
    assert meetings(spans, [age(25), age(35), age(11, pid=1)]) == 1


def test_what_lies_between_is_of_one_thread_and_from_its_last_beginning() -> None:
    begins = [event("first()", time, pid) for time, pid in ((10, 1), (12, 1), (15, 3))]
    ends = [event("last()", time, pid) for time, pid in ((20, 1), (30, 4), (11, 3))]
    assert between(begins, ends, 0, 8 * PAGE) == (window(12, 20),)
