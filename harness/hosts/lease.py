# SPDX-License-Identifier: GPL-2.0-only
"""A lease on a machine: who may use it and for how long, as a file of the machine's own.

**Who wins.** The lease is the file with the highest number in a folder. Whoever takes, renews or
ends it writes the next number, by ln(1): link(2) fails if that exists, so of any number of takers
that saw the same lease exactly one gets on, and no lock is left behind by one that dies. Older
files are removed, but never the highest. So one who was so slow that the file in his way is gone
finds a higher one after his link, and knows that he has lost. The last but one stays as well: one
who lists the folder while the highest changes finds one of the two, and not an empty folder.

**When it ends.** A lease holds for `seconds` of CLOCK_BOOTTIME (/proc/uptime) from its renewal:
that neither jumps with the wall clock nor stands still in suspend. It starts anew at each boot, and
kexec is one. In another boot than that of its renewal, which boot_id shows, the lease holds for
`seconds` from the boot: the renewal was before, and how long before only the wall clock could say.
That one is not asked: machines without a battery start in 1970 and jump by decades once NTP
answers. So no clock can take away a lease that holds, and a holder who died costs the next one at
most `seconds` after a boot. Wall time is kept for people to read.

**What survives.** The folder is on disk, since /run is empty after each kexec. What people see at
login is in /run: pam_motd(8) shows /run/motd.d where it has no options that say otherwise, as in
/etc/pam.d/sshd of Debian, Ubuntu and Fedora. After a boot it is there again with the next renewal.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import InfraError

# Seconds. A longer one is what a boot of a test kernel needs, during which nobody renews it.
LONGEST = 6 * 3600
# Of the wall clock: the year 4147. Later ones are no dates that could be shown.
LATEST = 1 << 36
# Of a lease's file, in bytes: what a host says is not trusted.
MAX_FILE = 4096

# They are shown to people: no control characters, nothing that is long.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+@:-]{0,127}$")]


@dataclass(frozen=True)
class Place:
    """Files of a machine; tests have others."""

    folder: str = "/var/lib/kvm-harness/lease"
    motd: str = "/run/motd.d/kvm-harness"
    boot_id: str = "/proc/sys/kernel/random/boot_id"
    uptime: str = "/proc/uptime"


@dataclass(frozen=True)
class Clock:
    """A machine's clocks at one moment."""

    boot_id: str
    up: float
    """CLOCK_BOOTTIME, in seconds."""
    wall: int
    """Seconds since 1970, UTC; for people alone."""


class Lease(BaseModel):
    """One file: a lease as of its last renewal."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Of one holder, and the same in each of its renewals."""
    owner: Word
    """user@controller"""
    run: Word
    since: Annotated[int, Field(ge=0, lt=LATEST)]
    """When it was taken, by the machine's wall clock."""
    boot_id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    up: Annotated[float, Field(ge=0, lt=1e12)]
    """When it was renewed, by the clock of that boot."""
    seconds: Annotated[int, Field(ge=0, le=LONGEST)]
    """How long it holds from then on; 0 once it was given back."""

    def left(self, clock: Clock) -> float:
        """Seconds for which it still holds; 0 if it does no more."""
        passed = clock.up - self.up if clock.boot_id == self.boot_id else clock.up
        return min(max(self.seconds - passed, 0.0), self.seconds)


@dataclass(frozen=True)
class Seen:
    """What a machine showed: the lease, None if there never was one, and its clocks."""

    number: int
    """Of the lease's file, 0 for none."""
    lease: Lease | None
    clock: Clock

    @property
    def left(self) -> float:
        """Seconds for which the machine is somebody's."""
        return self.lease.left(self.clock) if self.lease else 0.0

    @property
    def abandoned(self) -> Lease | None:
        """A lease that ran out and was not given back: its holder died or lost the machine."""
        return self.lease if self.lease and self.lease.seconds and not self.left else None

    def words(self) -> str:
        """Whose the machine is, from when and until when, by its own wall clock."""
        if self.lease is None:
            return "nobody has it, or ever had"
        if not self.left:
            return f"nobody has it; {self.lease.owner} had it last, for the run {self.lease.run}"
        until = self.clock.wall + round(self.left)
        return (
            f"{self.lease.owner} has it for the run {self.lease.run} since "
            f"{_date(self.lease.since)}, until {_date(until)} unless renewed"
        )


