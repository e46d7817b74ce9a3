"""The reward model: a Lightning module trained on preference pairs. See `python -m rm_lightning --help`."""
