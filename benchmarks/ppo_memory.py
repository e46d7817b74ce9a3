"""What an update of PPO takes of memory, against batch size, minibatch size, answer length, prompt length and vocabulary.

    PYTHONPATH=. python benchmarks/ppo_memory.py

A random GPT-2 of 4 layers of width 128; answers never end. Every row is a process of its own: its peak (resident set) in an
update of one epoch, less what it held before, with models and optimiser in it. One row differs from the first in one thing.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import typer

from lsplugin.console import say

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shape(NamedTuple):
    """What an update has to do.

    Attributes:
        batch: answers.
        minibatch: answers in a step.
        answer: tokens of each.
        prompt: tokens of each; all prompts differ.
        vocabulary: tokens that the model knows.
    """

    batch: int = 64
    minibatch: int = 16
    answer: int = 32
    prompt: int = 32
    vocabulary: int = 8_192


ROWS = [
    Shape(),
    Shape(batch=256),
    Shape(batch=1024),
    Shape(batch=256, minibatch=256),
    Shape(answer=128),
    Shape(answer=512),
    Shape(prompt=128),
    Shape(prompt=448),
    Shape(vocabulary=65_536),
    Shape(vocabulary=65_536, prompt=448),
    Shape(vocabulary=65_536, answer=512),
]


def lengths(prompts: Sequence[Any], answers: Sequence[str]) -> torch.Tensor:
    """Score answers by their letters; what is scored does not matter here."""
    del prompts
    return torch.tensor([float(len(answer)) for answer in answers])


def update(shape: Shape, results: Any) -> None:  # noqa: ANN401 - a queue
    """Do one update; give MiB held before it, the peak within, and seconds."""
    from lightning.fabric import Fabric
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from ppo.policy import Policy
    from ppo.settings import PPOConfig, Sampling
    from ppo.trainer import Trainer
    from rm_lightning.text import TextEncoder

    names = [f"w{number}" for number in range(shape.vocabulary)]
    raw = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="w0", eos_token="w1")  # type: ignore[no-untyped-call]
    config = GPT2Config(
        vocab_size=shape.vocabulary, n_positions=1024, n_embd=128, n_layer=4, n_head=4,
        activation_function="gelu_pytorch_tanh", eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(config)
    policy = Policy(
        "random",
        model.eval(),
        tokenizer,
        TextEncoder(tokenizer, join=None, max_length=1024),
        (-1,),
        0,
    )
    dice = random.Random(0)
    prompts = [" ".join(dice.choices(names, k=shape.prompt)) for _ in range(shape.batch)]
    settings = PPOConfig(
        episodes=2 * shape.batch,
        batch_size=shape.batch,
        minibatch_size=shape.minibatch,
        epochs=1,
        missing_eos_penalty=0.0,
    )
    trainer = Trainer(
        settings, Sampling(max_new_tokens=shape.answer), policy, lengths, prompts, Fabric(accelerator="cpu", devices=1)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = trainer.step().seconds
    results.put((before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, sum(seconds.values())))


def main() -> None:
    """Print the table as Markdown."""
    say("| batch | minibatch | answer | prompt | vocabulary | MiB before | MiB more at the peak | seconds |")
    say("|---|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for shape in ROWS:
        results = context.Queue()
        process = context.Process(target=update, args=(shape, results))
        process.start()
        before, peak, seconds = results.get()
        process.join()
        say(f"| {' | '.join(f'{number:,}' for number in shape)} | {before:.0f} | {peak - before:.0f} | {seconds:.1f} |")


if __name__ == "__main__":
    typer.run(main)
