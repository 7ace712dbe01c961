#!/usr/bin/env python3
"""Makes tests/golden/models: tiny models that the golden data has none of, for tests/model/test_references.c:

    make_model_fixtures.py [--check GOLDEN_DIR] [NAME ...]

A folder holds config.json and model.safetensors as such models are published, and expected.safetensors, whose
tensors are those of the golden data: input_ids, logits (T, vocab), greedy_ids (16; the whole text is run again
at each step), and the same once more as short.*, where a second prompt says more. Folders that differ in
config.json only share their weights by a symbolic link.

Expected numbers are float32, from weights widened to float32, on a CPU with torch 2.15. Three references:

- transformers 5.23 with eager attention, which reads the folder as it is;
- ChatGLM-6B and ChatGLM2/3 written out below, from the published modeling_chatglm.py of each. With --check
  they are first run on GOLDEN_DIR's chatglm models, whose logits are those of that code;
- GPTQ: weights quantised below (nearest value, asymmetric zeros), packed as AutoGPTQ packs them, then
  dequantised from the packed tensors by (q - z) * scale and run as a float model by transformers.

Weights are random, from a fixed seed; seeds are tried until the best logit of every greedy step stands out by
MARGIN. Each fixture is checked to depend on what it is there for: every tensor of the file, and every change
of config.json listed as its `contrasts`, must move the logits.
"""
import argparse
import json
import math
import os
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models")
VOCAB = 64
N_GREEDY = 16
MARGIN = 0.02     # between the best two logits, at every greedy step
DEPENDS = 0.02    # by how much a tensor or a key must move some logit

torch.set_num_threads(1)
torch.set_grad_enabled(False)


# ---- Folders ---------------------------------------------------------------------------------------


