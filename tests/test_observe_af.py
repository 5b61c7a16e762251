# SPDX-License-Identifier: GPL-2.0-only
"""Who must set the access flag, from what hosts show: real ones, and those that QEMU cannot be."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.inventory import AfMode, KvmMode
from harness.observe import af, collect, cpu
from harness.observe.af import HW_AFDBM, WORKAROUND, Expected
from harness.observe.errors import ObserveError

SAVED = Path(__file__).parent / "data/observe/af"
NONCE = "N" * 32
N1, A57, A53, A55, A76 = 0x414FD0C1, 0x411FD070, 0x410FD034, 0x412FD050, 0x414FD0B0
AC03, AC04, UNKNOWN = 0xC00FAC30, 0xC00FAC40, 0x511F0011
BEGIN = "Booting Linux on physical CPU 0x0000000000 [0x410fd034]"
ERRATUM = "CPU features: detected: AmpereOne erratum AC03_CPU_38"


def shown(
    *midrs: int,
    afdbm: str = "y",
    workaround: str = "y",
    dirty: str = "",
    log: tuple[str, ...] = (BEGIN,),
) -> str:
    """What af.script() prints on a host with these CPUs; "" for a symbol that is not known."""
    cpus = [f"cpu{number} {midr:#018x}" for number, midr in enumerate(midrs)]
    config = []
    for name, value in ((WORKAROUND, workaround), (HW_AFDBM, afdbm)):
        if value:
            config.append(f"{name}=y" if value == "y" else f"# {name} is not set")
    words = [
        *log,
        *([f"CPU features: detected: Hardware dirty bit management on CPU{dirty}"] * bool(dirty)),
    ]
    lines = [
        f"{NONCE} cpus", *cpus, f"{NONCE} config", *config,
        f"{NONCE} log", *(f"[    0.012345] {one}" for one in words), f"{NONCE} end",
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def expect(
    text: str, inventory: AfMode = "hardware", mode: KvmMode = "vhe", cleared_by: str = ""
) -> list[Expected]:
    seen = af.parse(text, NONCE)
    return list(af.expect(seen, inventory=inventory, mode=mode, cleared_by=cleared_by))


def only(text: str, inventory: AfMode = "hardware", cleared_by: str = "") -> Expected:
    (kind,) = expect(text, inventory, cleared_by=cleared_by)
    return kind


class SavedHost(UnaskedShell):
    """A Shell that answers af.script() with what a real host printed."""

    def __init__(self, name: str) -> None:
        self._text = (SAVED / f"{name}.txt").read_text()

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        nonce = re.search(r"([0-9a-f]{32}) end", command)
        assert nonce is not None
        return Result(command, 0, self._text.replace(NONCE, nonce[1]), "")


@pytest.mark.parametrize(
    ("name", "model", "must"),
    [
        ("neoverse-n1", "Neoverse N1", "hardware"),
        ("cortex-a57", "Cortex-A57", "software"),
    ],
)
@pytest.mark.parametrize("inventory", ["hardware", "software"])
def test_an_emulated_host(name: str, model: str, must: AfMode, inventory: AfMode) -> None:
    """What the inventory says has no part in it."""
    seen = collect.af_witnesses(SavedHost(name))
    (kind,) = af.expect(seen, inventory=inventory, mode="vhe")
    assert (kind.af, kind.cpus, kind.hafdbs) == (must, (0, 1), must == "hardware")
    assert kind.name == f"CPU 0-1 ({model})"
    assert kind.why.startswith(f"{model} {'has' if kind.hafdbs else 'lacks'} FEAT_HAFDBS (TRM ")
    assert "KVM sets VTCR_EL2.HA" in kind.why
    assert f"cpu1 0x{'0' * 8}{str(kind.midr)[2:]}\n" in seen.raw


@pytest.mark.parametrize("mode", ["vhe", "nvhe", "protected"])
def test_the_mode_of_kvm_is_named_and_changes_nothing(mode: KvmMode) -> None:
    (kind,) = expect(shown(N1, N1), mode=mode)
    assert kind.af == "hardware"
    assert f"KVM in {mode} mode, which makes no difference to it" in kind.why


def test_each_cpu_of_an_asymmetric_machine_for_itself() -> None:
    """VTCR_EL2.HA is set on all of them, and one without FEAT_HAFDBS ignores it."""
    little, big = expect(shown(A53, A53, A76, A76, dirty="2-3"))
    assert (little.cpus, little.af, little.hafdbs) == ((0, 1), "software", False)
    assert (big.cpus, big.af, big.hafdbs) == ((2, 3), "hardware", True)
    assert "KVM sets VTCR_EL2.HA" in little.why


def test_two_models_that_have_it_are_two_kinds() -> None:
    """A Rockchip RK3588, whose log leaves the Cortex-A55 out for erratum 1024718."""
    kinds = expect(shown(*[A55] * 4, *[A76] * 4, dirty="4-7"))
    assert [(kind.cpus, kind.af) for kind in kinds] == [
        ((0, 1, 2, 3), "hardware"),
        ((4, 5, 6, 7), "hardware"),
    ]
    assert kinds[1].name == "CPU 4-7 (Cortex-A76)"


def test_revisions_of_a_model_are_two_kinds() -> None:
    assert [kind.cpus for kind in expect(shown(N1, N1 - 1, N1))] == [(0, 2), (1,)]


def test_without_the_option_kvm_leaves_it_to_software() -> None:
    kind = only(shown(N1, N1, afdbm="n"))
    assert (kind.af, kind.hafdbs) == ("software", True)
    assert "as CONFIG_ARM64_HW_AFDBM is off" in kind.why


@pytest.mark.parametrize("inventory", ["hardware", "software"])
@pytest.mark.parametrize(
    ("afdbm", "words"),
    [("n", "CONFIG_ARM64_HW_AFDBM is off, which older kernels pass over"), ("", "nothing tells")],
)
def test_an_option_that_tells_nothing(afdbm: str, words: str, inventory: AfMode) -> None:
    """Linux 6.2 sets HA whatever the option says, and does not know the workaround's."""
    kind = only(shown(N1, afdbm=afdbm, workaround=""), inventory)
    assert kind.af == inventory
    assert words in kind.why
    assert kind.why.endswith(f"so the inventory's word counts: {inventory}")


