#!/usr/bin/env bash
# Makes the demo's teacher: all-MiniLM-L6-v2 fine-tuned on Banking77, narrowed to 6 layers of 256 with a vocabulary cut to
# the data's word pieces, and taught by the fine-tuned one.
#
# usage: make_teacher.sh MODEL OUTPUT     MODEL: sentence-transformers/all-MiniLM-L6-v2, or a folder with it
# Writes OUTPUT/teacher (what the demo carries). An OUTPUT/wide that is already there is used as it is.
# DISTILL names the program (default: distill).
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd); model=$1 output=$2 distill=${DISTILL:-distill}
train=$here/banking77/train.jsonl.gz test=$here/banking77/test.jsonl.gz

if [ ! -e "$output/wide/distill.json" ]; then
  "$distill" finetune --model "$model" --data "$train" --validation "$test" --epochs 10 --learning-rate 1e-4 \
    --keep last --output "$output/wide"
fi
"$distill" cache --teacher "$output/wide" --data "$train" --output "$output/cache"
"$distill" train --teacher "$output/wide" --cache "$output/cache" --data "$train" --validation "$test" \
  --model-type bert --layers 0,1,2,3,4,5 --hidden-size 256 --intermediate-size 960 --prune-vocabulary --epochs 12 --learning-rate 3e-4 \
  --weight-soft 0.9 --weight-hard 0.1 --keep last --output "$output/narrow"
"$distill" export --model "$output/narrow" --dtype f16 --data "$test" --output "$output/teacher"
