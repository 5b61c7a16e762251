# SPDX-License-Identifier: GPL-2.0-only
"""The `kvm-harness` command."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import get_args

from rich.console import Console

from harness import __version__, archive_command, bench, doctor
from harness.compare import command as compare_command
from harness.cost import mutants as cost_mutants
from harness.cost.layouts import DEFAULT, LAYOUTS
from harness.cost.mutants import Mutants as CostMutants
from harness.cost.options import CostOptions
from harness.each_patch import EXIT_CODES as PATCH_EXIT_CODES
from harness.each_patch import EachPatchRun
from harness.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_PASS,
    EXIT_USAGE,
    HarnessError,
    InfraError,
    UsageError,
)
from harness.figures import command as figures_command
from harness.hosts import command as hosts_command
from harness.inventory import KvmMode
from harness.mutants.command import Mutants, Request
from harness.mutants.command import joined as mutants_joined
from harness.mutants.table import TABLE
from harness.options import Options
from harness.printable import printable
from harness.progress import Progress
from harness.repeat.command import joined as repeat_joined
from harness.repeat.command import repeat
from harness.report import command as report_command
from harness.reproduce import command as reproduce
from harness.run import Run
from harness.runinput import InputChanged
from harness.timing import CHECKS as TIMING_CHECKS
from harness.timing import options as timing_options
from harness.timing.options import TimingOptions
from harness.verdict import EXIT_CODES, bisect_code, of_patched

PLAIN_WIDTH = 120
_Group = argparse._ArgumentGroup

# Options of `cost` that choose what --mutants chooses, or are for the run that it is not.
_NOT_OF_MUTANTS = ("series", "mbox", "base_only", "allow_other_base", "host", "mode", "junitxml")
_EPILOG = """\
exit codes of run: 0 every verdict as expected, 1 a check failed, 2 usage or input error,
3 infrastructure error, 4 something expected stayed unproven, 130 interrupted;
with --each-patch or --bisect: 0 good, 1 bad, 125 cannot be told, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; ends the process with the command's exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    options = _parse(sys.argv[1:] if argv is None else argv)
    # Where nobody looks at a terminal, lines are as long as they need to be.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    try:
        code = options.command(options, console)
    except HarnessError as exc:
        _say_error(exc)
        code = exc.exit_code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except OSError as exc:
        # A full disk or a closed pipe: no verdict, and not the exit code of one.
        _say_error(InfraError(str(exc)))
        code = EXIT_ERROR
    except Exception:
        traceback.print_exc()
        code = EXIT_ERROR
    if getattr(options, "bisect", False) or getattr(options, "each_patch", False):
        code = bisect_code(code)
    sys.exit(code)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; a usage error must not look like "bad" to `git bisect run` either."""
    try:
        return _parser().parse_args(argv)
    except SystemExit as exc:
        if exc.code and {"--bisect", "--each-patch"} & set(argv):
            sys.exit(bisect_code(EXIT_USAGE))
        raise


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that everything started is ended."""
    raise KeyboardInterrupt


