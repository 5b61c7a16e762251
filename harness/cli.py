# SPDX-License-Identifier: GPL-2.0-only
"""The `kvm-harness` command."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from rich.console import Console

from harness import __version__, archive_command, arguments, bench, doctor
from harness.compare import command as compare_command
from harness.cost import mutants as cost_mutants
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
from harness.git_bisect import asked, exit_code
from harness.hosts import command as hosts_command
from harness.mutants.command import Mutants, Request
from harness.mutants.command import joined as mutants_joined
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
from harness.timing.options import TimingOptions
from harness.verdict import EXIT_CODES, of_patched

PLAIN_WIDTH = 120

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
        code = exit_code(code)
    sys.exit(code)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; a usage error must not look like "bad" to `git bisect run` either."""
    try:
        return _parser().parse_args(argv)
    except SystemExit as exc:
        if exc.code and asked(argv):
            sys.exit(exit_code(EXIT_USAGE))
        raise


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that everything started is ended."""
    raise KeyboardInterrupt


def _say_error(error: HarnessError) -> None:
    kind = "input" if isinstance(error, UsageError) else "infrastructure"
    print(f"kvm-harness: {kind} error: {printable(str(error))}", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """One that takes no abbreviations, and makes its commands' parsers of its own kind."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **more})


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kvm-harness",
        description="Says whether a patch series for KVM/arm64 stage-2 page aging is right.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kvm-harness {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="build, boot, check, and give a verdict")
    arguments.add_run(run)
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
    arguments.add_cost(count)
    count.set_defaults(command=_cost)

    timing = commands.add_parser("time", help="measure what aging takes, on one machine")
    arguments.add_time(timing)
    timing.set_defaults(command=_time)

    again = commands.add_parser("repeat", help="run a sound kernel's checks many times over")
    again.add_argument("--count", type=arguments.positive, default=50, help="runs (default: 50)")
    arguments.add_run(again)
    arguments.add_join(again.add_argument_group("of runs that were made before"))
    again.set_defaults(command=_repeat)

    told = commands.add_parser("report", help="show a run again, in a form for others")
    report_command.add_options(told)

    wrong = commands.add_parser("mutants", help="test the checks on kernels wrong on purpose")
    arguments.add_mutants(wrong)
    wrong.set_defaults(command=_mutants)

    again = commands.add_parser("reproduce", help="show failures of a run without the harness")
    arguments.add_reproduce(again)
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
    if args.base_only and args.no_aa:
        raise UsageError(
            "--base-only times the base kernel against itself, which --no-aa leaves out"
        )
    options = replace(
        _what_and_where(args),
        base_only=args.base_only,
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
        found = one.of_patched if bisect else one.verdict
        return EXIT_CODES["fail"] if found == "fail" else exc.exit_code
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
