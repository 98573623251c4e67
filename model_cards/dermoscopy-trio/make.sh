#!/usr/bin/env bash
# How the shipped models were made: trains the members in two stages, fits gates, measures, publishes, combines, compares.
# Every step that is done is skipped, so a run that was interrupted goes on where it stopped. ablation.sh says what the choices
# are worth. Publishing makes a graph of each member, which needs pip install 'lesion-hub[all]'.
#
#   bash model_cards/dermoscopy-trio/make.sh DATA OUT REGISTRY [WEIGHTS]
#
# DATA      folder that holds ham10000/ and isic2017/ as docs/data.md lays them out
# OUT       folder for runs and evaluations
# REGISTRY  where the versions are published
# WEIGHTS   folder of ImageNet weights (timm's name + .safetensors); left out, timm downloads them
# In the environment, if wanted:
# OUTLIERS  folder of pictures that are no lesions: the gates are fitted on half of their categories, and measured on the others
# FIRST     published models to start from in place of the first stage: FIRST=v1.2.0 means ham10000-NAME@v1.2.0
# SET       further --set options for all runs, say SET="compile=false precision=fp32", which are else chosen where a run begins
# RECORDS   where the records go from which results.py makes its tables (OUT/records)
set -euo pipefail
[ $# -ge 3 ] || { sed -n '6,16s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 out=$2 registry=$3 weights=${4:-} records=${RECORDS:-$2/records} here=$(cd "$(dirname "$0")" && pwd)
export LESION_HUB_REGISTRY=$registry:$out/first
members=(mobilenetv2 lite0 lite2)
declare -A backbone=(
    [mobilenetv2]=mobilenetv2_100 [lite0]=tf_efficientnet_lite0 [lite2]=tf_efficientnet_lite2
)
read -ra settings <<<"${SET:-}"

version=2.0.0
notes="Trained on at 192 pixels, on ISIC 2017 beside HAM10000."

published() { [ -d "$registry/$1/v$version" ]; }

train() { # RECIPE START [SETTING...]
    local recipe=$1 start=()
    [ -z "$2" ] || start=("model.pretrained=$2")
    python -m lesion_hub.training.train --recipe "$recipe" --data "$data" --out "$out/$recipe" --set "${start[@]}" "${@:3}" "${settings[@]}"
}

imagenet() { [ -z "$weights" ] || echo "$weights/${backbone[$1]}.safetensors"; }

together() { # both data sets as one table, which names every image by its path
    [ -s "$out/together/images.csv" ] || python "$here/together.py" "$data" "$out/together"
}

outliers() { # links to the pictures that are no lesions, by category: every second one to fit on
    [ -z "${OUTLIERS:-}" ] || [ -d "$out/outliers" ] || python "$here/outliers.py" "$OUTLIERS" "$out/outliers"
}

finish() { # FOLDER NAME: gate, rules, figures at home and of heat maps, card; the ensemble has its members' gates, and is disturbed too
    local folder=$1 name=$2 fit=() check=() more=()
    [ -z "${OUTLIERS:-}" ] || fit=(--outliers "$out/outliers/fitted") check=(--outliers "$out/outliers/photos and textures of other categories")
    if [ "$name" != dermoscopy-trio ]; then
        lesion-hub gate fit "$folder" --data "$out/together/images.csv" --count 3000 "${fit[@]}"
        lesion-hub calibrate "$folder" --data "$data/ham10000" --rules-anew
    else
        lesion-hub calibrate "$folder" --data "$data/ham10000"
        more=(--robustness)
    fi
    lesion-hub evaluate --model "$folder" --data "$data/ham10000" "${more[@]}" --record --out "$out/evaluation/$name"
    lesion-hub gate check "$folder" --data "$data/ham10000" --split test "${check[@]}" --record
    lesion-hub attribution check "$folder" --data "$out/test-images" --method gradcam --count 32 --record
    lesion-hub card "$folder" --name "$name"
    lesion-hub card "$folder" --check
}

# The first stage, at 144 pixels.
if [ -z "${FIRST:-}" ]; then
    FIRST=v1.0.0
    for name in "${members[@]}"; do
        train "ham10000_$name" "$(imagenet "$name")"
        [ -d "$out/first/ham10000-$name/$FIRST" ] || lesion-hub publish "$out/ham10000_$name" "ham10000-$name" --version "$FIRST" \
            --notes "The first stage." --registry "$out/first"
    done
    [ -d "$out/first/ham10000-trio/$FIRST" ] || {
        lesion-hub ensemble create "${members[@]/#/ham10000-}" --weights 0.3,0.3,0.4 --out "$out/first-trio"
        lesion-hub calibrate "$out/first-trio" --data "$data/ham10000"
        lesion-hub publish "$out/first-trio" ham10000-trio --version "$FIRST" --notes "The first stage." --registry "$out/first"
    }
fi
first() { echo "ham10000-$1@$FIRST"; }

# The second stage.
for name in "${members[@]}"; do
    train "dermoscopy_$name" "$(first "$name")" "data.split={kind: manifest, manifest: $here/manifest.json}"
done

together
outliers
[ -d "$out/test-images" ] || python "$here/test_images.py" "$here/manifest.json" "$data/ham10000" "$out/test-images"
for name in "${members[@]}"; do
    published "dermoscopy-$name" || {
        finish "$out/dermoscopy_$name" "dermoscopy-$name"
        lesion-hub publish "$out/dermoscopy_$name" "dermoscopy-$name" --version "$version" --notes "$notes"
    }
done
if ! published dermoscopy-trio; then
    rm -rf "$out/trio"
    lesion-hub ensemble create "${members[@]/#/dermoscopy-}" --weights 0.3,0.3,0.4 --out "$out/trio"
    finish "$out/trio" dermoscopy-trio
    lesion-hub publish "$out/trio" dermoscopy-trio --version "$version" --notes "$notes"
fi

# A model for the hurried: a last layer on the features of ImageNet.
probed=$(imagenet lite0)
train probe "${probed:-true}" model.backbone=tf_efficientnet_lite0 model.image_size=192 data.space=ham7 \
    "data.train={folder: ham10000, layout: ham10000, name: HAM10000, license: cc-by-nc-4.0}" \
    "data.split={kind: manifest, manifest: $here/manifest_ham10000.json}"

# Each stage on the validation part; both on the part of ISIC 2017 that none has seen, and the first on all of it; and the
# ensemble beside what it came from, on the test part.
measured() { # PART NAME MODEL OPTION...
    [ -s "$out/$1/$2/metrics.json" ] || lesion-hub evaluate --model "$3" --out "$out/$1/$2" "${@:4}"
}
for name in "${members[@]}" trio; do
    for model in "$(first "$name")" "dermoscopy-$name"; do
        stage=${model%@*}
        measured validation "$stage" "$model" --data "$data/ham10000" --split val --force
        measured second_source "$stage" "$model" --data "$data/isic2017" --space ham7 --manifest "$here/manifest_isic2017.json"
    done
    measured elsewhere "ham10000-$name" "$(first "$name")" --data "$data/isic2017" --split all
done
[ -s "$out/comparison/ham10000-trio/comparison.json" ] ||
    lesion-hub compare dermoscopy-trio "$(first trio)" --data "$data/ham10000" --out "$out/comparison/ham10000-trio"
python "$here/records.py" make "$out" "$records" "$(first trio)"
