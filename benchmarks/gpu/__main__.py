"""Run the parts of a quarter of an hour on a GPU: `python -m benchmarks.gpu --out FOLDER`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from benchmarks.gpu import checks, runner, studies, training
from benchmarks.gpu.runner import Part, Setting
from robustviews.machine import runtime

OUT, REST = Path("results/.gpu"), Path("results/.rest")
# Expected seconds: a0, a2, a3, b1 and c1 as one H100 took, the others estimated.
PARTS = {
    "a0": Part(checks.machine, expected=5, limit=40),
    "a1": Part(checks.agreement, expected=100, limit=160),
    "a2": Part(checks.attacks, expected=5, limit=60),
    "a3": Part(checks.resumption, expected=30, limit=120),
    "b1": Part(training.compiling, expected=50, limit=130),
    "b2": Part(training.against_published, expected=120, limit=200),
    "b3": Part(training.profiled, expected=15, limit=45),
    "c1": Part(studies.pretraining, expected=380, limit=480),
    "c2": Part(studies.probes, expected=200, limit=400),
    "c3": Part(studies.pgd, expected=110, limit=240),
    "c4": Part(studies.autoattack, expected=130, limit=280),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results (%(default)s)")
    parser.add_argument(
        "--rest",
        type=Path,
        default=REST,
        help="folder of pieces beyond the first four of a part (%(default)s)",
    )
    parser.add_argument("--only", help=f"parts to run, in this order ({','.join(PARTS)})")
    parser.add_argument("--left", type=float, help="seconds until this process must have ended")
    parser.add_argument("--small", action="store_true", help="rehearse at small sizes, on digits")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--study", type=Path, help=f"study of c1-c4 ({studies.HEADLINE.name})")
    parser.add_argument("--reference", type=Path, help="folder of the published code")
    parser.add_argument("--cache", type=Path, help="compile-cache of an earlier call, to load")
    options = parser.parse_args(argv)
    names = options.only.split(",") if options.only else list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"--only: no part {', '.join(unknown)}; choose of {', '.join(PARTS)}")
    options.only = list(dict.fromkeys(names))
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts.

    Returns:
        0 if all parts ran to their end, whether or not they met their bars; else 1.
    """
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Deterministic products on CUDA need it before the first product of this process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if options.data is not None:
        os.environ["ROBUSTVIEWS_DATA"] = str(options.data)
    if options.cache is not None:
        torch.compiler.load_cache_artifacts(options.cache.read_bytes())
    setting = Setting(
        device=runtime.choose_device(options.device),
        small=options.small,
        study=options.study or (studies.SMALL if options.small else studies.HEADLINE),
        reference=options.reference,
        out=options.out,
        rest=options.rest,
        threads=1 if options.small else torch.get_num_threads(),
    )
    chosen = {name: PARTS[name] for name in options.only}
    reports = runner.run(chosen, setting, left=options.left)
    return int(any(report.state != "done" for report in reports))


if __name__ == "__main__":
    sys.exit(main())