def motd(lease: Lease, clock: Clock) -> str:
    """What people see at login."""
    words = Seen(1, lease, clock).words()
    return (
        f"*** kvm-harness tests kernels on this machine: {words}.\n"
        "*** It reboots without warning. Please leave it alone until then.\n"
    )


def _date(wall: int) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ---- on the machine, in POSIX sh ----------------------------------------------------------------

# Numbers have leading zeros, so that the last name of a pattern is the highest.
_HIGHEST = "for last in lease.*; do :; done"


def read_command(place: Place) -> str:
    """Prints the lease's name and text, if there is one, and the machine's clocks after them.

    The clocks are read last, so that a lease is never taken for older than it is by more than
    that. The highest file may be replaced between its finding and its reading: then again.
    """
    return f"""
if cd {shlex.quote(place.folder)} 2>/dev/null; then
	for again in 1 2 3 4 5 6 7 8; do
		{_HIGHEST}
		[ "$last" = 'lease.*' ] && found=none && break
		text=$(head -c {MAX_FILE} "$last" 2>/dev/null) && found=one && break
	done
	[ -n "$found" ] || exit 1
	[ $found = none ] || printf '%s\\n%s\\n' "$last" "$text"
fi
echo --
cat {shlex.quote(place.boot_id)} {shlex.quote(place.uptime)} && date +%s"""


def parse(text: str, place: Place) -> Seen:
    """What read_command() printed; InfraError for anything else."""
    file, mark, clocks = text.rpartition("--\n")
    found = re.fullmatch(
        r"([0-9a-f-]{36})\n([0-9]{1,9}\.[0-9]{1,9}) [0-9.]+\n([0-9]{1,11})\n", clocks, re.ASCII
    )
    if not mark or not found or int(found[3]) >= LATEST:
        raise InfraError(f"the host answered nonsense when asked for its lease: {text[-200:]!r}")
    clock = Clock(found[1], float(found[2]), int(found[3]))
    if not file:
        return Seen(0, None, clock)
    name, _, body = file.partition("\n")
    number = re.fullmatch(r"lease\.([0-9]{12})", name, re.ASCII)
    try:
        lease = Lease.model_validate_json(body)
    except ValidationError as exc:
        raise _unreadable(place, name, str(exc.errors()[0]["msg"])) from exc
    if not number:
        raise _unreadable(place, name, "its name has no number")
    return Seen(int(number[1]), lease, clock)


def _unreadable(place: Place, name: str, why: str) -> InfraError:
    return InfraError(
        f"the host has a lease that cannot be read ({place.folder}/{name[:80]!r}: {why}); "
        f"once nobody uses the host, remove {place.folder}"
    )


def replace_command(place: Place, before: Seen, lease: Lease) -> str:
    """Prints "won" if `lease` took the place of what was seen before, "lost" if another did."""
    number = before.number + 1
    # Two renewals by one holder may meet, if the answer to the first never came.
    name, draft = f"lease.{number:012}", f"draft.{number:012}.{lease.token}.{secrets.token_hex(8)}"
    body = lease.model_dump_json()
    if lease.seconds:
        text = motd(lease, before.clock)
        show = f"""mkdir -p {shlex.quote(place.motd.rpartition("/")[0])} &&
	printf %s {shlex.quote(text)} > {shlex.quote(place.motd)}"""
    else:
        show = f"rm -f {shlex.quote(place.motd)}"
    # sync before the link: a power loss must not leave a name without its text.
    return f"""
umask 022
mkdir -p {shlex.quote(place.folder)} && cd {shlex.quote(place.folder)} || exit 1
printf '%s\\n' {shlex.quote(body)} > {draft} && sync {draft} && ln {draft} {name}
linked=$?
rm -f {draft}
{_HIGHEST}
if [ $linked = 0 ] && [ "$last" = {name} ]; then
	for old in lease.* draft.*; do
		at=${{old#*.}}
		[ "${{at%%.*}}" -lt {before.number} ] 2>/dev/null && rm -f "$old"
	done
	# A courtesy: the machine is taken, whether people are told or not.
	{show} || :
	echo won
elif [ "$last" = {f"lease.{before.number:012}" if before.number else "'lease.*'"} ]; then
	# Nobody was faster, so it failed for another reason, which was said above.
	exit 1
else
	[ $linked = 0 ] && rm -f {name}
	echo lost
fi"""
