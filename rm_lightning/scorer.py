"""Rewards for any prompts and answers, from any folders that score with one number or with the heads of an ensemble."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jinja2 import TemplateError

from rm_lightning.backbone import MEMBERS_KEY, can_share, load_scorer, load_tokenizer, score, window
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Packed, Tree, pack
from rm_lightning.text import JOIN_KEY, TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt

Precision = Literal["32-true", "bf16-mixed"]


class Text(NamedTuple):
    """Token ids of one answer, and of as much of its prompt as fits in front of it."""

    prompt: list[int]
    answer: list[int]


class Attempt(NamedTuple):
    """Scores of those of N answers that could be scored.

    | field | shape | |
    |---|---|---|
    | scores | (M, K) | float32, on the CPU: each member's score |
    | places | M numbers | which of the N each row is of, ascending |
    | refused | | the place of every other answer -> why it has none |
    """

    scores: Tensor
    places: list[int]
    refused: dict[int, str]


class RewardScorer:
    """Trained reward models as a function of prompts and answers.

    Args:
        folder: our rm/ folder, or any `AutoModelForSequenceClassification` with one label; several make an ensemble.
        device: where it runs.
        tokens_per_batch: tokens of one pass at most, padding included; a longer text has a pass of its own.
        members: which heads to use, counted from 0 over the heads of all folders in their order; all by default.
        precision: bf16-mixed runs the backbone in bfloat16; the heads stay in float32.

    Raises:
        RewardModelError: a folder is no model or has another number of labels, or there is no such member.
    """

    def __init__(
        self,
        folder: str | Sequence[str],
        *,
        device: str | torch.device = "cpu",
        tokens_per_batch: int = 8192,
        members: Sequence[int] | None = None,
        precision: Precision = "32-true",
    ) -> None:
        folders = [folder] if isinstance(folder, str) else list(folder)
        if not folders:
            raise RewardModelError("expected the folder of a reward model, or several, found none")
        if precision not in {"32-true", "bf16-mixed"}:
            raise RewardModelError(f"precision {precision}: expected 32-true or bf16-mixed")
        if tokens_per_batch < 1:
            raise RewardModelError(f"tokens_per_batch {tokens_per_batch}: expected at least 1 token in a batch")
        models = [_Model(name, torch.device(device), precision, tokens_per_batch) for name in folders]
        owners = [(model, head) for model in models for head in range(model.heads)]
        self.members = tuple(range(len(owners)) if members is None else members)
        _check_members(self.members, [f"{model.name} ({model.heads})" for model in models], len(owners))
        chosen = [owners[member] for member in self.members]
        self._models = [model for model in models if any(owner is model for owner, _ in chosen)]
        heads = [owner for owner in owners if owner[0] in self._models]
        self._columns = [heads.index(owner) for owner in chosen]

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Score each answer to its prompt: the mean over the members.

        Args:
            prompts: N prompts.
            answers: N answers.

        Returns:
            scores, (N,), float32, on the CPU, in the order of the input.

        Raises:
            RewardModelError: an answer is longer than a model reads, or a model's chat template refuses a prompt.
        """
        return self.all(prompts, answers).mean(dim=1)

    def all(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Score each answer by every member, (N, K), float32, on the CPU; takes and raises what a call does."""
        attempt = self.attempt(prompts, answers)
        for place, reason in attempt.refused.items():
            raise RewardModelError(f"no score for the answer that begins {answers[place][:40]!r}: it is {reason}")
        return attempt.scores

    @torch.inference_mode()
    def attempt(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Attempt:
        """Score the answers that can be scored, and say of each other one why not.

        An answer's score is its own, whatever else is asked along with it. Equal prompts that follow each other are run once.

        Args:
            prompts: N prompts.
            answers: N answers.
            advance: called with the number of answers that are done.
        """
        encoded = [model.encode(prompts, answers) for model in self._models]
        refused = {place: reason for _, reasons in reversed(encoded) for place, reason in reasons.items()}
        places = [place for place in range(len(answers)) if place not in refused]
        advance(len(refused))
        columns = []
        for number, (model, (texts, _)) in enumerate(zip(self._models, encoded, strict=True)):
            last = number == len(self._models) - 1
            columns.append(model.scores([texts[place] for place in places], advance if last else lambda _: None))
        scores = torch.cat(columns, dim=1)[:, self._columns]  # (M, all heads) -> (M, K)
        return Attempt(scores, places, dict(sorted(refused.items())))


class _Model:
    """One folder: its tokens and its scores."""

    def __init__(self, name: str, device: torch.device, precision: Precision, tokens: int) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(name)
        self.model = load_scorer(name, self.tokenizer).to(device).eval()  # type: ignore[arg-type]
        self.heads = int(getattr(self.model.config, MEMBERS_KEY, None) or 1)
        self.shared = can_share(self.model)
        self.width = self.model.score.in_features if self.shared else None
        join = getattr(self.model.config, JOIN_KEY, None)
        self.encoder = TextEncoder(self.tokenizer, join=join, max_length=window(self.model.config) or 1 << 20)
        self.device, self.tokens = device, tokens
        self.mixed = precision == "bf16-mixed"

    def encode(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> tuple[dict[int, Text], dict[int, str]]:
        """Give the tokens of each answer by its place, and why the others have none."""
        texts: dict[int, Text] = {}
        refused: dict[int, str] = {}
        last: Prompt | None = None
        ids: list[int] | str = []
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if last is None or prompt != last:
                ids, last = self._prompt(prompt), prompt
            own = self.encoder.answer(answer, prompt)
            room = self.encoder.max_length - len(own)
            if isinstance(ids, str):
                refused[place] = ids
            elif room < 0:
                refused[place] = f"longer than the {self.encoder.max_length} tokens that {self.name} reads"
            else:
                texts[place] = Text(ids if len(ids) <= room else self.encoder.cut(ids, room), own)
        return texts, refused

    def _prompt(self, prompt: Prompt) -> list[int] | str:
        """Give a prompt's token ids, or why it has none: a chat template may refuse a conversation, as one of the wrong roles."""
        try:
            return self.encoder.prompt(prompt)
        except TemplateError as error:
            return f"refused with its prompt by the chat template of {self.name} ({error})"

    def scores(self, texts: Sequence[Text], advance: Callable[[int], object]) -> Tensor:
        """Score M texts, (M, heads), float32, on the CPU."""
        scores = torch.empty(len(texts), self.heads, device=self.device)
        trees = grow(texts, tokens=self.tokens, width=self.width)
        starts = [0]
        for tree in trees:
            starts.append(starts[-1] + len(tree.answers))
        for batch in batches([len(tree) for tree in trees], tokens=self.tokens):
            packed = pack([trees[tree] for tree in batch], pad=int(self.tokenizer.pad_token_id))
            moved = Packed(*(part.to(self.device) for part in packed))
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
                found = score(self.model, moved, shared=self.shared)  # (answers of the batch, heads)
            rows = [row for tree in batch for row in range(starts[tree], starts[tree + 1])]
            scores[torch.tensor(rows, device=self.device)] = found
            advance(len(rows))
        return scores.cpu()


def grow(texts: Sequence[Text], *, tokens: int, width: int | None) -> list[Tree]:
    """Put texts that follow each other and have the same prompt into one tree, and start another where it would be too long.

    Args:
        texts: in an order that the trees' answers keep.
        tokens: of one tree at most, unless one text alone is longer.
        width: of the model's hidden states; None makes every text a tree of its own.
    """
    trees: list[Tree] = []
    for prompt, answer in texts:
        if width is not None and trees and trees[-1].prompt == prompt:
            own = sum(map(len, trees[-1].answers)) + len(answer)
            if own <= room(len(prompt), width) and len(prompt) + own <= tokens:
                trees[-1].answers.append(answer)
                continue
        trees.append(Tree(prompt, [answer]))
    return trees


def room(prompt: int, width: int) -> float:
    """Say how many tokens of answers are best put behind one prompt.

    More answers save runs of the prompt, but all tokens of a row attend to one another. A layer of width h costs 24 h^2 a token
    in its weights and 4 L h in the attention of L tokens. So x tokens of answers behind P of a prompt cost, for each of them,

        (6 h (P + x) + (P + x)^2) / x        in units of 4 h, least at x = sqrt(P (P + 6 h)).

    Args:
        prompt: its tokens, P.
        width: of the hidden states, h.
    """
    # x^2 = P^2 + 6 h P
    return math.sqrt(prompt * (prompt + 6 * width))


def batches(sizes: Sequence[int], *, tokens: int) -> Iterator[list[int]]:
    """Deal trees out to batches of about equally long ones, none with more than `tokens` tokens when padded.

    Args:
        sizes: tokens of each tree.
        tokens: of a batch at most, unless one tree alone is longer.

    Yields:
        numbers of trees; each tree is in one batch.
    """
    batch: list[int] = []
    for tree in sorted(range(len(sizes)), key=lambda tree: sizes[tree]):
        if batch and (len(batch) + 1) * sizes[tree] > tokens:
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch


def find_device(name: str) -> torch.device:
    """Give the device of a name; `auto` is the GPU where there is one.

    Raises:
        RewardModelError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardModelError(
            f"device {name}: expected auto, cpu or cuda, as this machine has it ({reason})"
        ) from None
    return device


def _check_members(members: Sequence[int], folders: Sequence[str], count: int) -> None:
    """Refuse members that are not there, that come twice, and none at all."""
    there = f"{count} in {', '.join(folders)}, counted from 0"
    for member in members:
        if not 0 <= member < count:
            raise RewardModelError(f"members: there is no member {member}; there are {there}")
    if not members or len(set(members)) < len(members):
        raise RewardModelError(
            f"members: expected each one once and at least one, found {list(members)}; there are {there}"
        )
