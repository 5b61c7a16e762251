# SPDX-License-Identifier: GPL-2.0-only
"""Counters and CPU identity: what real hosts printed, and what is refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe import collect, cpu, kvmstats, lru_gen, stage2, vmstat
from harness.observe.errors import ObserveError
from harness.observe.text import sections, signed, unsigned, whole_lines

DATA = Path(__file__).parent / "data" / "observe"
SAVED_NONCE = "N" * 32
CPUS = ["neoverse-n1", "cortex-a57"]


def saved(name: str) -> str:
    return (DATA / "counters" / name).read_text()


class SavedHost(UnaskedShell):
    """A Shell that answers with what a real host printed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refusal = ""
        self.commands = 0

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.commands += 1
        if nonce := re.search(r"([0-9a-f]{32}) end", command):
            text = saved(f"{self.name}-snapshot.txt").replace(SAVED_NONCE, nonce[1])
        else:
            assert "stage2_page_tables" in command
            text = f"{self.refusal}\n"
            if not self.refusal and "cat /sys/kernel/debug/kvm/54-4/stage2_page_tables" in command:
                text += (DATA / "stage2" / "small.txt").read_text()
        return Result(command, 0, text, "")


@pytest.mark.parametrize("name", CPUS)
def test_a_snapshot_is_one_command(name: str) -> None:
    host = SavedHost(name)
    snapshot = collect.snapshot(host, "54-4")
    assert host.commands == 1
    assert snapshot.meminfo["MemTotal"] > 1 << 30
    assert snapshot.meminfo["SecPageTables"] % 4096 == 0
    assert snapshot.meminfo["SecPageTables"] > 0
    assert snapshot.vmstat["nr_sec_page_table_pages"] * 4096 == snapshot.meminfo["SecPageTables"]
    assert snapshot.kvm.counters["exits"] > 0
    assert snapshot.vm is not None
    assert snapshot.vm.counters["exits"] == snapshot.kvm.counters["exits"]
    assert [len(lruvec.generations) for lruvec in snapshot.lru] == [4]
    assert "exits" in snapshot.raw["vm"]


def test_mm_walk_needs_hardware_af() -> None:
    n1, a57 = (collect.snapshot(SavedHost(name), "54-4").lru_enabled for name in CPUS)
    assert n1 == lru_gen.Enabled.CORE | lru_gen.Enabled.MM_WALK
    assert a57 == lru_gen.Enabled.CORE


def test_a_snapshot_without_a_vm() -> None:
    text = saved("neoverse-n1-snapshot.txt")
    assert collect.parse_snapshot(text, SAVED_NONCE, None).vm is None


def test_a_snapshot_cut_anywhere_is_an_error() -> None:
    text = saved("neoverse-n1-snapshot.txt")
    for cut in range(0, len(text), 211):
        with pytest.raises(ObserveError):
            collect.parse_snapshot(text[:cut], SAVED_NONCE, "54-4")


def test_a_missing_part_is_an_error() -> None:
    text = saved("neoverse-n1-snapshot.txt")
    start, end = text.index(f"{SAVED_NONCE} lru_gen"), text.index(f"{SAVED_NONCE} enabled")
    with pytest.raises(ObserveError, match="has the parts"):
        collect.parse_snapshot(text[:start] + text[end:], SAVED_NONCE, None)


def test_dump_of_a_vm() -> None:
    dump = collect.dump_stage2(SavedHost("neoverse-n1"), "54-4")
    assert dump.raw.startswith("---[ Guest IPA ]---")
    assert dump.ranges[1].af
    with pytest.raises(ValueError, match="not the name"):
        collect.dump_stage2(SavedHost("neoverse-n1"), "../../x")


def test_a_dump_that_is_no_evidence_is_not_opened() -> None:
    host = SavedHost("neoverse-n1")
    host.refusal = "absent\n"
    host.read = lambda *_: pytest.fail("it was opened")  # type: ignore[method-assign]
    with pytest.raises(collect.NoDump, match="no dump of stage 2"):
        collect.dump_stage2(host, "54-4")
    host.refusal = "nonsense\n"
    with pytest.raises(ObserveError, match="unexpected: 'nonsense'"):
        collect.dump_stage2(host, "54-4")


