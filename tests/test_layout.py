"""Every op of python/synops/_schema.py has all its layers, and no layer has more."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from synops._schema import TABLE, address

ROOT = Path(__file__).parents[1]
STEMS = [(family, stem) for family in TABLE for stem in TABLE[family]]
OPS = [(family, stem) for family, stem in STEMS if TABLE[family][stem].kind == "op"]
SCHEMAS = [
    (family, stem, schema) for family, stem in STEMS for schema in TABLE[family][stem].schemas
]
PUBLIC = "python/synops/{family}/_{stem}.py"
TEST = "tests/{family}/test_{stem}.py"
LAYERS = [
    PUBLIC,
    "python/synops/_reference/{family}/{stem}.py",
    "csrc/{family}/{stem}.cpp",
    "kernels/{family}/{stem}.py",
    TEST,
    "benchmarks/{family}/{stem}.py",
]

# Files beside the ops of a family, each with what it is.
HELPERS = {
    "csrc/entropy/attention_gradients.cpp",  # the backward of attention_with_stats on tensors
    "kernels/entropy/attention_backward.py",  # its gradients
    "kernels/entropy/attention_tile.py",  # the scores that both compute
    "tests/entropy/test_attention_errors.py",  # what it refuses, also as raw ops
    "tests/entropy/test_attention_transforms.py",  # compile, export, vmap, opcheck
    "tests/entropy/test_attention_triton.py",  # its Triton kernels, in the interpreter
    "benchmarks/sparse/dynamic_sparsity.py",  # steps of training, the optimizer included
    "benchmarks/sparse/mlp.py",  # layers in a row: what a layer's own benchmark cannot see
    "csrc/entropy/linear_token_stats_gradients.cpp",  # its backward
    "csrc/entropy/token_stats_backward.cpp",  # the gradient of token_stats
    "csrc/sparse/product.cpp",  # the products that sparse_linear and masked_linear share
    "csrc/sparse/gradients.cpp",  # their gradients
    "csrc/sparse/grow_topk_dense.cpp",  # grow_topk of scores that exist
    "csrc/sparse/row_blocks_product.cpp",  # both, of weights with row blocks
    "kernels/entropy/rows.py",  # rows of logits, and numbers beside them
    "kernels/entropy/token_stats_backward.py",  # the gradient of token_stats
    "tests/entropy/test_token_stats_calls.py",  # transforms, bad arguments, raw ops
    "tests/entropy/token_samples.py",  # logits at the edges, and what float64 says of them
    "kernels/entropy/heads.py",  # what forward and backward of linear_token_stats share
    "kernels/entropy/linear_token_stats_backward.py",  # its gradients
    "kernels/sparse/row_blocks.py",  # sparse_linear of rows with equal columns
    "kernels/sparse/row_blocks_backward.py",  # its gradients
    "kernels/sparse/sampled.py",  # the value gradient from tiles of the dense one
    "kernels/sparse/slab.py",  # dense operands, batch innermost
    "python/synops/entropy/_occurrences.py",  # sums of head_scores over all equal tokens before
    "python/synops/entropy/_stats.py",  # names of the statistics, and the tuple of them
    "python/synops/entropy/_steer.py",  # entropy changes and weights of policy_loss
    "python/synops/entropy/_tokens.py",  # checks and sums of tensors with one number a token
    "python/synops/sparse/_rewiring_ops.py",  # the raw ops that change which entries there are
    "python/synops/sparse/_pattern_ops.py",  # the raw ops behind Pattern, and their adjoints
    "python/synops/sparse/_blocks.py",  # blocks in masks
    "python/synops/sparse/_layout.py",  # which layout runs, in words
    "tests/entropy/heads.py",  # heads whose logits are exact, and their answers in float64
    "tests/entropy/test_linear_token_stats_calls.py",  # transforms, compilers, bad arguments
    "tests/entropy/test_linear_token_stats_triton.py",  # its Triton kernels, in the interpreter
    "tests/sparse/sparse_samples.py",  # inputs, answers and shapes
    "tests/sparse/sparse_layers.py",  # the public forms behind one face
    "tests/sparse/test_linear_layers.py",  # what those forms do alike
    "tests/sparse/layouts.py",  # a Pattern of every layout, and matrices in both
    "tests/sparse/test_layouts.py",  # each against the reference; which one runs
    "tests/entropy/test_processes.py",  # choices and moments over two processes
    "tests/nn/test_structured_layers.py",  # SparseLinear with blocks, parts, options
    "tests/sparse/raw_ops.py",  # arguments of the raw ops, and the fuzz
    "tests/sparse/test_raw_ops.py",
    "tests/sparse/test_triton.py",  # the Triton kernels, in the interpreter
    "tests/sparse/test_transforms.py",  # compile, export, opcheck
    "csrc/spiking/izhikevich_synapses.cpp",  # its synapses, and indices of spikes
    "python/synops/spiking/_izhikevich_arguments.py",  # what it is given, checked
    "python/synops/spiking/_izhikevich_ops.py",  # its raw ops, and a run in pieces
    "python/synops/spiking/_izhikevich_run.py",  # a run on synapses that are laid out
    "tests/spiking/izhikevich_samples.py",  # small reservoirs, and a loop in numpy
    "tests/spiking/test_izhikevich_calls.py",  # edges, transforms, bad arguments, raw ops
    "benchmarks/spiking/peers.py",  # layers of released packages
    "csrc/spiking/neurons.cpp",  # lif, alif and cuba_lif on tensors
    "csrc/spiking/neurons_backward.cpp",  # their gradients
    "kernels/spiking/lif_backward.py",  # the same
    "python/synops/_reference/spiking/neurons.py",  # their definition
    "python/synops/spiking/_neuron_op.py",  # their ops, and a call of one
    "tests/spiking/neuron_samples.py",  # lif_samples.py for alif and cuba_lif
    "tests/spiking/test_lif_forms.py",  # spikes as bytes and bits, half a membrane
    "kernels/spiking/neurons.py",  # neurons in rows, their parameters and surrogates
    "python/synops/spiking/_neurons.py",  # names, checks and layouts of the family
    "kernels/spiking/reservoir.py",  # what the reservoirs' kernels share: sums over rows
    "python/synops/spiking/_reservoir.py",  # the same of the public functions: checks, pieces
    "tests/spiking/test_chunks.py",  # pieces of long runs
    "tests/spiking/test_second_states.py",  # what alif and cuba_lif do alike
    "tests/spiking/reservoir_samples.py",  # reservoirs of every layout, and their answers
    "python/synops/hebbian/_stdp_arguments.py",  # what stdp checks, and its state
    "python/synops/hebbian/_stdp_rule.py",  # the same of its numbers and names
    "python/synops/hebbian/_in_place.py",  # what is written wants no gradient and shares no memory
    "tests/hebbian/stdp_samples.py",  # spikes, weights and rules, and the loop people write
    "tests/spiking/lif_samples.py",  # inputs that no rounding moves, and their answers
    "tests/spiking/test_lif_calls.py",  # layouts, edges, transforms, bad arguments
    "csrc/spiking/leaky_rnn_backward.cpp",  # the gradients of leaky_rnn
    "kernels/spiking/leaky_rnn_backward.py",  # the same
    "kernels/spiking/leaky_rnn_layer.py",  # what both share: the layer, checked, and tiles of it
    "tests/spiking/leaky_rnn_samples.py",  # inputs, and their answers
    "tests/spiking/test_leaky_rnn_calls.py",  # layouts, edges, transforms, bad arguments
    "csrc/spiking/recurrent_lif_backward.cpp",  # the gradients of recurrent_lif
    "kernels/spiking/recurrent_lif_backward.py",  # the same
    "kernels/spiking/recurrent_weight.py",  # products of both with its weight
    "tests/spiking/recurrent_samples.py",  # inputs of recurrent_lif that no rounding moves
    "tests/spiking/test_recurrent_lif_calls.py",  # layouts, edges, transforms, bad arguments
    "csrc/hebbian/delta_rule_backward.cpp",  # the gradients of delta_rule
    "tests/hebbian/fast_weight_samples.py",  # its inputs, and their answers
    "tests/hebbian/test_delta_rule_calls.py",  # layouts, edges, transforms, bad arguments
    "csrc/hebbian/local_ops.cpp",  # hebb, oja and bcm on tensors
    "csrc/hebbian/outer_update.cpp",  # the update they share, over threads
    "kernels/hebbian/local_rule.py",  # the same as local_ops.cpp
    "kernels/hebbian/outer_update.py",  # the same as outer_update.cpp, with the kernels
    "python/synops/_reference/hebbian/plasticity.py",  # their definition
    "python/synops/hebbian/_local_op.py",  # their ops, and a call of one
    "python/synops/hebbian/_plasticity.py",  # arguments, checks and reports of the local rules
    "tests/hebbian/plasticity_samples.py",  # weights, activities and options
    "tests/hebbian/test_local_rules.py",  # what hebb, oja and bcm do alike
    "csrc/hebbian/hopfield_retrieve_backward.cpp",  # the gradients of hopfield_retrieve
    "tests/hebbian/hopfield_samples.py",  # inputs, and their answers
    "tests/hebbian/test_hopfield_calls.py",  # layouts, edges, transforms, bad arguments
    "tests/hebbian/test_hopfield_module.py",  # nn.Hopfield
    "tests/hebbian/test_hopfield_triton.py",  # its Triton kernel
    "csrc/hebbian/soft_hebb_step.cpp",  # soft_hebb once it is checked
    "tests/hebbian/soft_hebb_samples.py",  # inputs of soft_hebb
    "kernels/hebbian/three_factor_call.py",  # what three_factor checks of a step and of many
    "tests/hebbian/three_factor_samples.py",  # its inputs
    "tests/hebbian/test_soft_hebb_calls.py",  # bad arguments, aliasing, transforms, raw ops
}


def name_of(schema):
    return schema.split("(")[0]


def ids(cases):
    return ["-".join(case) for case in cases]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("family", "stem"), OPS, ids=ids(OPS))
def test_op_has_layer(family, stem, layer):
    assert (ROOT / layer.format(family=family, stem=stem)).is_file()


@pytest.mark.parametrize("layer", [PUBLIC, TEST])
@pytest.mark.parametrize(("family", "stem"), STEMS, ids=ids(STEMS))
def test_stem_is_public_and_tested(family, stem, layer):
    assert (ROOT / layer.format(family=family, stem=stem)).is_file()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("family", TABLE)
def test_no_orphans(family, layer):
    """A file that belongs to no stem is left over, misspelt, or a helper to be listed."""
    path = ROOT / layer.format(family=family, stem="*")
    known = {layer.format(family=family, stem=stem) for stem in TABLE[family]} | HELPERS
    found = {p.relative_to(ROOT).as_posix() for p in path.parent.glob(path.name)}
    package = {p for p in found if p.endswith("/__init__.py")}
    assert found - known - package == set()


def test_helpers_exist():
    assert {path for path in HELPERS if not (ROOT / path).is_file()} == set()


def test_kinds():
    assert {TABLE[family][stem].kind for family, stem in STEMS} <= {"op", "composite"}
    for family, stem in STEMS:
        assert bool(TABLE[family][stem].schemas) == (TABLE[family][stem].kind == "op")


def test_names_are_unique():
    """torch.ops.synops is flat."""
    names = [name_of(schema) for _, _, schema in SCHEMAS]
    assert len(names) == len(set(names))
    assert all(address(name_of(schema)) == (family, stem) for family, stem, schema in SCHEMAS)
    with pytest.raises(KeyError, match="no op called"):
        address("sparse_lienar")


@pytest.mark.parametrize(
    ("family", "stem", "schema"), SCHEMAS, ids=[name_of(s) for *_, s in SCHEMAS]
)
class TestSchema:
    def test_has_no_defaults(self, family, stem, schema):
        """torch.compile drops default arguments before autograd sees them."""
        parsed = torch._C.parse_schema(f"synops::{schema}")
        assert [a.name for a in parsed.arguments if a.has_default_value()] == []

    def test_is_what_is_registered(self, family, stem, schema):
        registered = getattr(torch.ops.synops, name_of(schema)).default._schema
        assert str(registered) == str(torch._C.parse_schema(f"synops::{schema}"))

    def test_has_a_reference_in_its_file(self, family, stem, schema):
        module = importlib.import_module(f"synops._reference.{family}.{stem}")
        assert callable(getattr(module, name_of(schema)))

    def test_is_implemented_in_cpp(self, family, stem, schema):
        """Registered for the CPU by a file of its stem, not by the reference that stands in."""
        name = name_of(schema)
        table = torch._C._dispatch_dump(f"synops::{name}")
        assert re.search(r"^CPU: ", table, re.M), table
        sources = (ROOT / f"csrc/{family}").glob(f"{stem}*.cpp")
        assert any(f'm.impl("{name}"' in source.read_text() for source in sources)

    def test_has_a_fake(self, family, stem, schema):
        name = f"synops::{name_of(schema)}"
        assert torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None

    def test_has_a_vmap_rule(self, family, stem, schema):
        name = f"synops::{name_of(schema)}"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "FuncTorchBatched")

    def test_name_follows_the_stem(self, family, stem, schema):
        """git ls-files and grep for the stem find everything."""
        assert name_of(schema).startswith(stem)


@pytest.mark.parametrize(("family", "stem"), STEMS, ids=ids(STEMS))
def test_public_name_is_exported(family, stem):
    exported = importlib.import_module(f"synops.{family}").__all__
    assert stem in {name.lower() for name in exported}


def test_kernels_are_in_the_package_by_a_relative_link():
    link = ROOT / "python/synops/kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../../kernels")
