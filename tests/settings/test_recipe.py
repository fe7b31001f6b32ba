from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wtal.data.catalog import DATASETS
from wtal.errors import WtalError
from wtal.platform.as_toml import toml_value
from wtal.settings.config import RunConfig
from wtal.settings.recipe import default_recipe, from_table, load_recipe, shipped, to_toml, with_overrides

# What the paper's supplement states, section by section.
SUPPLEMENT = {
    "schedule": {"warmup_epochs": 10, "b_epochs": 20, "f_epochs": 20},
    "optimizer": {"name": "adam", "lr": 1e-4},
    "batch": {"size": 64},
    "cbp": {"residual_init": None},
    "vlp": {"blocks": 2, "prompts_before": 16, "prompts_after": 16, "init_std": 0.01, "temperature": 0.07},
    "localize": {"branch": "cbp", "score": "max"},
}


@pytest.mark.parametrize("name", shipped())
def test_every_value_says_where_it_comes_from(name: str) -> None:
    recipe = load_recipe(name)
    for section in dataclasses.fields(recipe.config):
        for field in dataclasses.fields(getattr(recipe.config, section.name)):
            told = recipe.source.get(section.name, {}).get(field.name, "")
            assert told == "paper" or told.startswith("ours: "), f"{name}: {section.name}.{field.name}: {told!r}"
    for section, keys in recipe.source.items():
        assert set(keys) <= {field.name for field in dataclasses.fields(getattr(recipe.config, section))}


@pytest.mark.parametrize(("name", "snippets"), [("thumos14", 1000), ("activitynet12", 400), ("activitynet13", 400)])
def test_how_many_snippets_the_supplement_samples(name: str, snippets: int) -> None:
    assert load_recipe(name).config.batch.snippets == snippets


def test_the_supplements_numbers() -> None:
    recipe = load_recipe("paper")
    for section, values in SUPPLEMENT.items():
        for key, value in values.items():
            assert getattr(getattr(recipe.config, section), key) == value
            assert recipe.source[section][key] == "paper"


def test_the_supplements_schedule() -> None:
    recipe = load_recipe("paper")
    assert (recipe.config.schedule.kind, recipe.source["schedule"]["kind"]) == ("alternating", "paper")
    assert load_recipe("thumos14").config.schedule.kind == "auto"  # which is that where there are CLIP features


def test_what_is_called_the_papers_is_in_the_supplement() -> None:
    recipe = load_recipe("paper")
    claimed = {(s, k) for s, keys in recipe.source.items() for k, told in keys.items() if told == "paper"}
    stated = {(s, k) for s, keys in SUPPLEMENT.items() for k in keys}
    assert claimed == stated | {("schedule", "kind"), ("batch", "snippets"), ("evaluate", "tiou")}


@pytest.mark.parametrize("name", shipped())
def test_only_what_the_supplement_states_is_called_the_papers(name: str) -> None:
    recipe = load_recipe(name)
    for section, keys in recipe.source.items():
        for key, told in keys.items():
            if told == "paper" and key in SUPPLEMENT.get(section, {}):
                assert getattr(getattr(recipe.config, section), key) == SUPPLEMENT[section][key], f"{section}.{key}"


def test_a_data_set_has_a_recipe_of_its_name() -> None:
    for name in ("synthetic", *DATASETS):
        assert default_recipe(name) == name
    assert default_recipe("kitchen/dataset.toml") == "own"
    for other in ("version-2", "own", "paper", "thumos"):
        with pytest.raises(WtalError, match="expected one of activitynet12, activitynet13, synthetic, thumos14, or"):
            default_recipe(other)


def test_none_unsets_what_a_recipe_extends(tmp_path) -> None:
    assert load_recipe("thumos14").config.cbp.window is not None
    path = tmp_path / "wide.toml"
    path.write_text('extends = "thumos14"\n[cbp]\nwindow = "none"\n')
    recipe = load_recipe(path)
    assert recipe.config.cbp.window is None
    assert recipe.source["cbp"]["window"] == "ours: set by recipe wide"
    path.write_text('[cbp]\ndim = "none"\n')
    with pytest.raises(WtalError, match="expected int"):
        load_recipe(path)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example('d😀\x7f\x85\u2028\n\r"\\')
