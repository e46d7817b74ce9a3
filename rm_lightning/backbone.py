"""Any Hugging Face backbone as a scalar scorer, in a folder that plain transformers can load."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
import torch.nn.functional as F
from huggingface_hub import constants, try_to_load_from_cache
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rm_lightning.adapters import base_of, load_adapter
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import can_branch, hidden_states, unfold
from rm_lightning.parts import heads, reads_last, trunk
from rm_lightning.quantized import QUANTIZED_KEY, four_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from rm_lightning.packing import Packed

PAD = "<|pad|>"

MEMBERS_KEY = "rlhf_members"
"""Where a model's config keeps how many heads score side by side: as many labels are no classes."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer with a pad token that is not its EOS token.

    Plain transformers finds the last real token of a text by looking for the pad token, so an EOS that is also the pad token
    would shift the score by one token. The vocabulary grows by one where there is no other way.
    """
    with named_model(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.padding_side = "right"
    return tokenizer


def load_config(name: str) -> PreTrainedConfig:
    """Load a model's config; an unknown name is one clear line."""
    with named_model(name):
        config: PreTrainedConfig = AutoConfig.from_pretrained(name)
        return config


def fuse_activation(config: PreTrainedConfig) -> None:
    """Name GPT-2's activation as the one kernel that computes the same function, in place of seven."""
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"


def is_scorer(name: str) -> bool:
    """Say whether a folder or hub name holds a trained head already."""
    return _classifies(load_config(name))


def _classifies(config: PreTrainedConfig) -> bool:
    return any("ForSequenceClassification" in kind for kind in config.architectures or [])


def load_scorer(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    new: bool = False,
    dropout: bool = False,
    members: int = 1,
    quantize: bool = False,
    attention: str | None = None,
) -> PreTrainedModel:
    """Load a model that gives one number, or one for each member of an ensemble of heads.

    Args:
        name: a folder or a hub name; a folder with an adapter (see `rm_lightning.adapters`) is put on its base model.
        tokenizer: from `load_tokenizer`; the embeddings grow by its pad token where they lack it.
        new: the model is a backbone that is to become a reward model: a head is added. Otherwise it must have one already.
        dropout: keep the backbone's dropout; off by default, as rewards should not be noisy.
        members: outputs of a new head; a trained model knows its own number.
        quantize: hold the trunk's linear layers in 4 bits (NF4; Dettmers et al. 2023, arXiv:2305.14314), the head in full.
        attention: transformers' name of an attention implementation; its own choice when None.

    Raises:
        RewardModelError: the model is unknown, it is a classifier with another number of labels, its tokenizer is of another
            model, or this machine lacks what `quantize` or `attention` needs.
    """
    config = load_config(name)
    _check_labels(name, config, members=members if new else getattr(config, MEMBERS_KEY, 1), new=new)
    if new:
        config.num_labels = members
        setattr(config, MEMBERS_KEY, members)
    base = base_of(name) or name
    if base != name:
        plain = load_config(base)  # as the base has them, before it grows by a pad token
        config.vocab_size, config.pad_token_id = plain.vocab_size, plain.pad_token_id
    if not dropout:
        for key, value in list(vars(config).items()):
            if key.endswith(("pdrop", "dropout", "dropout_prob")) and isinstance(value, float):
                setattr(config, key, 0.0)
    fuse_activation(config)
    extra: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if quantize or getattr(config, QUANTIZED_KEY, False):
        extra["quantization_config"] = four_bits(config)
        setattr(config, QUANTIZED_KEY, True)
    with named_model(base), _able(name, quantize=quantize, attention=attention):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            base, config=config, dtype=torch.float32, **extra
        )
    _fit_vocabulary(name, model, tokenizer)
    model.config.pad_token_id = tokenizer.pad_token_id
    if base != name:
        load_adapter(model, Path(name))
    return model


def _check_labels(name: str, config: PreTrainedConfig, *, members: int, new: bool) -> None:
    """Raise for what is no reward model: a classifier of kinds, or no classifier where none is to be made."""
    classifies = _classifies(config)
    if classifies and config.num_labels == members == getattr(config, MEMBERS_KEY, 1):
        return
    if new and not classifies and members >= 1:
        return
    if members < 1:
        raise RewardModelError(f"members: expected 1 or more, got {members}")
    found = f"{config.num_labels} labels" if classifies else f"a {' or '.join(config.architectures or ['model'])}"
    wanted = "exactly 1 label" if members == 1 else f"{members} labels, one for each member"
    raise RewardModelError(f"{name}: a reward model has {wanted}, this is {found}; train one with rm_lightning fit")


