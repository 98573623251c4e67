# What make.sh and ablation.sh share: the arguments, and the steps, each skipped where it is done. Sourced, not run.
data=$1 out=$2 registry=$3 weights=${4:-} records=${RECORDS:-$2/records}
export LESION_HUB_REGISTRY=$registry:$out/first
read -ra settings <<<"${SET:-}"

ham10000="{folder: ham10000, layout: ham10000, name: HAM10000, license: cc-by-nc-4.0}"
both_split="data.split={kind: manifest, manifest: $here/manifest.json}"
ham10000_split="data.split={kind: manifest, manifest: $here/manifest_ham10000.json}"

first() { # NAME: the published model that its first stage made
    echo "ham10000-$1@${FIRST:-v1.0.0}"
}

imagenet() { # BACKBONE: the setting that starts from its ImageNet weights
    [ -z "$weights" ] && echo model.pretrained=true || echo "model.pretrained=$weights/$1.safetensors"
}

train() { # FOLDER RECIPE SETTING...
    python -m lesion_hub.training.train --recipe "$2" --data "$data" --out "$1" --set "${@:3}" "${settings[@]}"
}

measured() { # FOLDER MODEL OPTION...
    [ -s "$1/metrics.json" ] || lesion-hub evaluate --model "$2" --out "$1" "${@:3}"
}

on_validation_and_second_source() { # FOLDER NAME MODEL
    measured "$1/validation/$2" "$3" --data "$data/ham10000" --split val --force
    measured "$1/second_source/$2" "$3" --data "$data/isic2017" --space ham7 --manifest "$here/manifest_isic2017.json"
}

on_second_source_whole() { # FOLDER NAME MODEL
    measured "$1/elsewhere/$2" "$3" --data "$data/isic2017" --split all
}

compared() { # FOLDER MODEL OTHER OPTION...
    [ -s "$1/comparison.json" ] || lesion-hub compare "$2" "$3" --data "$data/ham10000" --out "$1" "${@:4}"
}
