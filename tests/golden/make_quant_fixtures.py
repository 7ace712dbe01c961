#!/usr/bin/env python3
"""Makes tests/golden/quant/TYPE.bin from the golden GGUF files: make_quant_fixtures.py GOLDEN_DIR

Each file is the first rows of blk.0.ffn_down.weight of GOLDEN_DIR/gguf/quant-TYPE: their blocks as
model.gguf has them (made by llama-quantize), then their values, float32, as expected.safetensors has them
(dequantised by the Python package gguf 0.19). Both little-endian, no header: a file of b bytes
holds b / (block bytes + 4 · block length) blocks.
"""
import json
import math
import os
import struct
import sys

TYPES = ("q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs "
         "iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s tq1_0 tq2_0 mxfp4 nvfp4").split()
BLOCK = {2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
         12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136),
         16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 21: (256, 110), 22: (256, 82), 29: (256, 56),
         34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36)}
SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
TENSOR = "blk.0.ffn_down.weight"
ROWS = 4


class Reader:
    def __init__(self, data):
        self.data, self.pos = data, 0

    def take(self, fmt):
        values = struct.unpack_from("<" + fmt, self.data, self.pos)
        self.pos += struct.calcsize("<" + fmt)
        return values[0]

    def string(self):
        length = self.take("Q")
        self.pos += length
        return self.data[self.pos - length:self.pos].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, count = self.take("I"), self.take("Q")
            return [self.value(kind) for _ in range(count)]
        return self.take(SCALAR[kind])


def blocks(path):
    """The tensor's row length and the bytes of its first ROWS rows."""
    r = Reader(open(path, "rb").read())
    assert r.take("I") == 0x46554747 and r.take("I") in (2, 3)
    n_tensors, n_pairs = r.take("Q"), r.take("Q")
    pairs = {}
    for _ in range(n_pairs):
        key = r.string()
        pairs[key] = r.value(r.take("I"))
    tensors = {}
    for _ in range(n_tensors):
        name = r.string()
        shape = [r.take("Q") for _ in range(r.take("I"))]
        tensors[name] = (shape, r.take("I"), r.take("Q"))
    align = pairs.get("general.alignment", 32)
    start = math.ceil(r.pos / align) * align
    shape, kind, offset = tensors[TENSOR]
    block_len, block_bytes = BLOCK[kind]
    size = ROWS * shape[0] // block_len * block_bytes
    return shape[0], r.data[start + offset:start + offset + size]


def values(path, row_len):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    entry = json.loads(data[8:8 + length])["dequant." + TENSOR]
    assert entry["dtype"] == "F32" and entry["shape"][1] == row_len
    begin = 8 + length + entry["data_offsets"][0]
    return data[begin:begin + 4 * ROWS * row_len]


def main():
    out_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant")
    os.makedirs(out_dir, exist_ok=True)
    for name in TYPES:
        source = os.path.join(sys.argv[1], "gguf", "quant-" + name)
        row_len, raw = blocks(os.path.join(source, "model.gguf"))
        with open(os.path.join(out_dir, name + ".bin"), "wb") as f:
            f.write(raw + values(os.path.join(source, "expected.safetensors"), row_len))


if __name__ == "__main__":
    main()
