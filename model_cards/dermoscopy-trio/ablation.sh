#!/usr/bin/env bash
# What the choices behind the shipped models are worth, one at a time. Comes after make.sh, and measures three things:
# - EfficientNet-lite0 as it is shipped but for ISIC 2017, beside the shipped one, and on all images of that source;
# - MobileNetV2 goes on from the first stage for three epochs, with one choice of the second stage changed in each run, on
#   validation images, beside the run that changes nothing, and on the part of ISIC 2017 that none has seen;
# - the plain fine-tune on the test part, and the shipped models beside it.
# Every step that is done is skipped, so a run that was interrupted goes on where it stopped.
#
#   bash model_cards/dermoscopy-trio/ablation.sh DATA OUT REGISTRY [WEIGHTS]
#
# The arguments, and FIRST, SET and RECORDS in the environment, are those of make.sh.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 out=$2/ablation weights=${4:-} records=${RECORDS:-$2/records} here=$(cd "$(dirname "$0")" && pwd)
export LESION_HUB_REGISTRY=$3:$2/first
read -ra settings <<<"${SET:-}"
first() { echo "model.pretrained=ham10000-$1@${FIRST:-v1.0.0}"; }
imagenet() { [ -z "$weights" ] && echo model.pretrained=true || echo "model.pretrained=$weights/$1.safetensors"; }

ham10000=(
    "data.train={folder: ham10000, layout: ham10000, name: HAM10000, license: cc-by-nc-4.0}"
    "data.split={kind: manifest, manifest: $here/manifest_ham10000.json}"
)
both=("data.split={kind: manifest, manifest: $here/manifest.json}")

train() { # NAME RECIPE SETTING...
    python -m lesion_hub.training.train --recipe "$2" --data "$data" --out "$out/runs/$1" --set "${@:3}" "${settings[@]}"
}

measured() { # PART NAME OPTION...
    [ -s "$out/$1/$2/metrics.json" ] || lesion-hub evaluate --model "$out/runs/$2" --out "$out/$1/$2" "${@:3}"
}

on_validation_and_second_source() { # NAME
    measured validation "$1" --data "$data/ham10000" --split val --force
    measured second_source "$1" --data "$data/isic2017" --space ham7 --manifest "$here/manifest_isic2017.json"
}

compared() { # NAME MODEL OTHER OPTION...
    [ -s "$out/comparison/$1/comparison.json" ] ||
        lesion-hub compare "$2" "$out/runs/$3" --data "$data/ham10000" --out "$out/comparison/$1" "${@:4}"
}

changed() { # NAME SETTING...
    train "$1" dermoscopy_mobilenetv2 epochs=3 "${@:2}"
    on_validation_and_second_source "$1"
    [ "$1" = nothing ] || compared "$1" "$out/runs/$1" nothing --split val --force
}

train lite0_without_isic2017 dermoscopy_lite0 "$(first lite0)" "${ham10000[@]}"
on_validation_and_second_source lite0_without_isic2017
measured elsewhere lite0_without_isic2017 --data "$data/isic2017" --split all
compared lite0_without_isic2017 dermoscopy-lite0 lite0_without_isic2017 --split val --force

changed nothing "$(first mobilenetv2)" "${both[@]}"
changed 144_pixels "$(first mobilenetv2)" "${both[@]}" model.image_size=144

train plain ham10000_plain "$(imagenet tf_efficientnet_lite0)" "${ham10000[@]}"
measured test plain --data "$data/ham10000"
for name in lite0 trio; do compared "plain_$name" "dermoscopy-$name" plain; done

python "$here/records.py" ablation "$out" "$records"
