#!/usr/bin/env python3
"""Small vocabularies for machines without the full golden set.

    make_tokenizer_fixtures.py GOLDEN/tokenizers tests/golden/tokenizers

Rewrites three small vocabularies, trained for tests, as vocabulary-only GGUF files, and the ids that their
own libraries give (sentencepiece 0.2.3, tokenizers 0.22.2, tiktoken 0.14.0) as expected/NAME.jsonl:

    small-sp-bpe         SentencePiece BPE with byte fallback
    small-hf-bytelevel   byte-level BPE, tokenizer.json of the Llama 3 kind (whole words before merges)
    small-tiktoken-glm4  tiktoken ranks; the merges are recovered from them

Left out: special ids where sentencepiece does not parse control tokens, tiktoken's fixed prefix, and the
ids of invalid UTF-8 (marked ambiguous: a tokenizer may keep the bytes).
"""
import base64
import json
import pathlib
import struct
import sys

NORMAL, UNKNOWN, CONTROL, USER, _, BYTE = range(1, 7)


def gguf(path, pairs):
    """Version 3, no tensors. Values: bool, int (u32), str, lists of str, float (f32) or int (i32)."""

    def text(s):
        b = s if isinstance(s, bytes) else s.encode()
        return struct.pack("<Q", len(b)) + b

    def value(v):
        if isinstance(v, bool):
            return struct.pack("<IB", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, (str, bytes)):
            return struct.pack("<I", 8) + text(v)
        head = lambda t: struct.pack("<IIQ", 9, t, len(v))
        if isinstance(v[0], float):
            return head(6) + struct.pack(f"<{len(v)}f", *v)
        if isinstance(v[0], int):
            return head(5) + struct.pack(f"<{len(v)}i", *v)
        return head(8) + b"".join(map(text, v))

    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for k, v in pairs:
        out += text(k) + value(v)
    path.write_bytes(out)


def vocabulary(model, tokens, types, **more):
    pairs = [("general.architecture", "llama"), ("tokenizer.ggml.model", model),
             ("tokenizer.ggml.tokens", tokens), ("tokenizer.ggml.token_type", types)]
    return pairs + [("tokenizer.ggml." + k, v) for k, v in more.items()]


def varint(b, at):
    v = shift = 0
    while True:
        v |= (b[at] & 127) << shift
        shift += 7
        at += 1
        if b[at - 1] < 128:
            return v, at


def fields(b):
    """A protobuf message as (field number, value) pairs."""
    at = 0
    while at < len(b):
        key, at = varint(b, at)
        if key & 7 == 0:
            v, at = varint(b, at)
        else:
            n = {1: 8, 5: 4}.get(key & 7)
            if n is None:
                n, at = varint(b, at)
            v = b[at:at + n]
            at += n
        yield key >> 3, v


def sentencepiece(path):
    pieces = [dict(fields(v)) for k, v in fields(path.read_bytes()) if k == 1]
    return vocabulary("llama", [p[1] for p in pieces], [p.get(3, NORMAL) for p in pieces],
                      scores=[struct.unpack("<f", p[2])[0] for p in pieces],
                      bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_bos_token=True)


def hugging_face(path):
    j = json.loads(path.read_text())
    tokens = [t for t, _ in sorted(j["model"]["vocab"].items(), key=lambda p: p[1])]
    types = [NORMAL] * len(tokens)
    for t in sorted(j["added_tokens"], key=lambda t: t["id"]):
        assert t["id"] == len(tokens)
        tokens.append(t["content"])
        types.append(CONTROL if t["special"] else USER)
    return vocabulary("gpt2", tokens, types, merges=[" ".join(m) for m in j["model"]["merges"]],
                      pre="llama-bpe", bos_token_id=tokens.index("<|begin_of_text|>"),
                      eos_token_id=tokens.index("<|end_of_text|>"))


def byte_alphabet():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in own]
    return {**{b: chr(b) for b in own}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def tiktoken(path, special):
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    spell = lambda b: "".join(map(byte_alphabet().get, b))
    tokens = [spell(t) for t in sorted(ranks, key=ranks.get)]
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda p: p[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            pairs = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:]))]
            _, i = min(pairs)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append(spell(parts[0]) + " " + spell(parts[1]))
    types = [NORMAL] * len(tokens)
    for t, i in sorted(special["special_tokens"].items(), key=lambda p: p[1]):
        assert i == len(tokens)
        tokens.append(t)
        types.append(CONTROL)
    return vocabulary("gpt2", tokens, types, merges=merges, pre="chatglm-bpe",
                      eos_token_id=tokens.index("<|endoftext|>"))


def main(golden, out):
    (out / "vocab").mkdir(parents=True, exist_ok=True)
    (out / "expected").mkdir(exist_ok=True)
    cases = {}
    lines = (golden / "cases.jsonl").read_bytes()
    (out / "cases.jsonl").write_bytes(lines)
    for line in filter(None, lines.split(b"\n")):
        case = json.loads(line)
        cases[case["id"]] = case.get("text")
    tiny = golden / "tiny"
    glm = json.loads((tiny / "tiktoken-glm4.special.json").read_text())
    n_prefix = len(glm["prefix"])
    made = {"small-sp-bpe": sentencepiece(tiny / "sp-bpe.model"),
            "small-hf-bytelevel": hugging_face(tiny / "hf-bytelevel.json"),
            "small-tiktoken-glm4": tiktoken(tiny / "tiktoken-glm4.model", glm)}
    for name, pairs in made.items():
        gguf(out / "vocab" / (name + ".gguf"), pairs)
        with open(out / "expected" / (name + ".jsonl"), "w", newline="\n") as f:
            for line in (golden / "expected" / (name.replace("small", "tiny") + ".jsonl")).read_bytes().split(b"\n"):
                if not line:
                    continue
                e = json.loads(line)
                e.pop("text_from_ids", None)
                e.pop("hex_from_ids", None)
                text = cases[e["id"]]
                if text is None:
                    e.update(ambiguous=True, why="invalid-utf8")
                if name == "small-sp-bpe" and text and any(t in text for t in ("<s>", "</s>", "<unk>")):
                    e.pop("ids_special")
                if name == "small-tiktoken-glm4" and "ids_special" in e:
                    e["ids_special"] = e["ids_special"][n_prefix:]
                f.write(json.dumps(e, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
