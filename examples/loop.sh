#!/usr/bin/env bash
# The whole loop, as the very commands a user types. `make demo` runs this file and nothing else.
#
#   SEED=1 RUN=runs/seed1 bash examples/loop.sh
#
# The demo world stands in for your own prompts, base model and annotators; the README says what to put in their place.
set -euo pipefail
RUN=${RUN:-runs/demo}          # everything is written below this folder
SEED=${SEED:-0}                # of prompts, answers, annotators and training
PROMPTS=${PROMPTS:-}           # how many prompts to label; all by default
HELD_OUT=${HELD_OUT:-200}      # how many prompts to evaluate on
EPISODES=${EPISODES:-2560}     # how many answers PPO samples
started=$SECONDS
mkdir -p "$RUN"
step() { printf '\n[%3d s] %s\n' $((SECONDS - started)) "$*" >&2; }

step "a Label Studio of our own starts in the background (the first start on a machine takes about two minutes)"
lsplugin serve --data "$RUN/label-studio" --detach &
serving=$!
trap 'lsplugin serve --data "$RUN/label-studio" --stop' EXIT

step "prompts, a base model, and two answers to each prompt"
python -m demo_world prompts -o "$RUN/prompts.jsonl" --held-out "$RUN/held_out.jsonl" ${PROMPTS:+--train "$PROMPTS"} \
  --held-out-count "$HELD_OUT" --seed "$SEED"
BASE=$(python -m demo_world base --seed "$SEED")
python -m ppo generate --policy "$BASE" --prompts "$RUN/prompts.jsonl" --answers 2 --seed "$SEED" -o "$RUN/dataset.json"

step "a Label Studio project, made from a generated config"
wait "$serving"
set -a; . "$RUN/label-studio/connection.env"; set +a
lsplugin render --answers 2 -o "$RUN/config.xml"
lsplugin validate "$RUN/config.xml"
PROJECT=$(lsplugin create "Which review is better? (seed $SEED)" --config "$RUN/config.xml" --tasks "$RUN/dataset.json")

step "annotators compare the answers (simulated annotators, a stand-in for people)"
python -m demo_world label "$PROJECT" --seed "$SEED" -o "$RUN/labels.json"

step "annotations become preference pairs"
lsplugin pull "$PROJECT" -o "$RUN/export.json"
lsplugin pairs "$RUN/export.json" -o "$RUN/pairs.jsonl" --counts "$RUN/pairs-counts.json"

step "a reward model learns from the pairs"
python -m rm_lightning fit --data.pairs "$RUN/pairs.jsonl" --model.backbone "$BASE" --output "$RUN/rm" \
  --seed_everything "$SEED" --data.seed "$SEED" --data.test 0.2 --model.learning_rate 5e-4 --trainer.max_epochs 5

step "PPO tunes the base model with that reward and a KL penalty"
python -m ppo run --policy "$BASE" --reward "$RUN/rm" --prompts "$RUN/prompts.jsonl" --output "$RUN/ppo" \
  --episodes "$EPISODES" --learning-rate 3e-4 --minibatch-size 32 --seed "$SEED" --overwrite

step "did it get better? Tuned and base model answer prompts that nothing was trained on"
python -m ppo evaluate --policy "$RUN/ppo" --base "$BASE" --prompts "$RUN/held_out.jsonl" --reward "$RUN/rm" \
  --judge demo_world.gold:scores --seed "$SEED" -o "$RUN/evaluation.json"

step "the result"
python -m demo_world report "$RUN"
printf '\n%d s in all; look at %s/report.html\n' $((SECONDS - started)) "$RUN" >&2
