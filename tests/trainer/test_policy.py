"""Loading models and adapters, and writing completions in batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from storage.configs import GenerateConfig, SamplingSettings
from storage.enums import RunKind
from storage.errors import ModelUnusable
from tests.trainer.conftest import Executor
from trainer.folder import Job, RunFolder
from trainer.policy import (
    Request,
    add_adapters,
    check_adapter,
    load_model,
    load_tokenizer,
    make_generator,
    pick_device,
    resolve_base_model,
)
from trainer.sampling import choose, sample

GREEDY = SamplingSettings(temperature=0, max_new_tokens=12)
SAMPLED = SamplingSettings(temperature=1.0, max_new_tokens=12)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the tiny model writes."""
    torch.manual_seed(5)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(str(folder))
    return folder


# --- what cannot be loaded is one line ---


def test_starter_is_the_model_that_ships() -> None:
    folder = Path(resolve_base_model("starter"))
    assert (folder / "config.json").exists()
    assert folder.parent.name == "starter"


def test_a_hub_id_is_left_alone_and_a_folder_becomes_absolute(tiny_base: Path) -> None:
    assert resolve_base_model("org/model") == "org/model"
    assert resolve_base_model(str(tiny_base)) == str(tiny_base)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "nowhere", "a/b/c"])
def test_no_such_path_is_one_line(name: str) -> None:
    with pytest.raises(ModelUnusable, match="no such folder; give a local folder, a hub id"):
        resolve_base_model(name)


