"""The reward model as a Label Studio ML backend: the HTTP interface, as the server calls it.

| request | answer |
|---|---|
| GET /health | `{"status": "UP", "model_version", "waiting", "refit": {"state", "said", ...}}` |
| POST /setup `{schema}` | `{"model_version"}`; 422 where nothing in the config can be filled in |
| POST /predict `{tasks, label_config}` | `{"results": [{"model_version", "score", "result"}, ...]}`; `[]` where a task has none |
| POST /webhook `{action, project}` | START_TRAINING begins a refit; other actions are taken and ignored |
| GET /versions | `{"versions": [...]}`: the one that serves, then those that are kept |
| GET /metrics | plain numbers in Prometheus' text form |

Errors are `{"detail": "one line"}`: 400 no JSON, 401 token, 413 body or number of tasks, 422 what cannot be understood, 503 busy.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from lsplugin.errors import LspluginError
from rm_lightning.errors import RewardModelError
from rm_lightning.gate import Gate
from rm_lightning.prelabels import read_config
from rm_lightning.worker import BusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rm_lightning.refit import Refit
    from rm_lightning.worker import Worker

START_TRAINING = "START_TRAINING"


@dataclass(frozen=True)
class Limits:
    """What one request may hold.

    Attributes:
        body: bytes.
        tasks: tasks of a /predict.
    """

    body: int = 16 << 20
    tasks: int = 1000


class Predict(BaseModel):
    """What /predict is sent; the rest of it is ignored."""

    tasks: list[Any]
    label_config: str


class Setup(BaseModel):
    """What /setup is sent: the project's config, and a key of the server that nobody here needs."""

    config: str | None = Field(None, alias="schema")


class Project(BaseModel):
    """The project that a webhook is about."""

    id: int = Field(gt=0)


class Event(BaseModel):
    """What /webhook is sent."""

    action: str
    project: Any = None


def make_app(
    worker: Worker,
    refit: Refit,
    *,
    token: str | None = None,
    limits: Limits = Limits(),
    tell: Callable[[str], None] = lambda _: None,
) -> FastAPI:
    """Make the application; it stops worker and refit when it ends.

    Args:
        worker: answers /predict.
        refit: begun by START_TRAINING.
        token: see `rm_lightning.gate.Gate`.
        limits: of a request.
        tell: called with what a person should know.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        refit.stop()
        worker.stop()

    app = FastAPI(title="Reward model", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Gate, token=token, most_bytes=limits.body)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(LspluginError, _unusable)
    answers = Answers(worker, refit, limits, tell)
    for path in ("health", "versions", "metrics"):
        app.get(f"/{path}", response_model=None)(getattr(answers, path))
    for path in ("setup", "predict", "webhook"):
        app.post(f"/{path}", response_model=None)(getattr(answers, path))
    return app


class Answers:
    """What each request is answered; see the table above."""

    def __init__(self, worker: Worker, refit: Refit, limits: Limits, tell: Callable[[str], None]) -> None:
        self.worker, self.refit, self.limits, self.tell = worker, refit, limits, tell

    async def health(self) -> dict[str, Any]:
        """Say that all is well, what serves, and what became of the last refit."""
        told = {"model_version": self.worker.model.version, "waiting": self.worker.waiting, "refit": self.refit.status}
        return {"status": "UP", "model_class": "reward model", **told}

    async def setup(self, asked: Setup) -> dict[str, str]:
        """Say which model serves a project, whose config must have something to fill in."""
        if asked.config is not None:
            read_config(asked.config)
        return {"model_version": self.worker.model.version}

    async def predict(self, asked: Predict) -> dict[str, Any] | JSONResponse:
        """Give a prediction for each task."""
        count, most = len(asked.tasks), self.limits.tasks
        if count > most:
            return _error(413, f"expected at most {most} tasks in a request (--max-tasks), found {count}")
        done = await self.worker.predict(asked.tasks, read_config(asked.label_config))
        reason = next(iter(done.refused.values()), "")
        if done.refused:
            self.tell(f"{len(done.refused)} of {count} tasks have no prediction: {reason}")
        if count and len(done.refused) == count:
            return _error(422, f"none of {count} tasks can be scored: {reason}")
        return {"results": done.results}

    async def webhook(self, event: Event) -> dict[str, Any]:
        """Begin a refit where that is asked; while one runs, say so."""
        if event.action != START_TRAINING:
            return {"status": "ignored", "action": event.action}
        try:
            project = Project.model_validate(event.project)
        except ValueError:
            raise RewardModelError("project: expected an object with the project's `id`, a number") from None
        began = self.refit.begin(project.id)
        return {"status": "started" if began else "a refit is running already", "refit": self.refit.status}

    async def versions(self) -> dict[str, list[str]]:
        """Name the model that serves, then those that served before."""
        folder, now = self.worker.model.folder, self.worker.model.version
        kept = sorted(found.name for found in folder.parent.glob(f"{folder.name}-" + "[0-9a-f]" * 12))
        return {"versions": [now, *(name for name in kept if name != now)]}

    async def metrics(self) -> PlainTextResponse:
        """Give the numbers since the start."""
        return PlainTextResponse(_metrics(self.worker, self.refit), media_type="text/plain; version=0.0.4")


def _metrics(worker: Worker, refit: Refit) -> str:
    """Write the numbers in Prometheus' text exposition format."""
    counts = worker.counts
    numbers: list[tuple[str, str, str, float]] = [
        ("rm_predict_requests_total", "", "Requests to /predict that were answered.", counts["requests"]),
        ("rm_predict_seconds_total", "", "Seconds that the model worked on them.", round(worker.seconds, 6)),
        ("rm_predictions_total", "", "Tasks that got a prediction.", counts["predictions"]),
        ("rm_refused_tasks_total", "", "Tasks that cannot be scored.", counts["refused"]),
        ("rm_withheld_tasks_total", "", "Tasks whose pre-label is to stay hidden.", counts["withheld"]),
        ("rm_busy_total", "", "Requests that were turned away.", counts["busy"]),
        ("rm_waiting", "", "Requests that wait or are worked on.", worker.waiting),
        ("rm_refit_running", "", "1 while a refit runs.", int(refit.status["state"] == "running")),
        *(
            ("rm_refits_total", f'{{outcome="{outcome}"}}', "Refits that ended, by their outcome.", number)
            for outcome, number in refit.outcomes.items()
        ),
        ("rm_model", f'{{version="{worker.model.version}"}}', "1 for the model that serves.", 1),
    ]
    lines, before = [], ""
    for name, labels, text, value in numbers:
        if name != before:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"]
        lines.append(f"{name}{labels} {value}")
        before = name
    return "\n".join(lines) + "\n"


def _error(status: int, line: str, **headers: str) -> JSONResponse:
    return JSONResponse({"detail": " ".join(line.split())}, status, headers=headers)


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    """Say in a line which field is wrong; nothing of what was sent is repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(400, f"expected JSON, found an error at character {first['loc'][-1]}")
    place = ".".join(map(str, first["loc"][1:])) or "the body"
    return _error(422, f"{place}: {first['msg']}; expected JSON with content type application/json")


async def _unusable(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, BusyError):
        return _error(503, str(error), **{"Retry-After": str(error.seconds)})
    return _error(422, str(error))
