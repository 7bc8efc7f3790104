"""The table of ops: every stem, its kind and the schemas registered under ``torch.ops.synops``.

An ``op`` has all layers under its stem: public function, reference, C++ (csrc), Triton (kernels),
tests and benchmark. A ``composite`` calls ops or plain torch and has a public function and tests.
tests/test_layout.py fails on a missing or orphaned layer.

Schemas have no defaults (torch.compile drops default arguments before autograd sees them; defaults
live in the public functions), and backward passes are ops beside their forward.
"""

from typing import NamedTuple


class Stem(NamedTuple):
    """One line of the table."""

    kind: str  # "op" or "composite"
    schemas: tuple[str, ...] = ()


# A Pattern crosses into an op as these eight tensors and two numbers (see sparse/_pattern.py).
_PATTERN = (
    "Tensor crow, Tensor col, Tensor row_ptr, Tensor tile_col, Tensor col_ptr, Tensor tile_row,"
    " Tensor perm, Tensor bits, int block_rows, int block_step"
)

# What the gradient of token_stats needs beside the logits: what the forward call was given, what it
# saved of each row, and the gradients of its results.
_TOKEN_GRADIENT = (
    "Tensor? labels, float temperature, int ignore_index, Tensor max_logit, Tensor max_prob,"
    " Tensor? entropy, Tensor? varentropy, Tensor? collision, Tensor? grad_logprob,"
    " Tensor? grad_entropy, Tensor? grad_varentropy, Tensor? grad_lse, Tensor? grad_collision"
)

# How neurons of lif fire and reset, and the surrogate of their gradient.
_LIF = "int reset, bool delayed, bool inclusive, bool detach_reset, int surrogate, float slope"
# What comes out of neurons over time: the form of the spikes, and what is saved for the backward.
_OUT = "int spikes, int save"
# What goes into and comes out of neurons with a second state, and their gradients.
_SECOND = "Tensor input, Tensor? v0, Tensor? {0}0, Tensor beta, Tensor threshold"
_SECOND_GRADIENT = (
    "Tensor? grad_spikes, Tensor? grad_v, Tensor? grad_w, Tensor? grad_trajectory,"
    " Tensor membrane, Tensor? second, Tensor? v0, Tensor? {0}0, Tensor beta, Tensor threshold"
)

# The layer of leaky_rnn: its input and parameters, and how they are put together.
_LEAKY_RULE = "int activation, float slope, bool inner, bool zero_diagonal"
_LEAKY_RNN = f"Tensor input, Tensor weight, Tensor? bias, Tensor? h0, Tensor rate, {_LEAKY_RULE}"

# What is written to a fast weight and read from it, and how.
_FAST_WEIGHT = "Tensor query, Tensor key, Tensor value, Tensor? beta, Tensor? decay"

# A reservoir of rate units: its fixed weights, and how a step is made and recorded.
_ESN = (
    "Tensor input_weight, Tensor? bias, Tensor leak, Tensor values, Tensor crow, Tensor col,"
    " Tensor row_ptr, Tensor tile_col, int block_rows, int block_step, int activation,"
    " SymInt washout"
)

# A network of excitatory units, the first ones, and inhibitory ones; target and delta move the
# inhibition.
_EI = (
    "Tensor input_weight, Tensor e_values, Tensor gain, Tensor threshold, Tensor leak,"
    " Tensor? target, Tensor? delta, Tensor e_crow, Tensor e_col, Tensor i_crow, Tensor i_col,"
    " SymInt excitatory, SymInt washout"
)

# What the local rules of plasticity have in common (python/synops/hebbian/_plasticity.py).
_LOCAL = (
    "float lr, Tensor? rate, float decay, Tensor? modulator, Tensor? gain_pre, Tensor? gain_post,"
    " float lower, float upper, Tensor? sign, bool check_sign, Tensor? mask, Tensor? crow,"
    " Tensor? col, bool mean"
)
_BCM = "Tensor pre, Tensor? post, float theta_rate"
# What stdp is driven by and how it changes a weight, behind the weight and the state of its traces.
_STDP = (
    "Tensor pre, Tensor post, Tensor? crow, Tensor? col, float lr, Tensor? rate,"
    " Tensor? modulator, Tensor? reward, Tensor? sign, bool check_sign, float decay_plus,"
    " float decay_minus, float decay_x, float decay_y, float decay_e, float a_plus, float a_minus,"
    " float a3_plus, float a3_minus, float lower, float upper, bool nearest, int coincident,"
    " bool soft, bool mean"
)

# A step of soft_hebb: input and rates, how units compete, and what the family's rules share.
_SOFT_HEBB = (
    "Tensor pre, Tensor? u, float temperature, int variant, float power, bool amax, float lr,"
    " Tensor? rate, float decay, Tensor? modulator, Tensor? gain_pre, Tensor? gain_post,"
    " float lower, float upper, Tensor? sign, bool check_sign, Tensor? mask, bool mean"
)


