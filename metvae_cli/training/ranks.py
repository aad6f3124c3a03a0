"""Whether this process was started as one of several, by torchrun, by Slurm or by metvae itself; needs no torch."""

import os
from collections.abc import Mapping

PASSES_ON = "METVAE_PASSES_ON"  # in the environment: by whoever passes signals on to this process


def rank_and_size(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number of this process, from 0, and how many there are: (0, 1) for one that stands alone.

    Slurm's numbers count inside a job step with several tasks only (`srun`, submitit): in the batch script around it
    they are there too, for a process that is alone.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    return 0, 1


def is_passed_on() -> bool:
    """Whether whoever started this process passes signals on to it, beside those that it gets itself."""
    return PASSES_ON in os.environ or rank_and_size()[1] > 1


def is_assistant() -> bool:
    """Whether another process of the same run writes its files."""
    return rank_and_size()[0] > 0