@pytest.mark.parametrize(
    ("dump", "cmdline", "symbols", "reason"),
    [
        (True, "console=ttyAMA0", "T pkvm_pgtable_stage2_init", ""),
        (
            True,
            "kvm-arm.mode=protected",
            "T kvm_pgtable_stage2_init\n2 t pkvm_pgtable_stage2_init_x",
            "",
        ),
        (True, "a kvm-arm.mode=protected b", "T x\n2 T pkvm_pgtable_stage2_init", "el2"),
        (False, "kvm-arm.mode=protected", "T pkvm_pgtable_stage2_init", "absent"),
        (True, "kvm-arm.mode=protected", None, "el2"),
    ],
)
def test_which_dumps_are_no_evidence(
    tmp_path: Path, dump: bool, cmdline: str, symbols: str | None, reason: str
) -> None:
    """The script itself, on files as a host has them; asked twice, it says the same."""
    vm = tmp_path / "54-4"
    vm.mkdir()
    if dump:
        (vm / "stage2_page_tables").write_text("")
    (tmp_path / "cmdline").write_text(f"{cmdline}\n")
    if symbols is not None:
        (tmp_path / "kallsyms").write_text(f"1 {symbols}\n")
    script = stage2.REFUSAL
    for folder in ("/proc", "/run"):
        script = script.replace(f"{folder}/", f"{tmp_path}/")
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-euc", f"set -- {vm}\n{script}echo $why"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == reason


@pytest.mark.parametrize(
    ("name", "model", "hafdbs"),
    [("neoverse-n1", "Neoverse N1", True), ("cortex-a57", "Cortex-A57", False)],
)
def test_cpus(name: str, model: str, hafdbs: bool) -> None:
    found = cpu.parse(saved(f"{name}-cpu.txt"))
    assert sorted(found) == [0, 1]
    for midr in found.values():
        assert midr.model is not None
        assert (midr.model.name, midr.model.hafdbs, midr.model.erratum) == (model, hafdbs, None)


def test_fields_of_midr() -> None:
    midr = cpu.parse_midr("0x00000000414fd0c1\n")
    assert midr == cpu.Midr(0x41, 0x4, 0xF, 0xD0C, 0x1)
    assert str(midr) == "0x414fd0c1"
    assert str(cpu.parse_midr("0x00000000000f0510\n")) == "0x000f0510"


@pytest.mark.parametrize(
    ("midr", "name", "erratum"),
    [
        ("0x00000000c00fac30", "AmpereOne AC03", "AC03_CPU_38"),
        ("0x00000000c00fac40", "AmpereOne AC04", "AC04_CPU_10"),
        ("0x00000000410fd490", "Neoverse N2", None),
    ],
)
def test_errata(midr: str, name: str, erratum: str | None) -> None:
    model = cpu.parse_midr(f"{midr}\n").model
    assert model is not None
    assert (model.name, model.erratum) == (name, erratum)


def test_an_unknown_cpu_has_no_model() -> None:
    assert cpu.parse_midr("0x00000000000f0510\n").model is None


@pytest.mark.parametrize("text", ["", "0x414fd0c1\n", "414fd0c1\n", "0x00000000414fd0c1", "x\n"])
def test_no_midr(text: str) -> None:
    with pytest.raises(ObserveError):
        cpu.parse_midr(text)


@pytest.mark.parametrize("text", ["", "cpu0 x\n", "cpu0 0x00000000414fd0c1\n" * 2])
def test_no_cpus(text: str) -> None:
    with pytest.raises(ObserveError):
        cpu.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a 1\n",
        "nr_free_pages 1\nnr_free_pages 1\n",
        "nr_free_pages -1\n",
        "nr_free_pages 1 2\n",
    ],
)
def test_malformed_vmstat(text: str) -> None:
    with pytest.raises(ObserveError, match=r"^/proc/vmstat:"):
        vmstat.parse_vmstat(text)


@pytest.mark.parametrize("text", ["", "MemFree: 1 kB\n", "MemTotal: 1 MB\n", "MemTotal 1 kB\n"])
def test_malformed_meminfo(text: str) -> None:
    with pytest.raises(ObserveError, match=r"^/proc/meminfo:"):
        vmstat.parse_meminfo(text)


def test_amounts_have_units() -> None:
    found = vmstat.parse_meminfo("MemTotal:   2 kB\nHugePages_Total:   3\nActive(anon): 1 kB\n")
    assert found == {"MemTotal": 2048, "HugePages_Total": 3, "Active(anon)": 1024}


def test_a_file_of_text_is_no_counter() -> None:
    stats = kvmstats.parse("exits 12\nipa_range 40\nstage2_af hardware\nneg -3\n")
    assert stats.counters == {"exits": 12, "ipa_range": 40, "neg": -3}
    assert stats.texts == {"stage2_af": "hardware"}