TABLE: dict[str, dict[str, Stem]] = {
    "sparse": {
        "pattern": Stem(
            "op",
            (
                "pattern_from_mask(Tensor mask) -> (Tensor, Tensor)",
                "pattern_plan(Tensor crow, Tensor col, SymInt in_features)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
                "pattern_bits(Tensor crow, Tensor col, SymInt in_features) -> Tensor",
                "pattern_blocks(Tensor crow, Tensor col) -> Tensor",
                "pattern_split(Tensor values, Tensor select, SymInt count) -> (Tensor, Tensor)",
                "pattern_merge(Tensor selected, Tensor rest, Tensor select) -> Tensor",
                "pattern_gather(Tensor weight, Tensor crow, Tensor col) -> Tensor",
                "pattern_scatter(Tensor values, Tensor crow, Tensor col, SymInt in_features)"
                " -> Tensor",
            ),
        ),
        "sparse_linear": Stem(
            "op",
            (
                f"sparse_linear(Tensor input, Tensor values, Tensor? bias, {_PATTERN},"
                " int activation, bool feature_major) -> Tensor",
                f"sparse_linear_backward(Tensor grad, Tensor input, Tensor values, {_PATTERN},"
                " bool need_input, bool need_values, bool need_bias) -> (Tensor, Tensor, Tensor)",
            ),
        ),
        "masked_linear": Stem(
            "op",
            (
                "masked_linear(Tensor input, Tensor weight, Tensor? bias, Tensor mask) -> Tensor",
                "masked_linear_backward(Tensor grad, Tensor input, Tensor weight, Tensor mask,"
                " bool need_input, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)",
            ),
        ),
        "magnitude_threshold": Stem(
            "op", ("magnitude_threshold(Tensor[] tensors, int keep, bool strict) -> Tensor",)
        ),
        "grow_topk": Stem(
            "op",
            (
                "grow_topk(Tensor? grad_output, Tensor? input, Tensor crow, Tensor col,"
                " SymInt in_features, int k, int score, int seed) -> (Tensor, Tensor)",
                "grow_topk_dense(Tensor scores, Tensor crow, Tensor col, Tensor pruned, int k)"
                " -> (Tensor, Tensor)",
            ),
        ),
        "prune_and_grow": Stem(
            "op",
            (
                "prune_and_grow(Tensor crow, Tensor col, SymInt in_features, Tensor prune,"
                " Tensor edges) -> (Tensor, Tensor, Tensor)",
                "prune_and_grow_carry(Tensor values, Tensor origin) -> Tensor",
            ),
        ),
        "unit_stats": Stem("op", ("unit_stats(Tensor input) -> (Tensor, Tensor, Tensor, Tensor)",)),
        "spmm": Stem("composite"),
        "sddmm": Stem("composite"),
    },
    "entropy": {
        "token_stats": Stem(
            "op",
            (
                "token_stats(Tensor logits, Tensor? labels, float temperature, int ignore_index,"
                " int stats)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                f"token_stats_backward(Tensor logits, {_TOKEN_GRADIENT}) -> Tensor",
                f"token_stats_backward_(Tensor(a!) logits, {_TOKEN_GRADIENT}) -> ()",
            ),
        ),
        "covariance_select": Stem("composite"),
        "policy_loss": Stem("composite"),
        "bnpo_advantage": Stem("composite"),
        "linear_token_stats": Stem(
            "op",
            (
                "linear_token_stats(Tensor hidden, Tensor weight, Tensor? labels, Tensor? bias,"
                " float temperature, int ignore_index, int stats)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                "linear_token_stats_backward(Tensor hidden, Tensor weight, Tensor? labels,"
                " Tensor? bias, Tensor saved, Tensor? grad_logprob, Tensor? grad_entropy,"
                " Tensor? grad_varentropy, Tensor? grad_lse, Tensor? grad_collision,"
                " float temperature, bool need_hidden, bool need_weight, bool need_bias)"
                " -> (Tensor, Tensor, Tensor)",
            ),
        ),
        "attention_with_stats": Stem(
            "op",
            (
                "attention_with_stats(Tensor query, Tensor key, Tensor value, Tensor? attn_mask,"
                " bool is_causal, SymInt window, float scale, int stats)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                "attention_with_stats_backward(Tensor? grad_output, Tensor? grad_lse,"
                " Tensor? grad_entropy, Tensor? grad_varentropy, Tensor query, Tensor key,"
                " Tensor value, Tensor? attn_mask, Tensor output, Tensor lse, Tensor entropy,"
                " Tensor varentropy, bool is_causal, SymInt window, float scale, bool need_query,"
                " bool need_key, bool need_value) -> (Tensor, Tensor, Tensor)",
            ),
        ),
        "attention_pick": Stem("composite"),
        "head_scores": Stem("composite"),
    },
    "spiking": {
        "lif": Stem(
            "op",
            (
                "lif(Tensor input, Tensor? v0, Tensor beta, Tensor threshold,"
                f" {_LIF}, {_OUT}, bool record) -> (Tensor, Tensor, Tensor, Tensor)",
                "lif_backward(Tensor? grad_spikes, Tensor? grad_v, Tensor? grad_trajectory,"
                " Tensor membrane, Tensor? v0, Tensor beta, Tensor threshold,"
                f" {_LIF}, int half, bool need_input, bool need_v0, bool need_beta,"
                " bool need_threshold) -> (Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "leaky_rnn": Stem(
            "op",
            (
                f"leaky_rnn({_LEAKY_RNN}, bool save) -> (Tensor, Tensor, Tensor)",
                f"leaky_rnn_(Tensor(a!) states, {_LEAKY_RNN}) -> Tensor",
                "leaky_rnn_backward(Tensor? grad_states, Tensor? grad_h, Tensor states,"
                f" Tensor drive, Tensor weight, Tensor? h0, Tensor rate, {_LEAKY_RULE}, int half,"
                " bool need_input, bool need_weight, bool need_bias, bool need_h0, bool need_rate)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "recurrent_lif": Stem(
            "op",
            (
                "recurrent_lif(Tensor input, Tensor weight, Tensor? spikes0, Tensor? v0,"
                f" Tensor beta, Tensor threshold, Tensor? crow, Tensor? col, {_LIF}, bool save,"
                " bool record) -> (Tensor, Tensor, Tensor, Tensor)",
                "recurrent_lif_backward(Tensor? grad_spikes, Tensor? grad_v,"
                " Tensor? grad_trajectory, Tensor membrane, Tensor weight, Tensor? spikes0,"
                " Tensor? v0, Tensor beta, Tensor threshold, Tensor? crow, Tensor? col,"
                f" {_LIF}, int half, bool need_input, bool need_weight, bool need_spikes,"
                " bool need_v0, bool need_beta, bool need_threshold)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "esn": Stem(
            "op",
            (
                f"esn(Tensor input, Tensor? state, {_ESN}) -> (Tensor, Tensor)",
                f"esn_(Tensor(a!) states, Tensor(b!) state, Tensor input, {_ESN}) -> ()",
            ),
        ),
        "izhikevich": Stem(
            "op",
            (
                "izhikevich_synapses(Tensor values, Tensor crow, Tensor col, SymInt ranges,"
                " int layout) -> (Tensor, Tensor, Tensor)",
                "izhikevich(Tensor v, Tensor u, Tensor current, Tensor? rise, Tensor? trace,"
                " Tensor? pending, Tensor a, Tensor b, Tensor c, Tensor d, Tensor bias,"
                " Tensor? input, Tensor? input_weight, Tensor start, Tensor target,"
                " Tensor weight, int layout, Tensor? delays, SymInt steps, float dt, float decay,"
                " float rise_decay, float transfer, float trace_decay, bool record_bits,"
                " bool record_v, bool record_traces, Tensor? neurons, Tensor? readout,"
                " Tensor? targets, Tensor? gates, float learning_rate) -> (Tensor, Tensor, Tensor,"
                " Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                "izhikevich_indices(Tensor bits, SymInt neurons) -> Tensor",
            ),
        ),
        "ei_reservoir": Stem(
            "op",
            (
                "ei_reservoir(Tensor input, Tensor? state, Tensor i_values,"
                f" {_EI}) -> (Tensor, Tensor, Tensor)",
                "ei_reservoir_(Tensor(a!) rates, Tensor(b!) state, Tensor(c!) i_values,"
                f" Tensor input, {_EI}) -> ()",
            ),
        ),
        "ei_one_step_design": Stem("composite"),
        "alif": Stem(
            "op",
            (
                f"alif({_SECOND.format('a')}, Tensor rho, Tensor beta_a, {_LIF}, {_OUT},"
                " bool save_second, bool record)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                f"alif_backward({_SECOND_GRADIENT.format('a')}, Tensor rho, Tensor beta_a, {_LIF},"
                " int half, bool need_input, bool need_v0, bool need_a0, bool need_beta,"
                " bool need_threshold, bool need_rho, bool need_beta_a)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "cuba_lif": Stem(
            "op",
            (
                f"cuba_lif({_SECOND.format('i')}, Tensor alpha, {_LIF}, {_OUT},"
                " bool save_second, bool record)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                f"cuba_lif_backward({_SECOND_GRADIENT.format('i')}, Tensor alpha, {_LIF},"
                " int half, bool need_input, bool need_v0, bool need_i0, bool need_beta,"
                " bool need_threshold, bool need_alpha)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "lif_step": Stem("composite"),
        "unpack_spikes": Stem("composite"),
    },
    "hebbian": {
        "soft_hebb": Stem(
            "op",
            (
                f"soft_hebb(Tensor weight, {_SOFT_HEBB}) -> (Tensor, Tensor, Tensor)",
                f"soft_hebb_(Tensor(a!) weight, {_SOFT_HEBB}) -> (Tensor, Tensor)",
            ),
        ),
        "soft_hebb_conv2d": Stem("composite"),
        "hebb": Stem(
            "op",
            (
                f"hebb(Tensor weight, Tensor pre, Tensor? post, {_LOCAL})"
                " -> (Tensor, Tensor, Tensor)",
                f"hebb_(Tensor(a!) weight, Tensor pre, Tensor? post, {_LOCAL}) -> (Tensor, Tensor)",
            ),
        ),
        "oja": Stem(
            "op",
            (
                f"oja(Tensor weight, Tensor pre, Tensor? post, {_LOCAL})"
                " -> (Tensor, Tensor, Tensor)",
                f"oja_(Tensor(a!) weight, Tensor pre, Tensor? post, {_LOCAL}) -> (Tensor, Tensor)",
            ),
        ),
        "bcm": Stem(
            "op",
            (
                f"bcm(Tensor weight, Tensor theta, {_BCM}, {_LOCAL})"
                " -> (Tensor, Tensor, Tensor, Tensor)",
                f"bcm_(Tensor(a!) weight, Tensor(b!) theta, {_BCM}, {_LOCAL}) -> (Tensor, Tensor)",
            ),
        ),
        "stdp": Stem(
            "op",
            (
                "stdp(Tensor weight, Tensor trace_pre, Tensor trace_post, Tensor? slow_pre,"
                f" Tensor? slow_post, Tensor? eligibility, {_STDP})"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                "stdp_(Tensor(a!) weight, Tensor(b!) trace_pre, Tensor(c!) trace_post,"
                " Tensor(d!)? slow_pre, Tensor(e!)? slow_post, Tensor(f!)? eligibility,"
                f" {_STDP}) -> Tensor",
            ),
        ),
        "delta_rule": Stem(
            "op",
            (
                f"delta_rule({_FAST_WEIGHT}, Tensor? state, float scale, int rule, bool save)"
                " -> (Tensor, Tensor, Tensor)",
                f"delta_rule_backward(Tensor? grad_output, Tensor? grad_last, {_FAST_WEIGHT},"
                " Tensor? state, Tensor last, Tensor error, float scale, int rule,"
                " bool need_query, bool need_key, bool need_value, bool need_beta,"
                " bool need_decay, bool need_state)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "linear_attention": Stem("composite"),
        "hopfield_retrieve": Stem(
            "op",
            (
                "hopfield_retrieve(Tensor state, Tensor patterns, Tensor? values, Tensor beta,"
                " SymInt steps, float tolerance, bool entropy, bool save)"
                " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                "hopfield_retrieve_backward(Tensor? grad_output, Tensor? grad_lse,"
                " Tensor? grad_entropy, Tensor? grad_half_norm, Tensor state, Tensor patterns,"
                " Tensor? values, Tensor beta, Tensor output, Tensor lse, Tensor entropy,"
                " Tensor iterations, Tensor states, bool need_state, bool need_patterns,"
                " bool need_values, bool need_beta) -> (Tensor, Tensor, Tensor, Tensor)",
            ),
        ),
        "three_factor": Stem(
            "op",
            (
                "three_factor(Tensor weight, Tensor eligibility, Tensor pre, Tensor post,"
                f" float trace_decay, {_LOCAL}) -> (Tensor, Tensor, Tensor)",
                "three_factor_(Tensor(a!) weight, Tensor(b!) eligibility, Tensor pre, Tensor post,"
                f" float trace_decay, {_LOCAL}) -> Tensor",
            ),
        ),
        "three_factor_sequence": Stem(
            "op",
            (
                "three_factor_sequence(Tensor weight, Tensor eligibility, Tensor pre, Tensor post,"
                f" float trace_decay, {_LOCAL}) -> (Tensor, Tensor, Tensor)",
                "three_factor_sequence_(Tensor(a!) weight, Tensor(b!) eligibility, Tensor pre,"
                f" Tensor post, float trace_decay, {_LOCAL}) -> Tensor",
            ),
        ),
    },
}


def address(name: str) -> tuple[str, str]:
    """Family and stem of the op, or of the composite, called ``name``."""
    for family, stems in TABLE.items():
        for stem, entry in stems.items():
            if stem == name or any(schema.split("(")[0] == name for schema in entry.schemas):
                return family, stem
    raise KeyError(f"no op called {name!r} in the schema table")
