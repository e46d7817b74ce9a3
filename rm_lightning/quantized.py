"""A trunk in 4 bits, as QLoRA trains adapters on it (Dettmers et al. 2023, arXiv:2305.14314)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from rm_lightning.errors import RewardModelError
from rm_lightning.parts import heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

QUANTIZED_KEY = "rlhf_quantized"
"""Where a model's config says that its trunk is in 4 bits, so that an adapter finds the base that it was trained on."""


def four_bits(config: PreTrainedConfig) -> BitsAndBytesConfig:
    """Say how a classifier's trunk is held: NF4 weights, products in bfloat16; the head stays as it is.

    Raises:
        RewardModelError: bitsandbytes is missing.
    """
    missing = [name for name in ("bitsandbytes", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise RewardModelError(
            f"4 bits: expected the packages bitsandbytes and accelerate, {' and '.join(missing)} is not installed; "
            "pip install 'label-studio-rlhf[qlora]', or load the model without quantize"
        )
    with torch.device("meta"):  # only to learn what its head is called
        shell: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    names = list(heads(shell))
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=names,
    )
