"""The language of the mini lab: its tokenizer, its captions, and what stays hidden from the diffusion model."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from threestudio_redream.cameras import orbit_c2w
from tools.mini.captions import VIEW_WORDS_SHARE, VIEW_WORDS_WRONG, clip_caption, diffusion_caption, prompt
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.kinds import KINDS, load_kinds
from tools.mini.pictures import PictureSet
from tools.mini.seeds import PURPOSES, held_out_pairs, instance_seed
from tools.mini.tokenizer import CONTEXT, START, STOP, learn_tokenizer, save_tokenizer
from tools.mini.train_diffusion import allowed_rows
from tools.mini.views import BACK, DISTANCES, FRONT, OVERHEAD, SIDE, VIEWS, bucket, even_cameras, web_cameras
from tools.mini.words import DESCRIPTOR_SYNONYMS, STYLES, VIEW_PHRASES, article, corpus, noun_choices

# --- tokenizer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(corpus())


def test_each_word_of_the_lab_is_one_token_of_its_own(tokenizer) -> None:
    words = list(corpus())
    ids = tokenizer(words)["input_ids"]
    assert all(len(row) == 3 and (row[0], row[2]) == (tokenizer.bos_token_id, tokenizer.eos_token_id) for row in ids)
    assert len({row[1] for row in ids}) == len(words)
    needed = {*COLORS, *DESCRIPTORS, *" ".join((*STYLES, *VIEW_PHRASES)).split()}
    needed |= {word for names in DESCRIPTOR_SYNONYMS.values() for name in names for word in name.split()}
    needed |= {word for kind in load_kinds() for noun in noun_choices(kind) for word in noun.replace("-", " ").split()}
    assert needed <= set(words)


def test_learning_again_gives_the_same_ids_whatever_the_order_of_the_words(tokenizer) -> None:
    """A resumed training run learns its tokenizer anew."""
    again = learn_tokenizer(list(corpus())[::-1])
    assert again.get_vocab() == tokenizer.get_vocab()


def test_the_markers_are_the_last_two_tokens_and_padding_is_the_end(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens([len(tokenizer) - 2, len(tokenizer) - 1]) == [START, STOP]
    row = tokenizer("a red cat", padding="max_length", max_length=CONTEXT)["input_ids"]
    assert len(row) == CONTEXT
    assert row[4:] == [tokenizer.eos_token_id] * (CONTEXT - 4)
    long = tokenizer("red " * 100, truncation=True, max_length=CONTEXT)["input_ids"]
    assert (len(long), long[-1]) == (CONTEXT, tokenizer.eos_token_id)


@pytest.mark.parametrize(
    "text", ["zqxj", "Überraschung", "猫", "🙂", "cat_42!", "it's", "\t\n", "<b>&amp;</b>", "\x00"]
)
def test_unknown_words_fall_apart_and_come_back(tokenizer, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.eos_token_id not in ids[1:-1]  # it would end the text early
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert re.sub(r"\s", "", back) == re.sub(r"\s", "", text.lower())


def test_case_and_spaces_do_not_matter(tokenizer) -> None:
    assert tokenizer("A  Red\nCAT , back VIEW")["input_ids"] == tokenizer("a red cat, back view")["input_ids"]


def test_a_word_that_is_cut_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"not single tokens: \['two words'\]"):
        learn_tokenizer(["cat", "two words"])


def test_a_saved_tokenizer_is_the_same_also_from_the_files_of_older_releases(tokenizer, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    save_tokenizer(tokenizer, tmp_path / "new")
    (tmp_path / "old").mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(tmp_path / "new" / name, tmp_path / "old" / name)
    rng = np.random.default_rng(0)
    kinds = list(load_kinds())
    texts = [
        clip_caption(rng, str(rng.choice(kinds)), str(rng.choice(DESCRIPTORS)), int(rng.integers(4)))
        for _ in range(200)
    ]
    expected = tokenizer([*texts, "zqxj 🙂"])["input_ids"]
    for folder in ("new", "old"):
        loaded = CLIPTokenizer.from_pretrained(tmp_path / folder, local_files_only=True)
        assert loaded([*texts, "zqxj 🙂"])["input_ids"] == expected
        assert (loaded.pad_token_id, loaded.model_max_length) == (tokenizer.pad_token_id, CONTEXT)


# --- captions -------------------------------------------------------------------------------------


def test_few_captions_of_the_diffusion_model_name_the_view_and_many_of_those_name_a_wrong_one() -> None:
    rng = np.random.default_rng(3)
    count, named, wrong = 20_000, 0, 0
    for index in range(count):
        view = index % len(VIEWS)
        caption = diffusion_caption(rng, "cat", "red", 0, view)
        found = re.search(r", (\w+ view)$", caption)
        named += found is not None
        wrong += found is not None and found[1] != VIEW_PHRASES[view]
    assert named / count == pytest.approx(0.15, abs=0.01)
    assert pytest.approx(0.15) == VIEW_WORDS_SHARE
    # A random view is the true one in a quarter of the cases: 0.45 * 3 / 4 of the named ones are wrong.
    assert wrong / named == pytest.approx(VIEW_WORDS_WRONG * 0.75, abs=0.035)


def test_captions_of_the_diffusion_model_name_kind_style_and_mostly_the_descriptor() -> None:
    rng = np.random.default_rng(4)
    counts: Counter[str] = Counter()
    for _ in range(4000):
        plain, photo, toy, clay = (diffusion_caption(rng, "cat", "red", style, FRONT) for style in range(4))
        assert any(noun in plain for noun in noun_choices("cat"))
        assert photo.startswith("a photo of a")
        assert toy.startswith("a toy ")
        assert clay.startswith("a clay model of a")
        counts["descriptor"] += "red " in plain
        counts["article"] += plain.startswith("a ")
        counts["name"] += "cat" in plain
    assert counts["descriptor"] / 4000 == pytest.approx(0.94, abs=0.02)
    assert counts["article"] / 4000 == pytest.approx(0.6, abs=0.04)
    assert 0.88 < counts["name"] / 4000 < 0.98


def test_captions_of_clip_fit_the_context_and_never_name_a_wrong_view(tokenizer) -> None:
    rng = np.random.default_rng(5)
    texts, named = [], Counter()
    views = {
        "front": r"\bfront\b",
        "side": r"\bside\b",
        "back": r"\b(back|rear|behind)\b",
        "overhead": r"\b(overhead|top|above)\b",
    }
    table = load_kinds()
    for kind, entry in table.items():
        for view in (FRONT, SIDE, BACK, OVERHEAD):
            for _ in range(40):
                text = clip_caption(rng, kind, DESCRIPTORS[rng.integers(len(DESCRIPTORS))], view)
                texts.append(text)
                said = {name for name, pattern in views.items() if re.search(pattern, text)}
                assert said <= {VIEWS[view]}, text
                assert entry.front or view == OVERHEAD or not said, text
                named["all"] += entry.front
                named["said"] += bool(said) and entry.front
    assert max(map(len, tokenizer(texts)["input_ids"])) <= CONTEXT
    assert named["said"] / named["all"] == pytest.approx(0.6, abs=0.03)
    words = {word for text in texts for word in re.findall(r"[a-z']+", text)}
    assert words <= {part for word in corpus() for part in re.findall(r"[a-z']+", word)}


def test_prompts_have_the_documented_form() -> None:
    assert prompt("cat", "red", view=BACK) == "a red cat, back view"
    assert prompt("cat", "orange") == "an orange cat"
    assert [prompt("cat", "red", style=style) for style in (1, 2, 3)] == [
        "a photo of a red cat",
        "a toy red cat",
        "a clay model of a red cat",
    ]
    assert (article("orange cat"), article("cat")) == ("an orange cat", "a cat")


# --- what the diffusion model never sees ----------------------------------------------------------


def pictures_of_everything() -> PictureSet:
    """One web picture and one other of each (kind, descriptor)."""
    kinds = tuple(load_kinds())
    kind, descriptor, web = (
        grid.ravel() for grid in np.meshgrid(np.arange(len(kinds)), np.arange(len(DESCRIPTORS)), [True, False])
    )
    zero = np.zeros(len(kind))
    return PictureSet(
        rgba=np.zeros((len(kind), 1, 1, 4), np.uint8),
        kind=kind,
        descriptor=descriptor,
        view=zero.astype(np.int64),
        azimuth=zero.astype(np.float32),
        elevation=zero.astype(np.float32),
        web=web.astype(bool),
        instance=zero.astype(np.int64),
        fronted=np.array([KINDS[name].front for name in kinds])[kind],
        kinds=kinds,
        descriptors=DESCRIPTORS,
    )


def test_held_out_pairs_are_never_among_the_allowed_rows_and_nothing_else_is_lost() -> None:
    pictures = pictures_of_everything()
    rows = allowed_rows(pictures)
    held = set(held_out_pairs(pictures.kinds, tuple(COLORS)))
    shown = {(pictures.kinds[pictures.kind[row]], pictures.descriptors[pictures.descriptor[row]]) for row in rows}
    every = {(kind, descriptor) for kind in pictures.kinds for descriptor in DESCRIPTORS}
    assert held
    assert shown == every - held
    assert pictures.web[rows].all()
    assert len(rows) == len(shown)


def test_one_or_two_colours_of_each_kind_are_held_out_and_each_colour_stays_known() -> None:
    kinds = tuple(load_kinds())
    assert list(kinds) == sorted(kinds)
    held = held_out_pairs(kinds, tuple(COLORS))
    assert len(set(held)) == len(held)
    by_kind, by_color = Counter(kind for kind, _ in held), Counter(color for _, color in held)
    assert set(by_kind) == set(kinds)
    assert set(by_kind.values()) == {1, 2}
    assert set(by_color) == set(COLORS)
    assert max(by_color.values()) < len(kinds) / 3


def test_seeds_of_different_purposes_never_coincide() -> None:
    seeds = {
        (purpose, kind, at): instance_seed(purpose, kind, at)
        for purpose in PURPOSES
        for kind in KINDS
        for at in range(12)
    }
    assert len(set(seeds.values())) == len(seeds)
    assert max(seeds.values()) < 2**63
    assert {purpose: seeds[purpose, "cat", 0] >> 60 for purpose in PURPOSES} == {
        "index": 0,
        "train": 1,
        "judge": 2,
        "test": 3,
        "clip": 4,
    }
    assert instance_seed("train", "cat", 3) == seeds["train", "cat", 3]
    with pytest.raises(ValueError, match="unknown purpose"):
        instance_seed("picnic", "cat", 0)


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("azimuth", "elevation", "view"),
    [
        (0, 0, FRONT),
        (30, 0, FRONT),
        (45, 0, FRONT),
        (46, 0, SIDE),
        (60, 10, SIDE),
        (90, 60, SIDE),
        (134, 0, SIDE),
        (135, 0, BACK),
        (150, 0, BACK),
        (180, -10, BACK),
        (210, 0, BACK),
        (300, 0, SIDE),
        (330, 0, FRONT),
        (-30, 0, FRONT),
        (750, 0, FRONT),
        (0, 61, OVERHEAD),
        (150, 85, OVERHEAD),
    ],
)
def test_views_have_their_documented_borders(azimuth: float, elevation: float, view: int) -> None:
    assert bucket(np.array([azimuth]), np.array([elevation])).tolist() == [view]


def test_the_front_is_seen_from_plus_x_and_the_left_side_from_plus_y() -> None:
    for azimuth, axis, view in ((0.0, (1, 0, 0), FRONT), (90.0, (0, 1, 0), SIDE), (180.0, (-1, 0, 0), BACK)):
        position = orbit_c2w(azimuth, 0.0, 2.0)[:3, 3]
        np.testing.assert_allclose(position, 2.0 * np.array(axis), atol=1e-6)
        assert int(bucket(np.array([azimuth]), np.array([0.0]))[0]) == view


def test_cameras_of_the_web_favour_the_front_and_even_ones_do_not() -> None:
    rng = np.random.default_rng(6)
    for cameras, fronts in ((even_cameras, 0.25), (web_cameras, 0.78 * 0.9 + 0.22 * 0.25)):
        azimuth, elevation, distance = cameras(rng, 40_000)
        level = elevation <= 60.0
        share = np.mean(bucket(azimuth[level], elevation[level]) == FRONT)
        assert share == pytest.approx(fronts, abs=0.01)
        assert azimuth.min() >= 0.0
        assert azimuth.max() < 360.0
        assert elevation.min() >= -10.0
        assert not ((elevation > 45.0) & (elevation < 62.0)).any()
        assert elevation.max() <= 85.0
        assert DISTANCES[0] <= distance.min() <= distance.max() <= DISTANCES[1]
    assert np.mean(even_cameras(rng, 40_000)[1] > 60) == pytest.approx(0.12, abs=0.01)
    assert np.mean(web_cameras(rng, 40_000)[1] > 60) == pytest.approx(0.04, abs=0.01)
