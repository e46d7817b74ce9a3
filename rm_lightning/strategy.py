"""A model that is too large for one device, spread over all of them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy


class FullyShard(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with every process in one data-parallel group (FSDP2), on GPUs or CPUs.

    Weights, gradients and optimiser are spread over all processes; `RewardModel.configure_model` says how. Checkpoints hold the
    whole model, so that one process can export it.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - its own options
        super().__init__(**{"save_distributed_checkpoint": False, **options})

    def setup_environment(self) -> None:
        """Count the processes before the mesh is made."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()
