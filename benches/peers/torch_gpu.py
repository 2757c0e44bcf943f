"""Peer on one GPU: PyTorch with transformers, in up to three forms, one case each:

eager    as most people run it
compile  torch.compile; with real rows, with dynamic shapes
graph    the whole step, compiled and replayed as one CUDA graph: static shapes, so made-up rows of one length; with
         --data, of the length that its batches are padded to on average, to the nearest multiple of 8

bf16 is autocast over f32 weights in training and bf16 weights in capture. Real rows are sorted in buckets of 50 batches,
padded to the longest of a batch, rounded up to a multiple of 8; all batches are on the GPU before the clock starts.

usage: torch_gpu.py capture|train --mode eager compile graph [flags of `distill bench`]; see README.md"""

import argparse
import contextlib
import sys

import torch

import common
import torch_models

MODES = ("eager", "compile", "graph")


def main():
    flags = common.parser(__doc__.splitlines()[0])
    flags.add_argument("--mode", nargs="+", choices=MODES, default=["eager"])
    flags.add_argument("--precision", choices=["bf16", "tf32", "f32"], default="bf16")
    flags.add_argument("--device", default="cuda")
    flags = flags.parse_args()
    torch.set_float32_matmul_precision("highest" if flags.precision == "f32" else "high")
    torch.set_num_threads(flags.threads)
    rows = common.Rows(flags, flags.vocab_size or torch_models.VOCABULARY)
    batches = on_device(flags, rows)
    failed = False
    for mode in flags.mode:
        try:
            if mode == "graph" and rows.source:
                case(flags, mode, *of_one_length(flags, rows, batches))
            else:
                case(flags, mode, rows, batches)
        except Exception as error:  # The other forms are still worth knowing.
            print(f"{flags.what} {mode}: failed: {error!r}", file=sys.stderr, flush=True)
            failed = True
        torch._dynamo.reset()
        if flags.device.startswith("cuda"):
            torch.cuda.empty_cache()
    sys.exit(1 if failed else 0)


def on_device(flags, rows):
    torch.manual_seed(flags.seed)
    if rows.source:
        chosen = rows.in_buckets(flags.batch_rows, flags.seed)
    else:
        chosen = rows.by_length(flags.batch_rows)
    if not chosen:
        raise SystemExit(f"fewer rows than --batch-rows {flags.batch_rows}")
    batches = []
    for batch in chosen:
        ids, mask = (torch.tensor(values) for values in rows.padded(batch, multiple=8 if rows.source else 1))
        labels = torch.tensor([rows.labels[row] for row in batch])
        teacher_logits = 2 * torch.randn(len(batch), rows.classes)
        batches.append(tuple(tensor.to(flags.device) for tensor in (ids, mask, labels, teacher_logits)))
    return batches


def of_one_length(flags, rows, batches):
    """A batch of made-up rows as long as the real ones are padded to on average, with as many classes."""
    padded = sum(ids.shape[1] for ids, *_ in batches) / len(batches)
    made_up = argparse.Namespace(**vars(flags))
    made_up.data, made_up.length, made_up.labels = None, max(8, round(padded / 8) * 8), rows.classes
    one = common.Rows(made_up, flags.vocab_size or torch_models.VOCABULARY)
    return one, on_device(made_up, one)


def case(flags, mode, rows, batches):
    cuda = flags.device.startswith("cuda")
    if mode == "graph" and not cuda:
        raise ValueError("a CUDA graph needs a GPU")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(flags.seed)
    model, name = (torch_models.teacher if flags.what == "capture" else torch_models.student)(flags, rows.classes)
    model.to(flags.device)
    parameters = torch_models.parameters(model)
    make = capture_step if flags.what == "capture" else training_step
    step = make(flags, mode, model, dynamic=bool(rows.source))
    if mode == "graph":
        replay = graph_of(step, batches[0])

        def all_batches():
            replay()
    else:

        def all_batches():
            for batch in batches:
                step(*batch)

    def passes(count):
        for _ in range(count):
            all_batches()
        if cuda:
            torch.cuda.synchronize()

    passes(2)  # Compilers and autotuners look at the first ones.
    times = common.measure(flags, passes)
    done_tokens = sum(int(mask.sum()) for _, mask, _, _ in batches)
    padded = sum(ids.numel() for ids, *_ in batches)
    memory = torch.cuda.max_memory_allocated() if cuda else None
    device = torch.cuda.get_device_name() if cuda else flags.device
    common.report(
        flags,
        f"torch {torch.__version__}",
        f"{name} {mode} {flags.precision}",
        rows,
        times,
        len(batches),
        done_rows=sum(ids.shape[0] for ids, *_ in batches),
        done_tokens=done_tokens,
        mode=mode,
        longest=max(ids.shape[1] for ids, *_ in batches),
        precision=flags.precision,
        device=device,
        parameters=parameters,
        padding=padded / done_tokens,
        peak_device_memory_bytes=memory,
    )


def autocast(flags):
    kind = "cuda" if flags.device.startswith("cuda") else flags.device
    return torch.autocast(kind, torch.bfloat16) if flags.precision == "bf16" else contextlib.nullcontext()


def capture_step(flags, mode, model, dynamic):
    model.eval()
    if flags.precision == "bf16":
        model.to(torch.bfloat16)
    if mode == "compile":
        model = torch.compile(model, dynamic=dynamic or None)
    elif mode == "graph":
        model = torch.compile(model, mode="max-autotune-no-cudagraphs")

    @torch.inference_mode()
    def step(ids, mask, labels, teacher_logits):
        return model(input_ids=ids, attention_mask=mask).logits

    return step


def training_step(flags, mode, model, dynamic):
    model.train()
    graph = mode == "graph"
    rate = torch_models.LEARNING_RATE
    if graph:
        # What the graph replays must find its numbers on the device.
        rate = torch.tensor(rate, device=flags.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True, capturable=graph)
    run = model if mode == "eager" else torch.compile(model, dynamic=dynamic or None)
    if graph:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def step(ids, mask, labels, teacher_logits):
        with autocast(flags):
            logits = run(input_ids=ids, attention_mask=mask).logits.float()
        torch_models.distillation_loss(logits, teacher_logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), torch_models.MAX_GRADIENT_NORM)
        optimizer.step()
        # A graph adds into the same tensors each time.
        optimizer.zero_grad(set_to_none=not graph)

    return step


def graph_of(step, batch):
    """The step on this batch as a CUDA graph; returns what replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step(*batch)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(*batch)
    return graph.replay


if __name__ == "__main__":
    main()
