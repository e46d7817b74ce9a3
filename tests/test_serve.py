"""The ML backend over real HTTP: predictions as pre-labels are imported, and nothing that is sent to it breaks it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE
from lsplugin.dataset import Task
from lsplugin.files import held
from lsplugin.plan import Plan, planned
from lsplugin.project import prepared
from lsplugin.render import render
from lsplugin.template import Spec, template_names
from rm_lightning.gate import knows
from rm_lightning.prelabels import read_config
from rm_lightning.serve import Limits
from tests.backends import TOKEN, Serving, random_model, serving
from tests.helpers import complaint, run_cli, unused_port, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = render(Spec())
START = {"action": "START_TRAINING", "project": {"id": 3}}
WORDS = [
    "the",
    "coffee",
    "was",
    "good",
    "and",
    "the",
    "staff",
    "were",
    "kind",
    "not",
    "cold",
    "a",
    "short",
    "answer",
    "is",
    "better",
]


def row(number: int, answers: int = 2) -> dict[str, str]:
    texts = {
        f"answer{n}": " ".join(WORDS[(number * 3 + n * 5 + k) % 14] for k in range(4)) for n in range(1, answers + 1)
    }
    return {"prompt": f"How was day {number}?", **texts}


def task(number: int, answers: int = 2, **meta: Any) -> dict[str, Any]:
    return {"id": number, "data": row(number, answers), "meta": meta}


def body(*tasks: object, config: str = CONFIG) -> dict[str, Any]:
    return {"tasks": list(tasks), "label_config": config, "project": "1.123", "params": {"context": None}}


def metric(backend: Serving, name: str) -> float:
    found = re.search(rf"^{name} (.+)$", backend.http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def detail(answer: httpx.Response) -> str:
    said = answer.json()["detail"]
    assert isinstance(said, str)
    assert "\n" not in said
    return said


@pytest.fixture(scope="module")
def folder(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tiny_causal, tmp_path_factory.mktemp("served") / "rm")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[Serving]:
    with serving(folder, token=TOKEN, limits=Limits(body=200_000, tasks=60)) as found:
        yield found


@pytest.mark.parametrize("template", template_names())
def test_predictions_are_what_push_would_import(backend: Serving, template: str, folder: Path, tmp_path: Path) -> None:
    count = 3 if template in {"ranking", "rating"} else 2
    config = render(Spec(template=template, answers=count))
    rows = [row(number, count) for number in range(8)]
    scores = tmp_path / "scores.jsonl"
    assert (
        run_cli(["rm_lightning", "score", "--model", folder, write_json(tmp_path / "d.json", rows), "-o", scores]).code
        == 0
    )
    tasks = [Task(dict(data), {}, number) for number, data in enumerate(rows, start=1)]
    wanted = planned(tasks, read_config(config).tree, Plan(predictions=scores))
    wanted = prepared(wanted, config, path="d.json")
    sent = [{"id": n, "data": found.data, "meta": found.meta} for n, found in enumerate(wanted)]
    results = backend.http.post("/predict", json=body(*sent, config=config)).json()["results"]
    assert [found["result"] for found in results] == [list(found.predictions[0]["result"]) for found in wanted]
    assert [found["score"] for found in results] == pytest.approx(
        [found.predictions[0]["score"] for found in wanted], abs=1e-5
    )
    assert len({json.dumps(found["result"]) for found in results}) > 1
    assert re.fullmatch(r"rm-[0-9a-f]{12}", results[0]["model_version"])


def test_setup_health_and_versions_name_the_model(backend: Serving) -> None:
    version = backend.worker.model.version
    sent = {"schema": CONFIG, "project": "1.1", "hostname": "", "access_token": "secret", "extra_params": None}
    assert backend.http.post("/setup", json=sent).json() == {"model_version": version}
    health = backend.http.get("/health").json()
    assert (health["status"], health["model_version"], health["refit"]["state"]) == ("UP", version, "idle")
    assert backend.http.get("/versions").json() == {"versions": [version]}
    assert backend.http.post("/webhook", json={"action": "ANNOTATION_CREATED"}).json()["status"] == "ignored"


def test_without_the_token_nobody_gets_in(backend: Serving) -> None:
    def header(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    with httpx.Client(base_url=backend.url) as http:
        good = [f"Bearer {TOKEN}", f"bearer {TOKEN}", header("label-studio", TOKEN), header("", TOKEN)]
        bad = [
            "",
            TOKEN,
            f"Bearer {TOKEN}x",
            "Bearer",
            "Basic ###",
            header(TOKEN, ""),
            header("a", TOKEN[:-1]),
            f"Token {TOKEN}",
        ]
        assert [http.get("/health", headers={"Authorization": value}).status_code for value in good] == [200] * 4
        for value in bad:
            for method, path in (("GET", "/health"), ("GET", "/metrics"), ("POST", "/predict"), ("POST", "/webhook")):
                answer = http.request(method, path, headers={"Authorization": value}, content=b"x" * 1000)
                assert (answer.status_code, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
                assert TOKEN not in answer.text
    assert not knows(TOKEN, "Bearer é")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "a token is needed"),
        (["--host", "::"], "a token is needed"),
        (["--token", "short"], "expected 16 or more"),
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--host", "203.0.113.7", "--token", TOKEN], "cannot be listened on"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(options: list[str], said: str, tmp_path: Path) -> None:
    line = complaint(["rm_lightning", "serve", "--port", "0", *options])
    assert said in line
    assert TOKEN not in line


def test_what_is_too_large_is_refused_unread(backend: Serving) -> None:
    large = b'{"tasks": [], "label_config": "' + b"x" * 300_000 + b'"}'
    plain = {"Content-Type": "application/json"}
    answer = backend.http.post("/predict", content=large, headers=plain)
    assert (answer.status_code, detail(answer)) == (413, "expected at most 200000 bytes in a request (--max-body)")
    pieces = (large[at : at + 10_000] for at in range(0, len(large), 10_000))  # chunked: no length is told
    assert backend.http.post("/predict", content=pieces, headers=plain).status_code == 413
    answer = backend.http.post("/predict", json=body(*[task(n) for n in range(61)]))
    assert (answer.status_code, detail(answer)) == (
        413,
        "expected at most 60 tasks in a request (--max-tasks), found 61",
    )
    assert len(backend.http.post("/predict", json=body(*[task(n) for n in range(60)])).json()["results"]) == 60


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "expected JSON"),
        (b"[" * 50_000, 400, ""),
        (b"\xff\xfe", 400, ""),
        (b"[1]", 422, "expected JSON"),
        (b'{"tasks": []}', 422, "label_config: Field required"),
        (b'{"tasks": {}, "label_config": ""}', 422, "tasks: Input should be a valid list"),
        (json.dumps(body(task(1), config="<View>")).encode(), 422, "label_config: expected XML"),
        (json.dumps(body(task(1), config="<View/>")).encode(), 422, "expected two answers or more to compare, found 0"),
        (json.dumps(body(task(1), config="\ud83d")).encode(), 422, "label_config: expected XML"),
        (
            json.dumps(body(3)).encode(),
            422,
            "none of 1 tasks can be scored: a task without an id: expected an object",
        ),
        (
            json.dumps(body({"id": 7, "data": {"prompt": "p"}})).encode(),
            422,
            "task 7: expected `answer1` to be text, found nothing",
        ),
    ],
)
def test_what_cannot_be_understood_is_said_in_a_line(backend: Serving, content: bytes, status: int, said: str) -> None:
    answer = backend.http.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert said in detail(answer)
    assert backend.http.post("/predict", json=body(task(1))).status_code == 200


def test_a_web_page_cannot_ask_on_somebodys_behalf(backend: Serving) -> None:
    plain = {"Content-Type": "text/plain"}  # all that a page of another origin may send without being allowed to
    answer = backend.http.post("/webhook", content=json.dumps(START), headers=plain)
    assert answer.status_code == 422
    assert backend.refit.status["state"] == "idle"


def test_a_config_without_answers_cannot_be_set_up(backend: Serving) -> None:
    answer = backend.http.post("/setup", json={"schema": '<View><Text name="a" value="$a"/></View>'})
    assert answer.status_code == 422
    criteria = render(Spec(template="rating", criteria=("Clear", "Kind")))
    assert "several criteria" in detail(backend.http.post("/setup", json={"schema": criteria}))
    for project in (None, 3, {}, {"id": "x"}, {"id": -1}):
        answer = backend.http.post("/webhook", json={"action": "START_TRAINING", "project": project})
        assert (answer.status_code, detail(answer)[:8]) == (422, "project:")


def test_a_malformed_task_costs_the_others_nothing(backend: Serving) -> None:
    good = [task(1), task(2), task(3)]
    alone = backend.http.post("/predict", json=body(*good)).json()["results"]
    bad = [
        {"id": 9},
        "x",
        {"id": 8, "data": {**row(8), "answer2": 5}},
        {"id": 7, "data": {**row(7), "answer1": "long " * 200}},
    ]
    before = metric(backend, "rm_refused_tasks_total")
    mixed = backend.http.post("/predict", json=body(good[0], bad[0], good[1], *bad[1:], good[2])).json()["results"]
    assert mixed == [alone[0], [], alone[1], [], [], [], alone[2]]
    assert metric(backend, "rm_refused_tasks_total") == before + 4


def test_a_pre_label_that_is_to_stay_hidden_stays_hidden(backend: Serving) -> None:
    said = {"shown": False, "answer": "answer1", "probability": 0.9, "model": "rm"}
    sent = [task(1, prelabel=said), task(2), task(3, prelabel={**said, "shown": True})]
    results = backend.http.post("/predict", json=body(*sent)).json()["results"]
    assert [bool(found) for found in results] == [False, True, True]
    assert metric(backend, "rm_withheld_tasks_total") == 1


def test_fifty_at_once_get_what_each_gets_alone(backend: Serving) -> None:
    sent = [body(*(task(10 * n + k) for k in range(4))) for n in range(50)]
    alone = [backend.http.post("/predict", json=one).json() for one in sent]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda one: backend.http.post("/predict", json=one), sent))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert [answer.json() for answer in answers] == alone


def test_a_full_queue_says_when_to_come_back(folder: Path) -> None:
    with serving(folder, most_waiting=2) as backend, ThreadPoolExecutor(3) as pool:
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> bool:
            busy.set()
            return go_on.wait(60)

        held = pool.submit(backend.worker.between, hold)
        assert busy.wait(10)
        waiting = [pool.submit(backend.http.post, "/predict", json=body(task(n))) for n in range(2)]
        while backend.worker.waiting < 2:
            time.sleep(0.01)
        answer = backend.http.post("/predict", json=body(task(3)))
        assert (answer.status_code, int(answer.headers["Retry-After"]) >= 1) == (503, True)
        assert "2 requests are waiting already" in detail(answer)
        assert backend.http.get("/health").json()["waiting"] == 2  # which is answered meanwhile
        go_on.set()
        assert held.result()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert backend.http.post("/predict", json=body(task(3))).status_code == 200
        assert metric(backend, "rm_busy_total") == 1


class TestRefitsThatFail:
    def test_no_server_to_pull_from(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(URL_VARIABLE, f"http://127.0.0.1:{unused_port()}")
        monkeypatch.setenv(KEY_VARIABLE, "abc")
        with serving(folder) as backend:
            before = backend.http.post("/predict", json=body(task(1))).json()
            assert (
                backend.http.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}}).json()["status"]
                == "started"
            )
            ended = backend.ended()
            assert ended["state"] == "failed"
            assert "pulling the labels failed with exit code 1: no Label Studio at" in ended["said"]
            assert backend.http.post("/predict", json=body(task(1))).json() == before
            assert metric(backend, r'rm_refits_total\{outcome="failed"\}') == 1
        noted = json.loads(folder.with_name("rm-refits.jsonl").read_text().splitlines()[-1])
        assert (noted["state"], noted["project"]) == ("failed", 3)

    def test_killed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
            monkeypatch.setenv(URL_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setenv(KEY_VARIABLE, "abc")
            with serving(folder) as backend:
                before = backend.http.post("/predict", json=body(task(1))).json()
                assert backend.http.post("/webhook", json=START).json()["status"] == "started"
                again = backend.http.post("/webhook", json=START).json()
                assert (again["status"], again["refit"]["state"]) == ("a refit is running already", "running")
                while (process := backend.refit._process) is None:
                    time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
                ended = backend.ended()
                assert (ended["state"], ended["said"].partition(" (")[0]) == (
                    "failed",
                    "pulling the labels was killed by signal 9",
                )
                assert backend.http.post("/predict", json=body(task(1))).json() == before
                backend.http.post("/webhook", json=START)  # stopped with the server
                while backend.refit._process is process:
                    time.sleep(0.01)
            assert backend.refit.status["state"] == "failed"
            last = backend.refit._process
            assert last is not None
            assert last.poll() is not None

    def test_a_refit_that_outlives_its_server_keeps_the_next_one_out(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both would write to one folder."""
        work = folder.with_name("rm-refit")
        work.mkdir(exist_ok=True)
        with held(work / "lock", "") as lock:
            orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
        monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:1")
        with serving(folder) as backend:
            backend.http.post("/webhook", json=START)
            assert "another refit is at work there" in backend.ended()["said"]
            orphan.communicate(b"\n")
            backend.http.post("/webhook", json=START)
            assert backend.ended()["said"].startswith("pulling the labels failed")
