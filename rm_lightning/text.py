"""Text becomes tokens in two parts, here and everywhere: `prompt`, then `join + answer + EOS`.

The boundary between prompt and answer is therefore the same for the reward model, for a shared prompt and for the policy, which
continues exactly where the prompt ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from lsplugin.preferences import Prompt

JOIN_KEY = "rlhf_join"
"""Where a model's config.json keeps the join it was trained with; a key of the config survives every save_pretrained."""


class TextEncoder:
    """Makes token ids of prompts and answers with one tokenizer.

    Args:
        tokenizer: needs an EOS (or SEP) token.
        join: what stands between a plain prompt and its answer; found out from the tokenizer when None.
        max_length: most tokens of prompt and answer together; the prompt is cut from the left to fit.

    Attributes:
        cuts: how many prompts were cut so far.

    Raises:
        RewardModelError: the tokenizer has no token to end an answer with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, join: str | None = None, max_length: int = 1024) -> None:
        self.tokenizer = tokenizer
        self.join = default_join(tokenizer) if join is None else join
        self.max_length = max_length
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if end is None:
            raise RewardModelError(
                f"the tokenizer {tokenizer.name_or_path} has no EOS token to end an answer with: set one"
            )
        self.eos_token_id = int(end)
        self.cuts = 0

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, with the tokenizer's own beginning; a conversation goes through its chat template."""
        if not isinstance(prompt, str):
            return self._chat(prompt)
        return self._open(self._encode([prompt], special=True)[0])

    def answer(self, answer: str, prompt: Prompt = "") -> list[int]:
        """Token ids of an answer: join (plain prompts only), answer, EOS."""
        return [*self._encode([self._joined(prompt) + answer], special=False)[0], self.eos_token_id]

    def __call__(self, prompt: Prompt, answer: str) -> list[int]:
        """Token ids of both, at most `max_length`; see `tree`."""
        tree = self.tree(prompt, [answer])
        return [*tree.prompt, *tree.answers[0]]

    def tree(self, prompt: Prompt, answers: Sequence[str]) -> Tree:
        """Token ids of a prompt and its answers; the prompt is cut once, so that it fits with the longest of them.

        Raises:
            RewardModelError: an answer alone is too long; an answer is never cut.
        """
        (tree,) = self.trees([(prompt, answers)])
        if (longest := max(map(len, tree.answers))) > self.max_length:
            answer = answers[[len(ids) for ids in tree.answers].index(longest)]
            raise RewardModelError(
                f"an answer of {longest} tokens does not fit into {self.max_length}: it begins {answer[:40]!r}"
            )
        return tree

    def trees(self, texts: Sequence[tuple[Prompt, Sequence[str]]]) -> list[Tree]:
        """Token ids of many prompts and their answers at once, which is faster than one by one.

        A prompt is cut so that it fits with the longest of its answers that fit themselves; an answer that is too long stays
        as it is, for the caller to find.
        """
        prompts = iter(self._encode([prompt for prompt, _ in texts if isinstance(prompt, str)], special=True))
        answers = iter(
            self._encode(
                [self._joined(prompt) + answer for prompt, several in texts for answer in several], special=False
            )
        )
        found = []
        for prompt, several in texts:
            ids = self._open(next(prompts)) if isinstance(prompt, str) else self._chat(prompt)
            branches = [[*next(answers), self.eos_token_id] for _ in several]
            longest = max((len(branch) for branch in branches if len(branch) <= self.max_length), default=0)
            found.append(Tree(self.cut(ids, self.max_length - longest), branches))
        return found

    def _encode(self, texts: list[str], *, special: bool) -> list[list[int]]:
        if not texts:
            return []
        # Masks and types are lists as long as the ids, which nobody here reads.
        unread = {"return_attention_mask": False, "return_token_type_ids": False}
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=special, **unread).input_ids
        return ids

    def _joined(self, prompt: Prompt) -> str:
        return self.join if isinstance(prompt, str) else ""

    def _open(self, ids: list[int]) -> list[int]:
        """Take off the EOS with which GPT-like tokenizers may close a text: a prompt goes on."""
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids

    def cut(self, prompt_ids: Sequence[int], room: int) -> list[int]:
        """Cut a prompt from the left to at most `room` tokens, keeping its BOS (or CLS) token."""
        if len(prompt_ids) <= room:
            return list(prompt_ids)
        self.cuts += 1
        first = prompt_ids[0]
        starts = first in {self.tokenizer.bos_token_id, self.tokenizer.cls_token_id} and room > 0
        kept = room - 1 if starts else room
        return [first] * starts + list(prompt_ids[len(prompt_ids) - kept :])

    def _chat(self, prompt: Sequence[dict[str, str]]) -> list[int]:
        if not self.tokenizer.chat_template:
            raise RewardModelError(
                f"the prompt is a conversation, but the tokenizer {self.tokenizer.name_or_path} has no chat template: "
                "use plain text prompts or a chat model"
            )
        out: Any = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)
        ids: list[int] = out["input_ids"]
        return ids


def default_join(tokenizer: PreTrainedTokenizerBase) -> str:
    """Find what stands between prompt and answer so that two parts give the tokens of the whole text.

    GPT-2 wants " " before the answer; tokenizers that put a blank before every text, as Llama's did, want nothing.
    """
    whole = tokenizer("one two", add_special_tokens=False).input_ids
    first = tokenizer("one", add_special_tokens=False).input_ids
    for join in (" ", ""):
        if first + tokenizer(join + "two", add_special_tokens=False).input_ids == whole:
            return join
    return " "
