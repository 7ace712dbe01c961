#!/usr/bin/env python3
"""Makes tests/golden/torch: checkpoints written by torch.save (torch 2.15), and what they hold, for
tests/weights/test_torch.c: make_torch_fixtures.py

Element i of tensor k (counted in the order of the dict) is k * 16 + i, modulo 2 for booleans, so that the
test knows every value without a second file.
"""
import json
import os
from collections import OrderedDict

import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch")
DTYPES = [("f32", torch.float32, (3, 4)), ("f16", torch.float16, (6,)), ("bf16", torch.bfloat16, (2, 3)),
          ("f64", torch.float64, (2, 1, 2)), ("i8", torch.int8, (5,)), ("u8", torch.uint8, (5,)),
          ("bool", torch.bool, (3,)), ("i16", torch.int16, (2, 2)), ("i32", torch.int32, (1, 3)),
          ("i64", torch.int64, (4,)), ("scalar", torch.float32, ()), ("none", torch.float32, (0, 4))]


def values(k, dtype, shape):
    n = 1
    for d in shape:
        n *= d
    v = torch.arange(k * 16, k * 16 + n)
    return (v % 2 if dtype == torch.bool else v).to(dtype).reshape(shape)


def state_dict():
    sd = OrderedDict((name, values(k, dtype, shape)) for k, (name, dtype, shape) in enumerate(DTYPES))
    sd["tied"] = sd["f32"]              # the same storage
    sd["rows"] = sd["f32"][1:3]         # a part of it
    sd["param"] = torch.nn.Parameter(values(14, torch.float32, (2, 2)))
    return sd


def save(name, value, **options):
    torch.save(value, os.path.join(OUT, name), **options)


os.makedirs(os.path.join(OUT, "folder"), exist_ok=True)
save("state.pt", state_dict())
save("protocol4.pt", state_dict(), pickle_protocol=4)
save("old.pt", state_dict(), _use_new_zipfile_serialization=False)
save("nested.pt", {"epoch": 3, "model": state_dict(), "lr": 0.5, "names": ["a", None, 2 ** 70],
                   "optimizer": {"state": {0: {"x": torch.zeros(2)}}, "steps": (1, True)}})
save("uint16.pt", {"u16": values(0, torch.int32, (3,)).to(torch.uint16)})  # _rebuild_tensor_v3
save("module.pt", torch.nn.Linear(2, 2))
save("tensor.pt", values(0, torch.float32, (3,)))
save("transposed.pt", {"ok": torch.zeros(2), "turned": values(0, torch.float32, (3, 4)).t()})
save("sliced.pt", {"cut": values(0, torch.float32, (3, 4))[:, :2]})
save("float8.pt", {"small": torch.zeros(4).to(torch.float8_e4m3fn)})
save("five.pt", {"deep": torch.zeros(1, 1, 1, 1, 2)})

shards = {"pytorch_model-00001-of-00002.bin": {"a": values(0, torch.float16, (2, 2))},
          "pytorch_model-00002-of-00002.bin": {"b": values(1, torch.float16, (3,))}}
for file, tensors in shards.items():
    save("folder/" + file, tensors)
with open(os.path.join(OUT, "folder", "pytorch_model.bin.index.json"), "w") as f:
    json.dump({"metadata": {"total_size": 14},
               "weight_map": {name: file for file, tensors in shards.items() for name in tensors}}, f)
with open(os.path.join(OUT, "folder", "config.json"), "w") as f:
    json.dump({"model_type": "test", "torch_dtype": "float16"}, f)
