#!/usr/bin/env python3
"""Vocabularies in the files of other programs, for machines without the full golden set.

    make_vocabulary_fixtures.py GOLDEN/tokenizers TEXT tests/golden/tokenizers

needs tokenizers 0.22 or later, sentencepiece 0.2.3 and protobuf; TEXT is any plain text to train on. Writes

    tiny/, expected/tiny-*.jsonl  copies of some of GOLDEN's, shortened
    hf-variants.json      tokenizer.json files: a base, and for each variant what to put in its place, with the
                          ids and the text that the tokenizers library gives
    sp-variants.json      small SentencePiece models of all kinds of options (base64), with the library's ids and text
    chatglm1/, chatglm3/  folders as THUDM's models have them, around tiny SentencePiece models, with ids by
                          the rules of their tokenization_chatglm.py (written down again below)
"""
import base64
import json
import pathlib
import random
import re
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

TEXTS = [
    "Hello, World! 123 x2", "  lead and  trail  ", "a\u0301e\u0301 \ufb01 \u2460 \u00bd", "\u0130stanbul \u01c5 \u017f",
    "tab\tnew\nline\r\n\u00a0nbsp\u3000x", "<special> x <special>y z<special> ", "a<sw>b <sw> c<sw>",
    "<l> a  <l>b  <r>  c <lr>  d   <lr> e", "12\u00b2\u00b3\u00bd x\u0663", "foo_bar-baz's DON'T", "\u4f60\u597d\uff0c\u4e16\u754c\u3002123",
    "<norm>E <NORM> x", "\u2581a \u2581\u2581b", "\u180e\u200b\u2028", "A-B--C...D!?", "x x", "\U0001f9d1\u200d\U0001f680\ufe0f ok", "<s>a</s>",
    "", " ", "\n", "a", "\x00b",
]


def ids_of(tokenizer, text):
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return plain, tokenizer.encode(text, add_special_tokens=True).ids


def small_model(model, n):
    """The first n merges of a BPE model and what they need."""
    merges = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]][:n]
    made = {t for m in merges for t in (m[0], m[1], "".join(m))}
    vocab = [t for t in model["vocab"] if len(t) == 1 or t in made or re.fullmatch("<(0x..|unk|s|/s)>", t)]
    return dict(model, vocab={t: i for i, t in enumerate(vocab)}, merges=merges)


def token(content, **flags):
    usual = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return dict(usual, content=content, **flags)


ADDED = [
    token("<special>", special=True), token("<sw>", single_word=True), token("<l>", lstrip=True), token("<r>", rstrip=True),
    token("<lr>", lstrip=True, rstrip=True, special=True), token("<norm>", normalized=True), token("<s>", special=True),
    token("</s>", special=True),
]


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(kind, *steps):
    return {"type": "Sequence", kind: list(steps)}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
