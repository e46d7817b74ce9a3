"""`python -m rm_lightning serve`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lsplugin import console
from rm_lightning.errors import RewardModelError

app = typer.Typer(name="serve", add_completion=False, pretty_exceptions_enable=False)

TOKEN_VARIABLE = "RM_SERVE_TOKEN"  # noqa: S105 - the name of a variable
_SHORTEST = 16


@app.command(
    epilog="Example: RM_SERVE_TOKEN=... python -m rm_lightning serve --model runs/rm --host 0.0.0.0 -- --config lora"
)
def serve(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- FIT OPTIONS]",
            help="More options for each refit's `fit`; the model's own settings are known.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[Path, typer.Option("--model", help="Folder of a reward model.")] = Path("runs/rm"),
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 9090,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar=TOKEN_VARIABLE,
            help="What every request must know, as Bearer token or as basic auth's password; needed unless --host is this "
            "machine's own. In the variable it stays out of the list of processes.",
            show_default=False,
        ),
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="MiB of a request at most.")] = 16,
    max_tasks: Annotated[int, typer.Option("--max-tasks", min=1, help="Tasks of a request at most.")] = 1000,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Requests that may wait; more are told to come back.")
    ] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    tokens_per_batch: Annotated[
        int, typer.Option("--tokens-per-batch", min=1, help="Tokens in one pass at most; less needs less memory.")
    ] = 8192,
    precision: Annotated[str, typer.Option("--precision", help="32-true, or bf16-mixed on a GPU.")] = "32-true",
) -> None:
    """Serve a reward model to Label Studio as an ML backend: pre-labels when a task is opened, and refits from its labels.

    `lsplugin backend add PROJECT URL` connects it. For refits it talks to the Label Studio that `lsplugin` would talk to here.
    """
    _check_token(host, token)
    with _listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        from rm_lightning.quiet import quiet

        quiet()
        import uvicorn

        from rm_lightning.prelabels import load_model
        from rm_lightning.refit import Refit, recover
        from rm_lightning.scorer import find_device
        from rm_lightning.serve import Limits, make_app
        from rm_lightning.worker import Worker

        recover(model)
        load = partial(
            load_model,
            device=find_device(device),
            tokens_per_batch=tokens_per_batch,
            precision=precision,  # type: ignore[arg-type]  # checked there
        )
        worker = Worker(load(model), most_waiting=queue)
        refit = Refit(worker, load=load, options=options or [], tell=console.say)
        made = make_app(worker, refit, token=token, limits=Limits(max_body << 20, max_tasks), tell=console.say)
        told = uvicorn.Config(
            made, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
        )
        console.say(f"{worker.model.version} serves on {url} (connect it: lsplugin backend add PROJECT {url})")
        with suppress(KeyboardInterrupt):  # which uvicorn hands on after its own end
            uvicorn.Server(told).run(sockets=[listening])
    console.say("stopped")


def _check_token(host: str, token: str | None) -> None:
    """Refuse to let anybody from outside in, and a token that can be guessed."""
    if token is None and not _is_loopback(host):
        raise RewardModelError(
            f"--host {host}: others can reach this address, so a token is needed: set {TOKEN_VARIABLE} to one of "
            f"{_SHORTEST} characters or more, such as `openssl rand -hex 20` prints, or listen on 127.0.0.1"
        )
    if token is not None and (len(token) < _SHORTEST or not token.isascii() or not token.isprintable()):
        raise RewardModelError(f"the token: expected {_SHORTEST} or more letters, digits and signs of ASCII")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before the model is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise RewardModelError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); name others"
        ) from None