@pytest.mark.parametrize("text", ["", "stage2_af hardware\n", "exits\n", "exits 1\nexits 2\n"])
def test_malformed_kvm_stats(text: str) -> None:
    with pytest.raises(ObserveError):
        kvmstats.parse(text)


def test_the_script_never_opens_the_stage_2_dump(tmp_path: Path) -> None:
    """Run for real on a folder like KVM's, where the dump is a FIFO: opening it would hang."""
    folder = tmp_path / "54-4"
    folder.mkdir()
    (folder / "exits").write_text("7\n")
    (folder / "ipa_range").write_text("40\n")
    (folder / "empty").write_text("")
    (folder / "idregs").write_text("SYS: 1\n")
    (folder / "vcpu0").mkdir()
    (folder / "stage2_page_tables").symlink_to("exits")
    script = kvmstats.script("54-4").replace(kvmstats.KVM, str(tmp_path))
    done = subprocess.run(["sh", "-eu"], input=script, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (0, "exits 7\nipa_range 40\n")


@pytest.mark.parametrize("vm", ["", "1", "1-", "../1-1", "1-1/x", "1-1;x"])
def test_names_of_vms(vm: str) -> None:
    with pytest.raises(ValueError, match="not the name of a VM"):
        kvmstats.script(vm)


def test_generations_of_several_memcgs_and_nodes() -> None:
    text = (
        "memcg     1 /\n node     0\n          3        100          7           9 \n"
        " node     1\n          0          5          0           1 \n"
        "memcg 4294967338 /a b\n node     0\n          1         50          2           3 \n"
        "          2         10          4           5 \n"
    )
    found = lru_gen.parse(text)
    assert [(each.memcg, each.path, each.node) for each in found] == [
        (1, "/", 0),
        (1, "/", 1),
        (4294967338, "/a b", 0),
    ]
    assert found[2].generations[1] == lru_gen.Generation(seq=2, age_ms=10, anon=4, file=5)


@pytest.mark.parametrize(
    "text",
    [
        " node     0\n",
        "memcg     1 /\n          3        100          7           9 \n",
        "memcg     1 /\n node     0\n",
        "memcg     1 /\n node     0\n 3 100 7\n",
        "memcg     1 /\n node     0\n 3 100 7 9x\n",
        "memcg     1 /\n node     0\n 3 100 7 9\n 5 100 7 9\n",
        "memcg     1 /\n node     0\n 3 100 7 9",
    ],
)
def test_malformed_generations(text: str) -> None:
    with pytest.raises(ObserveError):
        lru_gen.parse(text)


def test_enabled_keeps_bits_that_it_does_not_know() -> None:
    assert lru_gen.parse_enabled("0x000b\n") & lru_gen.Enabled.SECONDARY_WALK
    assert int(lru_gen.parse_enabled("0x0013\n")) == 0x13


@pytest.mark.parametrize("text", ["", "y\n", "0x3", "0x0003\n0x0003\n", "0x0003"])
def test_malformed_enabled(text: str) -> None:
    with pytest.raises(ObserveError):
        lru_gen.parse_enabled(text)


@pytest.mark.parametrize("word", ["", "-1", "1.0", "0x1", "9" * 21, str(1 << 64), "1 ", "\u0661"])
def test_not_unsigned(word: str) -> None:
    with pytest.raises(ObserveError, match=r"^f:3: "):
        unsigned(word, "f", 3)


def test_signed() -> None:
    assert signed("-5", "f", 1) == -5
    with pytest.raises(ObserveError):
        signed("--5", "f", 1)


def test_a_message_shows_a_host_s_text_escaped_and_short() -> None:
    with pytest.raises(ObserveError) as caught:
        unsigned("\x1b[2J" + "x" * 10_000, "f", 1)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_lines_are_bounded() -> None:
    assert whole_lines("", "f") == []
    with pytest.raises(ObserveError, match="longer than 10 characters"):
        whole_lines("x" * 11, "f", 10)


def test_sections_need_their_end() -> None:
    assert sections("N a\n1\nN b\nN end\n", "N", "f") == [("a", "1\n"), ("b", "")]
    for text in ("", "N a\n1\n", "x\nN a\nN end\n", "N a\nN end", "N a\nN end\nx\n"):
        with pytest.raises(ObserveError):
            sections(text, "N", "f")
