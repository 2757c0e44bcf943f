#!/bin/sh
# What general distillation is worth: a student of 3 layers that has learned plain text from a masked-language model, beside the
# same student at random, each fine-tuned on a task with labels.
#
# usage: general_distillation.sh MODEL TEXTS TRAIN VALIDATION TEST OUTPUT [SEEDS]
#
# MODEL is a folder or Hub name, TEXTS has a text a line; the others are labelled rows. The teacher is MODEL fine-tuned on TEXTS
# as a masked-language model. The rate of each arm is the best of three on VALIDATION (seed 1); TEST is read once a seed, with
# that rate. What is in OUTPUT is kept, so that a run that was stopped goes on. DISTILL names the program (default: distill),
# EPOCHS how long the student learns the texts (20), TASK_EPOCHS how long the task (15).
set -eu
[ $# -ge 6 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
program=${DISTILL:-distill} epochs=${EPOCHS:-20} task_epochs=${TASK_EPOCHS:-15}
model=$1 texts=$2 train=$3 validation=$4 test=$5 output=$6 seeds=${7:-"1 2 3"}
mkdir -p "$output"

once() { # FOLDER COMMAND..: runs a training unless it is there
    folder=$1
    shift
    [ -e "$output/$folder/distill.json" ] || "$program" "$@" --output "$output/$folder" --overwrite >/dev/null
}

value() { # FOLDER: the accuracy of a training on its validation rows
    python3 -c 'import json, sys
found = json.load(open(sys.argv[1]))
for key in sys.argv[2:]: found = found[key]
print(found)' "$output/$1/distill.json" figures validation accuracy
}

form="--layers random --num-layers 3 --max-length 128 --pack --temperature 2 --weight-soft 5 --weight-hard 2"
once teacher finetune --task masked-lm --pack --model "$model" --data "$texts" --max-length 128 --epochs 5 --learning-rate 3e-4
# shellcheck disable=SC2086
once general train --task masked-lm --live --teacher "$output/teacher" --data "$texts" $form --term hidden_cosine,weight=1 \
    --epochs "$epochs" --learning-rate 1e-3
# shellcheck disable=SC2086
once random train --task masked-lm --live --teacher "$output/teacher" --data "$texts" $form --max-steps 1 --learning-rate 1e-12
echo "masked tokens: teacher $(value teacher), general $(value general)"

for arm in general random; do
    best=
    for rate in 1e-4 3e-4 1e-3; do
        once "$arm-$rate" finetune --model "$output/$arm" --data "$train" --validation "$validation" --max-length 64 --seed 1 \
            --epochs "$task_epochs" --learning-rate $rate
        found=$(value "$arm-$rate")
        echo "$arm, rate $rate: $found on the validation rows"
        best=$(printf '%s\n%s %s' "$best" "$found" "$rate" | sort -g | tail -1)
    done
    rate=${best#* }
    for seed in $seeds; do
        once "$arm-seed-$seed" finetune --model "$output/$arm" --data "$train" --validation "$validation" --max-length 64 \
            --seed "$seed" --epochs "$task_epochs" --learning-rate "$rate"
        "$program" evaluate --model "$output/$arm-seed-$seed" --data "$test" --json >"$output/$arm-seed-$seed.json"
    done
done
python3 - "$output" $seeds <<'EOF'
import json, statistics, sys
output, seeds = sys.argv[1], sys.argv[2:]
score = lambda arm, seed: json.load(open(f"{output}/{arm}-seed-{seed}.json"))["accuracy"]
scores = {arm: [score(arm, seed) for seed in seeds] for arm in ("general", "random")}
for arm, values in scores.items():
    print(f"{arm}: {statistics.mean(values):.4f}, {' '.join(f'{value:.4f}' for value in values)}")
differences = [a - b for a, b in zip(scores["general"], scores["random"])]
print(f"difference {statistics.mean(differences):+.4f}, by seed {' '.join(f'{value:+.4f}' for value in differences)}")
EOF
