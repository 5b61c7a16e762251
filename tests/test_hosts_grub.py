# SPDX-License-Identifier: GPL-2.0-only
"""A boot by GRUB: what a machine must show, what is put there, and that it goes; no machine needed.

The scripts are run by this machine's sh, on a folder that stands for /boot/grub, with programs in
the place of GRUB's.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_machine import BACK, GOOD, TEST, Ours, Power, World, machine
from fake_shell import UnaskedShell
from test_hosts_probe import answer
from test_hosts_probe import parse as parse_survey

from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts import fitness, grub, grub_look, recovery, way_back
from harness.hosts import machine as machine_module
from harness.hosts.grub import REHEARSAL, choose, clear_script, entry, load, require_stub
from harness.hosts.grub_look import HEAD, NAME, Grub, findings, parse, problems, script
from harness.hosts.kexec import _before
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import Running
from harness.hosts.protocols import Result
from harness.hosts.tenancy import Tenancy
from harness.hosts.trip import Trip
from harness.inventory import SshHost
from harness.observe.errors import ObserveError

NONCE = "n0nce"
FINE = Grub(
    folder="/boot/grub",
    programs=frozenset(grub_look.PROGRAMS),
    grubenv=True,
    abstraction="",
    fs="ext2",
    reads=frozenset({"next_entry", "custom.cfg"}),
    custom=None,
    next_entry="",
)
EDITENV = """\
#!/bin/sh
case $2 in
list) grep -v '^#' "$1" ;;
unset) grep -v "^$3=" "$1" > "$1.new"; mv "$1.new" "$1" ;;
esac
"""
CONFIG = 'set default="${next_entry}"\nsource ${config_directory}/custom.cfg\n'


class Place:
    """A folder that stands for /boot/grub, and programs that work on it."""

    def __init__(self, folder: Path) -> None:
        self.grub = folder / "grub"
        self.grub.mkdir()
        (self.grub / "grub.cfg").write_text(CONFIG)
        self.env = self.grub / "grubenv"
        self.env.write_text("# GRUB Environment Block\nsaved_entry=1\n")
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.program("grub-editenv", EDITENV)
        self.program("grub-reboot", "#!/bin/sh\n")
        self.program("grub-probe", '#!/bin/sh\n[ "$1" = --target=abstraction ] || echo ext2\n')

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, text: str, options: str = "-euc") -> str:
        done = subprocess.run(
            ["sh", options, text],
            env={"PATH": f"{self.programs}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def look(self) -> Grub:
        places = (str(self.grub),)
        return parse(self.run(script(NONCE, places), "-c"), NONCE, places)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---- what a machine shows -----------------------------------------------------------------------


def test_a_grub_that_will_do(place: Place) -> None:
    seen = place.look()
    assert seen == replace(FINE, folder=str(place.grub))
    assert seen.prefix == "grub"
    assert problems(seen) == ()
    (found,) = findings(FINE)
    assert str(found) == "ok       GRUB: /boot/grub on ext2, which it can write to"


def test_what_else_it_may_show(place: Place) -> None:
    place.env.write_text("next_entry=Windows\n")
    (place.grub / "custom.cfg").write_text("menuentry x {\n}\n")
    place.program(
        "grub-probe", '#!/bin/sh\n[ "$1" = --target=abstraction ] && echo lvm || echo xfs'
    )
    seen = place.look()
    assert (seen.next_entry, seen.custom) == ("Windows", "menuentry x {")
    assert (seen.abstraction, seen.fs) == ("lvm", "xfs")
    (place.grub / "custom.cfg").write_text("")
    assert place.look().custom == "", "an empty file is its owner's as well"
    (place.grub / "grub.cfg").unlink()
    assert place.look().folder == ""


def test_no_machine_without_one(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", script(NONCE, ("/nonesuch",))], capture_output=True, text=True
    )
    assert problems(parse(done.stdout, NONCE, ("/nonesuch",))) == (
        "no grub.cfg in /boot/grub or /boot/grub2",
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(FINE, programs=frozenset({"editenv"})), "no grub-reboot grub-probe on PATH"),
        (replace(FINE, folder="/boot/grub2", programs=frozenset()), "no grub2-reboot grub2-"),
        (replace(FINE, grubenv=False), "grub-editenv /boot/grub/grubenv create"),
        (replace(FINE, abstraction="lvm"), "cannot write /boot/grub/grubenv on lvm, so an entry"),
        (replace(FINE, fs="btrfs"), "on btrfs"),
        (replace(FINE, fs=""), "on what it does not know"),
        (replace(FINE, reads=frozenset({"custom.cfg"})), "does not know next_entry"),
        (replace(FINE, reads=frozenset({"next_entry"})), r"custom\.cfg, as /etc/grub.d/41_custom"),
        (replace(FINE, custom="menuentry x {"), r"custom\.cfg is there, and not the harness's"),
        (replace(FINE, custom=""), "not the harness's"),
        (replace(FINE, next_entry="3"), "of somebody else: next_entry=3"),
        (replace(FINE, next_entry="\x1b[2J"), r"next_entry=[^\x1b]*2J"),
    ],
)
def test_a_grub_that_is_refused(seen: Grub, words: str) -> None:
    (told,) = problems(seen)
    assert re.search(words, told)
    assert [one.mark for one in findings(seen)] == ["missing"]


def test_what_a_dead_run_has_left_is_no_problem() -> None:
    assert problems(replace(FINE, custom=HEAD, next_entry=NAME)) == ()


@pytest.mark.parametrize("text", ["", "x\n", f"{NONCE} folder\n{NONCE} end\n", "x" * (1 << 15)])
def test_nonsense_is_none(text: str) -> None:
    with pytest.raises(ObserveError):
        parse(text, NONCE)


def test_kexec_is_not_asked_for() -> None:
    host = SshHost(kind="ssh", address="lab", agent=True, kvm_modes=("vhe",), af="hardware")
    by_grub = host.model_copy(update={"boot": "grub"})
    locked = "/sys/kernel/security/lockdown none [integrity] confidentiality\n"
    for files, words in (("", set()), (locked, {"Secure Boot"})):
        seen = parse_survey(answer(kexec="", config="", files=files))
        told = {one.what for one in fitness.lacking(fitness.judge(seen, by_grub))}
        assert told == words
        assert fitness.lacking(fitness.judge(seen, host))


# ---- what is put there --------------------------------------------------------------------------


def test_the_entry() -> None:
    text = entry("root=/dev/sda2 memmap=4G$0x1000 a;b", initrd=True)
    lines = text.splitlines()
    assert lines[0] == HEAD
    assert f"menuentry '{NAME}: a kernel under test, once' --unrestricted --id {NAME} {{" in lines
    start = """if linux "${kvm_harness}/Image" root=/dev/sda2 'memmap=4G$0x1000' 'a;b'; then"""
    assert f"  {start}" in lines
    assert 'if initrd "${kvm_harness}/initrd"; then boot; fi' in text
    assert lines[-2:] == ["  reboot", "}"], "not a menu that waits"
    assert "initrd" not in entry("root=/dev/sda2", initrd=False)


@pytest.mark.parametrize("word", ['dyndbg="file x +p"', "a'b", "a\\b", "a\nb"])
def test_words_that_grub_would_change(word: str) -> None:
    with pytest.raises(ValueError, match="quotes and backslashes"):
        entry(word, initrd=False)


def test_a_kernel_without_a_stub(tmp_path: Path) -> None:
    image = tmp_path / "Image"
    image.write_bytes(b"MZ\0\0")
    require_stub(image)
    image.write_bytes(b"\0\0\0\x14")
    with pytest.raises(InfraError, match="CONFIG_EFI=y"):
        require_stub(image)


class Recorded(UnaskedShell):
    """A machine with a GRUB that will do, and what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.done.append(command)
        return Result(command, 0, "", "")

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        self.done.append(f"write {path}")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.done.append(f"put {remote}")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(grub, "look", lambda shell: FINE)
    path = tmp_path / "Image"
    path.write_bytes(b"MZ")
    return path


