"""Which examples stand together in a step: seeded, about equally long, the same for any number of processes.

A step's examples are chosen for all processes together and then dealt out, so two processes with half the batch each do what one
process does with the whole of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Places = npt.NDArray[np.int64]

T = TypeVar("T")

POOL = 32
"""Batches whose examples are sorted by length together, as Hugging Face's grouping by length does with 50."""


class Size(NamedTuple):
    """How large a batch of one process is: so many comparisons, or about so many tokens."""

    comparisons: int
    tokens: int | None = None


class Share(NamedTuple):
    """Which process this is, of how many."""

    rank: int = 0
    of: int = 1


class Dealt(NamedTuple):
    """An example of a process's batch; `real` is False where it only fills up the last batch, and must not count."""

    place: int
    real: bool


def plan(
    tokens: npt.NDArray[np.int32],
    comparisons: npt.NDArray[np.int32],
    size: Size,
    *,
    processes: int = 1,
    order: tuple[int, int] | None = None,
) -> list[Places]:
    """Put examples into batches for all processes together.

    Args:
        tokens: of each example, (E,).
        comparisons: of each example, (E,).
        size: of one process's batch.
        processes: how many share a batch.
        order: seed and epoch of a random order; longest first when None.

    Returns:
        As many batches for every order: places of examples, none left out or twice. A batch ends with the example that fills it.
    """
    weight, full = (comparisons, size.comparisons) if size.tokens is None else (tokens, size.tokens)
    full = full * processes
    whole = int(weight.sum())
    count = min(max(1, -(-whole // full)), len(tokens))
    if order is None:
        arranged = np.argsort(-tokens.astype(np.int64), kind="stable")
    else:
        random = np.random.default_rng(order)
        arranged = random.permutation(len(tokens))
        pool = (np.cumsum(weight[arranged]) - 1) // (full * POOL)
        arranged = arranged[np.lexsort((-tokens[arranged].astype(np.int64), pool))]
    before = np.cumsum(weight[arranged].astype(np.int64)) - weight[arranged]
    ideal, number = np.searchsorted(before, np.arange(1, count) * whole / count), np.arange(1, count)
    # An example larger than a batch would leave the next one empty: every batch has one example at least.
    starts = np.minimum(np.maximum.accumulate(ideal - number) + number, len(tokens) - count + number)
    batches = np.split(arranged, np.maximum(starts, number))
    if order is not None:
        batches = [batches[place] for place in random.permutation(len(batches))]
    return batches


def deal(batch: Places, tokens: npt.NDArray[np.int32], share: Share) -> list[Dealt]:
    """Give a process its part of a batch: longest example first, each to who has the fewest tokens so far.

    Every process gets one example at least, as all must take the step; one that would have none gets a copy that does not count.
    """
    if share.of == 1:
        return [Dealt(int(place), real=True) for place in batch]
    load = [0] * share.of
    own: list[Dealt] = []
    for place in sorted(batch.tolist(), key=lambda place: -int(tokens[place])):
        least = load.index(min(load))
        load[least] += int(tokens[place])
        if least == share.rank:
            own.append(Dealt(place, real=True))
    return own or [Dealt(int(batch[-1]), real=False)]


class Batches(Generic[T]):
    """Batches as Lightning takes them: sized, another order every epoch, going on after a restart where it stopped.

    Args:
        tokens: of each example, (E,).
        comparisons: of each example, (E,).
        size: of a process's batch.
        share: this process.
        seed: of the order; None keeps the longest first.
        make: makes a batch of examples' places.
        done: how many batches of the epoch that begins were given before a restart.
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.int32],
        comparisons: npt.NDArray[np.int32],
        size: Size,
        share: Share,
        seed: int | None,
        make: Callable[[Sequence[Dealt]], T],
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        self._tokens, self._comparisons = tokens, comparisons
        self._size, self._share, self._seed = size, share, seed
        self._epoch = 0
        self._make = make
        self._done = done
        self._length = len(self._plan())

    batch_sampler: None = None  # Lightning asks for it where there is a sampler

    @property
    def sampler(self) -> Batches[T]:
        """Lightning tells a loader's sampler which epoch it is."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take another order from here on."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Say that this loader can go on; its state is the trainer's own count of batches, asked for when an epoch begins."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load; Lightning asks for the loader before it reads a checkpoint, and so would come too late."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for batch in self._plan()[self._done() :]:
            yield self._make(deal(batch, self._tokens, self._share))

    def _plan(self) -> list[Places]:
        order = None if self._seed is None else (self._seed, self._epoch)
        return plan(self._tokens, self._comparisons, self._size, processes=self._share.of, order=order)
