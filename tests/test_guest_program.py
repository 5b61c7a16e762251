# SPDX-License-Identifier: GPL-2.0-only
"""The parts of kvm-guest that need no KVM, built with the controller's own compiler."""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import operator
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from harness.paths import PROJECT
from harness.ranges import format_ranges, parse_ranges

PAGES = 4096

Parse = Callable[[str], tuple[list[int] | None, str]]
Print = Callable[[set[int]], str]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path_factory.mktemp("guests") / "ranges.so"
    source = PROJECT / "guests" / "kvm-guest" / "ranges.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    return ctypes.CDLL(str(target))


@pytest.fixture
def parse(library: ctypes.CDLL) -> Parse:
    function = library.ranges_parse
    function.restype = ctypes.c_int64

    def call(text: str) -> tuple[list[int] | None, str]:
        guard = 0xDEADBEEF
        pages = (ctypes.c_uint32 * (PAGES + 1))()
        pages[PAGES] = guard
        why = ctypes.c_char_p()
        count = function(text.encode(), ctypes.c_uint32(PAGES), pages, ctypes.byref(why))
        assert pages[PAGES] == guard
        return (None, (why.value or b"").decode()) if count < 0 else (list(pages[:count]), "")

    return call


@pytest.fixture
def print_set(library: ctypes.CDLL, tmp_path: Path) -> Print:
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p

    def call(pages: set[int]) -> str:
        member = (ctypes.c_bool * PAGES)(*(page in pages for page in range(PAGES)))
        path = tmp_path / "out"
        stream = ctypes.c_void_p(libc.fopen(str(path).encode(), b"w"))
        library.ranges_print(stream, member, ctypes.c_uint32(PAGES))
        libc.fclose(stream)
        return path.read_text()

    return call