def test_the_entry_is_chosen_last(kernel: Path) -> None:
    shell = Recorded()
    chosen = load(shell, cast(Tenancy, Ours()), kernel, "/boot/initrd.img", "root=/dev/sda2")
    assert not any("grub-reboot" in one for one in shell.done)
    choose(shell, chosen)
    assert f"put /boot/grub/{NAME}/Image" in shell.done
    assert f"cp -L /boot/initrd.img /boot/grub/{NAME}/initrd" in shell.done
    assert [f"grub-reboot {NAME}" in one for one in shell.done].index(True) == len(shell.done) - 1


def test_no_entry_is_chosen_on_a_machine_of_anothers(kernel: Path) -> None:
    shell = Recorded()
    with pytest.raises(LeaseLost):
        load(shell, cast(Tenancy, Ours(LeaseLost("it is x's"))), kernel, None, "root=/dev/sda2")
    assert not any("grub-reboot" in one for one in shell.done)


def test_a_machine_that_is_refused_is_not_written_to(
    kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grub, "look", lambda shell: replace(FINE, abstraction="lvm"))
    with pytest.raises(InfraError, match="no boot by GRUB: GRUB cannot write"):
        load(UnaskedShell(), cast(Tenancy, Ours()), kernel, None, "root=/dev/sda2")


