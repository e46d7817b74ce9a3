"""Rounds: labels, reward model, policy, and again; with a ledger that says which labels made which model."""
