"""``python -m wavedistill.benchmark``: what `wavedistill benchmark` starts as a process of its own.

Here, and nowhere else in the package, other vocoders and flow libraries may be imported: some change torch for the
whole process.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wavedistill.benchmark.options import add_arguments, check
from wavedistill.errors import WavedistillError

if TYPE_CHECKING:
    from wavedistill.benchmark.flows import FlowBenchmark
    from wavedistill.benchmark.report import BenchmarkResult


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables and keep them; returns the exit code."""
    parser = ArgumentParser(prog="python -m wavedistill.benchmark", description="Measure speed on this machine.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        check(args)
        result = measure_flows() if args.what == "flows" else measure_voices(args)
        if args.out:
            result.save(args.out)
    except WavedistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # `wavedistill` itself says so
        return 130
    print(result.markdown)
    return 0


def measure_voices(args: Namespace) -> BenchmarkResult:
    """Students and teacher beside the vocoders that are installed."""
    from wavedistill.benchmark.peers import installed_vocoders
    from wavedistill.benchmark.vocoders import BenchmarkConfig, run_benchmark

    peers = installed_vocoders()
    config = BenchmarkConfig(devices=[args.device] if args.device else None)
    return run_benchmark(
        args.teacher or "speech-teacher",
        args.student,
        config,
        peers=peers.systems,
        missing=peers.missing,
        progress=True,
    )


def measure_flows() -> FlowBenchmark:
    """The flow toolbox beside the libraries that are installed."""
    from wavedistill.benchmark.flow_peers import installed_flow_libraries
    from wavedistill.benchmark.flows import run_flow_benchmark

    def tell(what: str) -> None:
        print(f"measuring {what}", file=sys.stderr, flush=True)

    return run_flow_benchmark(installed_flow_libraries(), progress=tell)


if __name__ == "__main__":
    sys.exit(main())