def test_an_entry_that_stays_chosen_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Recorded()
    monkeypatch.setattr(grub, "look", lambda shell: FINE)
    grub.require_taken(shell, FINE)
    assert shell.done == []
    monkeypatch.setattr(grub, "look", lambda shell: replace(FINE, next_entry=NAME))
    with pytest.raises(InfraError, match="does not write grubenv"):
        grub.require_taken(shell, FINE)
    with pytest.raises(InfraError, match="not there in the kernel"):
        grub.require_taken(shell, replace(FINE, folder="/boot/grub2"))
    (cleared,) = shell.done
    assert "unset next_entry" in cleared


# ---- and removed --------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [f"next_entry={NAME}\n", "next_entry=\n", ""])
def test_all_of_it_goes(place: Place, chosen: str) -> None:
    before = place.env.read_text()
    place.env.write_text(f"{before}{chosen}{REHEARSAL}=1\n")
    (place.grub / "custom.cfg").write_text(entry("x", initrd=False))
    (place.grub / NAME).mkdir()
    (place.grub / NAME / "Image").write_text("MZ")
    text = clear_script((str(place.grub), "/nonesuch"))
    for _ in range(2):
        place.run(text)
        assert sorted(path.name for path in place.grub.iterdir()) == ["grub.cfg", "grubenv"]
        assert place.env.read_text() == before


def test_what_is_its_owners_stays(place: Place) -> None:
    place.env.write_text("saved_entry=1\nnext_entry=2\n")
    (place.grub / "custom.cfg").write_text("menuentry x {\n}\n")
    place.run(clear_script((str(place.grub),)))
    assert place.env.read_text() == "saved_entry=1\nnext_entry=2\n"
    assert (place.grub / "custom.cfg").exists()


# ---- whose doing it is --------------------------------------------------------------------------


def test_grub_that_starts_something_else_is_no_death_of_the_kernel() -> None:
    trip, console = Trip(GOOD), ["tail", "-F", "x"]
    host: Any = SshHost.model_construct(boot="grub", console=console, watchdog=False)
    gone, hang = HostDied("gone", "x"), HostDied("hang", "x")
    theirs, ours = "Booting Linux on physical CPU 0\n", f"kvm_harness.cell={trip.cell}\n"
    assert _before(host, trip, gone, theirs)
    assert not _before(host, trip, gone, theirs + ours)
    assert _before(host, trip, hang, theirs), "it hung in the firmware"
    assert not _before(host, trip, hang, theirs + ours)
    blind = host.model_copy(update={"console": None})
    assert not _before(blind, trip, gone, ""), "what cannot be seen is not told apart"
    by_kexec = host.model_copy(update={"boot": "kexec"})
    assert not _before(by_kexec, trip, gone, "")
    watched = by_kexec.model_copy(update={"watchdog": True})
    assert _before(watched, trip, gone, "")
    assert not _before(watched, trip, gone, ours)
    assert not _before(watched, trip, hang, ""), "a kernel that never spoke may be the series'"


# ---- the rehearsal ------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["", f"{REHEARSAL}=\n", f"saved_entry=1\n{REHEARSAL}=1\n"])
def test_what_grub_leaves_in_grubenv_decides(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([GOOD])
    made = machine(world)
    done: list[str] = []

    class Shell(Recorded):
        def run(self, command: str, *_: Any, **__: Any) -> Result:
            done.append(command)
            return Result(command, 0, kept if command.endswith(" list") else "", "")

    monkeypatch.setattr(type(made), "shell", lambda *_: contextlib.nullcontext(Shell()))
    monkeypatch.setattr(grub, "look", lambda shell: FINE)

    def back(*_: object, **__: object) -> Running:
        done.append("back")
        return GOOD

    monkeypatch.setattr(grub, "bring_back", back)
    ours = cast(Tenancy, Ours())
    if f"{REHEARSAL}=1" in kept:
        with pytest.raises(InfraError, match=r"did not do what /boot/grub/custom\.cfg told it"):
            grub.rehearse(made, ours, GOOD)
    else:
        assert grub.rehearse(made, ours, GOOD) == GOOD
    assert "unset next_entry" in done[-1], "nothing stays, whatever came of it"
    assert any(f"set {REHEARSAL}=1" in one for one in done[: done.index("back")])


def test_a_machine_that_hung_before_it_went_is_started_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reset that frees it is the start that the entry was chosen for."""
    world = World([None, TEST, BACK])
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
    made = machine(world)
    by_grub = made.host.model_copy(update={"boot": "grub"})
    object.__setattr__(made, "host", by_grub)
    way_back.bring_home(made, cast(Tenancy, Ours()), Trip(GOOD), HostDied("hang", "x"))
    assert [word for word in world.done if word in ("reboot", "reset")] == ["reset", "reboot"]
    assert world.boots == [BACK]
