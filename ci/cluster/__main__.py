"""Run a command beside a Slurm of one node: `python -m ci.cluster snakemake ...`."""

from __future__ import annotations

import subprocess
import sys

from ci.cluster.slurm import UnableError, obstacle, one_node

reason = obstacle()
if reason:
    sys.exit(reason)
try:
    with one_node():
        sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
except UnableError as error:
    sys.exit(str(error))
