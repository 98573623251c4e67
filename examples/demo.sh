#!/usr/bin/env bash
# The whole way in a few minutes, offline: images -> fine-tuning -> numbers -> a published version -> explained predictions -> the page.
# Run it with `make demo` (`make demo SERVE=0` stops after the files); everything it makes lies in ./demo.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

step() { printf '\n\033[1m%s\033[0m\n' "$1"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

step "1  A sample set: synthetic lesions, no real patient"
show lesion-hub data sample demo/data --classes 7 --count 700 --size 128 --seed 7 --processes 2
show lesion-hub data show demo/data

step "2  Fine-tune a shipped model on it for about a minute (run it again: it resumes)"
show python training/train.py --recipe finetune --data demo/data --out demo/run --set "data.train.name=synthetic lesions"

step "3  Measure it on the part that it never saw, with intervals over lesions; the card takes the numbers"
show lesion-hub evaluate --model demo/run --data demo/data --record --out demo/evaluation

step "4  Publish it as a new version of a registry of your own"
last=$(lesion-hub versions demo-mobilenetv2 --registry demo/registry 2>/dev/null | tail -n 1 || true)
minor=$(printf '%s' "$last" | cut -d. -f2)
version="1.$((${minor:--1} + 1)).0"
show lesion-hub publish demo/run demo-mobilenetv2 --version "$version" --notes "Trained by make demo." --registry demo/registry
show lesion-hub versions demo-mobilenetv2 --registry demo/registry

step "5  The shipped ensemble, trained on real images: what it makes of a picture, and what it goes by"
show lesion-hub predict spaces/lesion-ensemble/examples/drawn_as_melanoma.jpg --model dermoscopy-trio --explain gradcam --overlay demo/overlay

step "6  Look at"
cat <<'END'
demo/evaluation/report.html   numbers, curves and reliability of the model that you trained
demo/run/README.md            its card; every number in it comes from demo/run/metrics.json
demo/overlay                  the picture under its heat map
demo/registry                 the version you published, in the layout of a Hub repo
END

if [ "${SERVE:-1}" != 0 ]; then
    step "7  The page, with the shipped ensemble and your model; Ctrl-C ends it"
    show lesion-hub serve --model dermoscopy-trio --model "demo/registry/demo-mobilenetv2/v$version"
fi
