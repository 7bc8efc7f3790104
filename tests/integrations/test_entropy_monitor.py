"""EntropyMonitor against the entropies of eager attention's maps."""

import math

import pytest
import torch

pytest.importorskip("transformers")

from no_sync import NoSync
from tiny_models import batch, entropies, pair
from transformers import TrainerControl, TrainerState

from synops.integrations import _entropy_monitor
from synops.integrations.transformers import EntropyMonitor


def rows_of(eager, inputs, field="attentions"):
    """The entropies of real rows: [(rows, H)] a layer."""
    mask = inputs["attention_mask" if field != "decoder_attentions" else "decoder_attention_mask"]
    if field == "cross_attentions":
        mask = inputs["decoder_attention_mask"]
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True)[field]
    return [entropies(m).transpose(1, 2)[mask.bool()] for m in maps]


def close(got, want):
    torch.testing.assert_close(got.double(), torch.stack(want), rtol=0, atol=5e-6)


def check(monitor, rows):
    close(monitor.mean, [r.mean(0) for r in rows])
    close(monitor.min, [r.amin(0) for r in rows])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "bert"])
def test_values(kind, side):
    eager, ours = pair(kind)
    inputs = batch(kind, side=side)
    with EntropyMonitor(ours) as monitor, torch.no_grad():
        ours(**inputs)
    rows = rows_of(eager, inputs)
    check(monitor, rows)
    assert monitor.mean.shape == (2, 4)
    assert len(monitor.names) == 2
    assert monitor.mean.dtype == torch.float32


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_encoder_decoder(kind):
    """Rows of the decoder are real by its own mask, cross attention included."""
    eager, ours = pair(kind)
    inputs = batch(kind)
    with EntropyMonitor(ours) as monitor, torch.no_grad():
        ours(**inputs)
    fields = ("encoder_attentions", "decoder_attentions", "cross_attentions")
    encoder, decoder, cross = (rows_of(eager, inputs, field) for field in fields)
    # in the model's order: self and cross attention of each layer of the decoder
    check(monitor, [*encoder, decoder[0], cross[0], decoder[1], cross[1]])


def test_a_part_is_watched_alone():
    eager, ours = pair("bart")
    inputs = batch("bart")
    with EntropyMonitor(ours.model.encoder) as monitor, torch.no_grad():
        ours(**inputs)
    check(monitor, rows_of(eager, inputs, "encoder_attentions"))


def test_calls_add_up():
    """Of different sizes, in inference mode and after, by position; reset forgets them."""
    eager, ours = pair("llama")
    first, second = batch("llama"), batch("llama", lengths=(5, 4), rows=6, side="left")
    with EntropyMonitor(ours) as monitor:
        with torch.inference_mode():
            ours(**first)
        ours(second["input_ids"], second["attention_mask"])
        pairs = zip(rows_of(eager, first), rows_of(eager, second), strict=True)
        check(monitor, [torch.cat(rows) for rows in pairs])
        monitor.reset()
        with pytest.raises(RuntimeError, match="nothing ran yet"):
            _ = monitor.mean
        ours(**second)
    check(monitor, rows_of(eager, second))


