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

step "4  Publish it as a new version of a local registry"
last=$(lesion-hub versions demo-cnn 2>/dev/null | tail -n 1 || true)
next=$(python -c "import sys; a = sys.argv[1][1:] if len(sys.argv[1]) > 1 else '0.0.0'; x, y, z = a.split('.'); print(f'{int(x) or 1}.{int(y) + 1 if int(x) else 0}.0')" "$last")
show lesion-hub publish demo/run demo-cnn --version "$next" --notes "Trained by make demo."
show lesion-hub versions demo-cnn

step "5  Load it by name and predict"
image=$(find demo/data/HAM10000_images -name '*.jpg' | sort | head -n 1)
show python examples/predict.py demo-cnn "$image"

printf '\nThe run is in demo/run (open demo/run/README.md and demo/run/plots), the versions are in demo/registry.\n'