def sample(seed: int) -> set[int]:
    chooser = random.Random(seed)
    return set(chooser.sample(range(PAGES), chooser.choice([1, 2, 100, PAGES // 2, PAGES - 1])))


@pytest.mark.parametrize("seed", range(10))
def test_both_sides_speak_the_same_ranges(seed: int, parse: Parse, print_set: Print) -> None:
    pages = sample(seed)
    text = format_ranges(pages)
    assert parse(text) == (sorted(pages), "")
    assert print_set(pages) == text
    assert parse_ranges(print_set(pages)) == pages


def test_empty_and_full(parse: Parse, print_set: Print) -> None:
    assert print_set(set()) == "-"
    assert parse("-") == ([], "")
    assert print_set(set(range(PAGES))) == f"0-{PAGES - 1}"
    assert parse(f"0-{PAGES - 1}") == (list(range(PAGES)), "")


def test_the_order_of_the_text_is_kept(parse: Parse) -> None:
    assert parse("9,3-5,0") == ([9, 3, 4, 5, 0], "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed"),
        (",", "malformed"),
        ("1,", "malformed"),
        ("1-", "malformed"),
        ("-1", "malformed"),
        ("1--2", "malformed"),
        ("1 ", "malformed"),
        ("0x1", "malformed"),
        ("1;2", "malformed"),
        ("--", "malformed"),
        ("4096", "beyond"),
        ("0-4096", "beyond"),
        ("18446744073709551616", "beyond"),
        ("5-4", "ends before"),
        ("1,1", "twice"),
        ("0-4095,0-4095", "twice"),
    ],
)
def test_what_is_refused(text: str, why: str, parse: Parse) -> None:
    pages, reason = parse(text)
    assert pages is None
    assert why in reason


def test_pages_that_follow_each_other_are_one_run(library: ctypes.CDLL) -> None:
    def run(pages: list[int]) -> int:
        return int(library.ranges_run((ctypes.c_uint32 * len(pages))(*pages), len(pages)))

    assert run([7]) == 1
    assert run([7, 8, 9]) == 3
    assert run([7, 8, 10, 11]) == 2
    assert run([7, 6]) == 1


RECORD = "struct record record = { .value = value, .done = was_done, .begun = had_begun };"
SHIM = (
    '#include "judge.h"\n'
    "int judge(uint64_t value, uint32_t was_done, uint32_t had_begun, uint32_t done, "
    "uint32_t begun, uint64_t got)\n"
    f"{{ {RECORD} return race_judge(&record, done, begun, got); }}\n"
)
NONE, STALE, LOST, WRONG = range(4)

Judge = Callable[[int, int, int, int, int, int], int]


def build(folder: Path, text: str) -> ctypes.CDLL:
    """A library from C code that includes parts of kvm-guest."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    (folder / "shim.c").write_text(text)
    include = f"-I{PROJECT / 'guests' / 'kvm-guest'}"
    options = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    target = folder / "shim.so"
    command = [compiler, *options, include, "-o", str(target), str(folder / "shim.c")]
    subprocess.run(command, check=True, timeout=60)
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    function = build(tmp_path_factory.mktemp("judge"), SHIM).judge
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    function.argtypes = [u64, u32, u32, u32, u32, u64]
    return lambda *arguments: int(function(*arguments))


SUM_SHIM = (
    '#include "judge.h"\n'
    "uint64_t add(uint64_t sum, uint64_t value) { return check_add(sum, value); }\n"
)


def test_wrong_values_do_not_cancel_each_other_out(tmp_path: Path) -> None:
    """512 pages that one command wrote are 0 by exclusive or; as 512 dropped pages would be."""
    add = build(tmp_path, SUM_SHIM).add
    add.restype = ctypes.c_uint64
    add.argtypes = [ctypes.c_uint64] * 2

    def added(values: list[int]) -> int:
        return functools.reduce(lambda have, value: int(add(have, value)), values, 0)

    older, old, new = ([(number << 32) + page for page in range(512)] for number in (1, 2, 3))
    states = [[0] * 512, older, old, new, [*old[:510], *new[510:]], [*old[2:], *old[:2]]]
    assert functools.reduce(operator.xor, old) == 0
    assert len({added(state) for state in states}) == len(states)


class RacedPage:
    """A page as it is when a vCPU's steps and the host's are put in some order."""

    def __init__(self, broken: str) -> None:
        self.begun = self.done = self.word = self.value = 0
        self.written_done = self.written_begun = 0
        self.samples = [0, 0]
        self.broken = broken

    def step(self, name: str) -> None:
        match name:
            case "begin":
                self.begun += 1
            case "drop":
                self.word = self.word if self.broken == "kept" else 0
            case "end":
                self.done += 1
            case "sample":
                self.written_done = self.done
            case "write":
                self.word = self.value = 7
            case "count":
                self.written_begun = self.begun
            case "look":
                self.samples[0] = self.done
            case "load":
                self.samples[1] = 0 if self.broken == "forgot" else self.word

    def judged(self, judge: Judge) -> int:
        record = (self.value, self.written_done, self.written_begun)
        return judge(*record, self.samples[0], self.begun, self.samples[1])


HOST = ["begin", "drop", "end"]
VCPU = ["sample", "write", "count", "look", "load"]


def orders(left: list[str], right: list[str]) -> list[list[str]]:
    """Every way in which two threads' steps can follow each other."""
    if not left or not right:
        return [left + right]
    first = [[left[0], *rest] for rest in orders(left[1:], right)]
    return first + [[right[0], *rest] for rest in orders(left, right[1:])]


def verdicts(judge: Judge, broken: str = "", drops: int = 2) -> list[tuple[list[str], int]]:
    results = []
    for order in orders(HOST * drops, VCPU):
        page = RacedPage(broken)
        for name in order:
            page.step(name)
        results.append((order, page.judged(judge)))
    return results


def test_no_order_of_a_race_is_blamed_on_a_kernel_that_is_right(judge: Judge) -> None:
    found = verdicts(judge)
    assert len(found) == 462
    assert {verdict for _, verdict in found} == {NONE}


def test_a_page_that_outlives_a_whole_drop_is_stale(judge: Judge) -> None:
    for order, verdict in verdicts(judge, "kept", drops=1):
        between = order[order.index("count") + 1 : order.index("look")]
        assert verdict == (STALE if between == HOST else NONE), order


def test_a_page_that_is_lost_without_a_drop_is_found(judge: Judge) -> None:
    for order, verdict in verdicts(judge, "forgot", drops=1):
        over = order.index("end") < order.index("sample")
        # One that begins later excuses a loss: its count is read at the very end.
        assert verdict == (LOST if over else NONE), order


def test_another_value_is_wrong(judge: Judge) -> None:
    assert judge(7, 0, 0, 0, 0, 8) == WRONG
    assert judge(0, 0, 0, 1, 1, 7) == WRONG


def test_counts_of_drops_may_wrap(judge: Judge) -> None:
    last = 2**32 - 1
    assert judge(7, last, last, 0, 0, 7) == STALE
    assert judge(7, 0, 0, last, 0, 7) == NONE


ROW_SHIM = (
    '#include "row.h"\n'
    "void extend(struct row *row, uint64_t number) { row_extend(row, number); }\n"
    "int covers(struct row *row, uint64_t before, uint64_t ended)\n"
    "{ return row_covers(row_read(row), before, ended); }\n"
)


class Row(ctypes.Structure):
    """struct row."""

    _fields_ = (("first", ctypes.c_uint64), ("last", ctypes.c_uint64))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = build(tmp_path_factory.mktemp("row"), ROW_SHIM)
    u64 = ctypes.c_uint64
    library.extend.argtypes = [ctypes.POINTER(Row), u64]
    library.covers.argtypes = [ctypes.POINTER(Row), u64, u64]
    return library


LEADER = ["away", "sample", "look"]
ACCESSES = ["begin", "access", "end"] * 3


def judged_rows(rows: ctypes.CDLL, reached: int) -> list[tuple[list[str], bool, bool]]:
    """Each order of three accesses and a slot that goes, whether it is found good, and is.

    The access of the number `reached` reaches the slot although it is gone.
    """
    results = []
    for order in orders(LEADER, ACCESSES):
        row, away, begun, ended, before = Row(), False, 0, 0, 0
        good, after = True, set()
        for step in order:
            match step:
                case "away":
                    away = True
                case "sample":
                    before = begun
                case "begin":
                    begun += 1
                case "access" if away and begun != reached:
                    rows.extend(row, begun)
                case "end":
                    ended += 1
                case "look":
                    good, after = bool(rows.covers(row, before, ended)), {*range(before, ended)}
        results.append((order, good, reached - 1 not in after))
    return results


def test_no_order_of_accesses_is_blamed_on_a_slot_that_is_gone(rows: ctypes.CDLL) -> None:
    found = judged_rows(rows, 0)
    assert len(found) == 220
    assert all(good for _, good, _ in found)


@pytest.mark.parametrize("reached", [1, 2, 3])
def test_any_access_that_began_later_and_reached_the_slot_is_found(
    rows: ctypes.CDLL, reached: int
) -> None:
    for order, good, is_good in judged_rows(rows, reached):
        assert good == is_good, order


LRU_GEN_SHIM = (
    '#include "lru_gen.c"\n'
    "unsigned int look_at(const char *path, char *text, unsigned long *found)\n"
    "{\n"
    "\tstruct lruvec lruvecs[MAX_NODES];\n"
    "\tunsigned int count = parse(path, text, lruvecs);\n"
    "\tfor (unsigned int i = 0; i < count; i++, found += 3) {\n"
    "\t\tfound[0] = lruvecs[i].memcg;\n"
    "\t\tfound[1] = lruvecs[i].node;\n"
    "\t\tfound[2] = lruvecs[i].newest;\n"
    "\t}\n"
    "\treturn count;\n"
    "}\n"
    "int look_into(int fd, const char *path)\n"
    "{\n"
    "\tstruct lruvec lruvecs[MAX_NODES];\n"
    "\tstruct lru_gen lru_gen = { .fd = fd };\n"
    '\tsnprintf(lru_gen.memcg, sizeof(lru_gen.memcg), "%s", path);\n'
    "\tint count = look(&lru_gen, lruvecs);\n"
    "\treturn count < 0 ? -errno : count;\n"
    "}\n"
)
LRU_GEN = """\
memcg     1 /
 node     0
          0       4120          0         812
          1       4120        153           0
memcg     0 /kvm-harness
 node     0
          8        812          3           0
 node     1
          8         40          0           0
 node     2
          8         40          0           0
memcg    27 /kvm-harness
 node     0
          5        812          3           0
          6         40         61           0
 node     1
          2         40          0           0
memcg    28 /kvm-harness/below
 node     0
          9         40          0           0
"""


@pytest.fixture(scope="module")
def lru_gen(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("lru_gen"), LRU_GEN_SHIM)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/kvm-harness", [(27, 0, 6), (27, 1, 2)]),
        ("/kvm-harness/below", [(28, 0, 9)]),
        ("/kvm", []),
    ],
)
def test_an_ager_finds_the_newest_generation_of_its_own_memcg(
    lru_gen: ctypes.CDLL, path: str, found: list[tuple[int, int, int]]
) -> None:
    room = (ctypes.c_ulong * (3 * 8))()
    text = ctypes.create_string_buffer(LRU_GEN.encode())
    count = lru_gen.look_at(path.encode(), text, room)
    assert [tuple(room[3 * at : 3 * at + 3]) for at in range(count)] == found