def _say_error(error: HarnessError) -> None:
    kind = "input" if isinstance(error, UsageError) else "infrastructure"
    print(f"kvm-harness: {kind} error: {printable(str(error))}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvm-harness",
        description="Says whether a patch series for KVM/arm64 stage-2 page aging is right.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kvm-harness {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="build, boot, check, and give a verdict")
    _add_run_options(run)
    run.add_argument(
        "--cost",
        action="store_true",
        help="count as well what aging costs each kernel, in instructions (see `cost`)",
    )
    walk = run.add_argument_group("along a series")
    walk.add_argument(
        "--each-patch",
        action="store_true",
        help="test the kernel after each patch (by -m quick), and name the first that breaks it",
    )
    walk.add_argument(
        "--bisect",
        action="store_true",
        help="exit codes for `git bisect run`: 0 good, 1 bad, 125 cannot be told",
    )
    run.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run that was killed: its folder or its name; its options are its own",
    )
    run.set_defaults(command=_run)

    count = commands.add_parser("cost", help="count what aging costs each kernel, in instructions")
    _add_cost_options(count)
    count.set_defaults(command=_cost)

    timing = commands.add_parser("time", help="measure what aging takes, on one machine")
    _add_time_options(timing)
    timing.set_defaults(command=_time)

    again = commands.add_parser("repeat", help="run a sound kernel's checks many times over")
    again.add_argument("--count", type=_positive, default=50, help="runs (default: 50)")
    _add_run_options(again)
    _add_join(again.add_argument_group("of runs that were made before"))
    again.set_defaults(command=_repeat)

    told = commands.add_parser("report", help="show a run again, in a form for others")
    report_command.add_options(told)

    wrong = commands.add_parser("mutants", help="test the checks on kernels wrong on purpose")
    _add_mutants_options(wrong)
    wrong.set_defaults(command=_mutants)

    again = commands.add_parser("reproduce", help="show failures of a run without the harness")
    _add_reproduce_options(again)
    again.set_defaults(command=_reproduce)

    hosts = commands.add_parser("hosts", help="list the hosts of the inventory, pin and check them")
    hosts_command.add_parser(hosts)

    figures = commands.add_parser("figures", help="say how far verdicts on figures can be trusted")
    figures_command.add_parser(figures)

    compare = commands.add_parser("compare", help="say what differs between two runs")
    compare_command.add_parser(compare)

    packing = commands.add_parser("export", help="put a run and its evidence into one file")
    archive_command.add_export(packing)
    unpacking = commands.add_parser("import", help="take in a run that was exported")
    archive_command.add_import(unpacking)

    doctoring = commands.add_parser("doctor", help="say what this machine lacks and how to get it")
    doctoring.add_argument("--install", action="store_true", help="get it, by apt")
    doctoring.set_defaults(command=_doctor)

    measure = commands.add_parser("bench", help="measure what the harness costs, as ratios")
    measure.add_argument("--matrix", action="store_true", help="only the matrix, against bare QEMU")
    measure.add_argument(
        "--build", action="store_true", help="only kernel builds, against plain make (30 minutes)"
    )
    measure.add_argument(
        "--ssh", action="store_true", help="only the way to a host, against OpenSSH (3 minutes)"
    )
    measure.set_defaults(command=_bench)
    return parser


def _add_cost_options(parser: argparse.ArgumentParser) -> None:
    _add_subject(parser.add_argument_group("what is counted"))
    _add_where(parser.add_argument_group("where"))
    how = parser.add_argument_group("how")
    how.add_argument(
        "--layouts",
        type=int,
        choices=range(1, len(LAYOUTS) + 1),
        default=DEFAULT,
        metavar="N",
        help=f"boots of each kernel that differ in layout alone (default: {DEFAULT}; "
        f"{len(LAYOUTS)} at most; with 1 no difference can be judged)",
    )
    how.add_argument(
        "--repeat",
        type=_positive,
        default=1,
        metavar="N",
        help="boot each kernel so often in the same layout: all must be alike to the last byte",
    )
    how.add_argument(
        "--neutral",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="kernels of the neutral mutants tell as well what is no difference (four builds the "
        "first time, and a boot of each)",
    )
    _add_output(parser.add_argument_group("output"))
    wrong = parser.add_argument_group("instead of a series")
    wrong.add_argument(
        "--mutants",
        action="store_true",
        help="count the mutants that cost more than they should, each on the first host and mode "
        "where it can show",
    )
    wrong.add_argument(
        "-k", metavar="EXPRESSION", help="with --mutants: only those whose names match"
    )


