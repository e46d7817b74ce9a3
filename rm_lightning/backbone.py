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

from rm_lightning.errors import RewardModelError
from rm_lightning.packing import can_branch, hidden_states, unfold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from rm_lightning.packing import Packed

PAD = "<|pad|>"


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


def load_scorer(
    name: str, tokenizer: PreTrainedTokenizerBase, *, new: bool = False, dropout: bool = False
) -> PreTrainedModel:
    """Load a model with one output number.

    Args:
        name: a folder or a hub name.
        tokenizer: from `load_tokenizer`; the embeddings grow to its size where needed.
        new: the model is a backbone that is to become a reward model: a head is added. Otherwise it must have one already.
        dropout: keep the backbone's dropout; off by default, as rewards should not be noisy.

    Raises:
        RewardModelError: the model is unknown, or it is a classifier with another number of labels.
    """
    config = load_config(name)
    with named_model(name):
        classifies = any("ForSequenceClassification" in kind for kind in config.architectures or [])
        if (classifies or not new) and not (classifies and config.num_labels == 1):
            found = (
                f"{config.num_labels} labels" if classifies else f"a {' or '.join(config.architectures or ['model'])}"
            )
            raise RewardModelError(
                f"{name}: a reward model has exactly 1 label, this is {found}; train one with rm_lightning fit"
            )
        switches: dict[str, Any] = (
            {} if dropout else {key: 0.0 for key in vars(config) if key.endswith(("pdrop", "dropout", "dropout_prob"))}
        )
        switches = {key: value for key, value in switches.items() if isinstance(getattr(config, key), float)}
        if getattr(config, "activation_function", None) == "gelu_new":  # GPT-2's, the same function in one kernel
            switches["activation_function"] = "gelu_pytorch_tanh"
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=1, dtype=torch.float32, **switches
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # type: ignore[operator]
        model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def can_share(model: PreTrainedModel) -> bool:
    """Say whether answers may share their prompt's run: the head reads the last token, and the backbone can branch."""
    return isinstance(getattr(model, "score", None), torch.nn.Linear) and can_branch(_trunk(model))


def score(model: PreTrainedModel, packed: Packed, *, shared: bool) -> Tensor:
    """Score each answer by its last token, in float32 under any precision.

    Args:
        model: from `load_scorer`.
        packed: N answers behind their prompts.
        shared: run each prompt once (see `can_share`); otherwise each answer has a copy of its own.

    Returns:
        scores, (N,), float32, in the order of `packed.ends`.
    """
    if shared:
        return _head(model, hidden_states(_trunk(model), packed))
    input_ids, attention_mask = unfold(packed, pad=model.config.pad_token_id)
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):  # encoders pool in ways of their own
        logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits[:, 0].float()
    hidden = model.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, H)
    last = attention_mask.sum(dim=1) - 1  # (N,)
    return _head(model, hidden[torch.arange(len(last), device=last.device), last])


def _trunk(model: PreTrainedModel) -> PreTrainedModel:
    """Give the backbone without its head."""
    trunk: PreTrainedModel = model.base_model  # type: ignore[assignment]
    return trunk


def _head(model: PreTrainedModel, pooled: Tensor) -> Tensor:
    """Read scores off hidden states, (N, H) -> (N,), in float32."""
    head = model.score
    assert isinstance(head, torch.nn.Linear)
    with torch.autocast(pooled.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.float()
        return F.linear(pooled.float(), head.weight.float(), bias)[:, 0]


def window(config: PreTrainedConfig) -> int | None:
    """Most tokens that a model can read at once, where its config says so."""
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(length := getattr(config, name, None), int):
            return length
    return None


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
