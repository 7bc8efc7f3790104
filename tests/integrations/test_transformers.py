"""attn_implementation="synops" against "eager": the same model, with entropies for maps."""

import pytest
import torch

pytest.importorskip("transformers")

from tiny_models import CONFIGS, ENCODER_DECODERS, batch, entropies, pair

from synops.entropy import attention_with_stats
from synops.integrations import transformers as synops_transformers

REFUSED = ("gemma2", "gpt_oss", "bloom")
RUNS = [kind for kind in CONFIGS if kind not in REFUSED]
DECODERS = ("llama", "mistral", "gpt2")
FIELDS = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


def real(inputs, field="logits"):
    """Which rows are no padding: (B, N)."""
    decoder = inputs.get("decoder_attention_mask", inputs["attention_mask"])
    return (inputs["attention_mask"] if field == "encoder_attentions" else decoder).bool()


def close(got, want):
    """Both models compute in float32: a few ulps of the largest."""
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-6 * float(want.abs().max()))


@pytest.mark.parametrize("side", ["right", "left"])
class TestAgainstEager:
    @pytest.mark.parametrize("kind", RUNS)
    def test_logits_and_entropies(self, kind, side):
        eager, ours = pair(kind)
        inputs = batch(kind, side=side)
        with torch.no_grad():
            want = eager(**inputs, output_attentions=True)
            got = ours(**inputs, output_attentions=True)
        close(got.logits[real(inputs)], want.logits[real(inputs)])
        fields = [name for name in FIELDS if want.get(name)]
        assert len(fields) == (3 if kind in ENCODER_DECODERS else 1)
        for name in fields:
            assert len(got[name]) == len(want[name]) == 2
            for entropy, maps in zip(got[name], want[name], strict=True):
                assert entropy.shape == maps.shape[:3]
                rows = real(inputs, name)
                found, exact = (t.transpose(1, 2)[rows] for t in (entropy, entropies(maps)))
                assert 0.3 < float(exact.mean()) < 0.99 * torch.log(torch.tensor(11.0))
                torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-6)

    @pytest.mark.parametrize("kind", [kind for kind in RUNS if kind != "t5"])
    def test_gradients(self, kind, side):
        models, inputs = pair(kind), batch(kind, side=side)
        for model in models:
            model.train()
            logits = model(**inputs).logits[real(inputs)]
            logits.log_softmax(-1)[:, 3].sum().backward()
        eager, ours = models
        compared = 0
        for (name, want), got in zip(eager.named_parameters(), ours.parameters(), strict=True):
            if want.grad is not None and "k_proj.bias" not in name and "key.bias" not in name:
                close(got.grad, want.grad)  # a bias of all keys changes nothing: its gradient is 0
                compared += 1
        assert compared > 10


def test_padded_rows_without_keys_are_0():
    _, ours = pair("llama")
    inputs = batch("llama", side="left")
    with torch.no_grad():
        out = ours(**inputs, output_attentions=True)
    assert out.logits.isfinite().all()
    for entropy in out.attentions:
        assert not entropy.transpose(1, 2)[~real(inputs)].any()


def test_entropies_have_gradients():
    """Those of a loss on the entropies, against eager's maps."""
    grads = []
    for model, reduce in zip(pair("llama"), (entropies, torch.Tensor.double), strict=True):
        inputs = batch("llama")
        out = model(**inputs, output_attentions=True)
        loss = sum(reduce(a).transpose(1, 2)[real(inputs)].sum() for a in out.attentions)
        loss.backward()
        grads.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    close(grads[1], grads[0])
    assert float(grads[0].abs().max()) > 1e-2


@pytest.fixture
def asked(monkeypatch):
    """The statistics of each call of the kernel, and the heads of its queries and keys."""
    seen = []

    def spy(*args, stats, **kwargs):
        seen.append((stats, args[0].shape[1], args[1].shape[1]))
        return attention_with_stats(*args, stats=stats, **kwargs)

    monkeypatch.setattr(synops_transformers, "attention_with_stats", spy)
    return seen