REGEX = lambda r: {"Regex": r}
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
VARIANTS = [
    ("bytes", "plain ByteLevel", {"pre_tokenizer": BYTE_LEVEL}),
    ("bytes", "merges as texts, ignore_merges", {"pre_tokenizer": BYTE_LEVEL, "merges": "text", "model": {"ignore_merges": True}}),
    ("bytes", "DeepSeek's steps", {"pre_tokenizer": sequence(
        "pretokenizers", split(REGEX("[\r\n]"), "Isolated"), split(REGEX("\\s?\\p{L}+"), "Isolated"), split(REGEX("\\s+$"), "Isolated"),
        {"type": "Digits", "individual_digits": True}, dict(BYTE_LEVEL, add_prefix_space=False, use_regex=False))}),
    ("bytes", "Falcon's steps", {"pre_tokenizer": sequence(
        "pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"}, dict(BYTE_LEVEL, add_prefix_space=False),
        {"type": "Digits", "individual_digits": False}, split(REGEX("[0-9][0-9][0-9]"), "Isolated"))}),
    ("bytes", "Bloom's nested class, NFC", {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(
        "pretokenizers", split(REGEX(BLOOM), "Isolated"), dict(BYTE_LEVEL, add_prefix_space=False, use_regex=False))}),
    ("bytes", "inverted split, removed", {"pre_tokenizer": sequence(
        "pretokenizers", split(REGEX("\\w+|[^\\w\\s]+"), "Removed", True), BYTE_LEVEL)}),
    ("bytes", "all behaviours", {"pre_tokenizer": sequence(
        "pretokenizers", split({"String": " "}, "MergedWithNext"), split(REGEX("[,!]"), "MergedWithPrevious"),
        split(REGEX("\\d"), "Contiguous"), BYTE_LEVEL)}),
    ("bytes", "empty matches", {"pre_tokenizer": sequence("pretokenizers", split(REGEX("x*"), "MergedWithNext"), BYTE_LEVEL)}),
    ("spaces", "Prepend and Replace", {"normalizer": sequence(
        "normalizers", {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})}),
    ("spaces", "Metaspace always, cut", {"pre_tokenizer": metaspace("always", True)}),
    ("spaces", "Metaspace first", {"pre_tokenizer": metaspace("first", False)}),
    ("spaces", "Metaspace never, no byte fallback, fused unknown", {
        "pre_tokenizer": metaspace("never", True), "model": {"byte_fallback": False, "fuse_unk": True}}),
    ("spaces", "nothing for the unknown", {"pre_tokenizer": metaspace("always", True), "model": {"byte_fallback": False, "unk_token": None}}),
    ("spaces", "marks of a word's parts", {"pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"end_of_word_suffix": "e"}}),
    ("spaces", "NFKD, lower case, no accents, Bert", {
        "normalizer": sequence("normalizers", {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}),
        "pre_tokenizer": {"type": "BertPreTokenizer"}}),
    ("spaces", "Strip, Replace by pattern, Whitespace", {
        "normalizer": sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": True},
                               {"type": "Replace", "pattern": REGEX(" {2,}"), "content": "_"}, {"type": "NFKC"}),
        "pre_tokenizer": {"type": "Whitespace"}}),
    ("spaces", "CharDelimiterSplit, NFD", {"normalizer": {"type": "NFD"}, "pre_tokenizer": {"type": "CharDelimiterSplit", "delimiter": "-"}}),
    ("unigram", "Unigram", {"pre_tokenizer": metaspace("always", True)}),
    ("unigram", "Unigram with byte fallback", {"pre_tokenizer": metaspace("always", False), "model": {"byte_fallback": True}}),
    ("unigram", "Precompiled", {"normalizer": "precompiled", "pre_tokenizer": metaspace("first", True)}),
]


