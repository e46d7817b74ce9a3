"""A compact PPO loop that tunes a language model with a reward and a KL penalty. See `python -m ppo --help`."""
