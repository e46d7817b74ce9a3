"""A made world with a known gold score, in which the whole loop can be tried and measured without people or downloads.

Reviews of places are drawn from a small grammar (`corpus`), a tiny base model learns to write them (`base`), simulated
annotators, who stand in for people, compare them (`annotators`, `labelling`), and a gold score that no trainer ever sees
says how good a review really is (`gold`).
"""
