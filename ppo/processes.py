"""One batch, several processes: each works on its share of the rows, and all hold the whole batch afterwards.

Every process draws the random numbers of the whole batch from the same generator and takes its rows, so that what comes out does
not depend on how many there are.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ppo.errors import PPOError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lightning.fabric import Fabric
    from torch import Tensor

    from ppo.settings import PPOConfig


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
