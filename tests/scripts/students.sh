#!/usr/bin/env bash
# Teacher and students on one data set with the recipe that docs/measurements.md compares with PyTorch: a teacher fine-tuned at
# 1e-4, students of 3 layers started from the teacher's 0, 2 and 4 at 1e-4 and of 2 random layers 128 wide at 1e-3, each
# with the teacher (T = 2, weights 0.5 and 0.5) and without; 32 rows a step, warm-up 6 %, decay 0.01, the last epoch kept.
#
# usage: students.sh MODEL TRAIN TEST EPOCHS OUTPUT [SEED..]
#   MODEL         a folder or Hub name, such as sentence-transformers/all-MiniLM-L6-v2
#   TRAIN, TEST   labelled rows (TSV, CSV or JSONL)
#   OUTPUT        a new folder; a teacher that is already in OUTPUT/teacher is used as it is
#   SEED          of the students; 42 if none is given
# DISTILL names the program (default: distill). Prints one line a model: accuracy on TEST and seconds.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 train=$2 test=$3 epochs=$4 output=$5; shift 5
seeds=("$@"); [ ${#seeds[@]} -gt 0 ] || seeds=(42)
distill=${DISTILL:-distill}
mkdir -p "$output"

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
report() { printf '%-28s accuracy %.4f  seconds %.0f\n' "$1" "$(field accuracy < "$2")" "$(field seconds < "$2")"; }

if [ ! -e "$output/teacher/distill.json" ]; then
  "$distill" finetune --json --model "$model" --data "$train" --validation "$test" --epochs "$epochs" \
    --learning-rate 1e-4 --keep last --output "$output/teacher" > "$output/teacher.json"
fi
[ -e "$output/teacher.json" ] && report teacher "$output/teacher.json"
"$distill" cache --json --teacher "$output/teacher" --data "$train" --output "$output/cache" > "$output/cache.json"

student() { # NAME SEED FLAGS..
  local name=$1 seed=$2; shift 2
  [ -e "$output/$name-$seed.json" ] || "$distill" train --json --teacher "$output/teacher" --data "$train" \
    --validation "$test" --epochs "$epochs" --keep last --seed "$seed" --output "$output/$name-$seed" "$@" \
    > "$output/$name-$seed.json.new"
  [ -e "$output/$name-$seed.json" ] || mv "$output/$name-$seed.json.new" "$output/$name-$seed.json"
  report "$name seed $seed" "$output/$name-$seed.json"
}
three=(--layers 0,2,4 --learning-rate 1e-4)
two=(--layers random --num-layers 2 --hidden-size 128 --num-heads 2 --learning-rate 1e-3)
alone=(--weight-soft 0 --weight-hard 1)
for seed in "${seeds[@]}"; do
  student 2x128-with-teacher "$seed" "${two[@]}" --cache "$output/cache"
  student 2x128-alone "$seed" "${two[@]}" "${alone[@]}"
  student 3x384-with-teacher "$seed" "${three[@]}" --cache "$output/cache"
  student 3x384-alone "$seed" "${three[@]}" "${alone[@]}"
done
