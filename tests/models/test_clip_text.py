"""Prompts through open_clip's text encoder, against its own ``encode_text``; weights from files."""

import copy
import logging
import pickle
import warnings
import zipfile

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from wtal.errors import WtalError
from wtal.models import load_clip_text
from wtal.models.clip_text import PromptedCLIPText
from wtal.models.load_clip_text import load_clip
from wtal.models.vlp import VLP
from wtal.models.weight_files import read_weights
from wtal.settings.config import VLPConfig

NAME = "ViT-B-16-quickgelu"
CLASSES = ["cliff diving", "Golf Swing", "playing badminton with one's uncle", "BMX"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with random weights of the real architecture, in half precision as OpenAI's are."""
    import open_clip

    torch.manual_seed(0)
    state = open_clip.CLIP(**open_clip.get_model_config(NAME)).state_dict()
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    safetensors.torch.save_file({key: value.half().contiguous() for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def clip(weights):
    """Model and tokenizer."""
    return load_clip(NAME, weights)


@pytest.mark.parametrize(("before", "after"), [(16, 16), (5, 0), (0, 3), (0, 0)])
def test_real_tokens_in_the_prompts_place_give_encode_text(clip, before, after):
    model, tokenizer = clip
    text = PromptedCLIPText(model, tokenizer, CLASSES, before, after)
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    ahead, behind = torch.randint(1, start, (before,)), torch.randint(1, start, (after,))
    table = model.token_embedding.weight
    text.before.data.copy_(table[ahead])
    text.after.data.copy_(table[behind])
    rows = []
    for name in CLASSES:
        ids = [start, *ahead.tolist(), *tokenizer.encode(name), *behind.tolist(), end]
        rows.append(F.pad(torch.tensor(ids), (0, 77 - len(ids))))
    with torch.no_grad():
        expected = model.encode_text(torch.stack(rows), normalize=True)
        torch.testing.assert_close(text(), expected, atol=1e-5, rtol=0)
    if before == after == 0:
        tokenized = model.encode_text(tokenizer(CLASSES), True)
        torch.testing.assert_close(expected, tokenized, atol=1e-5, rtol=0)


def test_a_text_tower_of_its_own_in_low_precision():
    """The other build of open_clip models: the text encoder apart, with a linear projection."""
    import open_clip

    torch.manual_seed(0)
    tokenizer = open_clip.get_tokenizer(NAME, context_length=30)
    text_config = {"width": 64, "heads": 4, "layers": 2, "context_length": 30, "proj_bias": True}
    vision_config = {"width": 64, "layers": 1, "patch_size": 112}
    model = open_clip.CustomTextCLIP(48, vision_config, text_config).bfloat16().eval()
    text = PromptedCLIPText(model, tokenizer, CLASSES, 1, 1)
    assert text.dim == 48
    ids = torch.tensor([[320], [269]])  # "a", "."
    text.before.data.copy_(model.text.token_embedding.weight[ids[0]])
    text.after.data.copy_(model.text.token_embedding.weight[ids[1]])
    expected = model.encode_text(tokenizer([f"a {name} ." for name in CLASSES]), normalize=True)
    torch.testing.assert_close(text(), expected.float(), atol=0.02, rtol=0)


def test_prompts_learn_and_the_encoders_do_not(clip):
    model, tokenizer = clip
    text = PromptedCLIPText(model, tokenizer, CLASSES)
    vlp = VLP(text, 512, VLPConfig()).train()
    before = {key: value.clone() for key, value in text.encoder.state_dict().items()}
    optimizer = torch.optim.Adam(vlp.parameters(), 1e-2)
    vlp(torch.randn(2, 6, 512), torch.tensor([6, 4])).square().mean().backward()
    optimizer.step()
    assert text.before.grad.abs().max() > 0
    assert text.after.grad.abs().max() > 0
    assert not text.encoder.training
    assert all(p.grad is None and not p.requires_grad for p in text.encoder.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    for key, value in text.encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert dict(text.named_parameters()).keys() == text.state_dict().keys() == {"before", "after"}


def test_prompts_of_a_checkpoint_load_into_a_new_module(clip):
    model, tokenizer = clip
    one, two = (PromptedCLIPText(model, tokenizer, CLASSES[:2], 2, 2) for _ in range(2))
    assert one.before.std().item() == pytest.approx(0.01, rel=0.15)
    assert not torch.equal(one.before, two.before)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(), two())
    assert torch.equal(copy.deepcopy(one)(), one())


def test_the_encoder_moves_along(clip):
    model, tokenizer = clip
    text = copy.deepcopy(PromptedCLIPText(model, tokenizer, CLASSES[:1], 2, 2))
    VLP(text, 512, VLPConfig()).to("meta")
    assert {p.device.type for p in text.encoder.parameters()} == {"meta"}
    assert text.encoder.attn_mask.device.type == "meta"


def test_runs_under_cpu_autocast(clip):
    model, tokenizer = clip
    text = PromptedCLIPText(model, tokenizer, CLASSES)
    exact = text()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = text()
    assert out.dtype == torch.float32
    assert (out * exact).sum(1).min() > 0.99
    out.sum().backward()
    assert torch.isfinite(text.before.grad).all()


def test_a_name_too_long_or_empty_is_named(clip):
    model, tokenizer = clip
    longest = " ".join(["dog"] * 43)
    PromptedCLIPText(model, tokenizer, [longest])
    with pytest.raises(WtalError, match=r"class 'dog dog.*' has 44 CLIP tokens; expected 1 to 43"):
        PromptedCLIPText(model, tokenizer, ["fine", longest + " dog"])
    with pytest.raises(WtalError, match="class ' ' has 0 CLIP tokens"):
        PromptedCLIPText(model, tokenizer, [" "])


def test_a_text_encoder_that_takes_no_prompts_is_named():
    with pytest.raises(WtalError, match=r"text encoder of this CLIP model \(Linear.*takes no prompts"):
        PromptedCLIPText(torch.nn.Linear(2, 2), None, ["a"])


# ---- weights --------------------------------------------------------------------------------


def test_loading_drops_the_images_and_leaves_the_generator_alone(weights):
    state = torch.get_rng_state()
    model, _ = load_clip(NAME, weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert not hasattr(model, "visual")
    assert model.token_embedding.weight.dtype == torch.float32
    stored = safetensors.torch.load_file(weights)
    for key, value in model.state_dict().items():
        assert key == "logit_scale" or torch.equal(value, stored[key].float()), key


@pytest.mark.parametrize("form", ["plain", "nested", "legacy"])
def test_state_dicts_of_torch(tmp_path, form):
    tensors = {"ln_final.weight": torch.randn(3)}
    path = tmp_path / "w.pt"
    if form == "nested":
        torch.save({"state_dict": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 3}, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "plain")
    assert torch.equal(read_weights(path)["ln_final.weight"], tensors["ln_final.weight"])


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2).half()
        self.register_buffer("steps", torch.tensor(7))
        self.sizes = [1, 2]

    def forward(self, x):
        return self.linear(x)


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.Sequential(Part(), torch.nn.ReLU(), Part())
        self.table = torch.nn.Parameter(torch.randn(6, 4)[::2].T)  # strides of its own

    def forward(self, x):
        return self.parts[0](x) + self.table.sum()


def test_a_torchscript_archive_gives_its_tensors_without_its_program(tmp_path, monkeypatch):
    whole = Whole()
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; OpenAI's files are of that kind
        torch.jit.save(torch.jit.script(whole), path)
    monkeypatch.setattr(torch.jit, "load", None)
    state = read_weights(path)
    assert state.keys() == whole.state_dict().keys()
    for key, value in whole.state_dict().items():
        assert torch.equal(state[key], value), key
        assert state[key].dtype == value.dtype, key


class Evil:
    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.parametrize("form", ["archive", "legacy"])
def test_no_file_runs_code(tmp_path, form, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if form == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/constants.pkl", b"")
            archive.writestr("x/data.pkl", pickle.dumps(Evil(), protocol=2))
    else:
        path.write_bytes(pickle.dumps({"w": Evil()}))
    with pytest.raises(WtalError, match=r"--clip-weights .*evil.pt cannot be read"):
        read_weights(path)
    assert not (tmp_path / "owned").exists()


def test_files_that_are_no_weights_are_named(tmp_path):
    with pytest.raises(WtalError, match=r"none.pt: there is no such file"):
        read_weights(tmp_path / "none.pt")
    for name, content in (("a.pt", b""), ("b.safetensors", b"123"), ("c.pt", b"PK\x03\x04 cut off")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            WtalError, match=rf"{name} cannot be read \((?!Weights only load failed).*expected a state dict"
        ):
            read_weights(tmp_path / name)
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(WtalError, match=r"list.pt holds a list; expected a state dict"):
        read_weights(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WtalError, match=r"empty.pt holds no tensor"):
        read_weights(tmp_path / "empty.pt")


def test_weights_of_another_architecture_are_named(weights, tmp_path):
    state = safetensors.torch.load_file(weights)
    path = tmp_path / "w.safetensors"

    def refused(changed, message, name=NAME):
        safetensors.torch.save_file(changed, path)
        with pytest.raises(WtalError, match=message):
            load_clip(name, path)

    text = {key: value for key, value in state.items() if not key.startswith("visual.")}
    refused({k: v for k, v in text.items() if k != "ln_final.bias"}, "1 of 149 .* missing, .* ln_final.bias")
    refused(text | {"ln_final.bias": torch.zeros(768)}, r"ln_final.bias has shape \(768,\), expected \(512,\)")
    refused(text | {"transformer.resblocks.12.ln_1.bias": torch.zeros(512)}, "a layer too many")
    patches = {"visual.conv1.weight": torch.zeros(768, 3, 32, 32)}
    refused(text | patches, r"not of --clip-model ViT-B-16-quickgelu: visual.conv1.weight has shape")
    openai = text | {"input_resolution": torch.tensor(224)}
    refused(openai, "expected --clip-model ViT-B-16-quickgelu instead of ViT-B-16", name="ViT-B-16")
    safetensors.torch.save_file(openai, path)
    load_clip(NAME, path)


def test_architectures_that_will_not_do_are_named(tmp_path):
    with pytest.raises(WtalError, match="'ViT-B-16-quickglue' is unknown to open_clip; did you mean ViT-B-16-quick"):
        load_clip("ViT-B-16-quickglue")
    with pytest.raises(WtalError, match=r"coca_ViT-B-32.*takes no prompts"):
        load_clip("coca_ViT-B-32")
    with pytest.raises(WtalError, match=r"no OpenAI weights for ViT-H-14 .*expected --clip-weights FILE"):
        load_clip("ViT-H-14")


def test_a_download_that_fails_points_to_the_file_option(monkeypatch, caplog):
    import open_clip

    def offline(*_, **__):
        logging.getLogger("huggingface_hub").warning("Retrying in 8s")
        try:
            raise OSError("no route\nto the host")
        except OSError as error:
            raise RuntimeError("page after page of advice") from error

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(
        WtalError, match=r"could not be downloaded \(no route to the host\); expected .*--clip-weights FILE"
    ):
        load_clip(load_clip_text.DEFAULT_MODEL)
    assert not caplog.records
    logging.getLogger("huggingface_hub").warning("heard again")
    assert len(caplog.records) == 1
