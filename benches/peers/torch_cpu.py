"""Peer on the CPU: PyTorch with transformers, eager, f32. Rows sorted by length, each batch padded to its longest row;
batches are made before the clock starts.

usage: torch_cpu.py capture|train [flags of `distill bench`]; see README.md"""

import torch

import common
import torch_models


def main():
    flags = common.parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    rows = common.Rows(flags, flags.vocab_size or torch_models.VOCABULARY)
    batches = []
    for batch in rows.by_length(flags.batch_rows):
        ids, mask = (torch.tensor(values) for values in rows.padded(batch))
        labels = torch.tensor([rows.labels[row] for row in batch])
        batches.append((ids, mask, labels, 2 * torch.randn(len(batch), rows.classes)))
    padded = sum(ids.numel() for ids, *_ in batches)
    peer = f"torch {torch.__version__}"
    more = {"padding": padded / rows.tokens}

    if flags.what == "capture":
        model, name = torch_models.teacher(flags, rows.classes)
        model.eval()

        @torch.inference_mode()
        def passes(count):
            for _ in range(count):
                for ids, mask, _, _ in batches:
                    model(input_ids=ids, attention_mask=mask)
    else:
        model, name = torch_models.student(flags, rows.classes)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch_models.LEARNING_RATE, fused=True)

        def passes(count):
            for _ in range(count):
                for ids, mask, labels, teacher_logits in batches:
                    logits = model(input_ids=ids, attention_mask=mask).logits
                    loss = torch_models.distillation_loss(logits, teacher_logits, labels)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), torch_models.MAX_GRADIENT_NORM)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            more["loss"] = loss.item()

    times = common.measure(flags, passes)
    common.report(flags, peer, name, rows, times, len(batches), parameters=torch_models.parameters(model), **more)


if __name__ == "__main__":
    main()
