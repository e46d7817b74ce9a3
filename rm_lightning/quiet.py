"""Make the libraries below us as quiet as a command line should be; warnings and errors still come through."""

from __future__ import annotations

import os
import warnings
from logging import WARNING, getLogger


def quiet() -> None:
    """Silence banners, tips and progress bars of transformers and Lightning."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in ("lightning.pytorch", "lightning.fabric"):
        getLogger(name).setLevel(WARNING)
    # Lightning's own use of a torch function that became deprecated.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # Lightning's use of names that jsonargparse is about to drop.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # We hand it arguments on purpose: the same main serves the shell and Python.
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    # Pairs are small and tokenised beforehand: worker processes would cost more than they bring.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