def test_a_cpu_without_it_needs_no_option_to_tell() -> None:
    assert only(shown(A57, afdbm="", workaround="")).af == "software"


@pytest.mark.parametrize(("midr", "erratum"), [(AC03, "AC03_CPU_38"), (AC04, "AC04_CPU_10")])
@pytest.mark.parametrize(
    ("workaround", "log", "must"),
    [
        ("y", (BEGIN, ERRATUM), "software"),
        # The workaround is in the kernel, and was not detected on this CPU.
        ("y", (BEGIN,), "hardware"),
        ("n", (BEGIN,), "hardware"),
        ("", (BEGIN,), "hardware"),
        # Its line does not say how the log began, and need not.
        ("y", (ERRATUM,), "software"),
    ],
)
def test_ampereone(
    midr: int, erratum: str, workaround: str, log: tuple[str, ...], must: AfMode
) -> None:
    other: AfMode = "software" if must == "hardware" else "hardware"
    kind = only(shown(midr, midr, workaround=workaround, log=log), other)
    assert (kind.af, kind.hafdbs) == (must, False)
    assert (f"acts on VTCR_EL2.HA all the same (erratum {erratum})" in kind.why) == (
        must == "hardware"
    )


def test_the_workaround_is_for_all_cpus() -> None:
    ampere, arm = expect(shown(AC03, N1, log=(BEGIN, ERRATUM)))
    assert (ampere.af, arm.af) == ("software", "software")
    assert "for erratum AC03_CPU_38, says its log" in arm.why


@pytest.mark.parametrize("inventory", ["hardware", "software"])
@pytest.mark.parametrize("midr", [AC03, UNKNOWN])
def test_a_log_without_its_beginning(midr: int, inventory: AfMode) -> None:
    kind = only(shown(midr, log=()), inventory)
    assert kind.af == inventory
    assert "the log's beginning is lost" in kind.why


