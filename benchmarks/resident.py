"""Peak resident size of a few iterations of one row, in MB: a process of its own, since a process never shrinks.

python -m benchmarks.resident JSON     with the machine and the case, as `rows.py` says them
"""

import json
import sys
from pathlib import Path

from benchmarks.contenders import Case, Machine, make_contender, training
from metvae_cli.training.metrics import peak_memory_mb


def peak_mb() -> float:
    """Largest resident size of this program.

    Linux's `ru_maxrss` will not do: a process starts with the largest size of the one that started it.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    sizes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return sizes[0] / 2**10 if sizes else peak_memory_mb()


def main() -> None:
    """Print it."""
    machine, (net, method, steps, words) = json.loads(sys.argv[1])
    place = Machine(machine["device"], machine["threads"], Path(machine["images"]))
    training(make_contender(Case(net, method, steps, tuple(words)), place))(3)
    print(peak_mb())


if __name__ == "__main__":
    main()
