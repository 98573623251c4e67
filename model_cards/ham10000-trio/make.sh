#!/usr/bin/env bash
# How the shipped models were made: trains the members and the baseline, measures, publishes, combines, compares.
# Every step that is done is skipped, so a run that was interrupted goes on where it stopped.
# Publishing makes a graph of each member, which needs pip install 'lesion-hub[onnx]'.
#
#   bash model_cards/ham10000-trio/make.sh DATA OUT REGISTRY [WEIGHTS]
#
# DATA      folder that holds ham10000/ (HAM10000_metadata.csv and the images)
# OUT       folder for runs and evaluations
# REGISTRY  where the versions are published
# WEIGHTS   folder of ImageNet weights (timm's name + .safetensors); left out, timm downloads them
# In the environment, if wanted:
# OUTLIERS  folder of pictures that are no lesions, for the input gates
# ELSEWHERE folder of ISIC 2017's training images, for what the cards say was measured elsewhere
# SET       further --set options for all runs, say SET="compile=false" where there is no C++ compiler
# RECORDS   where the split and the baseline's numbers go (OUT/records)
set -euo pipefail
[ $# -ge 3 ] || { sed -n '6,16s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 out=$2 registry=$3 weights=${4:-} records=${RECORDS:-$2/records}
export LESION_HUB_REGISTRY=$registry
members=(mobilenetv2 lite0 lite2)
declare -A backbone=(
    [mobilenetv2]=mobilenetv2_100 [lite0]=tf_efficientnet_lite0 [lite2]=tf_efficientnet_lite2 [plain]=tf_efficientnet_lite0
)
read -ra settings <<<"${SET:-}"

version=1.2.0
notes="With an input gate, label sets, decisions and abstention, measured on ISIC 2017 too."

published() { [ -d "$registry/$1/v$version" ]; }

train() {
    local start=()
    [ -z "$weights" ] || start=("model.pretrained=$weights/${backbone[$1]}.safetensors")
    python -m lesion_hub.training.train --recipe "ham10000_$1" --data "$data" --out "$out/$1" \
        --set compile=true "${start[@]}" "${settings[@]}"
}

fit_gate() { # and the rules after it: its score is a signal of doubt
    local others=()
    [ -z "${OUTLIERS:-}" ] || others=(--outliers "$OUTLIERS")
    lesion-hub gate fit "$out/$1" --data "$data/ham10000" --count 2000 "${others[@]}"
    lesion-hub calibrate "$out/$1" --data "$data/ham10000" --rules-anew
}

measure() { # at home with robustness, elsewhere, heat maps on test images, and the card with all of it
    lesion-hub evaluate --model "$out/$1" --data "$data/ham10000" --robustness --record --out "$out/evaluation/$1"
    [ -z "${ELSEWHERE:-}" ] || lesion-hub evaluate --model "$out/$1" --data "$ELSEWHERE" --split all --external "ISIC 2017" \
        --data-licence cc0-1.0 --record --out "$out/elsewhere/$1"
    lesion-hub attribution check "$out/$1" --data "$out/test-images" --method gradcam --count 32 --record
    lesion-hub card "$out/$1" --name "ham10000-$1"
    lesion-hub card "$out/$1" --check
}

test_images() { # the test part as a folder of links: what the heat maps are checked on
    mkdir -p "$out/test-images"
    python - "$out/lite0/manifest.json" "$data/ham10000" "$out/test-images" <<'PY'
import sys
from pathlib import Path
from lesion_hub.data.splits import load_manifest
manifest, images, links = load_manifest(sys.argv[1]), Path(sys.argv[2]).resolve(), Path(sys.argv[3])
for image in images.rglob("*.jpg"):
    link = links / image.name
    if manifest.part_of.get(image.stem) == "test" and not link.exists():
        link.symlink_to(image)
PY
}

for name in "${members[@]}" plain; do
    train "$name"
done
test_images
for name in "${members[@]}"; do
    published "ham10000-$name" || {
        fit_gate "$name"
        measure "$name"
        lesion-hub publish "$out/$name" "ham10000-$name" --version "$version" --notes "$notes"
    }
done

if ! published ham10000-trio; then
    rm -rf "$out/trio"
    lesion-hub ensemble create "${members[@]/#/ham10000-}" --weights 0.3,0.3,0.4 --out "$out/trio"
    lesion-hub calibrate "$out/trio" --data "$data/ham10000"
    measure trio
    lesion-hub publish "$out/trio" ham10000-trio --version "$version" --notes "$notes"
fi

for other in plain "${members[@]/#/ham10000-}"; do
    second=$other
    [ "$other" != plain ] || second=$out/plain
    lesion-hub compare ham10000-trio "$second" --data "$data/ham10000" --out "$out/comparison/$other"
done

# What stays on record beside the published versions: the split, the baseline's numbers, the comparison with it.
mkdir -p "$records"
cp "$out/lite0/manifest.json" "$records/manifest.json"
cp "$out/plain/metrics.json" "$records/plain.json"
cp "$out/comparison/plain/comparison.json" "$records/comparison_with_plain.json"
