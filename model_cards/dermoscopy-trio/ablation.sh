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
here=$(cd "$(dirname "$0")" && pwd)
source "$here/steps.sh"
out=$out/ablation

comparison_at_home() { # NAME MODEL OTHER
    compared "$out/comparison/$1" "$2" "$out/runs/$3" --split val --force
}

changed() { # NAME SETTING...
    train "$out/runs/$1" dermoscopy_mobilenetv2 epochs=3 "model.pretrained=$(first mobilenetv2)" "$both_split" "${@:2}"
    on_validation_and_second_source "$out" "$1" "$out/runs/$1"
    [ "$1" = nothing ] || comparison_at_home "$1" "$out/runs/$1" nothing
}

train "$out/runs/lite0_without_isic2017" dermoscopy_lite0 "model.pretrained=$(first lite0)" "data.train=$ham10000" "$ham10000_split"
on_validation_and_second_source "$out" lite0_without_isic2017 "$out/runs/lite0_without_isic2017"
on_second_source_whole "$out" lite0_without_isic2017 "$out/runs/lite0_without_isic2017"
comparison_at_home lite0_without_isic2017 dermoscopy-lite0 lite0_without_isic2017

changed nothing
changed 144_pixels model.image_size=144
changed weighted_draw "sampler={kind: weighted}" "loss={name: cross_entropy}"
changed colours augmentation.{brightness,contrast,saturation}=0.4 augmentation.hue=0.06
changed no_average ema=null

train "$out/runs/plain" ham10000_plain "$(imagenet tf_efficientnet_lite0)" "data.train=$ham10000" "$ham10000_split"
measured "$out/test/plain" "$out/runs/plain" --data "$data/ham10000"
for name in lite0 trio; do compared "$out/comparison/plain_$name" "dermoscopy-$name" "$out/runs/plain"; done

python "$here/records.py" ablation "$out" "$records"