def test_a_hub_id_that_is_not_in_the_cache_says_so() -> None:
    with pytest.raises(ModelUnusable, match="not in the local cache") as caught:
        load_tokenizer("no-such-org/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(tiny_base, mute)
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(ModelUnusable, match="no chat template; take an instruct or chat model"):
        load_tokenizer(str(mute))


def test_corrupt_weights_are_one_line(tiny_base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelUnusable, match="cannot be loaded") as caught:
        load_model(str(broken), torch.float32, "cpu")
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert pick_device("auto") in ("cpu", "mps")
    with pytest.raises(ModelUnusable, match="no CUDA GPU is usable here"):
        pick_device("cuda:0")


def test_adapters_that_are_missing_pickled_or_corrupt_are_refused(adapter: Path, tmp_path: Path) -> None:
    check_adapter(adapter)
    with pytest.raises(ModelUnusable, match=r"has no adapter_model.safetensors"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelUnusable, match="pickled weights only, which are never loaded"):
        check_adapter(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    (broken / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelUnusable, match="is corrupt"):
        check_adapter(broken)


def test_an_adapter_of_another_model_is_refused(adapter: Path, tiny_base: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(tiny_base).config
    config.hidden_size, config.num_attention_heads = 64, 4
    other = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelUnusable, match="does not fit the base model"):
        add_adapters(other, {"policy-v1": adapter})


# --- writing ---


def test_a_batch_writes_what_each_prompt_alone_would(tiny_base: Path, adapter: Path) -> None:
    """LEFT padding, sorting by length and switching versions change nothing."""
    adapters = {"policy-v0": None, "policy-v1": adapter}
    generate = make_generator(str(tiny_base), adapters, GREEDY, batch_size=3, device="cpu")
    texts = ["late", "parcel refund today order seven", "blue lamp", "sorry " * 9, "thanks"]
    requests = [Request(ask(text), f"policy-v{n % 2}") for n, text in enumerate(texts)]
    together = generate(requests, 0)
    alone = [generate([request], 0)[0] for request in requests]
    for one, same in zip(together, alone, strict=True):
        assert one is not None
        assert same is not None
        assert one.text == same.text
        assert one.mean_logprob == pytest.approx(same.mean_logprob, abs=1e-4)
    other = generate([Request(ask(texts[0]), "policy-v1")], 0)[0]
    assert other is not None
    assert alone[0] is not None
    assert other.text != alone[0].text


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSettings(temperature=2.0, top_p=0.9, max_new_tokens=12)])
def test_the_mean_log_probability_is_the_models_own(tiny_base: Path, sampling: SamplingSettings) -> None:
    """Also where rows leave the batch at different times, and where one prompt is read for several of them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    prompts = [[3, 40, 1, 4], [3, 50, 60, 70, 80, 1, 4]]
    written = sample(model, prompts, [3, 9], sampling, ends=set(range(0, 500, 6)), pad=0, seed=5)
    assert len({len(one.ids) for one in written}) > 1
    for prompt, one in zip([prompts[0]] * 3 + [prompts[1]] * 9, written, strict=True):
        logits = model(torch.tensor([prompt + one.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        mean = float(logits[range(len(one.ids)), one.ids].mean().detach())
        assert one.mean_logprob == pytest.approx(mean, abs=1e-4), "temperature and top-p change nothing"
        if sampling is GREEDY:
            assert one.ids == logits.argmax(-1).tolist()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0, 1.0, 0.0]]).expand(20_000, -1)
    dice = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(1))
    for sampling, wanted in (
        (SamplingSettings(temperature=1.0, top_p=1.0), logits[0].softmax(-1)),
        (SamplingSettings(temperature=2.0, top_p=1.0), (logits[0] / 2).softmax(-1)),
        (SamplingSettings(temperature=1.0, top_p=0.7), torch.tensor([0.0, 0.7311, 0.0, 0.2689, 0.0])),
    ):
        drawn = choose(logits, sampling, dice)[:, 0].bincount(minlength=5) / 20_000
        assert drawn.tolist() == pytest.approx(wanted.tolist(), abs=0.015)


def test_a_seed_repeats_and_another_varies(tiny_base: Path) -> None:
    generate = make_generator(str(tiny_base), {"policy-v0": None}, SAMPLED, device="cpu")
    request = [Request(ask("late parcel"), "policy-v0")]
    texts = [(generate(request, seed)[0] or pytest.fail("nothing written")).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_prompt_longer_than_the_context_is_shortened(tiny_base: Path) -> None:
    generate = make_generator(str(tiny_base), {"policy-v0": None}, GREEDY, device="cpu")
    assert generate([Request(ask("parcel " * 2000), "policy-v0")], 0)[0] is not None
    impossible = [{"role": "system", "content": "be kind " * 2000}, *ask("parcel")]
    assert generate([Request(impossible, "policy-v0")], 0) == [None]


def test_a_reply_longer_than_the_context_is_refused(tiny_base: Path) -> None:
    with pytest.raises(ModelUnusable, match="leaves no room for a prompt"):
        make_generator(str(tiny_base), {"policy-v0": None}, SamplingSettings(max_new_tokens=250), device="cpu")


# --- the recipe ---


def _generate_folder(
    path: Path, base: Path, rows: list[dict[str, object]], temperature: float, **adapters: Path | None
) -> RunFolder:
    folder = RunFolder(path)
    folder.path.mkdir(exist_ok=True)
    folder.requests.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = Job(
        recipe=RunKind.GENERATE,
        run_id=1,
        project="tiny",
        config=GenerateConfig(device="cpu", threads=1, batch_size=4).model_dump(),
        base_model=str(base),
        adapters={name.replace("_", "-"): str(path) if path else None for name, path in adapters.items()},
        sampling=SamplingSettings(temperature=temperature, max_new_tokens=12).model_dump(),
    )
    folder.write_job(job)
    return folder


def test_every_prompt_gets_distinct_completions_of_the_versions_asked(
    tmp_path: Path, tiny_base: Path, adapter: Path, run: Executor
) -> None:
    rows: list[dict[str, object]] = [
        {
            "prompt_id": n,
            "messages": ask(f"parcel {n}"),
            "versions": ["policy-v0", "policy-v1" if n % 2 else "policy-v0"],
        }
        for n in range(6)
    ]
    folder = _generate_folder(tmp_path / "run", tiny_base, rows, 1.0, policy_v0=None, policy_v1=adapter)
    outcome = run(folder)
    assert outcome.result["prompts_without_enough"] == 0
    written = [json.loads(line) for line in (folder.out / "completions.jsonl").read_text().splitlines()]
    assert outcome.result["completions"] == len(written) == 12
    for row in rows:
        own = [completion for completion in written if completion["prompt_id"] == row["prompt_id"]]
        assert len({completion["text"] for completion in own}) == 2
        assert sorted(completion["version"] for completion in own) == sorted(row["versions"])  # type: ignore[call-overload]  # a list


def test_duplicates_are_dropped_and_a_model_with_one_answer_ends(
    tmp_path: Path, tiny_base: Path, run: Executor
) -> None:
    rows: list[dict[str, object]] = [{"prompt_id": 1, "messages": ask("late"), "versions": ["policy-v0"] * 2}]
    outcome = run(_generate_folder(tmp_path / "run", tiny_base, rows, 0.0, policy_v0=None))
    assert outcome.result["completions"] == 1
    assert outcome.result["duplicates_dropped"] == 4
    assert outcome.result["prompts_without_enough"] == 1