def _add_time_options(parser: argparse.ArgumentParser) -> None:
    _add_subject(parser.add_argument_group("what is timed"), alone=False)
    where = parser.add_argument_group("where: one host in one mode of KVM")
    _add_place(where)
    _add_wait(where)
    how = parser.add_argument_group("how")
    default, most = timing_options.DEFAULT, timing_options.MOST
    how.add_argument(
        "--rounds",
        type=int,
        choices=range(1, most + 1),
        default=default,
        metavar="N",
        help=f"boots of each kernel (default: {default}; {most} at most; fewer than "
        f"{timing_options.ENOUGH} show nothing)",
    )
    how.add_argument(
        "--no-aa",
        action="store_true",
        help="do not boot the base kernel twice in a round, which gives the noise floor",
    )
    how.add_argument("-k", metavar="EXPRESSION", help="only measurements whose names match")
    how.add_argument("--seed", type=int, default=1, help="of the order of boots (default: 1)")
    _add_output(parser.add_argument_group("output"))


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is tested")
    _add_subject(what)
    what.add_argument(
        "--debug",
        action="store_true",
        help="debug kernels: KASAN, lockdep, page poisoning and their like (slower)",
    )
    what.add_argument(
        "--no-lines",
        action="store_true",
        help="do not look up file and line of what a kernel reports (a build step is saved)",
    )
    where = parser.add_argument_group("where")
    _add_where(where)
    _add_wait(where)
    checks = parser.add_argument_group("which checks (as in pytest)")
    checks.add_argument("-k", metavar="EXPRESSION", help="only checks whose names match")
    checks.add_argument("-m", metavar="MARK", help="only checks that are so marked")
    checks.add_argument("-x", action="store_true", help="end a cell at its first failure")
    checks.add_argument(
        "--checks",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="check files of your own, instead of those that come with the harness",
    )
    checks.add_argument(
        "--selftests",
        action="store_true",
        help="the kernel's own KVM selftests as well (only them: with -m selftests)",
    )
    checks.add_argument(
        "--build-others",
        action="store_true",
        help="in a whole run of a series see whether x86-64 with KVM builds, too (the first time a "
        "whole build of it)",
    )
    checks.add_argument(
        "--linux-guest",
        action="store_true",
        help="checks with a Linux guest under QEMU as well (only them: with -m linux_guest)",
    )
    checks.add_argument("--seed", type=int, default=1, help="of every random choice (default: 1)")
    _add_output(parser.add_argument_group("output"))


def _add_subject(what: _Group, *, alone: bool = True) -> None:
    what.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="SERIES",
        help="name under series/, folder, mbox, patch files, or git:DIR#A..B",
    )
    what.add_argument(
        "--mbox",
        type=Path,
        metavar="FILE",
        help="the patches of a --series that is a contract without them",
    )
    what.add_argument(
        "--source", metavar="SOURCE", help="debian:PACKAGE, tar:FILE, tree:DIR or git:URL#REF"
    )
    if alone:
        words = "test the kernel without a series"
        what.add_argument("--base-only", action="store_true", help=words)
    what.add_argument(
        "--allow-other-base",
        action="store_true",
        help="test a series on another commit than its base-commit; the report says so",
    )


def _add_where(where: _Group) -> None:
    _add_place(where)
    where.add_argument(
        "--jobs", type=_positive, default=0, help="emulated hosts at once (default: CPUs)"
    )


def _add_wait(where: _Group) -> None:
    where.add_argument(
        "--wait",
        type=_positive,
        default=0,
        metavar="SECONDS",
        help="for a machine that another has (default: none, the cell is an error)",
    )


def _add_place(where: _Group) -> None:
    where.add_argument("--inventory", type=Path, metavar="FILE", help="default: inventory.yaml")
    where.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="only this host, or group of machines",
    )
    where.add_argument(
        "--mode",
        action="append",
        default=[],
        choices=get_args(KvmMode),
        help="only this mode of KVM",
    )


def _add_output(output: _Group) -> None:
    output.add_argument("--output", type=Path, metavar="DIR", help="where run folders go")
    output.add_argument("--junitxml", type=Path, metavar="FILE", help="a copy of junit.xml")


def _add_join(group: _Group) -> None:
    group.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="RECORD",
        help="run nothing: add up what these have, each a repeat.json, a mutants.json (what is "
        "sound of it), or the folder of one",
    )
    group.add_argument(
        "--markdown", type=Path, metavar="FILE", help="with --join: write docs/false-alarms.md anew"
    )


