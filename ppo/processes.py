"""One batch, several processes: each works on its share of the rows, and all hold the whole batch afterwards.

Every process draws the random numbers of the whole batch from the same generator and takes its rows, so that what comes out does
not depend on how many there are.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ppo.errors import PPOError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor

    from ppo.settings import PPOConfig

PRECISIONS = ("32-true", "bf16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""Those that keep the whole model on each device, which samples from it."""


def make_fabric(
    accelerator: str = "auto",
    precision: str | None = None,
    *,
    devices: str = "1",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> Fabric:
    """Choose devices and precision, and start the processes: bf16 mixed on a GPU, float32 on a CPU, where bf16 is slower.

    Args:
        accelerator: of Lightning Fabric: auto, cpu, cuda.
        precision: one of PRECISIONS.
        devices: how many of each node; auto takes all.
        num_nodes: machines.
        strategy: one of STRATEGIES.

    Raises:
        PPOError: this machine has no such devices, or the setting is none.
    """
    for name, value, known in (
        ("precision", precision or PRECISIONS[0], PRECISIONS),
        ("strategy", strategy, STRATEGIES),
    ):
        if value not in known:
            raise PPOError(f"--{name} {value}: expected one of {', '.join(known)}")
    on_gpu = accelerator in {"gpu", "cuda"} or (accelerator == "auto" and torch.cuda.is_available())
    chosen: Any = precision or ("bf16-mixed" if on_gpu else "32-true")
    count: Any = int(devices) if devices.isdecimal() else devices
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=count, num_nodes=num_nodes, strategy=strategy, precision=chosen
        )
        fabric.launch()
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PPOError(
            f"--accelerator {accelerator} --devices {devices} --num-nodes {num_nodes} --strategy {strategy}: this machine "
            f"cannot do it ({reason})"
        ) from None
    return fabric


@contextmanager
def alone(lock: Path, fabric: Fabric) -> Iterator[None]:
    """Hold a lock that only one run can hold, for all its processes; it ends with them.

    Raises:
        PPOError: another run holds it.
    """
    own, busy = FileLock(lock), False
    if fabric.is_global_zero:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            own.acquire(blocking=False)
        except Timeout:
            busy = True
    if fabric.broadcast(busy):
        raise PPOError(
            f"{lock.parent}: another run writes there at this moment; wait for its end, or name another --output"
        )
    try:
        yield
    finally:
        own.release()


def check_shares(config: PPOConfig, processes: int) -> None:
    """Raise a PPOError where a batch or minibatch cannot be shared out evenly."""
    for name, size in (("--batch-size", config.batch_size), ("--minibatch-size", config.minibatch_size)):
        if size % processes:
            raise PPOError(
                f"{name} {size} is of all {processes} processes together (--devices times --num-nodes) and must be a multiple "
                f"of {processes}"
            )


def share(count: int, fabric: Fabric) -> slice:
    """Give the rows of `count` that are this process' own; they follow each other."""
    size = count // fabric.world_size
    return slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)


def gather(rows: Tensor, fabric: Fabric) -> Tensor:
    """Put the rows of all processes together: (B / processes, ...) -> (B, ...), the same in each of them."""
    if fabric.world_size == 1:
        return rows
    whole = rows.new_zeros(len(rows) * fabric.world_size, *rows.shape[1:])
    whole[share(len(whole), fabric)] = rows
    return summed(whole, fabric)  # every row is of one process, and 0 in the others


def summed(values: Tensor, fabric: Fabric) -> Tensor:
    """Add up the values of all processes."""
    total: Any = values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum")
    return total  # type: ignore[no-any-return]


def unsynchronised(actor: Any, fabric: Fabric) -> AbstractContextManager[Any]:  # noqa: ANN401 - Fabric's wrapper of a module
    """Add up gradients in this process alone, for a pass that is not a minibatch's last."""
    return nullcontext() if fabric.world_size == 1 else fabric.no_backward_sync(actor)
