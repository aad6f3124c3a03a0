"""Processes that train together, through Lightning Fabric; imported only where several are asked for.

Fabric finds out who started the processes (torchrun or Slurm), chooses device and backend of each and connects them.
The model is not wrapped: an iteration differentiates through scores, not through one call of a module, and one exchange
of all gradients, metrics and flags together is what the loop asks for.
"""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from metvae_cli.errors import ConfigError
from metvae_cli.training.processes import OneProcess, Processes
from metvae_cli.training.ranks import rank_and_size
from metvae_cli.training.settings import TrainerSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class FabricProcesses:
    """The processes of a launched Fabric."""

    def __init__(self, fabric: "Fabric") -> None:
        self.fabric = fabric
        self.rank = fabric.global_rank
        self.size = fabric.world_size

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over processes of each tensor, in one exchange."""
        flat = torch.cat([tensor.detach().to(self.fabric.device).flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)  # Fabric's own waits at a barrier before it
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def tell(self, value: T) -> T:
        """What the first process holds."""
        return self.fabric.broadcast(value)

    def leave(self) -> None:
        """Close the connections; a process that ends with open ones may be aborted."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def check_processes(settings: TrainerSettings) -> None:
    """Raise ConfigError where the devices that are asked for cannot be had from here."""
    wanted, (_, started) = settings.devices * settings.num_nodes, rank_and_size()
    asked = f"trainer.devices={settings.devices} trainer.num_nodes={settings.num_nodes}"
    if started > 1 and wanted != started:
        raise ConfigError(f"{asked}: {started} processes were started; the product of the two must be {started}")
    if wanted == 1:
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", settings.devices)) if elastic() else settings.devices
    if elastic() and (started == 1 or here != settings.devices):
        raise ConfigError(f"{asked}: torchrun started {here} on this machine; say --nproc-per-node={settings.devices}")
    if started > 1 and not elastic() and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ConfigError(f"{asked}: say srun --ntasks-per-node={settings.devices}, which connecting them depends on")
    if started == 1 and settings.num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={settings.num_nodes}: one machine cannot start processes on others; start metvae on "
            "each by torchrun, or under Slurm by srun or hydra/launcher=slurm"
        )
    try:
        import lightning_fabric  # noqa: F401
    except ImportError:
        raise ConfigError(f"{asked}: needs lightning-fabric; pip install 'metvae[dist]'") from None
    if settings.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"trainer.device={settings.device}: several devices are auto, cpu or cuda")
    there = torch.cuda.device_count()
    if accelerator(settings) == "cuda" and settings.devices > there:
        raise ConfigError(f"trainer.devices={settings.devices}: this machine has {there} CUDA devices")


def elastic() -> bool:
    """Whether torchrun, or metvae in its way, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def accelerator(settings: TrainerSettings) -> str:
    """cpu or cuda."""
    return "cuda" if settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available()) else "cpu"


def join_processes(settings: TrainerSettings) -> tuple[Processes, str]:
    """The processes that this one was started with, and the device that it is to use, by its name.

    Raises:
        ConfigError: as `check_processes`
    """
    check_processes(settings)
    if settings.devices * settings.num_nodes == 1:
        return OneProcess(), settings.device
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its banner says what ours does
    try:
        fabric = Fabric(
            accelerator=accelerator(settings),
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            plugins=[TorchElasticEnvironment() if elastic() else SLURMEnvironment(auto_requeue=False)],
        )
        fabric.launch()
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"trainer.devices={settings.devices}: cannot be connected ({reason})") from error
    return FabricProcesses(fabric), str(fabric.device)