def _add_mutants_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        type=Path,
        default=TABLE,
        metavar="FILE",
        help="of mutants, with their patches beside it (default: tests/mutants/mutants.yaml)",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only mutants whose names match")
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=(1,),
        metavar="N,N,...",
        help="of random choices (default: 1)",
    )
    parser.add_argument(
        "--named", action="store_true", help="only the checks that must catch them: no matrix"
    )
    parser.add_argument(
        "--all-cells", action="store_true", help="every cell where a mutant can show at all"
    )
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="only this host"
    )
    parser.add_argument(
        "--mode", action="append", default=[], choices=get_args(KvmMode), help="only this KVM mode"
    )
    parser.add_argument("--jobs", type=_positive, default=0, help="cells at once (default: CPUs)")
    parser.add_argument("--inventory", type=Path, metavar="FILE", help="default: inventory.yaml")
    parser.add_argument("--source", metavar="SOURCE", help="as for run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the folder goes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write docs/mutants.md anew")
    parser.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run nothing: show what these runs found, each of a part of the table, as one; a run "
        "is its folder, or its mutants.json alone, under the name of the folder",
    )


def _add_reproduce_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="its folder or its name (default: newest)"
    )
    parser.add_argument(
        "--check", action="append", default=[], metavar="NAME", help="only this check"
    )
    parser.add_argument("--cell", action="append", default=[], metavar="ID", help="only this cell")
    parser.add_argument(
        "--tries", type=_positive, default=2, help="boots of each kernel (default: 2)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: RUN/reproducers")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between, not {text!r}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text!r}")
    return int(text)


def _what_and_where(args: argparse.Namespace) -> Options:
    """What every command that runs a series lets choose alike."""
    return Options(
        inventory=args.inventory,
        source=args.source,
        series=tuple(args.series),
        mbox=args.mbox,
        hosts=tuple(args.host),
        kvm_modes=tuple(args.mode),
        allow_other_base=args.allow_other_base,
        junitxml=args.junitxml,
        output=args.output,
    )


def _options(args: argparse.Namespace) -> Options:
    if getattr(args, "cost", False) and args.debug:
        raise UsageError("--cost is for plain kernels: what a debug kernel costs is its checks")
    for path in args.checks:
        if not path.exists():
            raise UsageError(f"--checks {path}: no such file or folder")
    if args.build_others and (args.base_only or args.each_patch or args.k or args.m or args.checks):
        raise UsageError("--build-others goes with a whole run of a series")
    return replace(
        _what_and_where(args),
        base_only=args.base_only,
        debug=args.debug,
        selftests=args.selftests,
        linux_guest=args.linux_guest,
        build_others=args.build_others,
        lines=not args.no_lines,
        checks=tuple(path.resolve() for path in args.checks),
        pytest_args=(
            *(("-k", args.k) if args.k else ()),
            *(("-m", args.m) if args.m else ()),
            *(("-x",) if args.x else ()),
        ),
        cost=CostOptions() if getattr(args, "cost", False) else None,
        seed=args.seed,
        jobs=args.jobs,
        wait=args.wait,
    )


def _resumed(args: argparse.Namespace, console: Console) -> Run:
    """The run to go on with; UsageError for an option that would make it another run."""
    if more := _others(args, "run", {"resume", "jobs", "junitxml", "bisect"}):
        raise UsageError(f"--resume takes a run's options from the run: leave out {more}")
    junitxml = args.junitxml.absolute() if args.junitxml else None
    return Run.resumed(args.resume, Progress(console), jobs=args.jobs, junitxml=junitxml)


def _others(args: argparse.Namespace, command: str, ours: set[str]) -> list[str]:
    """The options that were given to a command, but for some."""
    plain = vars(_parser().parse_args([command]))
    given = [name for name, value in vars(args).items() if value != plain[name]]
    return sorted(set(given) - ours)


def _run(args: argparse.Namespace, console: Console) -> int:
    if args.each_patch and not args.resume:
        return _each_patch(args, console)
    one = _resumed(args, console) if args.resume else Run(_options(args), Progress(console))
    return _execute(one, bisect=args.bisect)


def _cost(args: argparse.Namespace, console: Console) -> int:
    how = CostOptions(True, args.layouts, args.repeat, args.neutral)
    if args.k and not args.mutants:
        raise UsageError("-k chooses mutants, so it goes with --mutants: costs are all counted")
    if args.mutants:
        return _cost_mutants(args, how, Progress(console))
    options = replace(
        _what_and_where(args),
        base_only=args.base_only,
        cost=how,
        jobs=args.jobs,
    )
    return _execute(Run(options, Progress(console)), bisect=False)


