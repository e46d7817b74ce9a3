"""Our PPO beside TRL's on a GPU: tokens a second, the time of each part, and how much of the GPU's arithmetic an update uses.

    pip install --no-deps --target /tmp/trl trl==1.12.0        # the last release that has a PPO
    PYTHONPATH=. python benchmarks/ppo_gpu.py --trl /tmp/trl --shape 124m
    PYTHONPATH=. python benchmarks/ppo_gpu.py --trl /tmp/trl --shape 1b --rounds 1
    PYTHONPATH=. python benchmarks/ppo_gpu.py --shape tiny --device cpu --contenders 01      # does it run?

Random policies and reward models of three shapes, one embedding to a word, prompts of random words that all differ, answers that
practically never end. Batches of 64, 4 epochs of one minibatch, mixed precision (bfloat16), what `ppo_vs_trl.py` has. Each
contender in a process of its own, in rounds; medians of the updates after the second, in which kernels are chosen and compiled.

MFU counts what an update has to compute, whatever a contender computes: for each epoch and each token of prompt and answer 6 FLOP
a weight of the layers and 6 layers times width times tokens for attention (half of it is masked), and 6 FLOP a weight of the head
for each token of an answer; by the seconds of learning and the GPU's peak (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from ppo_vs_trl import APART, BATCH, SKIPPED, Job, run

from lsplugin.console import say

if TYPE_CHECKING:
    from ppo_vs_trl import Phases
    from transformers import PreTrainedConfig

EPOCHS = 4

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOP a second, of the makers' data sheets (SXM)."""


class Shape(NamedTuple):
    """A model's, and the texts'.

    Attributes:
        kind: gpt2 or llama.
        layers: of the trunk.
        width: of the hidden states.
        heads: of attention; of width 64 or more.
        vocabulary: tokens.
        prompt: tokens of a prompt.
        answer: tokens of an answer.
    """

    kind: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    prompt: int
    answer: int

    def config(self) -> PreTrainedConfig:
        """Give what transformers makes a model of."""
        from transformers import GPT2Config, LlamaConfig

        end, room = self.vocabulary - 1, self.prompt + self.answer
        if self.kind == "gpt2":
            return GPT2Config(
                n_layer=self.layers, n_embd=self.width, n_head=self.heads, vocab_size=self.vocabulary,
                n_positions=room, eos_token_id=end, bos_token_id=None, pad_token_id=end - 1,
            )  # fmt: skip
        return LlamaConfig(
            num_hidden_layers=self.layers, hidden_size=self.width, num_attention_heads=self.heads,
            num_key_value_heads=self.heads // 4, intermediate_size=4 * self.width, vocab_size=self.vocabulary,
            max_position_embeddings=room, tie_word_embeddings=True, eos_token_id=end, bos_token_id=None,
            pad_token_id=end - 1,
        )  # fmt: skip

    def work(self, weights: int) -> float:
        """Count the FLOP of an update: see above.

        Args:
            weights: of the layers.
        """
        tokens = self.prompt + self.answer
        inside = 6 * weights * tokens + 6 * self.layers * self.width * tokens**2
        return EPOCHS * BATCH * (inside + 6 * self.width * self.vocabulary * self.answer)


SHAPES = {
    "tiny": Shape("gpt2", 2, 64, 1, 1_000, 16, 16),
    "124m": Shape("gpt2", 12, 768, 12, 50_257, 128, 128),
    "1b": Shape("llama", 16, 2048, 32, 32_000, 128, 128),
}

NAMES = {"ours": ("ours", "own"), "ours, graphs": ("ours", "static"), "ours, vLLM": ("ours", "vllm"),
         APART: (APART, "own"), "TRL 1.12": ("TRL 1.12", "own")}  # fmt: skip


def make_models(shape: Shape, folder: Path) -> tuple[Path, Path, int]:
    """Write a policy and a reward model of random weights, with a tokenizer of as many words; give the layers' weights, too."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(shape.vocabulary)}
    raw: Any = Tokenizer(models.WordLevel(words, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = f"w{shape.vocabulary - 1}"
    untyped: Any = transformers
    tokenizer = untyped.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=end, pad_token=f"w{shape.vocabulary - 2}"
    )
    torch.manual_seed(0)
    config = shape.config()
    policy = untyped.AutoModelForCausalLM.from_config(config)
    config.num_labels = 1
    reward = untyped.AutoModelForSequenceClassification.from_config(config)
    base, scores = folder / "base", folder / "rm"
    for model, place in ((policy, base), (reward, scores)):
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    embedded = sum(part.weight.numel() for part in policy.modules() if isinstance(part, torch.nn.Embedding))
    return base, scores, sum(weight.numel() for weight in policy.parameters()) - embedded


def prompts_of(shape: Shape, count: int) -> tuple[str, ...]:
    """Draw prompts of random words."""
    dice = random.Random(0)
    return tuple(
        " ".join(f"w{dice.randrange(shape.vocabulary - 2)}" for _ in range(shape.prompt)) for _ in range(count)
    )


def row(name: str, found: list[Phases], peak: float, shape: Shape, weights: int, most: float | None) -> str:
    """Write a contender's medians as a row of Markdown."""
    rollout, scoring, learning = (statistics.median(part) for part in zip(*found, strict=True))
    total = statistics.median(map(sum, found))
    said = [
        f"{BATCH / total:.1f}", f"{BATCH * shape.answer / rollout:,.0f}", f"{rollout:.2f}", f"{scoring:.2f}",
        f"{learning:.2f}", f"{100 * shape.work(weights) / learning / most:.1f}%" if most else "", f"{peak:,.0f}",
    ]  # fmt: skip
    return f"| {name} | {' | '.join(said)} |"


def main(
    *,
    trl_folder: Annotated[Path | None, typer.Option("--trl", help="Folder of trl==1.12.0.", show_default=False)] = None,
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "124m",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    rounds: Annotated[int, typer.Option(help="Runs of each contender.")] = 3,
    updates: Annotated[int, typer.Option(help="Updates of a run.")] = 8,
    contenders: Annotated[
        str,
        typer.Option(
            help="Numbers of those to run: 0 ours, 1 with graphs, 2 with vLLM, 3 with a value network, 4 TRL."
        ),
    ] = "0134",
) -> None:
    """Print a table as Markdown."""
    import torch

    chosen, names = SHAPES[shape], [list(NAMES)[int(number)] for number in contenders]
    kind = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    most = next((peak for name, peak in PEAKS.items() if name in kind), None)
    times: dict[str, list[Phases]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, reward, weights = make_models(chosen, folder)
        say(f"{kind}, torch {torch.__version__}, {shape}: {weights:,} weights in the layers, "
            f"{chosen.width * chosen.vocabulary:,} in the head")  # fmt: skip
        for number in range(rounds):
            for name in names:
                contender, rollout = NAMES[name]
                job = Job(
                    contender, base, reward, folder / "tuned", updates, ends=False, seed=number,
                    trl=trl_folder or Path(), device=device, rollout=rollout, tokens=chosen.answer,
                    prompts=prompts_of(chosen, BATCH * 4),
                )  # fmt: skip
                found, peaks[name] = run(job)
                times[name] += found[SKIPPED:]
                say(f"{name}: {[round(sum(phase), 3) for phase in found]}")
    say("| | episodes/s | rollout tokens/s | rollout s | scoring s | learning s | MFU of learning | peak MiB |")
    say("|---|---|---|---|---|---|---|---|")
    for name, found in times.items():
        say(row(name, found, peaks[name], chosen, weights, most))


if __name__ == "__main__":
    typer.run(main)