def test_a_log_without_its_beginning_matters_to_ampereone_alone() -> None:
    assert only(shown(N1, log=()), "software").af == "hardware"


@pytest.mark.parametrize("inventory", ["hardware", "software"])
def test_an_unknown_cpu_is_what_the_inventory_says(inventory: AfMode) -> None:
    kind = only(shown(UNKNOWN, UNKNOWN), inventory)
    assert (kind.af, kind.hafdbs, kind.name) == (inventory, None, "CPU 0-1 (MIDR 0x511f0011)")
    assert kind.why.startswith("MIDR 0x511f0011 is in no table; ")
    assert kind.why.endswith(f"so the inventory's word counts: {inventory}")


def test_an_unknown_cpu_that_the_log_knows() -> None:
    has, may = expect(shown(UNKNOWN, UNKNOWN, UNKNOWN, dirty="0,2"), "software")
    assert (has.cpus, has.af, has.hafdbs) == ((0, 2), "hardware", True)
    assert "manage dirty state, so it has FEAT_HAFDBS" in has.why
    assert (may.cpus, may.af, may.hafdbs) == ((1,), "software", None)


def test_what_the_kernel_read_outranks_the_table() -> None:
    kind = only(shown(A57, dirty="0"))
    assert (kind.af, kind.hafdbs) == ("hardware", True)
    assert "Cortex-A57 lacks FEAT_HAFDBS (TRM DDI 0488), but the kernel's log" in kind.why


@pytest.mark.parametrize("midr", [N1, AC03, UNKNOWN])
def test_a_boot_variant_outranks_them_all(midr: int) -> None:
    kind = only(shown(midr, dirty="0"), cleared_by="sw-af")
    assert kind.af == "software"
    assert "KVM leaves VTCR_EL2.HA clear by the boot variant sw-af" in kind.why


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (shown(), "names no CPU"),
        (shown(N1).replace(f"{HW_AFDBM}=y", f"{HW_AFDBM}=m"), "not a symbol's line"),
        (shown(N1).replace(f"{NONCE} log", f"{NONCE} logs"), "has the parts"),
        (shown(N1).replace(f"{NONCE} end\n", ""), "truncated"),
        (shown(N1, dirty="3-1"), "dmesg:2: a range that ends before it starts"),
        (shown(N1, dirty="x"), "dmesg:2: not a range"),
    ],
)
def test_what_cannot_be_believed(text: str, words: str) -> None:
    with pytest.raises(ObserveError, match=words):
        af.parse(text, NONCE)


def test_a_line_without_a_stamp_is_no_kernels() -> None:
    """A program may write to the log; klog tells whose a line is by its stamp."""
    text = shown(AC03).replace(f"{NONCE} end", f"{ERRATUM}\n{NONCE} end")
    assert only(text, "software").af == "hardware"


@pytest.mark.parametrize("log", ["clean-neoverse-n1.dmesg", "clean-cortex-a57.dmesg"])
def test_the_script_takes_what_counts_from_a_log(log: str, tmp_path: Path) -> None:
    """Run here, with a dmesg and a zcat that print what a host's would."""
    source = SAVED.parent / "klog" / log
    config = tmp_path / "config.gz"
    config.write_bytes(gzip.compress(f"CONFIG_KVM=y\n# {WORKAROUND} is not set\n".encode()))
    for name, words in (("dmesg", f"cat {source}"), ("zcat", f"gzip -dc {config}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{words}\n")
        (tmp_path / name).chmod(0o755)
    # The machine that runs this test has no MIDR to show.
    script = af.script(NONCE).replace(cpu.SCRIPT, f"echo 'cpu0 {N1:#018x}'\n")
    done = subprocess.run(
        ["sh", "-euc", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = af.parse(done.stdout, NONCE)
    assert seen.config == {WORKAROUND: False}
    assert seen.log_whole
    assert seen.dirty == (frozenset({0, 1}) if "n1" in log else frozenset())
    assert seen.raw.count("\n") == 3 + 1 + 1 + 1 + bool(seen.dirty)