def _time(args: argparse.Namespace, console: Console) -> int:
    options = replace(
        _what_and_where(args),
        timing=TimingOptions(args.rounds, not args.no_aa),
        checks=(TIMING_CHECKS,),
        pytest_args=("-k", args.k) if args.k else (),
        seed=args.seed,
        wait=args.wait,
    )
    return _execute(Run(options, Progress(console)), bisect=False)


def _cost_mutants(args: argparse.Namespace, how: CostOptions, progress: Progress) -> int:
    other = [f"--{name.replace('_', '-')}" for name in _NOT_OF_MUTANTS if getattr(args, name)]
    if other:
        raise UsageError(
            f"--mutants goes without {', '.join(other)}: each mutant says itself what it goes on, "
            "and is counted on the first host and mode where it can show"
        )
    run = CostMutants(
        progress, source=args.source, inventory_file=args.inventory, output=args.output
    )
    try:
        return EXIT_CODES[run.execute(how, jobs=args.jobs, expression=args.k)]
    finally:
        print(run.folder / cost_mutants.NAME, flush=True)


def _execute(one: Run, *, bisect: bool) -> int:
    try:
        summary = one.execute()
        if bisect and summary.series:
            return EXIT_CODES[of_patched(summary.cells, summary.checks)]
        return EXIT_CODES[summary.verdict]
    except InputChanged:
        # Nothing was done, so what was found before is no outcome of this.
        raise
    except HarnessError as exc:
        _say_error(exc)
        # A failure that was proven before the trouble began stays one.
        return EXIT_CODES["fail"] if one.verdict == "fail" else exc.exit_code
    finally:
        print(one.folder, flush=True)


def _each_patch(args: argparse.Namespace, console: Console) -> int:
    if args.junitxml is not None:
        raise UsageError("--junitxml is for a single run: each step of --each-patch has junit.xml")
    if args.cost:
        raise UsageError("--cost is for a single run: count the series as a whole, or a part of it")
    walk = EachPatchRun(_options(args), Progress(console))
    try:
        return PATCH_EXIT_CODES[walk.execute().verdict]
    finally:
        print(walk.folder, flush=True)


def _repeat(args: argparse.Namespace, console: Console) -> int:
    if args.join:
        if more := _others(args, "repeat", {"join", "markdown"}):
            raise UsageError(f"--join runs nothing, so it goes without {', '.join(more)}")
        return EXIT_CODES[repeat_joined(args.join, args.markdown, Progress(console)).verdict]
    if args.markdown:
        raise UsageError("--markdown goes with --join")
    return repeat(_options(args), args.count, Progress(console))


def _mutants(args: argparse.Namespace, console: Console) -> int:
    request = Request(
        table=args.table.resolve(),
        expression=args.k,
        seeds=args.seeds,
        all_cells=args.all_cells,
        named=args.named,
        hosts=tuple(args.host),
        kvm_modes=tuple(args.mode),
        inventory=args.inventory,
        source=args.source,
        jobs=args.jobs,
        output=args.output,
        markdown=args.markdown,
    )
    if args.join:
        return EXIT_CODES[mutants_joined(request, args.join, Progress(console)).verdict]
    run = Mutants(request, Progress(console))
    try:
        return EXIT_CODES[run.execute().verdict]
    except HarnessError as exc:
        _say_error(exc)
        # A miss that was proven before the trouble began stays one.
        return EXIT_CODES["fail"] if run.verdict == "fail" else exc.exit_code
    finally:
        print(run.folder, flush=True)


def _reproduce(args: argparse.Namespace, console: Console) -> int:
    request = reproduce.Request(
        args.run, tuple(args.check), tuple(args.cell), args.output, args.tries
    )
    for folder in reproduce.reproduce(request, Progress(console)):
        print(folder, flush=True)
    return EXIT_PASS


def _doctor(args: argparse.Namespace, console: Console) -> int:
    return doctor.examine(install=args.install)


def _bench(args: argparse.Namespace, console: Console) -> int:
    chosen = {name: getattr(args, name) for name in ("matrix", "build", "ssh")}
    return bench.bench(console, **(chosen if any(chosen.values()) else {}))


if __name__ == "__main__":
    main()
