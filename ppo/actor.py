"""What a policy says about answers that were drawn: log-probabilities, values, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ppo.core import entropy, token_logprobs
from ppo.errors import PPOError
from ppo.logprobs import linear_logprobs
from ppo.policy import position_ids
from rm_lightning.backbone import is_scorer, load_scorer, load_tokenizer
from rm_lightning.packing import Packed, can_branch, hidden_states, pack
from rm_lightning.parts import reads_last, trunk
from rm_lightning.scorer import Text, grow

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ppo.policy import Policy


class Outputs(NamedTuple):
    """What a policy says about responses; 0 where no token was sampled.

    | field | shape | |
    |---|---|---|
    | logprobs | (B, T) | log-probability of each response token |
    | values | (B, T) | expected return before each response token |
    | entropy | (B, T) | of the distribution each token was drawn from, nats; None where it was not asked for |
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor | None


class ActorCritic(nn.Module):
    """A policy and its values.

    By default the value head reads the same last hidden state as the language-model head, so both cost one pass. With a critic,
    values come from that network's own trunk, and its head is where the value head starts from.

    Args:
        model: the causal language model to tune.
        value_init_std: standard deviation of the head's first weights. At 0 the first values are 0 and the first advantages the
            rewards to come; Huang et al. 2024 (arXiv 2403.17031) take 1 / sqrt(hidden size + 1).
        critic: a network of its own for the values, from `load_critic`.
    """

    def __init__(
        self, model: PreTrainedModel, *, value_init_std: float = 0.0, critic: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.critic = None if critic is None else trunk(critic)
        read = model if critic is None else critic
        self.value_head = nn.Linear(read.config.get_text_config().hidden_size, 1)
        nn.init.normal_(self.value_head.weight, std=value_init_std)
        nn.init.zeros_(self.value_head.bias)
        if critic is not None:
            with torch.no_grad():  # the mean of an ensemble's heads
                self.value_head.weight.copy_(critic.score.weight.mean(0, keepdim=True))  # type: ignore[operator, union-attr]

    def forward(
        self, input_ids: Tensor, mask: Tensor, length: int, temperature: float = 1.0, *, with_entropy: bool = True
    ) -> Outputs:
        """Score the last `length` tokens of each row; logits are made for those positions alone.

        Args:
            input_ids: prompts padded on the left, then responses padded on the right, (B, P + T).
            mask: True = real token, (B, P + T).
            length: T.
            temperature: at which the responses were sampled; the log-probabilities are those of that distribution (Huang et al.
                2024, arXiv 2403.17031).
            with_entropy: the entropy, too, which is one more pass over the vocabulary.
        """
        read = read_answers(self.model, input_ids, mask, length, temperature, with_entropy=with_entropy)
        states = read.hidden if self.critic is None else answer_states(self.critic, input_ids, mask, length)
        with torch.autocast(input_ids.device.type, enabled=False):
            head = self.value_head
            values = nn.functional.linear(states.float(), head.weight.float(), head.bias.float()).squeeze(-1)
        sampled = mask[:, -length:]
        entropies = None if read.entropy is None else _spread(read.entropy, sampled)
        return Outputs(_spread(read.logprobs, sampled), _spread(values, sampled), entropies)


@torch.no_grad()
def reference_logprobs(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, length: int, temperature: float
) -> Tensor:
    """Log-probabilities of the last `length` tokens under the frozen reference: (B, T); 0 where no token was sampled."""
    return _spread(read_answers(model, input_ids, mask, length, temperature).logprobs, mask[:, -length:])


class Read(NamedTuple):
    """What is read of N sampled tokens, row by row.

    | field | shape | |
    |---|---|---|
    | hidden | (N, H) | state that each token was drawn from |
    | logprobs | (N,) | float32 |
    | entropy | (N,) | nats; None where it was not asked for |
    """

    hidden: Tensor
    logprobs: Tensor
    entropy: Tensor | None


def read_answers(
    model: PreTrainedModel,
    input_ids: Tensor,
    mask: Tensor,
    length: int,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> Read:
    """Read the real ones of the last `length` tokens of each row.

    Where the model allows it, in packed rows without padding, equal prompts once, logits for a few tokens at a time; otherwise
    in the rectangle as it is given.

    Args:
        model: a causal language model.
        input_ids: prompts padded on the left, then responses padded on the right, (B, P + T).
        mask: True = real token, (B, P + T).
        length: T.
        temperature: divides the logits.
        with_entropy: the entropy, too, which takes all logits at once.
    """
    sampled = mask[:, -length:]
    tokens = input_ids[:, -length:][sampled]
    weight = head_weight(model)
    if weight is None:
        logits, states = response_logits(model, input_ids, mask, length)
        rows, hidden = logits[sampled] / temperature, states[sampled]
    else:
        hidden = answer_states(trunk(model), input_ids, mask, length)
        if not with_entropy:
            return Read(hidden, linear_logprobs(hidden, weight, tokens, temperature), None)
        rows = nn.functional.linear(hidden, weight) / temperature  # (N, V)
    return Read(hidden, token_logprobs(rows, tokens), entropy(rows) if with_entropy else None)


def answer_states(backbone: PreTrainedModel, input_ids: Tensor, mask: Tensor, length: int) -> Tensor:
    """Give the state before each sampled token, row by row, (N, H), from packed rows; see `pack_answers`."""
    width = backbone.config.get_text_config().hidden_size
    return hidden_states(backbone, pack_answers(input_ids, mask, length, width=width))


def load_critic(name: str, policy: Policy) -> PreTrainedModel:
    """Load a network for the values: a reward model's folder, whose score is a good first guess of them, or a language model's.

    Raises:
        PPOError: it reads other tokens than the policy says, or no rows of several texts.
        RewardModelError: there is no such model, or it is a classifier of kinds.
    """
    tokenizer = load_tokenizer(name)
    known = tokenizer.get_vocab()
    if any(known.get(token) != number for token, number in policy.tokenizer.get_vocab().items()):
        raise PPOError(
            f"--value-model {name}: its tokens are not those of {policy.name}; expected a model of the same tokenizer"
        )
    trained = is_scorer(name)
    critic = load_scorer(name, tokenizer, new=not trained)
    if not reads_last(critic) or not can_branch(trunk(critic)):
        raise PPOError(
            f"--value-model {name}: expected a causal model that reads several answers in one row, as most do"
        )
    if not trained:
        nn.init.zeros_(critic.score.weight)  # type: ignore[union-attr, arg-type]
    return critic.eval()  # type: ignore[no-untyped-call, no-any-return]


def pack_answers(input_ids: Tensor, mask: Tensor, length: int, *, width: int) -> Packed:
    """Lay prompts and answers out without padding; what is read is the state before each sampled token, row by row.

    Args:
        input_ids: (B, P + T).
        mask: (B, P + T).
        length: T.
        width: of the hidden states; it decides how many answers are best put behind one prompt.
    """
    cut = input_ids.shape[1] - length
    rows, real = input_ids.tolist(), mask.tolist()
    prompts = [
        [i for i, m in zip(row[:cut], seen[:cut], strict=True) if m] for row, seen in zip(rows, real, strict=True)
    ]
    answers = [row[cut : cut + sum(seen[cut:])] for row, seen in zip(rows, real, strict=True)]
    if not all(prompts):
        raise PPOError(f"answer {prompts.index([]) + 1} of the batch has an empty prompt: there is nothing to answer")
    order = sorted(range(len(rows)), key=lambda row: prompts[row])  # equal prompts next to each other
    trees = grow([Text(prompts[row], answers[row]) for row in order], tokens=input_ids.numel(), width=width)
    packed = pack(trees, pad=0)
    ends = iter(packed.ends.tolist())
    before: dict[int, list[int]] = {}  # row -> where the states before its tokens stand
    place = iter(order)
    for tree in trees:
        root = -1
        for number, answer in enumerate(tree.answers):
            start = next(ends) - len(answer) + 1
            root = start - 1 if number == 0 else root
            before[next(place)] = [root, *range(start, start + len(answer) - 1)]
    reads = torch.tensor([at for row in range(len(rows)) for at in before[row]])
    return Packed(*(part.to(input_ids.device) for part in packed._replace(ends=reads)))


HEAD = "_rlhf_plain_head"
"""Where a model keeps what was found out about its head."""


def head_weight(model: PreTrainedModel) -> Tensor | None:
    """Give the matrix that makes logits of hidden states, (V, H); None where more than that makes them, or rows cannot be packed.

    It is tried out once: some models scale or bend their logits, and some read no packed rows.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if HEAD not in vars(model):
        setattr(model, HEAD, _is_plain(model, head) and can_branch(trunk(model)))
    return head.weight if getattr(model, HEAD) else None


@torch.no_grad()
def _is_plain(model: PreTrainedModel, head: object) -> bool:
    bends = getattr(
        model.config.get_text_config(), "final_logit_softcapping", None
    )  # too little to be seen in small logits
    if type(head) is not nn.Linear or head.bias is not None or bends:
        return False
    ids = torch.tensor([[1, 2, 3]], device=model.device)
    logits = model(input_ids=ids).logits
    return torch.allclose(head(model.base_model(input_ids=ids).last_hidden_state), logits, rtol=1e-4, atol=1e-5)


def _spread(values: Tensor, sampled: Tensor) -> Tensor:
    """Put the values of real tokens back into their rectangle: (N,), (B, T) -> (B, T), 0 elsewhere."""
    return torch.zeros_like(sampled, dtype=values.dtype).masked_scatter(sampled, values)


def response_logits(model: PreTrainedModel, input_ids: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Logits and hidden states that predict the last `length` tokens: (B, T, V) and (B, T, H)."""
    out = model(
        input_ids=input_ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        logits_to_keep=length + 1,
        output_hidden_states=True,
        use_cache=False,
    )
    # The state at position i predicts token i + 1.
    return out.logits[:, :-1], out.hidden_states[-1][:, -length - 1 : -1]
