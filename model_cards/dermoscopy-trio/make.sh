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
# SET       further --set options for all runs, say SET="compile=auto precision=auto", chosen where a run begins by what is faster
# RECORDS   where the records go from which results.py makes its tables (OUT/records)
set -euo pipefail
[ $# -ge 3 ] || { sed -n '6,16s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
source "$here/steps.sh"
members=(mobilenetv2 lite0 lite2)
declare -A backbone=(
    [mobilenetv2]=mobilenetv2_100 [lite0]=tf_efficientnet_lite0 [lite2]=tf_efficientnet_lite2
)

version=2.0.0
notes="Trained on at 192 pixels, on ISIC 2017 beside HAM10000."

published() { [ -d "$registry/$1/v$version" ]; }

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
        train "$out/ham10000_$name" "ham10000_$name" "$(imagenet "${backbone[$name]}")"
        [ -d "$out/first/ham10000-$name/$FIRST" ] || lesion-hub publish "$out/ham10000_$name" "ham10000-$name" --version "$FIRST" \
            --notes "The first stage." --registry "$out/first"
    done
    [ -d "$out/first/ham10000-trio/$FIRST" ] || {
        rm -rf "$out/first-trio"
        lesion-hub ensemble create "${members[@]/#/ham10000-}" --weights 0.3,0.3,0.4 --out "$out/first-trio"
        lesion-hub calibrate "$out/first-trio" --data "$data/ham10000"
        lesion-hub publish "$out/first-trio" ham10000-trio --version "$FIRST" --notes "The first stage." --registry "$out/first"
    }
fi

# The second stage.
for name in "${members[@]}"; do
    train "$out/dermoscopy_$name" "dermoscopy_$name" "model.pretrained=$(first "$name")" "$both_split"
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
train "$out/probe" probe "$(imagenet "${backbone[lite0]}")" model.backbone="${backbone[lite0]}" model.image_size=192 data.space=ham7 \
    "data.train=$ham10000" "$ham10000_split"

# Each stage on the validation part; both on the part of ISIC 2017 that none has seen, and the first on all of it; and the
# ensemble beside what it came from, on the test part.
for name in "${members[@]}" trio; do
    on_validation_and_second_source "$out" "ham10000-$name" "$(first "$name")"
    on_validation_and_second_source "$out" "dermoscopy-$name" "dermoscopy-$name"
    on_second_source_whole "$out" "ham10000-$name" "$(first "$name")"
done
compared "$out/comparison/ham10000-trio" dermoscopy-trio "$(first trio)"
python "$here/records.py" make "$out" "$records" "$(first trio)"
