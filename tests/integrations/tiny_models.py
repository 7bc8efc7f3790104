"""Transformers with random weights: a kind of attention each, built in milliseconds."""

import copy
import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # transformers' own, while it is imported
    import transformers

from synops.integrations import transformers as synops_transformers

VOCABULARY = 61
_SIZE = {"vocab_size": VOCABULARY, "max_position_embeddings": 64}
_WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = _SIZE | _WIDE | {"intermediate_size": 48, "pad_token_id": 0, "eos_token_id": None}

CONFIGS = {
    # four heads on two of keys
    "llama": (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**_DECODER, num_key_value_heads=2),
    ),
    # a window shorter than the sequences here
    "mistral": (
        transformers.MistralForCausalLM,
        transformers.MistralConfig(**_DECODER, num_key_value_heads=1, sliding_window=5),
    ),
    # dropout everywhere but in attention would still be random in training
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=64,
            n_embd=32,
            n_layer=2,
            n_head=4,
            bos_token_id=None,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            eos_token_id=None,
            pad_token_id=0,
        ),
    ),
    "bert": (
        transformers.BertForMaskedLM,
        transformers.BertConfig(
            **_SIZE,
            **_WIDE,
            intermediate_size=48,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=0,
        ),
    ),
    "bart": (
        transformers.BartForConditionalGeneration,
        transformers.BartConfig(
            **_SIZE,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            dropout=0.0,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=None,
            decoder_start_token_id=1,
            forced_eos_token_id=None,
        ),
    ),
    # a learned position bias on the scores, which are not scaled
    "t5": (
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=None,
            decoder_start_token_id=1,
        ),
    ),
    "gemma2": (
        transformers.Gemma2ForCausalLM,
        transformers.Gemma2Config(
            **_DECODER, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=30.0
        ),
    ),
    "gpt_oss": (
        transformers.GptOssForCausalLM,
        transformers.GptOssConfig(
            **_DECODER,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=2,
            num_experts_per_tok=1,
        ),
    ),
    # attention in its own code
    "bloom": (
        transformers.BloomForCausalLM,
        transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    ),
}
ENCODER_DECODERS = ("bart", "t5")


def pair(kind, **changes):
    """The same weights twice, in eval(): with eager attention, and with that of synops."""
    synops_transformers.register()
    made, config = CONFIGS[kind]
    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    models = []
    for implementation in ("eager", "synops"):
        models.append(made._from_config(copy.deepcopy(config), attn_implementation=implementation))
    eager, ours = models
    with torch.no_grad():
        for parameter in eager.parameters():
            if parameter.dim() > 1 and kind != "t5":  # attention of fresh weights is nearly uniform
                parameter.mul_(6)
    ours.load_state_dict(eager.state_dict())
    return eager.eval(), ours.eval()


def batch(kind, lengths=(11, 7, 9), side="right", rows=11):
    """Token ids of these lengths, padded on one side; an encoder-decoder gets the same twice."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (len(lengths), rows), generator=generator)
    at, n = torch.arange(rows), torch.tensor(lengths).unsqueeze(1)
    mask = at < n if side == "right" else at >= rows - n
    found = {"input_ids": ids * mask, "attention_mask": mask.long()}
    if kind in ENCODER_DECODERS:  # the decoder reads fewer
        found |= {
            "decoder_input_ids": found["input_ids"][:, :8],
            "decoder_attention_mask": found["attention_mask"][:, :8],
        }
    return found


def entropies(maps):
    """Of eager attention's maps ``(B, H, N, M)``, in float64."""
    p = maps.double()
    return -(p * p.clamp(min=1e-300).log()).sum(-1)  # with a gradient at 0