def hugging_face(tiny, charsmap, out):
    models = {
        "bytes": small_model(json.loads((tiny / "hf-bytelevel.json").read_text())["model"], 60),
        "spaces": small_model(json.loads((tiny / "hf-llama2-prepend.json").read_text())["model"], 60),
    }
    score = random.Random(7)
    models["unigram"] = {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                         "vocab": [[t, round(-10 * score.random(), 3)] for t in models["spaces"]["vocab"]]}
    rows = []
    for base, name, change in VARIANTS:
        model = json.loads(json.dumps(models[base]))
        model.update(change.get("model", {}))
        if change.get("merges"):
            model["merges"] = [" ".join(m) for m in model["merges"]]
        if model.get("ignore_merges"):
            model["vocab"]["\u0120World"] = len(model["vocab"])
        known = model["vocab"] if isinstance(model["vocab"], dict) else {t: i for i, (t, _) in enumerate(model["vocab"])}
        added, n = [], len(known)
        for t in ADDED:
            added.append(dict(t, id=known.get(t["content"], n)))
            n += t["content"] not in known
        bos = next(t["id"] for t in added if t["content"] == "<s>")
        post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}}}
        decoder = dict(BYTE_LEVEL) if base == "bytes" else sequence(
            "decoders", {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0})
        normalizer = change.get("normalizer")
        if normalizer == "precompiled":
            normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
        parts = {"added_tokens": added, "normalizer": normalizer, "pre_tokenizer": change.get("pre_tokenizer"), "post_processor": post,
                 "decoder": decoder}
        tokenizer = Tokenizer.from_str(json.dumps(dict(parts, version="1.0", model=model)))
        cases = []
        for text in TEXTS:
            plain, special = ids_of(tokenizer, text)
            back = tokenizer.decode(plain, skip_special_tokens=True)
            cases.append([text, plain, special] + ([back] if back != text else []))  # no text: the same again
        # the model is told as its base and what differs
        model_change = dict(change.get("model", {}))
        for key in ("vocab", "merges"):
            if key in model and model[key] != models[base][key]:
                model_change[key] = model[key]
        rows.append({"base": base, "name": name, "model": model_change, "parts": parts, "cases": cases})
    write(out / "hf-variants.json", {"models": models, "variants": rows})


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def train(corpus, **options):
    prefix = corpus.parent / "made"
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(prefix), hard_vocab_limit=False, minloglevel=3,
                                             num_threads=1, **options)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((corpus.parent / "made.model").read_bytes())
    model.trainer_spec.ClearField("input")
    model.trainer_spec.ClearField("model_prefix")
    return model


RULES = "FB01\t66 69\n2460\t31\n41\t61\n42\t62\n3000\t20\n200B\t\n61 301\tE1\n"  # ﬁ ① A B, spaces, á
SP_VARIANTS = [
    dict(model_type="unigram"),
    dict(model_type="unigram", byte_fallback=True, remove_extra_whitespaces=False, user_defined_symbols=["ab", "<u>", "\u2581\u2581"]),
    dict(model_type="unigram", rules=True, unk_surface="?"),
    dict(model_type="unigram", add_dummy_prefix=False, remove_extra_whitespaces=False, split_by_whitespace=False),
    dict(model_type="bpe", byte_fallback=True),
    dict(model_type="bpe", rules=True, remove_extra_whitespaces=False, user_defined_symbols=["ab", "<u>", "\u2581\u2581"]),
    dict(model_type="bpe", treat_whitespace_as_suffix=True),
    dict(model_type="bpe", add_dummy_prefix=False, split_by_whitespace=False),
]


def sentence_piece(corpus, out):
    rules = corpus.parent / "rules.tsv"
    rules.write_text(RULES)
    rows, charsmap = [], b""
    texts = TEXTS + ["ab abab <u>ab", "a  b   c", " ab ", "</s> <unk>", "the   \ufb01rst \u2581 \u200b x"]
    for options in SP_VARIANTS:
        given = dict(options, vocab_size=220 + 256 * options.get("byte_fallback", False), character_coverage=0.98)
        if given.pop("rules", False):
            given["normalization_rule_tsv"] = str(rules)
        else:
            given["normalization_rule_name"] = "identity"
        model = train(corpus, **given)
        model.normalizer_spec.ClearField("normalization_rule_tsv")
        model.trainer_spec.ClearField("normalization_rule_tsv") if hasattr(model.trainer_spec, "normalization_rule_tsv") else None
        charsmap = model.normalizer_spec.precompiled_charsmap or charsmap
        data = model.SerializeToString()
        sp = sentencepiece.SentencePieceProcessor(model_proto=data)
        cases = [[t, sp.encode(t), sp.decode(sp.encode(t))] for t in texts if len(t) < 24]
        rows.append({"options": options, "model": base64.b64encode(data).decode(), "cases": cases})
    write(out / "sp-variants.json", rows)
    return charsmap