def test_nothing_is_computed_that_nobody_asked_for(asked):
    """And keys and values of grouped queries are not repeated."""
    _, ours = pair("llama")
    with torch.no_grad():
        assert ours(**batch("llama")).get("attentions") is None
        assert asked == [((), 4, 2)] * 2
        ours(**batch("llama"), output_attentions=True)
    assert asked[2:] == [(("entropy",), 4, 2)] * 2


@pytest.mark.parametrize(
    ("kind", "cache"),
    [(kind, "dynamic") for kind in (*DECODERS, *ENCODER_DECODERS)]
    + [(kind, "static") for kind in DECODERS],
)
def test_generate(kind, cache):
    """Greedy, from prompts padded on the left: as many steps over caches, the same tokens."""
    eager, ours = pair(kind)
    inputs = {k: v for k, v in batch(kind, side="left").items() if not k.startswith("decoder")}
    options = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
    options |= {"cache_implementation": cache} if cache == "static" else {}
    options |= {"return_dict_in_generate": True, "output_logits": True, "disable_compile": True}
    want, got = (model.generate(**inputs, **options) for model in (eager, ours))
    assert torch.equal(got.sequences, want.sequences)
    close(torch.stack(got.logits), torch.stack(want.logits))


@pytest.mark.parametrize("kind", DECODERS)
def test_continuing_a_cache(kind):
    """Several rows, more keys: rows see what is theirs from the bottom right."""
    eager, ours = pair(kind)
    ids = batch(kind, lengths=(11, 11))["input_ids"]
    with torch.no_grad():
        whole = entropies(eager(ids, output_attentions=True).attentions[0])
        first = ours(ids[:, :6], use_cache=True)
        rest = ours(ids[:, 6:], past_key_values=first.past_key_values, output_attentions=True)
        close(torch.cat((first.logits, rest.logits), 1), eager(ids).logits)
    torch.testing.assert_close(rest.attentions[0].double(), whole[:, :, 6:], rtol=0, atol=5e-6)


def test_bfloat16():
    _, ours = pair("llama")
    inputs = batch("llama")
    with torch.no_grad():
        want = ours(**inputs).logits
        out = ours.bfloat16()(**inputs, output_attentions=True)
    assert out.attentions[0].dtype == torch.float32
    error = (out.logits.float() - want)[real(inputs)].abs().max() / want.abs().max()
    assert 1e-4 < float(error) < 0.05


def test_register_twice_changes_nothing():
    for _ in range(2):
        _, ours = pair("bert")
    assert ours(**batch("bert")).logits.isfinite().all()


class TestRefused:
    """What the kernels do not know is an error, not other numbers."""

    @pytest.mark.parametrize(("kind", "says"), [("gemma2", "softcap"), ("gpt_oss", "s_aux")])
    def test_of_the_model(self, kind, says):
        _, ours = pair(kind)
        with pytest.raises(ValueError, match=f"synops attention: {says} must be None.*'eager'"):
            ours(**batch(kind))

    @pytest.mark.parametrize("padded", [True, False])
    def test_attention_of_its_own(self, padded):
        """It would be silently wrong: a bool mask is added to its scores."""
        _, ours = pair("bloom")
        rule = r"model must take its attention from AttentionInterface.*got Bloom"
        inputs = batch("bloom", lengths=(11, 7) if padded else (11, 11))
        with pytest.raises(ValueError, match=rule):
            ours(**inputs)

    def test_dropout(self):
        _, ours = pair("bert", attention_probs_dropout_prob=0.25)
        ours(**batch("bert"))
        with pytest.raises(ValueError, match=r"synops attention: dropout must be 0.*got 0\.25"):
            ours.train()(**batch("bert"))

    def test_position_bias(self):
        _, ours = pair("t5")
        with pytest.raises(NotImplementedError, match=r"position_bias has no gradient.*'eager'"):
            ours(**batch("t5"))


@pytest.mark.slow
def test_compile():
    """One graph for any length; entropies too."""
    _, ours = pair("llama", num_hidden_layers=1)
    compiled = torch.compile(ours, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (11, 13):
        inputs = batch("llama", lengths=(rows, 7), rows=rows)
        with torch.no_grad():
            want = ours(**inputs, output_attentions=True)
            got = compiled(**inputs, output_attentions=True)
        close(got.logits, want.logits)
        close(got.attentions[0], want.attentions[0])
