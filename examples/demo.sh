#!/usr/bin/env bash
# The whole way in a few minutes, offline: images -> audit -> training -> a published version -> a prediction.
# Run it with `make demo`; everything it makes lies in ./demo.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
export LESION_HUB_REGISTRY="$PWD/demo/registry"

step() { printf '\n\033[1m%s\033[0m\n' "$1"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

step "1  A sample set: synthetic lesions, no real patient"
show lesion-hub data sample demo/data --classes 7 --count 700 --size 128 --seed 7 --processes 2

step "2  What is in it"
show lesion-hub data show demo/data

step "3  Fine-tune a small network (run it again: it resumes)"
show python training/train.py --recipe demo --data demo/data --out demo/run

step "4  Measure it on the part that it never saw, with intervals over lesions; the card takes the numbers"
show lesion-hub evaluate --model demo/run --data demo/data --record --out demo/evaluation

step "5  Publish it as a new version of a local registry"
last=$(lesion-hub versions demo-cnn 2>/dev/null | tail -n 1 || true)
minor=$(printf '%s' "$last" | cut -d. -f2)
show lesion-hub publish demo/run demo-cnn --version "1.$((${minor:--1} + 1)).0" --notes "Trained by make demo."
show lesion-hub versions demo-cnn

step "6  Load it by name, predict, and see what the score goes by"
image=$(find demo/data/HAM10000_images -name '*.jpg' | sort | sed -n 1p)
show lesion-hub predict "$image" --model demo-cnn --explain gradcam --overlay demo/overlay

printf '\nTo look at: demo/evaluation/report.html, demo/run/README.md (the card), demo/run/plots, demo/overlay.\n'
printf 'The versions are in demo/registry; LESION_HUB_REGISTRY=demo/registry lesion-hub info demo-cnn\n'
