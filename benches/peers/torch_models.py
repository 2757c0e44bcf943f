"""The models of the PyTorch peers: those of `transformers`, with its fused attention, and the loss of a distillation step."""

import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, MobileBertConfig

TEMPERATURE, WEIGHT_SOFT, WEIGHT_HARD = 2.0, 0.5, 0.5
LEARNING_RATE, MAX_GRADIENT_NORM = 1e-4, 1.0
VOCABULARY = 30522


def teacher(flags, classes):
    """The model of a folder with its weights, or a BERT of the given sizes (BERT-base by default) with random ones."""
    sizes = (flags.layers, flags.hidden_size, flags.heads, flags.intermediate_size, flags.vocab_size)
    if flags.model and not any(sizes):
        model = AutoModelForSequenceClassification.from_pretrained(
            flags.model, num_labels=classes, attn_implementation="sdpa", dtype=torch.float32
        )
        name = f"{model.config.model_type} {model.config.num_hidden_layers}x{model.config.hidden_size}"
        return model, name
    if flags.model_type == "mobilebert":
        return mobilebert(flags, classes)
    hidden = flags.hidden_size or 768
    config = BertConfig(
        vocab_size=flags.vocab_size or VOCABULARY,
        num_hidden_layers=flags.layers or 12,
        hidden_size=hidden,
        num_attention_heads=flags.heads or hidden // 64,
        intermediate_size=flags.intermediate_size or 4 * hidden,
        num_labels=classes,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    return model, f"bert {config.num_hidden_layers}x{hidden}"


def student(flags, classes):
    """A DistilBERT of the given sizes, 6 x 768 by default, or a MobileBERT, with random weights."""
    if flags.model_type == "mobilebert":
        return mobilebert(flags, classes)
    hidden = flags.hidden_size or 768
    config = DistilBertConfig(
        vocab_size=flags.vocab_size or VOCABULARY,
        n_layers=flags.layers or 6,
        dim=hidden,
        hidden_dim=flags.intermediate_size or 4 * hidden,
        n_heads=flags.heads or hidden // 64,
        dropout=flags.dropout,
        attention_dropout=flags.dropout,
        seq_classif_dropout=flags.dropout,
        num_labels=classes,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    return model, f"distilbert {config.n_layers}x{hidden}"


def mobilebert(flags, classes):
    """A MobileBERT of the published widths, 24 layers by default."""
    config = MobileBertConfig(
        vocab_size=flags.vocab_size or VOCABULARY,
        num_hidden_layers=flags.layers or 24,
        hidden_dropout_prob=flags.dropout,
        attention_probs_dropout_prob=flags.dropout,
        classifier_activation=False,
        num_labels=classes,
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    return model, f"mobilebert {config.num_hidden_layers}x{config.hidden_size}"


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def distillation_loss(logits, teacher_logits, labels):
    soft = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, -1),
        F.log_softmax(teacher_logits / TEMPERATURE, -1),
        log_target=True,
        reduction="batchmean",
    )
    return WEIGHT_SOFT * TEMPERATURE**2 * soft + WEIGHT_HARD * F.cross_entropy(logits, labels)