def write_folder(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    path = os.path.join(folder, "model.safetensors")
    if isinstance(tensors, str):  # another fixture's
        os.symlink(os.path.join("..", tensors, "model.safetensors"), path)
    else:
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def read_folder(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return json.load(f), load_file(os.path.join(folder, "model.safetensors"))


# ---- References: a folder becomes a function from ids to logits (T, vocab) ----------------------------


def transformers_reference(folder):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    return lambda ids: model(torch.tensor([ids]), use_cache=False).logits[0]


def unpack(words, bits):
    """(rows, words) of int32: a little-endian stream of codes along each row -> (rows, 32 * words / bits)"""
    places = torch.arange(32)
    stream = (words.long()[:, :, None] >> places & 1).reshape(words.shape[0], -1, bits)
    return (stream << torch.arange(bits)).sum(-1)


def pack(codes, bits):
    stream = (codes.long()[:, :, None] >> torch.arange(bits) & 1).reshape(codes.shape[0], -1, 32)
    words = (stream << torch.arange(32)).sum(-1)
    return (words - (words >> 31 << 32)).to(torch.int32)


def dequantise(t, name, config):
    """W (out, in) = (q - z) * scale from AutoGPTQ's qweight (in * bits / 32, out), qzeros (groups, out * bits / 32),
    scales (groups, out) and g_idx (in)"""
    bits = config["quantization_config"]["bits"]
    q = unpack(t[name + ".qweight"].T, bits)
    stored_less = 0 if config["quantization_config"].get("checkpoint_format") == "gptq_v2" else 1
    z = unpack(t[name + ".qzeros"], bits) + stored_less
    group = t[name + ".g_idx"].long()
    return (q - z.T[:, group]).float() * t[name + ".scales"].float().T[:, group]


def gptq_reference(folder):
    config, t = read_folder(folder)
    plain = {}
    for key, value in t.items():
        if key.endswith(".qweight"):
            name = key[:-len(".qweight")]
            plain[name + ".weight"] = dequantise(t, name, config)
        elif key.rsplit(".", 1)[1] not in ("qzeros", "scales", "g_idx"):
            plain[key] = value.float()
    config = {k: v for k, v in config.items() if k != "quantization_config"}
    with tempfile.TemporaryDirectory() as dense:
        write_folder(dense, config, plain)
        return transformers_reference(dense)


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def attend(q, k, v, visible):
    """q (T, heads, d), k and v (S, groups, d), visible (T, S) -> (T, heads * d)"""
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return torch.einsum("hts,shd->thd", weights, v).flatten(1)


def prefix_of(t, config, name, heads, d):
    """P-Tuning v2: (pre_seq_len, layers * 2 * heads * d) -> keys and values (layers, 2, pre_seq_len, heads, d)"""
    n = config.get("pre_seq_len") or 0
    if n == 0:
        return torch.zeros(config["num_layers"], 2, 0, heads, d)
    p = t[name].reshape(n, config["num_layers"] * 2, heads, d)
    return p.permute(1, 0, 2, 3).reshape(config["num_layers"], 2, n, heads, d)


def chatglm2_reference(folder):
    """ChatGLM2 and ChatGLM3: groups of queries, RoPE on adjacent pairs of the first half of each head."""
    config, t = read_folder(folder)
    t = {k: v.float() for k, v in t.items()}
    heads, d, eps = config["num_attention_heads"], config["kv_channels"], config["layernorm_epsilon"]
    groups = config["multi_query_group_num"] if config["multi_query_attention"] else heads
    prefix = prefix_of(t, config, "transformer.prefix_encoder.embedding.weight", groups, d)
    ratio = config.get("rope_ratio", 1)
    divides = "chatglm2" in config.get("_name_or_path", "")

    def rotate(x):
        n = d // 2
        base = 10000.0 * (1 if divides else ratio)
        theta = 1.0 / base ** (torch.arange(0, n, 2).float() / n)
        angle = torch.outer(torch.arange(x.shape[0]).float() / (ratio if divides else 1), theta)[:, None]
        a, b = x[..., 0:n:2], x[..., 1:n:2]
        turned = torch.stack([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)
        return torch.cat([turned.flatten(-2), x[..., n:]], -1)

    def run(ids):
        n, n_virtual = len(ids), prefix.shape[2]
        visible = torch.cat([torch.ones(n, n_virtual), torch.ones(n, n).tril()], 1).bool()
        h = t["transformer.embedding.word_embeddings.weight"][ids]
        for l in range(config["num_layers"]):
            layer = "transformer.encoder.layers.%d." % l
            x = rms_norm(h, t[layer + "input_layernorm.weight"], eps)
            x = x @ t[layer + "self_attention.query_key_value.weight"].T
            if config["add_qkv_bias"]:
                x = x + t[layer + "self_attention.query_key_value.bias"]
            q, k, v = x.split([heads * d, groups * d, groups * d], -1)
            q = rotate(q.reshape(n, heads, d))
            k = torch.cat([prefix[l, 0], rotate(k.reshape(n, groups, d))])
            v = torch.cat([prefix[l, 1], v.reshape(n, groups, d)])
            h = h + attend(q, k, v, visible) @ t[layer + "self_attention.dense.weight"].T
            x = rms_norm(h, t[layer + "post_attention_layernorm.weight"], eps)
            gate, up = (x @ t[layer + "mlp.dense_h_to_4h.weight"].T).chunk(2, -1)
            h = h + (gate * gate.sigmoid() * up) @ t[layer + "mlp.dense_4h_to_h.weight"].T
        h = rms_norm(h, t["transformer.encoder.final_layernorm.weight"], eps)
        return h @ t["transformer.output_layer.weight"].T

    return run


def chatglm1_reference(folder):
    """ChatGLM-6B: tokens before bos see each other in both directions; two positions per token."""
    config, t = read_folder(folder)
    t = {k: v.float() for k, v in t.items()}
    dim, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layernorm_epsilon"]
    d = dim // heads
    prefix = prefix_of(t, config, "transformer.prefix_encoder.embedding.weight", heads, d)
    alpha = math.sqrt(2 * 28)  # the published blocks are never told num_layers

    def rotate(x, pos):  # half of a head
        n = x.shape[-1]
        angle = torch.outer(pos.float(), 1.0 / 10000.0 ** (torch.arange(0, n, 2).float() / n))
        cos, sin = torch.cat([angle, angle], -1).cos()[:, None], torch.cat([angle, angle], -1).sin()[:, None]
        return x * cos + torch.cat([-x[..., n // 2:], x[..., :n // 2]], -1) * sin

    def rotate_2d(x, pos, block):
        return torch.cat([rotate(x[..., :d // 2], pos), rotate(x[..., d // 2:], block)], -1)

    def linear(x, name):
        return x @ t[name + ".weight"].T + t[name + ".bias"]

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, (dim,), t[name + ".weight"], t[name + ".bias"], eps)

    def run(ids):
        n, bos = len(ids), ids.index(config["bos_token_id"])
        mask = config["mask_token_id"] if config["mask_token_id"] in ids else config["gmask_token_id"]
        pos, block = torch.arange(n), torch.zeros(n, dtype=torch.long)
        pos[bos:] = ids.index(mask)
        block[bos:] = torch.arange(1, n - bos + 1)
        visible = torch.ones(n, n).tril()
        visible[:, :bos] = 1
        visible = torch.cat([torch.ones(n, prefix.shape[2]), visible], 1).bool()
        h = t["transformer.word_embeddings.weight"][ids]
        for l in range(config["num_layers"]):
            layer = "transformer.layers.%d." % l
            x = norm(h, layer + "input_layernorm")
            q, k, v = linear(x, layer + "attention.query_key_value").reshape(n, heads, 3 * d).split(d, -1)
            q = rotate_2d(q, pos, block)
            k = torch.cat([prefix[l, 0], rotate_2d(k, pos, block)])
            v = torch.cat([prefix[l, 1], v])
            h = alpha * x + linear(attend(q, k, v, visible), layer + "attention.dense")
            x = norm(h, layer + "post_attention_layernorm")
            wide = linear(x, layer + "mlp.dense_h_to_4h")
            wide = 0.5 * wide * (1 + torch.tanh(0.7978845608028654 * wide * (1 + 0.044715 * wide * wide)))
            h = alpha * x + linear(wide, layer + "mlp.dense_4h_to_h")
        return norm(h, "transformer.final_layernorm") @ t["lm_head.weight"].T

    return run


# ---- Random weights ----------------------------------------------------------------------------------


def random_tensors(shapes, seed, dtype, gain):
    """Matrices keep the size of what they multiply, times the gain whose key is in their name; norms' weights
    are around 1."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for name in sorted(shapes):
        shape = shapes[name]
        x = torch.randn(shape, generator=g)
        factor = math.prod([v for k, v in gain.items() if k in name])
        if "norm" in name and name.endswith("weight"):
            x = 1 + 0.3 * x
        elif len(shape) == 1:
            x = 0.3 * x
        elif "embed" not in name and "prefix" not in name:
            x = x * factor * 1.2 / math.sqrt(shape[-1])
        else:
            x = x * factor
        out[name] = x.to(dtype)
    return out


def transformers_shapes(config):
    """Names and shapes as save_pretrained writes them."""
    from transformers import AutoConfig, AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        model.save_pretrained(folder)
        shapes = {k: tuple(v.shape) for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
    return shapes


def chatglm2_shapes(c):
    dim, kv = c["hidden_size"], c["multi_query_group_num"] * c["kv_channels"]
    q = c["num_attention_heads"] * c["kv_channels"]
    shapes = {"transformer.embedding.word_embeddings.weight": (c["padded_vocab_size"], dim),
              "transformer.output_layer.weight": (c["padded_vocab_size"], dim),
              "transformer.encoder.final_layernorm.weight": (dim,)}
    for l in range(c["num_layers"]):
        layer = "transformer.encoder.layers.%d." % l
        shapes.update({layer + "input_layernorm.weight": (dim,),
                       layer + "self_attention.query_key_value.weight": (q + 2 * kv, dim),
                       layer + "self_attention.query_key_value.bias": (q + 2 * kv,),
                       layer + "self_attention.dense.weight": (dim, q),
                       layer + "post_attention_layernorm.weight": (dim,),
                       layer + "mlp.dense_h_to_4h.weight": (2 * c["ffn_hidden_size"], dim),
                       layer + "mlp.dense_4h_to_h.weight": (dim, c["ffn_hidden_size"])})
    if c.get("pre_seq_len"):
        shapes["transformer.prefix_encoder.embedding.weight"] = (c["pre_seq_len"], c["num_layers"] * 2 * kv)
    return shapes


def chatglm1_shapes(c):
    dim, inner = c["hidden_size"], c["inner_hidden_size"]
    shapes = {"transformer.word_embeddings.weight": (c["vocab_size"], dim), "lm_head.weight": (c["vocab_size"], dim),
              "transformer.final_layernorm.weight": (dim,), "transformer.final_layernorm.bias": (dim,)}
    for l in range(c["num_layers"]):
        for name, rows, cols in [("attention.query_key_value", 3 * dim, dim), ("attention.dense", dim, dim),
                                 ("mlp.dense_h_to_4h", inner, dim), ("mlp.dense_4h_to_h", dim, inner),
                                 ("input_layernorm", dim, 0), ("post_attention_layernorm", dim, 0)]:
            name = "transformer.layers.%d.%s." % (l, name)
            shapes[name + "weight"] = (rows, cols) if cols else (rows,)
            shapes[name + "bias"] = (rows,)
    if c.get("pre_seq_len"):
        shapes["transformer.prefix_encoder.embedding.weight"] = (c["pre_seq_len"], c["num_layers"] * 2 * dim)
    return shapes


# ---- GPTQ --------------------------------------------------------------------------------------------


def quantise(weight, config, seed):
    """The nearest codes of each group of columns; with desc_act the groups are of columns out of order, as
    they are where AutoGPTQ has sorted them by their activations."""
    q = config["quantization_config"]
    bits, cols = q["bits"], weight.shape[1]
    maxq = 2 ** bits - 1
    group_len = q["group_size"] if q["group_size"] > 0 else cols
    order = torch.arange(cols)
    if q["desc_act"]:
        order = torch.randperm(cols, generator=torch.Generator().manual_seed(seed))
    g_idx = torch.empty(cols, dtype=torch.int32)
    g_idx[order] = (torch.arange(cols) // group_len).int()
    version1 = q.get("checkpoint_format") != "gptq_v2"
    scales, zeros = [], []
    for g in range(cols // group_len):
        part = weight[:, g_idx == g].float()
        low, high = part.min(1).values.clamp(max=0), part.max(1).values.clamp(min=0)
        scale = ((high - low) / maxq).clamp(min=1e-4).half()
        # Version 1 stores a zero less 1: 0 would be -1, which AutoGPTQ's packing cannot hold.
        zeros.append((-low / scale.float()).round().clamp(1 if version1 else 0, maxq))
        scales.append(scale)
    scales, zeros = torch.stack(scales), torch.stack(zeros)
    group = g_idx.long()
    codes = (weight.float() / scales.float().T[:, group] + zeros.T[:, group]).round().clamp(0, maxq)
    return {"qweight": pack(codes, bits).T, "qzeros": pack(zeros - (1 if version1 else 0), bits),
            "scales": scales, "g_idx": g_idx}


def gptq_tensors(config, seed, gain, names):
    plain = {k: v for k, v in config.items() if k != "quantization_config"}
    tensors = random_tensors(transformers_shapes(plain), seed, torch.float16, gain)
    out = {}
    for i, (name, value) in enumerate(sorted(tensors.items())):
        stem = name[:-len(".weight")]
        if stem.rsplit(".", 1)[1] not in names if "." in stem else stem not in names:
            out[name] = value
            continue
        # q and k have one order, v another: an engine may not take one for the other.
        seed_of = {"q_proj": 1, "k_proj": 1}.get(stem.rsplit(".", 1)[-1], 100 + i)
        for part, t in quantise(value, config, 1000 * seed + seed_of).items():
            out[stem + "." + part] = t
    return out


# ---- The fixtures ------------------------------------------------------------------------------------

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}

GEMMA = {
    "attention_bias": False, "hidden_size": 32, "intermediate_size": 24, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "vocab_size": VOCAB, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}

QWEN = {
    "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}

CHATGLM2 = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True, "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True, "ffn_hidden_size": 24, "fp32_residual_connection": False,
    "hidden_size": 32, "kv_channels": 16, "layernorm_epsilon": 1e-5, "multi_query_attention": True,
    "multi_query_group_num": 2, "num_attention_heads": 4, "num_layers": 2, "original_rope": True,
    "padded_vocab_size": VOCAB, "post_layer_norm": True, "rmsnorm": True, "seq_length": 256,
    "tie_word_embeddings": False, "torch_dtype": "float16", "eos_token_id": 2, "pad_token_id": 0,
}

CHATGLM1 = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "bos_token_id": 62, "eos_token_id": 63,
    "gmask_token_id": 61, "mask_token_id": 60, "pad_token_id": 3, "hidden_size": 32, "inner_hidden_size": 48,
    "layernorm_epsilon": 1e-5, "max_sequence_length": 256, "num_attention_heads": 2, "num_layers": 2,
    "position_encoding_2d": True, "torch_dtype": "float16", "use_cache": True, "vocab_size": VOCAB,
}


def gptq(bits, group_size, desc_act, **more):
    return {"bits": bits, "group_size": group_size, "damp_percent": 0.01, "desc_act": desc_act,
            "static_groups": False, "sym": False, "true_sequential": True, "quant_method": "gptq", **more}


def yarn(**more):
    return {**LLAMA, "tie_word_embeddings": True, "max_position_embeddings": 256, "rope_theta": 100.0,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **more}}


LINEARS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
SHARP = {"q_proj": 2, "k_proj": 2, "qkv_proj": 1.5, "query_key_value": 1.5}  # attention that is not flat

# an output matrix that is the embedding would else favour what was said last
TIED = {**SHARP, "embed": 0.2}

# config; what reads it; `gain` of the weights; `contrasts`: changes of config.json that change the logits;
# `prompt`: its length, or its ids; `short`: that of a second one; `weights`: the fixture that has them
FIXTURES = {
    # longrope, on three quarters of each head (Phi-4-mini); the short prompt's greedy text grows past 16
    "phi3-longrope": {
        "config": {
            "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu", "hidden_size": 32,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 128, "original_max_position_embeddings": 16, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "sliding_window": None,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6, 1.9, 2.2],
                             "long_factor": [1.2, 2.5, 4.0, 6.5, 9.0, 14.0]},
            "tie_word_embeddings": False, "vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 0, "torch_dtype": "bfloat16"},
        "gain": SHARP, "prompt": 24, "short": 10,
        "contrasts": [{"rope_scaling": None}, {"partial_rotary_factor": 1.0, "rope_scaling": None},
                      {"original_max_position_embeddings": 64}, {"max_position_embeddings": 64}],
    },
    # scores and logits capped, windows on every second layer, norms of what is added
    "gemma2": {
        "config": {
            **GEMMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "num_hidden_layers": 3,
            "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
            "attn_logit_softcapping": 2.5, "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 24,
            "sliding_window": 6},
        "gain": {"embed": 0.25}, "prompt": 24,
        "contrasts": [{"attn_logit_softcapping": None}, {"final_logit_softcapping": None},
                      {"query_pre_attn_scalar": 16}, {"sliding_window": 256}],
    },
    # a base for windowed layers, another and a scaling for the others (Gemma 3 4B and up), in transformers 5
    # one object for each; a cap of the logits, which no published Gemma 3 has
    "gemma3-scaled": {
        "config": {
            **GEMMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 2,
            "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 5.0,
            "query_pre_attn_scalar": 24, "rope_local_base_freq": 500.0, "rope_theta": 20000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 6,
            "sliding_window_pattern": 2},
        "gain": {"embed": 0.25}, "prompt": 20,
        "contrasts": [{"rope_scaling": None}, {"rope_theta": 1000000.0}, {"rope_local_base_freq": 10000.0},
                      {"sliding_window_pattern": 6}, {"final_logit_softcapping": None}],
    },
    # the published files of Gemma 1 say both, and mean the second
    "gemma-hidden-activation": {
        "config": {
            **GEMMA, "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "num_hidden_layers": 2,
            "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
        "gain": {"embed": 0.25}, "prompt": 20,
        "contrasts": [{"hidden_act": "silu", "hidden_activation": "silu"}],
    },
    # layers from max_window_layers on have the window
    "qwen2-window": {
        "config": {
            **QWEN, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 3,
            "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        "gain": TIED, "prompt": 24,
        "contrasts": [{"use_sliding_window": False}, {"max_window_layers": 0}, {"max_window_layers": 2},
                      {"sliding_window": 6}],
    },
    # the chosen experts' weights are not divided by their sum; windows are every layer's, for this class has no
    # max_window_layers
    "qwen3-moe-plain": {
        "config": {
            **QWEN, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 2,
            "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 16, "mlp_only_layers": [],
            "moe_intermediate_size": 16, "norm_topk_prob": False, "num_attention_heads": 2, "num_experts": 4,
            "num_experts_per_tok": 2, "num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 6,
            "max_window_layers": 1},
        "gain": TIED, "prompt": 20,
        "contrasts": [{"norm_topk_prob": True}, {"num_experts_per_tok": 1}, {"use_sliding_window": False}],
    },
    # YaRN, every key of it
    "llama-yarn-betas": {
        "config": yarn(beta_fast=4.0, beta_slow=0.25, attention_factor=0.8),
        "gain": TIED, "prompt": 24,
        "contrasts": [{"rope_scaling": yarn()["rope_scaling"]},
                      {"rope_scaling": yarn(beta_fast=4.0, beta_slow=0.25)["rope_scaling"]},
                      {"rope_scaling": yarn(beta_fast=4.0, attention_factor=0.8)["rope_scaling"]},
                      {"rope_scaling": yarn(beta_slow=0.25, attention_factor=0.8)["rope_scaling"]}],
    },
    "llama-yarn-mscale": {
        "config": yarn(mscale=0.6, mscale_all_dim=1.4),
        "weights": "llama-yarn-betas", "prompt": 24,
        "contrasts": [{"rope_scaling": yarn()["rope_scaling"]},
                      {"rope_scaling": yarn(mscale=0.6, mscale_all_dim=1.0)["rope_scaling"]}],
    },
    # tied, and the output matrix is in the file all the same
    "llama-tied-twice": {
        "config": {**LLAMA, "tie_word_embeddings": True, "num_hidden_layers": 1}, "twice": True,
        "gain": TIED, "prompt": 16, "contrasts": [],
    },
    # positions divided by rope_ratio (ChatGLM2-6B-32K)
    "chatglm2-32k": {
        "config": {**CHATGLM2, "_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 4},
        "gain": SHARP, "prompt": 24,
        "contrasts": [{"rope_ratio": 1}, {"_name_or_path": "THUDM/chatglm3-6b-32k"}],
    },
    # the base multiplied by it (ChatGLM3-6B-32K; GLM-4-9B)
    "chatglm3-32k": {
        "config": {**CHATGLM2, "_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 50},
        "weights": "chatglm2-32k", "prompt": 24,
        "contrasts": [{"rope_ratio": 1}, {"_name_or_path": "THUDM/chatglm2-6b-32k"}],
    },
    # P-Tuning v2: keys and values in front, not rotated, seen by all; positions begin behind them, at 0
    "chatglm2-ptuning": {
        "config": {**CHATGLM2, "pre_seq_len": 5, "prefix_projection": False},
        "gain": SHARP, "prompt": 20, "contrasts": [],
    },
    "chatglm1-ptuning": {
        "config": {**CHATGLM1, "pre_seq_len": 5, "prefix_projection": False},
        # the residual stream goes on seven times its normed self: what is added must be large to be seen
        "gain": {**SHARP, "dense": 4, "query_key_value": 2, "prefix": 2},
        "prompt": [5, 17, 40, 23, 59, 8, 27, 30, 55, 14, 61, 62, 33, 50, 12, 49],
        "short": [19, 44, 60, 21, 6, 28, 62], "contrasts": [],
    },
    # GPTQ: all widths of a code that golden has not; zeros are not in the middle
    "llama-gptq-2bit": {
        "config": {**LLAMA, "hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": True,
                   "torch_dtype": "float16", "quantization_config": gptq(2, 32, False)},
        "gain": TIED, "prompt": 20, "contrasts": [], "quantised": LINEARS,
    },
    # zeros stored as they are; one group a row; the output matrix quantised, too
    "llama-gptq-3bit-v2": {
        "config": {**LLAMA, "hidden_size": 64, "intermediate_size": 96, "torch_dtype": "float16",
                   "quantization_config": gptq(3, -1, False, lm_head=True, checkpoint_format="gptq_v2")},
        "gain": SHARP, "prompt": 20, "contrasts": [], "quantised": LINEARS + ["lm_head"],
    },
    # columns of a group are anywhere, and v's are not where q's and k's are
    "llama-gptq-8bit-desc-act": {
        "config": {**LLAMA, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
                   "tie_word_embeddings": True, "torch_dtype": "float16",
                   "quantization_config": gptq(8, 32, True, checkpoint_format="gptq")},
        "gain": TIED, "prompt": 20, "contrasts": [], "quantised": LINEARS,
    },
}

# Its "rope_parameters" for "rope_scaling" and "rope_theta", its "layer_types"
REWRITTEN = {"phi3-longrope-5": "phi3-longrope", "gemma2-5": "gemma2", "gemma3-scaled-5": "gemma3-scaled",
             "qwen2-window-5": "qwen2-window", "llama-yarn-betas-5": "llama-yarn-betas"}


def reference_of(config):
    if "quantization_config" in config:
        return gptq_reference
    if config["model_type"] != "chatglm":
        return transformers_reference
    return chatglm1_reference if "inner_hidden_size" in config else chatglm2_reference


def make_tensors(f, config, seed):
    gain, dtype = f.get("gain", {}), getattr(torch, config["torch_dtype"])
    if "quantised" in f:
        return gptq_tensors(config, seed, gain, f["quantised"])
    reference = reference_of(config)
    shapes = {chatglm1_reference: chatglm1_shapes, chatglm2_reference: chatglm2_shapes,
              transformers_reference: transformers_shapes}[reference](config)
    tensors = random_tensors(shapes, seed, dtype, gain)
    if f.get("twice"):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def prompt_ids(f, key, seed):
    p = f[key]
    if isinstance(p, list):
        return p
    g = torch.Generator().manual_seed(seed * 7 + len(key))
    return torch.randint(3, VOCAB, (p,), generator=g).tolist()


def greedy(run, ids):
    """The continuation, and the smallest margin on the way."""
    text, margin = list(ids), math.inf
    for _ in range(N_GREEDY):
        best = run(text)[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        text.append(best.indices[0].item())
        if margin < MARGIN:
            break
    return text[len(ids):], margin


def moved(folder, config, tensors, run, ids):
    """How far the logits of a changed folder are from those of run, at most."""
    with tempfile.TemporaryDirectory() as changed:
        if isinstance(tensors, str):
            tensors = read_folder(folder)[1]
        write_folder(changed, config, tensors)
        return (reference_of(config)(changed)(ids) - run(ids)).abs().max().item()


def weakest_part(folder, f, run, ids):
    """The change that moves the logits least, and by how much: of config.json, or of one tensor."""
    config, tensors = read_folder(folder)
    weakest = (math.inf, "")
    for change in f["contrasts"]:
        weakest = min(weakest, (moved(folder, {**config, **change}, tensors, run, ids), str(change)))
    for name in tensors if "weights" not in f else ():
        if f.get("twice") and name in ("lm_head.weight", "model.embed_tokens.weight"):
            continue  # they change together
        t = tensors[name]
        if t.dtype == torch.int32 or "norm" in name or name.endswith(".scales"):
            changed = t.roll(1, -1)
            if name.endswith("g_idx") and torch.equal(changed, t):
                continue  # one group
        else:
            changed = torch.zeros_like(t)
        weakest = min(weakest, (moved(folder, config, {**tensors, name: changed}, run, ids), name))
    return weakest


def expect(f, run, seed):
    """expected.safetensors, and the smallest margin of its greedy steps."""
    expected, worst = {}, math.inf
    for key, prefix in (("prompt", ""), ("short", "short.")):
        if key not in f:
            continue
        ids = prompt_ids(f, key, seed)
        text, margin = greedy(run, ids)
        worst = min(worst, margin if len(set(text)) >= 5 else 0)
        expected[prefix + "input_ids"] = torch.tensor(ids, dtype=torch.int32)
        expected[prefix + "logits"] = run(ids).contiguous()
        expected[prefix + "greedy_ids"] = torch.tensor(text, dtype=torch.int32)
    return expected, worst


def make(name):
    f = FIXTURES[name]
    folder = os.path.join(OUT, name)
    for seed in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        write_folder(folder, f["config"], f.get("weights") or make_tensors(f, f["config"], seed))
        run = reference_of(f["config"])(folder)
        expected, margin = expect(f, run, seed)
        if margin < MARGIN:
            continue
        weakest = weakest_part(folder, f, run, expected["input_ids"].tolist())
        if weakest[0] >= DEPENDS:
            break
    else:
        sys.exit("%s: no seed will do" % name)
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    print("%-26s seed %d, margin %.3f, spread %.2f, weakest %.3f %s" % (
        name, seed, margin, expected["logits"].std(), *weakest))


def make_rewritten(name, base):
    """The same model, its config.json as transformers 5 writes it: weights and expectation are base's."""
    from transformers import AutoConfig
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    AutoConfig.from_pretrained(os.path.join(OUT, base)).save_pretrained(folder)
    for file in ("model.safetensors", "expected.safetensors"):
        os.symlink(os.path.join("..", base, file), os.path.join(folder, file))
    expected = load_file(os.path.join(folder, "expected.safetensors"))
    run = transformers_reference(folder)
    for prefix in ("", "short."):
        if prefix + "logits" in expected and not torch.equal(
                run(expected[prefix + "input_ids"].tolist()), expected[prefix + "logits"]):
            sys.exit("%s is not the model that %s is" % (name, base))
    print("%-26s is %s" % (name, base))


def check_golden(golden):
    for name, reference in (("chatglm1", chatglm1_reference), ("chatglm2", chatglm2_reference),
                            ("chatglm3", chatglm2_reference)):
        folder = os.path.join(golden, "models", name)
        expected = load_file(os.path.join(folder, "expected.safetensors"))
        run = reference(folder)
        for prefix in ("", "chat.", "mask."):
            if prefix + "logits" in expected:
                ids = expected[prefix + "input_ids"].tolist()
                error = (run(ids) - expected[prefix + "logits"]).abs().max().item()
                print("%-10s %-6s largest error %.2e" % (name, prefix, error))
                if not error < 1e-5:
                    sys.exit(1)
    folder = os.path.join(golden, "models", "llama-gptq-desc-act")
    expected = load_file(os.path.join(folder, "expected.safetensors"))
    error = (gptq_reference(folder)(expected["input_ids"].tolist()) - expected["logits"]).abs().max().item()
    print("%-17s largest error %.2e" % ("gptq", error))
    if not error < 1e-5:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", metavar="GOLDEN_DIR")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if args.check:
        check_golden(args.check)
    for fixture in args.names or [*FIXTURES, *REWRITTEN]:
        if fixture in REWRITTEN:
            make_rewritten(fixture, REWRITTEN[fixture])
        else:
            make(fixture)
