"""The command: ``python -m benchmarks.azure_vs_packer``, as root; 0 if all targets are met and all images are right."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clients.image import make_platform_image, make_userland

from .contest import Contest
from .report import OURS, PACKER, Comparison
from .terms import IMAGE, PROFILE, SERIES, VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and say what came out."""
    options = _options(arguments)
    load, processors = os.getloadavg()[0], os.cpu_count()
    busy = ": wall times are not worth much now" if load > 0.5 else ""
    print(f"load average {load:.2f}, {processors} processors{busy}", flush=True)
    failures = []
    with _directory(options.keep) as directory:
        image = make_platform_image(directory / "debian.raw", make_userland(directory / "userland"))
        for name in options.series:
            terms = SERIES[name]
            contest = Contest(terms, options.rounds, options.publish, options.tools)
            runs = contest.run(directory / name, image, say=lambda text: print(text, file=sys.stderr, flush=True))
            for published in options.publish:
                found = Comparison(terms, PROFILE, published, [run for run in runs if run.published == published])
                print("", *found.lines(), sep="\n", flush=True)
                failures += found.failures
    print("", *(failures or ["all images are right, and all targets met"]), sep="\n")
    return 1 if failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.azure_vs_packer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs (default: %(default)s)")
    for option, choices in (("series", [*SERIES]), ("publish", [IMAGE, VERSION]), ("tools", [PACKER, OURS])):
        parser.add_argument(f"--{option}", nargs="+", choices=choices, default=choices, help="only these")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to leave logs and suites")
    return parser.parse_args(arguments)


@contextmanager
def _directory(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="azchroot-bench-") as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(main())