def test_any_text_reads_back(text: str) -> None:
    assert tomllib.loads(f"key = {toml_value(text)}") == {"key": text}
    assert tomllib.loads(f"key = {toml_value([text, 1.5, True])}") == {"key": [text, 1.5, True]}
    config = RunConfig()
    told = to_toml(config, {"cbp": {"dim": text}})  # a source may be anything
    assert from_table(tomllib.loads(told), RunConfig(), "printed") == config


@pytest.mark.parametrize("name", shipped())
def test_printed_configuration_reads_back(name: str) -> None:
    recipe = load_recipe(name)
    table = tomllib.loads(to_toml(recipe.config, recipe.source))
    assert from_table(table, RunConfig(), "printed") == recipe.config


def test_own_recipe_extends_and_marks_what_it_changes(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "thumos14"\n[schedule]\nrounds = 3\nb_epochs = 20\n')
    recipe = load_recipe(path)
    assert recipe.config.schedule.rounds == 3
    assert recipe.source["schedule"]["rounds"] == "ours: set by recipe mine"
    assert recipe.source["schedule"]["b_epochs"] == "paper"


def test_a_recipe_cannot_extend_itself(tmp_path) -> None:
    path, other = tmp_path / "a.toml", tmp_path / "b.toml"
    path.write_text(f"extends = '{other}'")
    other.write_text(f"extends = '{path}'")
    with pytest.raises(WtalError, match="expected a recipe that does not extend this one"):
        load_recipe(path)
    path.write_text('extends = "sub/../a.toml"')
    (tmp_path / "sub").mkdir()
    with pytest.raises(WtalError, match="expected a recipe that does not extend this one"):
        load_recipe(path)


def test_a_path_is_seen_from_the_recipes_own_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.toml").write_text("[schedule]\nrounds = 3\n")
    child = tmp_path / "sub" / "child.toml"
    child.write_text('extends = "../base.toml"\n')
    monkeypatch.chdir(tmp_path / "sub")
    assert load_recipe("child.toml").config.schedule.rounds == 3
    monkeypatch.chdir("/")
    assert load_recipe(child).config.schedule.rounds == 3
    (tmp_path / "base.toml").unlink()
    with pytest.raises(WtalError, match=r"child\.toml: extends .*/base\.toml: no such file, expected another recipe"):
        load_recipe(child)


def test_command_line_values_are_marked() -> None:
    recipe = load_recipe("thumos14")
    changed = dataclasses.replace(recipe.config, batch=dataclasses.replace(recipe.config.batch, size=8))
    source = with_overrides(recipe.source, recipe.config, changed)
    assert source["batch"]["size"] == "set on the command line"
    assert source["batch"]["snippets"] == "paper"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[schedul]\nrounds = 1", r"unknown section \[schedul\]: did you mean schedule\?"),
        ("[schedule]\nround = 1", r"unknown key schedule\.round: did you mean rounds\?"),
        ("[schedule]\nrounds = 'two'", r"schedule\.rounds = 'two': expected int"),
        ("[schedule]\nrounds = true", r"schedule\.rounds = True: expected int"),
        ("[localize]\nscore = 'best'", r"expected one of max, mean, oic"),
        ("[localize]\ntheta_loc = []", r"theta_loc = \[\]: expected a list of numbers"),
        ("schedule = 3", r"\[schedule\] must be a table"),
        ("[schedule", r"not TOML"),
        ("extends = 'nothing'", r"no recipe 'nothing'"),
        ("extends = 3", r"extends = 3: expected another recipe"),
        ("[source.locallize]\nsigma = 'x'", r"\[source\]: unknown section \[locallize\]: did you mean localize\?"),
        ("[source.localize]\nsigmaa = 'x'", r"\[source\]: unknown key localize\.sigmaa: did you mean sigma\?"),
        ("[source]\nlocalize = 3", r"\[localize\] must be a table"),
        ("source = 3", r"\[source\] must hold one table a section"),
    ],
)
def test_faults_are_named(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(WtalError, match=message):
        load_recipe(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(WtalError, match=r"nowhere\.toml"):
        load_recipe(tmp_path / "nowhere.toml")


@given(st.floats(0, exclude_min=True, allow_infinity=False), st.integers(0), st.booleans())
def test_any_number_survives_printing(lr: float, rounds: int, control: bool) -> None:
    config = from_table(
        {"optimizer": {"lr": lr}, "schedule": {"rounds": rounds, "control": control}}, RunConfig(), "here"
    )
    assert from_table(tomllib.loads(to_toml(config)), RunConfig(), "there") == config