def chatglm1(corpus, out):
    """tokenization_chatglm.py of THUDM/chatglm-6b: white space becomes tokens, ids begin behind an image's."""
    blanks = ["<n>", "<|tab|>"] + [f"<|blank_{n}|>" for n in range(2, 81)]
    special = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
    model = train(corpus, model_type="unigram", vocab_size=500, user_defined_symbols=blanks + special, character_coverage=0.99,
                  normalization_rule_name="identity", remove_extra_whitespaces=False)
    folder = out / "chatglm1"
    folder.mkdir(exist_ok=True)
    (folder / "ice_text.model").write_bytes(model.SerializeToString())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    first = 20000
    write(folder / "config.json", {"model_type": "chatglm", "gmask_token_id": first + sp.piece_to_id("[gMASK]")})
    cases = []
    for text in TEXTS + ["x" + " " * 200 + "y\n\tz", "a\n  b\n      c", "\u4f60\u597d"]:
        if "<" in text:
            continue
        spelled = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        for n in range(80, 1, -1):
            spelled = spelled.replace(" " * n, f"<|blank_{n}|>")
        ids = [first + i for i in sp.encode(spelled)]
        back = sp.decode([i - first for i in ids]).replace("<n>", "\n").replace("<|tab|>", "\t")
        for n in range(2, 81):
            back = back.replace(f"<|blank_{n}|>", " " * n)
        cases.append([text, ids, ids + [first + sp.piece_to_id(t) for t in ("[gMASK]", "<sop>")], back])
    write(folder / "cases.json", cases)


def chatglm3(tiny, out):
    """tokenization_chatglm.py of THUDM/chatglm3-6b: special ids follow the vocabulary."""
    folder = out / "chatglm3"
    folder.mkdir(exist_ok=True)
    data = (tiny / "sp-bpe.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(data)
    write(folder / "config.json", {"model_type": "chatglm", "_name_or_path": "THUDM/chatglm3-6b", "eos_token_id": 2})
    sp = sentencepiece.SentencePieceProcessor(model_proto=data)
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    special = {t: sp.vocab_size() + i for i, t in enumerate(names)}
    roles = re.compile("|".join(re.escape(t) for t in names[5:]))
    prefix = [special["[gMASK]"], special["sop"]]
    cases = []
    for text in TEXTS + ["isopod sop eop", "<|user|>\n \u4f60\u597d<|assistant|>\n hi"]:
        if "<s>" in text:
            continue
        ids, last = [], 0
        for m in roles.finditer(text):
            ids += (sp.encode(text[last:m.start()]) if m.start() > last else []) + [special[m.group()]]
            last = m.end()
        ids += sp.encode(text[last:]) if last < len(text) else []
        cases.append([text, sp.encode(text), prefix + ids, sp.decode(sp.encode(text))])
    write(folder / "cases.json", cases)


def copy(golden, out):
    (out / "tiny").mkdir(exist_ok=True)
    for name in ("sp-bpe.model", "tiktoken-glm4.model", "tiktoken-glm4.special.json"):
        (out / "tiny" / name).write_bytes((golden / "tiny" / name).read_bytes())
    for name in ("tiny-sp-bpe", "tiny-tiktoken-glm4"):
        lines = [json.loads(l) for l in (golden / "expected" / (name + ".jsonl")).read_bytes().split(b"\n") if l]
        lines = [l for l in lines if len(l["ids_plain"]) < 16]
        text = "".join(json.dumps(l, ensure_ascii=False, separators=(",", ":")) + "\n" for l in lines)
        (out / "expected" / (name + ".jsonl")).write_text(text)


def main(golden, text, out):
    corpus = out / "corpus.txt"
    corpus.write_text("\n".join(text.read_text().split("\n")[:400]) + "\nab abab \u4f60\u597d\n" * 20)
    copy(golden, out)
    charsmap = sentence_piece(corpus, out)
    hugging_face(golden / "tiny", charsmap, out)
    chatglm1(corpus, out)
    chatglm3(golden / "tiny", out)
    for name in ("corpus.txt", "rules.tsv", "made.model", "made.vocab"):
        (out / name).unlink()


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
