"""One model at work: predictions one at a time, in one thread, with a queue that has an end."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rm_lightning.errors import RewardModelError
from rm_lightning.prelabels import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rm_lightning.prelabels import Config, Model, Predicted

T = TypeVar("T")


class BusyError(RewardModelError):
    """The queue is full.

    Attributes:
        seconds: after which it is probably worth asking again, 1 or more.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} requests are waiting already; ask again in {seconds} s")
        self.seconds = seconds


class Worker:
    """Predictions of whichever model serves at the moment; a request is answered by one model, from its first task to its last.

    Torch uses all cores for one batch, so two at once would only take turns.

    Args:
        model: what serves first.
        most_waiting: requests that may wait or be worked on; more are turned away.

    Attributes:
        model: what serves now.
        waiting: requests that wait or are worked on.
        counts: of `requests`, those turned away as `busy`, and tasks: `predictions`, `refused`, `withheld`; since the start.
        seconds: that the model worked on requests.
    """

    def __init__(self, model: Model, *, most_waiting: int) -> None:
        self.model = model
        self.waiting = 0
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self._most = most_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict")

    async def predict(self, tasks: Sequence[object], config: Config) -> Predicted:
        """Predict as soon as those before are done; see `rm_lightning.prelabels.predict`.

        Raises:
            BusyError: too many are waiting.
        """
        if self.waiting >= self._most:
            self.counts["busy"] += 1
            each = self.seconds / max(1, self.counts["requests"])
            raise BusyError(self.waiting, max(1, math.ceil(each * self.waiting)))
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, tasks, config)
        finally:
            self.waiting -= 1

    def between(self, work: Callable[[], T]) -> T:
        """Do something with a model between two requests, and wait for it; not from the thread of the server's loop."""
        return self._thread.submit(work).result()

    def stop(self) -> None:
        """End after what is being worked on."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _predict(self, tasks: Sequence[object], config: Config) -> Predicted:
        began = time.monotonic()
        done = predict(self.model, tasks, config)
        self.seconds += time.monotonic() - began
        self.counts["requests"] += 1
        self.counts["refused"] += len(done.refused)
        self.counts["withheld"] += done.withheld
        self.counts["predictions"] += len(tasks) - len(done.refused) - done.withheld
        return done