@pytest.mark.parametrize(
    ("size", "nodes", "found"),
    [
        # There is room for a byte less, and one must be left to know that it was all.
        ((1 << 20) - 2, 2, 2),
        ((1 << 20) - 1, 2, -errno.EOVERFLOW),
        (2_000_000, 2, -errno.EOVERFLOW),
        (8192, 64, 64),
        (8192, 65, -errno.EOVERFLOW),
        (1024, 0, -errno.ENOENT),
    ],
)
def test_an_ager_does_not_age_by_a_part_of_the_file(
    lru_gen: ctypes.CDLL, size: int, nodes: int, found: int, tmp_path: Path
) -> None:
    own = "memcg    27 /kvm-harness\n"
    own += "".join(f" node {node:5}\n {6:10} {40:10} {61:10} {0:10}\n" for node in range(nodes))
    path = tmp_path / "lru_gen"
    path.write_text(f"memcg     1 /{'x' * (size - len(own) - 14)}\n{own}")
    assert path.stat().st_size == size
    with path.open() as file:
        assert lru_gen.look_into(file.fileno(), b"/kvm-harness") == found


@pytest.fixture(scope="module")
def cpus(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path_factory.mktemp("guests") / "cpus.so"
    source = PROJECT / "guests" / "kvm-guest" / "cpus.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    return ctypes.CDLL(str(target))


def taken_of(cpus: ctypes.CDLL, numbers: Iterable[int], most: int) -> list[int]:
    """What a race takes of these; a set of the C library has a bit for each of 1024."""
    bits = sum(1 << cpu for cpu in numbers)
    made = (ctypes.c_uint8 * 128)(*bits.to_bytes(128, "little"))
    taken = (ctypes.c_uint * 16)(*[7777] * 16)
    count = cpus.cpus_of(made, taken, most)
    assert set(taken[count:]) <= {7777}
    return list(taken[:count])


@pytest.mark.parametrize(
    ("most", "expected"), [(2, [4, 10]), (3, [4, 10, 1023]), (8, [4, 9, 10, 1023])]
)
def test_a_race_takes_cpus_whichever_numbers_they_have(
    cpus: ctypes.CDLL, most: int, expected: list[int]
) -> None:
    assert taken_of(cpus, (4, 9, 10, 1023), most) == expected


def test_a_race_takes_the_first_cpu_and_others_far_apart(cpus: ctypes.CDLL) -> None:
    assert taken_of(cpus, range(80), 8) == [0, 10, 20, 30, 40, 50, 60, 70]
    for number in range(1, 40):
        for most in range(1, 9):
            taken = taken_of(cpus, range(number), most)
            assert len(taken) == min(number, most)
            assert taken[0] == 0
            gaps = {after - before for before, after in itertools.pairwise(taken)}
            assert not gaps or max(gaps) - min(gaps) <= 1


def test_where_a_race_is_started_does_not_say_where_it_may_run(cpus: ctypes.CDLL) -> None:
    taken = (ctypes.c_uint * 1024)()
    here = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(here)})
        count = cpus.cpus_usable(taken, 1024)
        assert os.sched_getaffinity(0) == {max(here)}
    finally:
        os.sched_setaffinity(0, here)
    assert set(taken[:count]) >= here


STAYS = """\
import ctypes, os, sys
ctypes.CDLL(sys.argv[1]).numa_stay()
mode = ctypes.c_int(-1)
nodes = (ctypes.c_ulong * 16)()
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 239, "aarch64": 236}[os.uname().machine]
if libc.syscall(number, ctypes.byref(mode), nodes, ctypes.c_ulong(1025), None, 0):
    print("errno", ctypes.get_errno())
else:
    print(mode.value, sum(bin(word).count("1") for word in nodes))
"""


def test_memory_of_guests_lies_on_one_node(tmp_path: Path) -> None:
    """MPOL_PREFERRED (1) of one node, in a process of its own; ENOSYS without CONFIG_NUMA."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path / "numa.so"
    source = PROJECT / "guests" / "kvm-guest" / "numa.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    argv = [sys.executable, "-c", STAYS, str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout in ("1 1\n", f"errno {errno.ENOSYS}\n")