@contextmanager
def _able(name: str, *, quantize: bool, attention: str | None) -> Iterator[None]:
    """Turn what a machine cannot do into one line that names the option that asked for it."""
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:
        asked = [f"attention {attention!r}"] * (attention is not None) + ["4 bits"] * quantize
        if not asked:
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise RewardModelError(
            f"{name}: cannot be loaded with {' and '.join(asked)} here ({reason}); load it without"
        ) from None


def _fit_vocabulary(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow the embeddings by the pad token that `load_tokenizer` added; other tokens would have untrained ones."""
    table: Any = model.get_input_embeddings()
    size: int = table.num_embeddings
    beyond = {number for number in tokenizer.get_vocab().values() if number >= size}
    if beyond - {tokenizer.pad_token_id}:
        raise RewardModelError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens, the model embeddings for {size}; they are not of one model, "
            "or tokens were added to the tokenizer alone: use the tokenizer that came with the model"
        )
    if beyond:
        model.resize_token_embeddings(max(beyond) + 1, mean_resizing=False)  # never read, so any value will do


def can_share(model: PreTrainedModel) -> bool:
    """Say whether answers may share their prompt's run: the head reads the last token, and the backbone can branch."""
    return reads_last(model) and can_branch(trunk(model))


def score(model: PreTrainedModel, packed: Packed, *, shared: bool) -> Tensor:
    """Score each answer by its last token, in float32 under any precision.

    Args:
        model: from `load_scorer`, with K members.
        packed: N answers behind their prompts.
        shared: run each prompt once (see `can_share`); otherwise each answer has a copy of its own.

    Returns:
        scores, (N, K), float32, in the order of `packed.ends`.
    """
    if shared:
        return _read(model, hidden_states(trunk(model), packed))
    input_ids, attention_mask = unfold(packed, pad=model.config.pad_token_id)
    if not reads_last(model):
        return _pooled(model, input_ids, attention_mask)
    hidden = trunk(model)(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False
    ).last_hidden_state  # (N, T, H)
    last = attention_mask.sum(dim=1) - 1  # (N,)
    return _read(model, hidden[torch.arange(len(last), device=last.device), last])


def _read(model: PreTrainedModel, pooled: Tensor) -> Tensor:
    """Read scores off hidden states, (N, H) -> (N, K), in float32."""
    head = model.score
    assert isinstance(head, torch.nn.Linear)
    return _in_full(head, pooled)


def _pooled(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Score by an encoder, which pools in a way of its own; (N, T) twice -> (N, K), its last layer in float32."""
    layers = [layer for part in heads(model).values() for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
    hook = layers[-1].register_forward_hook(lambda layer, inputs, _: _in_full(layer, inputs[0]))
    try:
        logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        hook.remove()
    return logits.float()


def _in_full(layer: torch.nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a linear layer in float32, whatever the precision around it."""
    with torch.autocast(inputs.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.linear(inputs.float(), layer.weight.float(), bias)


def window(config: PreTrainedConfig) -> int | None:
    """Most tokens that a model can read at once, where its config says so."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(length := getattr(config, name, None), int):
            return length - (int(config.pad_token_id or 0) + 1 if config.model_type in AFTER_PAD else 0)
    return None


AFTER_PAD = {
    *("camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
}
"""Kinds of model whose positions count from behind the pad token's number, so that their tables hold fewer texts than rows."""


@contextmanager
def named_model(name: str) -> Iterator[None]:
    """Turn what transformers raises for a name that is no model into one line, at once where no hub can be asked."""
    try:
        _check_known(name)
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardModelError(
            f"{name}: no such model, neither a folder here nor a name on a hub this machine reaches ({reason[:160]})"
        ) from None


def _check_known(name: str) -> None:
    """Raise for a folder without a model, and for a hub name that is neither cached nor to be had: retries take half a minute."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise RewardModelError(f"{name}: no config.json in this folder, so it is not a model")
        return
    if constants.HF_HUB_OFFLINE or getproxies() or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    hub = urlsplit(constants.ENDPOINT)
    socket.create_connection((hub.hostname, hub.port or 443), timeout=5).close()
