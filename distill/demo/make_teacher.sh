#!/usr/bin/env bash
# Makes the demo's teacher of ten labels a class of Banking77, and of its other texts without theirs: all-MiniLM-L6-v2 fine-tuned
# on the 770 labelled rows, narrowed to 6 layers of 256 with a vocabulary cut to the data's word pieces, and taught by the
# fine-tuned one's answers to all texts. No test row and no other label is used.
#
# usage: make_teacher.sh MODEL OUTPUT     MODEL: sentence-transformers/all-MiniLM-L6-v2, or a folder with it
# Writes OUTPUT/teacher (what the demo carries). An OUTPUT/wide that is already there is used as it is.
# DISTILL names the program (default: distill).
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd); model=$1 output=$2 distill=${DISTILL:-distill}
test=$here/banking77/test.jsonl.gz
mkdir -p "$output"
python3 - "$here/banking77/train.jsonl.gz" "$output" <<'PYTHON'
import collections, gzip, json, sys

seen = collections.Counter()
with gzip.open(sys.argv[1], "rt") as rows, open(f"{sys.argv[2]}/labelled.jsonl", "w") as labelled, open(
    f"{sys.argv[2]}/train.jsonl", "w"
) as texts:
    for row in map(json.loads, rows):
        seen[row["label"]] += 1
        few = seen[row["label"]] <= 10
        texts.write(json.dumps(row if few else {"text": row["text"]}) + "\n")
        if few:
            labelled.write(json.dumps(row) + "\n")
PYTHON
labelled=$output/labelled.jsonl texts=$output/train.jsonl

# The validation rows are the training rows: none is held out, and the last weights are kept.
if [ ! -e "$output/wide/distill.json" ]; then
  "$distill" finetune --model "$model" --data "$labelled" --validation "$labelled" --epochs 40 --learning-rate 3e-4 \
    --evaluate-every 40 --keep last --output "$output/wide"
fi
"$distill" cache --teacher "$output/wide" --data "$texts" --output "$output/cache"
"$distill" train --teacher "$output/wide" --cache "$output/cache" --data "$texts" --validation "$labelled" \
  --model-type bert --layers 0,1,2,3,4,5 --hidden-size 256 --intermediate-size 960 --prune-vocabulary --epochs 12 \
  --learning-rate 3e-4 --weight-soft 0.9 --weight-hard 0.1 --evaluate-every 12 --keep last --output "$output/narrow"
"$distill" export --model "$output/narrow" --dtype f16 --data "$test" --output "$output/teacher"
