"""The base model of the made world: a tiny GPT-2 with a tokenizer of its own, trained from `corpus` in about a minute.

It is trained once a machine and cached. A text is tokens(prompt) + tokens(" " + answer) + end of text, the same two parts
as everywhere else in the project, so a policy that starts from it continues exactly where the prompt ends.
"""

from __future__ import annotations

import hashlib
import os
import random
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo_world.corpus import corpus
from lsplugin.errors import LspluginError
from lsplugin.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    Progress = Callable[[int, int], None]
    """Called with (steps done, steps in all)."""

EOS = "<|endoftext|>"
PAD = "<|pad|>"
JOIN = " "
"""What stands between a prompt and its answer."""


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """How large the base model is and how it is trained.

    Attributes:
        reviews: how many reviews are drawn for the corpus; each is read once per epoch.
        epochs: passes over the corpus.
        vocab: most tokens the tokenizer may have.
        layers: transformer blocks.
        width: size of the hidden state.
        heads: attention heads a block.
        positions: longest text in tokens.
        batch: reviews a step.
        lr: highest learning rate, reached after a tenth of the steps and then lowered along a cosine to a tenth.
    """

    reviews: int = 16_000
    epochs: int = 1
    vocab: int = 640
    layers: int = 2
    width: int = 128
    heads: int = 4
    positions: int = 128
    batch: int = 32
    lr: float = 4e-3


def cache_root() -> Path:
    """Give the folder that made things are kept in: $DEMO_WORLD_CACHE, or the user's cache folder."""
    import platformdirs

    if named := os.environ.get("DEMO_WORLD_CACHE"):
        return Path(named).expanduser()
    return platformdirs.user_cache_path("label-studio-rlhf") / "demo_world"


def source_key(modules: Sequence[str], *settings: object) -> str:
    """Name a cached thing by the source text of the modules that make it and by its settings (16 hex digits)."""
    digest = hashlib.blake2b(digest_size=8)
    for name in modules:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    digest.update(repr(settings).encode())
    return digest.hexdigest()


def base_model(seed: int = 0, *, config: BaseConfig | None = None, progress: Progress | None = None) -> Path:
    """Give the folder of the base model and its tokenizer, training them when they are not in the cache yet.

    Args:
        seed: another seed draws another corpus and other weights; the same seed gives the same weights on one machine.
        config: sizes, for tests.
        progress: called after every training step; never called when the model is cached.

    Returns:
        A Hugging Face folder for AutoModelForCausalLM and AutoTokenizer. Two processes that ask at once train it once.
    """
    from filelock import FileLock

    config = config or BaseConfig()
    folder = cache_root() / f"base-{source_key(('base', 'corpus'), seed, asdict(config))}"
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "config.json").is_file():
                with atomic_folder(folder, marker="config.json") as temporary:
                    train(temporary, seed, config, progress)
    except OSError as error:
        raise LspluginError(
            f"{folder.parent}: expected a folder to keep the demo's base model in, found {error.strerror or error}; "
            "name another with DEMO_WORLD_CACHE"
        ) from None
    return folder


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own inside the block."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def train(folder: Path, seed: int, config: BaseConfig, progress: Progress | None = None) -> None:
    """Train tokenizer and model from the corpus of `seed` and save both into `folder`."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    texts = corpus(seed, config.reviews)
    tokenizer = train_tokenizer(texts, config)
    rows = tokenize(tokenizer, texts)
    if (longest := max(map(len, rows))) > config.positions:
        raise LspluginError(
            f"base model: expected texts of at most positions={config.positions} tokens, found one of {longest}; "
            f"raise positions or vocab={config.vocab}"
        )
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_positions=config.positions,
                n_embd=config.width,
                n_layer=config.layers,
                n_head=config.heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                # 0.02, the habit for wide models, is so small at this width that copying from the prompt is never learnt.
                initializer_range=config.width**-0.5,
                bos_token_id=eos,
                eos_token_id=eos,
                pad_token_id=pad,
            )
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.98))
    batches = [batch for epoch in range(config.epochs) for batch in _batches(rows, config.batch, seed + epoch)]
    warmup = len(batches) // 10 + 1
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, len(batches) - warmup), eta_min=config.lr / 10
    )
    ramp = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.05, total_iters=warmup)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [ramp, cosine], milestones=[warmup])
    model.train()
    for step, batch in enumerate(batches, start=1):
        ids, mask = _padded(batch, pad)
        logits = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1]).logits
        targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if progress is not None:
            progress(step, len(batches))
    model.eval()  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=eos, eos_token_id=eos, pad_token_id=pad
    )
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train_tokenizer(texts: list[tuple[str, str]], config: BaseConfig) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE from prompts and answers; end of text and padding are tokens of their own."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        (part for prompt, answer in texts[:4000] for part in (prompt, JOIN + answer)),
        vocab_size=config.vocab,
        min_frequency=2,
        special_tokens=[EOS, PAD],
        show_progress=False,
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe._tokenizer,  # noqa: SLF001 - the wrapper keeps the real tokenizer there
        bos_token=EOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=config.positions,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]]) -> list[list[int]]:
    """Turn (prompt, answer) into tokens(prompt) + tokens(" " + answer) + EOS, one list of ids a review."""
    prompts: list[list[int]] = tokenizer([prompt for prompt, _ in texts])["input_ids"]
    answers: list[list[int]] = tokenizer([JOIN + answer for _, answer in texts])["input_ids"]
    end: int = tokenizer.eos_token_id
    return [[*prompt, *answer, end] for prompt, answer in zip(prompts, answers, strict=True)]


def _batches(rows: list[list[int]], size: int, seed: int) -> Iterator[list[list[int]]]:
    """Shuffle rows into batches of about equal lengths, so that hardly any padding is computed."""
    rng = random.Random(f"batches {seed}")
    shuffled = rng.sample(rows, len(rows))
    pools = [sorted(shuffled[at : at + 32 * size], key=len) for at in range(0, len(shuffled), 32 * size)]
    batches = [pool[at : at + size] for pool in pools for at in range(0, len(pool), size)]
    rng.shuffle(batches)
    yield from batches


def _padded(batch: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Pad rows on the right: input ids and attention mask, both (B, T)."""
    import torch

    longest = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
    return ids, mask
