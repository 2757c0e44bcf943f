"""Peer on the CPU: ONNX Runtime, f32, capture alone. The model is written as ONNX first, unless --onnx names one that is
there; rows sorted by length, each batch padded to its longest row, batches made before the clock starts.

usage: onnx_cpu.py capture --model FOLDER --onnx FILE [flags of `distill bench`]; see README.md"""

import os

import numpy as np
import onnxruntime

import common


def write_onnx(flags, classes, path):
    """Writes the model with its head; batch and length stay free."""
    import torch

    import torch_models

    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    model, _ = torch_models.teacher(flags, classes)
    # Plain attention: what the exporter turns into operators that ONNX Runtime fuses.
    model.set_attn_implementation("eager")
    example = torch.ones(2, 8, dtype=torch.long)
    free = {0: "rows", 1: "tokens"}
    torch.onnx.export(
        Logits(model.eval()),
        (example, example),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "rows"}},
        opset_version=17,
        dynamo=False,
    )


def main():
    flags = common.parser(__doc__.splitlines()[0])
    flags.add_argument("--onnx", required=True, help="the model as ONNX; written if it is not there")
    flags = flags.parse_args()
    if flags.what != "capture":
        raise SystemExit("ONNX Runtime does not train; use torch_cpu.py")
    rows = common.Rows(flags, flags.vocab_size or 30522)
    if not os.path.exists(flags.onnx):
        # In a process of its own, so that PyTorch's memory is not counted as ONNX Runtime's.
        child = os.fork()
        if child == 0:
            try:
                write_onnx(flags, rows.classes, f"{flags.onnx}.new")
                os.rename(f"{flags.onnx}.new", flags.onnx)
            except BaseException as error:
                print(f"cannot write {flags.onnx}: {error!r}", flush=True)
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    session = onnxruntime.InferenceSession(flags.onnx, options, providers=["CPUExecutionProvider"])
    batches = []
    for batch in rows.by_length(flags.batch_rows):
        ids, mask = rows.padded(batch)
        batches.append({"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)})

    def passes(count):
        for _ in range(count):
            for batch in batches:
                session.run(None, batch)

    times = common.measure(flags, passes)
    padded = sum(batch["input_ids"].size for batch in batches)
    name = os.path.basename(os.path.normpath(flags.model)) if flags.model else "bert"
    peer = f"onnxruntime {onnxruntime.__version__}"
    common.report(flags, peer, name, rows, times, len(batches), padding=padded / rows.tokens)


if __name__ == "__main__":
    main()
