"""Peak resident size of a few iterations of one row, in MB: a process of its own, since a process never shrinks.

python -m benchmarks.resident JSON     with the machine and the case, as `rows.py` says them
"""

import json
import sys
from pathlib import Path

from benchmarks.contenders import Case, Machine, make_contender, training
from metvae_cli.training.metrics import peak_resident_mb


def main() -> None:
    """Print it."""
    machine, (net, method, steps, words) = json.loads(sys.argv[1])
    place = Machine(machine["device"], machine["threads"], Path(machine["images"]))
    training(make_contender(Case(net, method, steps, tuple(words)), place))(3)
    print(peak_resident_mb())


if __name__ == "__main__":
    main()
