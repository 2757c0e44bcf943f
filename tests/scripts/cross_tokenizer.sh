#!/usr/bin/env bash
# What another tokenizer costs a student: the same student (2 layers, 128 wide, random start) with its teacher's tokenizer,
# with a byte-level BPE and with a Unigram of its own, both trained here on the training texts. Same teacher, same cache, same
# recipe (1e-3, T = 2, weights 0.5 and 0.5, the last epoch kept).
#
# usage: cross_tokenizer.sh TEACHER TRAIN TEST EPOCHS OUTPUT [SEED..]
#   TEACHER       a classifier: folder or Hub name, such as the `teacher` that `distill demo` writes
#   TRAIN, TEST   labelled rows as JSON Lines with the key `text`
#   OUTPUT        a new folder; what an earlier run finished there is kept
#   SEED          42 43 44 if none is given
# DISTILL names the program (default: distill); PYTHON one with the package `tokenizers` (default: python3). Prints accuracy on
# TEST for each student, then the difference from the teacher's tokenizer over seeds, with its 95 % interval.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
teacher=$1 train=$2 test=$3 epochs=$4 output=$5; shift 5
seeds=("$@"); [ ${#seeds[@]} -gt 0 ] || seeds=(42 43 44)
distill=${DISTILL:-distill} python=${PYTHON:-python3}
mkdir -p "$output"

"$python" - "$train" "$output" <<'PY'
import json, pathlib, sys
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

train, output = sys.argv[1], pathlib.Path(sys.argv[2])
texts = [json.loads(line)["text"] for line in open(train, encoding="utf-8") if line.strip()]
special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
bpe_trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=special,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
unigram = Tokenizer(models.Unigram())
unigram.normalizer = normalizers.NFKC()
unigram.pre_tokenizer = pre_tokenizers.Metaspace()
unigram.decoder = decoders.Metaspace()
unigram_trainer = trainers.UnigramTrainer(vocab_size=4000, special_tokens=special, unk_token="<unk>")

# A BERT whatever its tokenizer, so that nothing else differs.
for name, tokenizer, trainer in [("bpe", bpe, bpe_trainer), ("unigram", unigram, unigram_trainer)]:
    folder = output / name
    folder.mkdir(exist_ok=True)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
        "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}))
    (folder / "config.json").write_text(json.dumps({
        "model_type": "bert", "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 512, "max_position_embeddings": 512, "type_vocab_size": 2,
        "pad_token_id": 1}))
PY
"$distill" cache --json --teacher "$teacher" --data "$train" --output "$output/cache" > "$output/cache.json"

student() { # NAME SEED FLAGS..
  local name=$1 seed=$2 result=$output/$1-$2.json; shift 2
  if [ ! -e "$result" ]; then
    "$distill" train --json --teacher "$teacher" --cache "$output/cache" --data "$train" --validation "$test" \
      --epochs "$epochs" --keep last --learning-rate 1e-3 --layers random --seed "$seed" \
      --output "$output/$name-$seed" --overwrite "$@" > "$result.new"
    mv "$result.new" "$result"
  fi
}
for seed in "${seeds[@]}"; do
  student teachers "$seed" --model-type bert --num-layers 2 --hidden-size 128 --num-heads 2
  student bpe "$seed" --student "$output/bpe"
  student unigram "$seed" --student "$output/unigram"
done
"$python" - "$output" "${seeds[@]}" <<'PY'
import json, math, sys

output, seeds = sys.argv[1], sys.argv[2:]
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
def read(name):
    return [json.load(open(f"{output}/{name}-{seed}.json"))["accuracy"] for seed in seeds]
base = read("teachers")
for name in ["teachers", "bpe", "unigram"]:
    found = read(name)
    line = f"{name:9} accuracy " + " ".join(f"{value:.4f}" for value in found) + f"  mean {sum(found) / len(found):.4f}"
    if name != "teachers" and len(seeds) > 1:
        differences = [a - b for a, b in zip(found, base)]
        mean = sum(differences) / len(differences)
        deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1))
        half = T95[len(differences) - 1] * deviation / math.sqrt(len(differences))
        line += f"  from the teacher's {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"
    print(line)
PY
