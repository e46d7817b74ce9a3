"""A reward model that serves, for tests: a real uvicorn on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import torch
import uvicorn

from rm_lightning.backbone import load_scorer, load_tokenizer
from rm_lightning.prelabels import load_model
from rm_lightning.refit import Refit
from rm_lightning.serve import Limits, make_app
from rm_lightning.text import JOIN_KEY
from rm_lightning.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOKEN = "correct-horse-battery"


class Serving(NamedTuple):
    """A backend that runs, and a client that knows its token."""

    http: httpx.Client
    url: str
    worker: Worker
    refit: Refit

    def ended(self, seconds: float = 300) -> dict[str, Any]:
        """Wait for a refit to end, and say how, as /health tells it."""
        for _ in range(int(seconds / 0.1)):
            found: dict[str, Any] = self.http.get("/health").json()["refit"]
            if found["state"] != "running":
                return found
            time.sleep(0.1)
        raise AssertionError(found)


@contextmanager
def serving(
    folder: Path,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    most_waiting: int = 64,
    options: Sequence[str] = (),
) -> Iterator[Serving]:
    """Serve a reward model for the length of the block."""
    load = partial(load_model, device="cpu", tokens_per_batch=8192, precision="32-true")
    worker = Worker(load(folder), most_waiting=most_waiting)
    refit = Refit(worker, load=load, options=options)
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(worker, refit, token=token, limits=limits or Limits())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    auth = ("label-studio", token) if token is not None else None
    try:
        with httpx.Client(base_url=url, auth=auth, timeout=60) as http:
            yield Serving(http, url, worker, refit)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        listening.close()


def random_model(backbone: Path, folder: Path, *, seed: int = 0) -> Path:
    """Make a reward model whose head is drawn at random."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(str(backbone))
    model = load_scorer(str(backbone), tokenizer, new=True)
    torch.nn.init.normal_(model.score.weight, std=4.0)  # type: ignore[union-attr]  # far enough apart to be sure of some
    setattr(model.config, JOIN_KEY, " ")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