def test_decoding_counts_every_row_once():
    eager, ours = pair("llama")
    ids = batch("llama", lengths=(11, 11))["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, :3] = 0  # on the left
    with EntropyMonitor(ours) as monitor, torch.no_grad():
        cache = ours(ids[:, :6], attention_mask=mask[:, :6], use_cache=True).past_key_values
        ours(ids[:, 6:9], attention_mask=mask[:, :9], past_key_values=cache)
        for i in (9, 10):
            ours(ids[:, i : i + 1], attention_mask=mask[:, : i + 1], past_key_values=cache)
    check(monitor, rows_of(eager, {"input_ids": ids, "attention_mask": mask}))


@pytest.mark.parametrize("rows", [11, 20], ids=["4 dimensions", "of another length"])
def test_padding_known_from_the_attention_mask_of_the_layer(rows):
    """Right-padded keys that no row sees: the model's own mask says nothing about rows."""
    torch.manual_seed(0)
    entropy = torch.rand(3, 4, 11)
    real = torch.arange(11) < torch.tensor([11, 7, 9]).unsqueeze(1)
    sees = real[:, None, None].expand(3, 1, 11, 11) & torch.ones(11, 11).tril().bool()
    padding = sees if rows == 11 else torch.ones(3, rows)
    got = _entropy_monitor._real_rows(entropy, padding, sees)
    assert torch.equal(got[:, 0], real)
    added = torch.zeros(3, 1, 11, 11).masked_fill(~sees, torch.finfo(torch.float32).min)
    assert torch.equal(_entropy_monitor._real_rows(entropy, padding, added), got)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_counts_once(reentrant):
    eager, ours = pair("llama")
    inputs = batch("llama")
    plain = ours(**inputs).logits.sum()
    want = torch.autograd.grad(plain, ours.parameters())
    ours.train()
    ours.activation_checkpointing_enable({"use_reentrant": reentrant})
    ours.enable_input_require_grads()
    with EntropyMonitor(ours) as monitor:
        ours(**inputs).logits.sum().backward()
    check(monitor, rows_of(eager, inputs))
    for parameter, grad in zip(ours.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5)


def hooks(model):
    found = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    return [(list(after), list(before)) for after, before in found]


def test_nothing_waits_for_the_device():
    """Until values are read."""
    entropy, sees = torch.rand(3, 4, 11), torch.ones(3, 1, 11, 11, dtype=torch.bool)
    _, ours = pair("llama")
    with EntropyMonitor(ours) as monitor:
        for padding in (None, torch.ones(3, 11), sees, torch.ones(3, 20)):
            monitor._masks.append(padding)
            with NoSync():
                monitor.observe(ours, entropy, sees)
            monitor._end()
    torch.testing.assert_close(monitor.mean[0], entropy.mean((0, 2)))


def test_results_stay():
    _, ours = pair("llama")
    inputs = batch("llama")
    want, before = ours(**inputs).logits, hooks(ours)
    with EntropyMonitor(ours):
        assert hooks(ours) != before
        out = ours(**inputs)
    assert hooks(ours) == before
    assert torch.equal(out.logits, want)
    assert out.get("attentions") is None


def test_everything_is_restored_after_an_exception():
    _, ours = pair("llama")
    before = hooks(ours)
    monitor = EntropyMonitor(ours)
    with pytest.raises(IndexError), monitor:
        ours(torch.full((1, 4), 1_000))  # no such token
    assert hooks(ours) == before
    assert not _entropy_monitor.observers
    with pytest.raises(RuntimeError, match="nothing ran yet"):
        _ = monitor.min


def test_a_failed_forward_leaves_the_monitor_usable():
    eager, ours = pair("llama")
    inputs = batch("llama")
    with EntropyMonitor(ours) as monitor:
        with pytest.raises(IndexError):
            ours(torch.full((1, 4), 1_000))
        ours(**inputs)
    check(monitor, rows_of(eager, inputs))


def test_monitors_do_not_mix():
    """Two on one model see the same; one on another model sees that."""
    (_, a), (eager, b) = pair("mistral"), pair("llama")
    with EntropyMonitor(a) as other, EntropyMonitor(b) as outer:
        a(**batch("mistral", lengths=(4, 4), rows=4))
        with EntropyMonitor(b) as inner:
            b(**batch("llama"))
        b(**batch("llama"))
    check(inner, rows_of(eager, batch("llama")))
    check(outer, rows_of(eager, batch("llama")))
    assert float((other.mean - outer.mean).abs().max()) > 0.1


def test_log():
    _, ours = pair("llama")
    logged = []
    with EntropyMonitor(ours) as monitor:
        ours(**batch("llama"))
    monitor.log(lambda values, step: logged.append((values, step)), 3)
    ((values, step),) = logged
    name = "attention_entropy/model.layers.1.self_attn"
    assert step == 3
    assert len(values) == 6
    assert values[f"{name}/mean"] == pytest.approx(float(monitor.mean[1].mean()))
    assert values[f"{name}/lowest_head"] == pytest.approx(float(monitor.mean[1].min()))
    assert values[f"{name}/min"] == float(monitor.min[1].min())
    assert 0 < values[f"{name}/mean"] < math.log(11)


def test_trainer_events():
    """In the order in which a Trainer calls them."""
    _, ours = pair("llama")
    logged = []
    monitor = EntropyMonitor(ours, log_fn=lambda values, step: logged.append(step))
    state, control = TrainerState(global_step=5), TrainerControl()
    monitor.on_train_begin(None, state, control, model=ours)
    monitor.on_log(None, state, control, logs={})  # nothing ran yet: nothing to say
    assert logged == []
    for _ in range(2):
        ours(**batch("llama"))
        monitor.on_log(None, state, control, logs={})
    assert logged == [5, 5]
    with pytest.raises(RuntimeError, match="nothing ran yet"):  # a log starts anew
        _ = monitor.mean
    monitor.on_train_end(None, state, control)
    assert not _entropy_monitor.observers


class TestErrors:
    def test_no_module(self):
        with pytest.raises(TypeError, match="EntropyMonitor: model must be a module, got str"):
            EntropyMonitor("gpt2")

    @pytest.mark.parametrize("part", ["other", "eager", "layer"])
    def test_nothing_to_watch(self, part):
        eager, ours = pair("llama")
        parts = {"other": torch.nn.Linear(2, 2), "eager": eager, "layer": ours.model.layers[0]}
        rule = "must be or hold a transformers model with attn_implementation='synops', got"
        with pytest.raises(ValueError, match=rule), EntropyMonitor(parts[part]):
            pass
        assert not _entropy_monitor.observers

    def test_entered_twice(self):
        _, ours = pair("llama")
        with (
            EntropyMonitor(ours) as monitor,
            pytest.raises(RuntimeError, match="is active already"),
        ):
            monitor.__enter__()
        assert not _entropy_monitor.observers

    def test_different_numbers_of_heads(self):
        _, ours = pair("bart", decoder_attention_heads=2)
        with EntropyMonitor(ours) as monitor:
            ours(**batch("bart"))
        rule = r"as many heads in all layers .*got \[4, 4, 2, 2, 2, 2\]"
        with pytest.raises(ValueError, match=rule):
            _ = monitor.mean
