"""Real things for tests to run against: a Label Studio, a browser, data that people labelled, a small language model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder is unknown at once, here as anywhere offline
# Tests run side by side; two threads for tiny tensors wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import platformdirs
import pytest
from filelock import FileLock
from hypothesis import settings

from lsplugin import server as local
from lsplugin.connection import CONNECTION_FILE, KEY_VARIABLE, URL_VARIABLE, Connection, read_connection_file
from lsplugin.errors import LspluginError
from tests.helpers import Person, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("tests", deadline=None, max_examples=60, database=None)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares the browser in one process, and what shares only the server in one, maybe another.

    `pytest -n 2 --dist loadgroup` then starts two servers at most, and deals all other tests to whoever is free.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for group in ("browser", "server"):
            if group in fixtures:
                item.add_marker(pytest.mark.xdist_group(group))
                break


@dataclass(frozen=True)
class LabelStudio:
    """A running Label Studio of the tests' own.

    Attributes:
        connection: its address and its administrator's legacy token.
        user: the administrator's e-mail.
        password: the administrator's password.
        data: its folder.
    """

    connection: Connection
    user: str
    password: str
    data: Path

    @property
    def url(self) -> str:
        """Its address."""
        return self.connection.url


@pytest.fixture(scope="session", autouse=True)
def _nobody_elses_server() -> Iterator[None]:
    """Keep the tests away from the server of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (URL_VARIABLE, KEY_VARIABLE):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real preference data; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("RLHF_DATA") or REPOSITORY / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip(f"there is no real data at {folder}; RLHF_DATA names its folder")
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Label Studio that was started once; its migrations take minutes, so it is kept between sessions."""
    try:
        local.find_program()
        version = importlib.metadata.version("label-studio")
    except (LspluginError, importlib.metadata.PackageNotFoundError):
        unavailable("label-studio is not installed")
    # Some settings count on the first start only, so another set of them is another folder.
    settings_key = hashlib.sha256(repr(sorted(local._SETTINGS.items())).encode()).hexdigest()[:8]
    root = platformdirs.user_cache_path("label-studio-rlhf") / "tests" / version
    root.mkdir(parents=True, exist_ok=True)
    folder = root / settings_key
    with FileLock(root / f"{settings_key}.lock"):
        if not folder.is_dir():
            unfinished = Path(tempfile.mkdtemp(prefix=".unfinished.", dir=root))
            try:
                with local.serve(unfinished):
                    pass
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def copy_migrated(migrated: Path, to: Path) -> Path:
    """Copy a migrated folder, so that a server may write into it."""
    shutil.copytree(migrated, to, ignore=shutil.ignore_patterns("serve.*", "*.log"))
    return to


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """Give a Label Studio that lives as long as the session."""
    data = copy_migrated(migrated, tmp_path_factory.mktemp("server") / "data")
    with local.serve(data) as running:
        values = read_connection_file(data / CONNECTION_FILE)
        yield LabelStudio(running.connection, values[local.USER_VARIABLE], values[local.PASSWORD_VARIABLE], data)


@pytest.fixture
def connected(server: LabelStudio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LabelStudio:
    """Let commands find the server, in an empty folder."""
    monkeypatch.setenv(URL_VARIABLE, server.connection.url)
    monkeypatch.setenv(KEY_VARIABLE, server.connection.api_key)
    monkeypatch.chdir(tmp_path)
    return server


@pytest.fixture
def admin(server: LabelStudio) -> Iterator[Person]:
    """Give the administrator, signed in."""
    with Person(server.url) as person:
        person.log_in(server.user, server.password)
        yield person


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give a real Chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        unavailable("chromium is not installed")
    quiet = ("background-networking", "component-update", "sync", "gpu", "quic")
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(browser: Browser, server: LabelStudio) -> Iterator[Page]:
    """A page of the administrator's, signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(server.url + "/user/login")
    page.fill("[name=email]", server.user)
    page.fill("[name=password]", server.password)
    page.click("[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url)
    yield page
    context.close()


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer GPT-2 with a byte-level tokenizer that has an end of text and no padding token."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    sentences = [
        "The coffee was good and the staff were kind.",
        "The coffee was cold and nobody cared.",
        "Which answer is better, the first one or the second one?",
        "A short answer is not always the better answer.",
    ]
    end = "<|endoftext|>"
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(sentences, vocab_size=300, min_frequency=1, special_tokens=[end], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=end)
    end_id = tokenizer.convert_tokens_to_ids(end)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=2,
        eos_token_id=end_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).to(torch.float32)
    folder = tmp_path_factory.mktemp("tiny") / "causal"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def days_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty comparisons that a tiny model learns."""
    from lsplugin.preferences import write_pairs
    from tests.fits import days

    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_pairs(path, days(40))
    return path


@pytest.fixture(scope="session")
def fitted(tiny_causal: Path, days_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with all that a fit leaves behind; nobody changes it."""
    from rm_lightning.__main__ import main
    from tests.fits import arguments

    output = tmp_path_factory.mktemp("fitted") / "rm"
    main(arguments(days_file, tiny_causal, output, "--trainer.max_epochs=3", "--model.learning_rate=1e-2"))
    return output


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures, which take most of the time of a tiny fit."""
    import rm_lightning.finish

    monkeypatch.setattr(rm_lightning.finish, "write_report", lambda *_: None)
