#!/usr/bin/env bash
# A researcher's afternoon, in some minutes on two cores and offline: a clinic's folder as it is -> what is in it -> what is wrong with
# it -> a model -> numbers -> a published version -> the page's API -> the same model refitted for another clinic, as the next version.
# Everything it makes lies in ./afternoon, or in the folder OUT; COUNT=300 images instead of 700 make it shorter.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 LESION_HUB_REGISTRY=${OUT:-afternoon}/registry
out=${OUT:-afternoon}

step() { printf '\n\033[1m%s\033[0m\n' "$1"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
# What the next command says is the point, and it must refuse.
refused() { printf '\033[2m$ %s\033[0m\n' "$*"; if "$@"; then echo "this should have been refused"; exit 1; fi; }

# How the clinic's table is read: its headings for ours.
table=(--source table --space ham7 --column image_id=Bild --column label=Befund)
all=("${table[@]}" --column group=Fall --column age=Lebensalter --column sex=Geschlecht --allow-missing)

step "1  Two clinics' folders, drawn but kept as people keep them: subfolders by year, a semicolon table, a broken file"
[ -f "$out/clinic/Befunde.csv" ] || show python examples/messy_clinic.py "$out/clinic" --count "${COUNT:-700}"
[ -f "$out/branch/Befunde.csv" ] || show python examples/messy_clinic.py "$out/branch" --count "${COUNT:-700}" --seed 8 --camera brighten

step "2  What is in it? The labels could be the table's or the folders': nothing is guessed"
refused lesion-hub data show "$out/clinic"
show lesion-hub data show "$out/clinic" "${table[@]}"

step "3  With the proposed columns: every case stays on one side of a split. What is wrong with the pictures?"
show lesion-hub data audit "$out/clinic" "${all[@]}" --out "$out/audit"

step "4  A model: the features of a published one, and a new last layer"
show lesion-hub train --recipe probe --data "$out/clinic" --out "$out/run" --set "data.train.name=a drawn clinic" data.space=ham7 \
    data.train.layout=table "data.train.columns={image_id: Bild, label: Befund, group: Fall, age: Lebensalter, sex: Geschlecht}" \
    data.train.allow_missing=true

step "5  Its numbers, with intervals over cases, on the part that it never saw; the card takes them"
show lesion-hub evaluate --model "$out/run" --data "$out/clinic" "${all[@]}" --record --out "$out/evaluation"
show lesion-hub card "$out/run" --check

step "6  Version 1.0.0, and how it is asked for"
show lesion-hub publish "$out/run" clinic-probe --version 1.0.0 --notes "A linear probe, from one afternoon."
show lesion-hub info clinic-probe@1.0.0

step "7  Served: the page, and programs that call it"
printf '\033[2m$ lesion-hub serve --model clinic-probe@1.0.0 &\033[0m\n'
lesion-hub serve --model clinic-probe@1.0.0 >"$out/serve.log" 2>&1 &
page=$!
trap 'kill $page 2>/dev/null || true' EXIT
until url=$(grep -om1 'http://[0-9.:]*[0-9]' "$out/serve.log"); do kill -0 $page && sleep 1; done
show python examples/ask_the_page.py "$url" "$out/branch/nachtrag/"branch_00*.JPG
kill $page && wait $page || true
trap - EXIT

step "8  Another clinic with another camera: are the promises still true there? Refitted, it is the next version"
show lesion-hub recalibrate clinic-probe@1.0.0 --data "$out/branch" "${all[@]}" --out "$out/recalibrated"
show lesion-hub publish "$out/recalibrated" clinic-probe --version 1.1.0 --notes "Refitted for the branch."
show lesion-hub versions clinic-probe

step "9  Look at"
cat <<END
$out/audit/audit.html           what the pictures and the table hold, and what is wrong with them
$out/evaluation/report.html     numbers, curves, reliability
$out/recalibrated/README.md     the new version's card: what the old thresholds did at the branch, and the new ones
END
