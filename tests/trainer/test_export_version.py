"""An exported version loads in plain transformers and peft, and says what it is."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from sqlalchemy.orm import Session, sessionmaker
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from storage import annotations, registry
from storage.artifacts import folder_sha256
from storage.enums import ModelKind, Split
from storage.errors import Conflict, Invalid, ModelUnusable
from storage.export.model_card import CardFacts, card_facts, licence_of
from storage.models import Evaluation, ModelVersion
from tests import factories
from trainer.ensemble import Ensemble, write_ensemble
from trainer.export_version import export_version
from trainer.policy import resolve_base_model


def made(sessions: sessionmaker[Session], base: Path, home: Path, kind: ModelKind) -> CardFacts:
    """A registered version on two annotations, whose adapter changes what the model says."""
    policy = kind is ModelKind.POLICY
    loader = AutoModelForCausalLM if policy else AutoModelForSequenceClassification
    torch.manual_seed(1)
    model = loader.from_pretrained(base, **({} if policy else {"num_labels": 2}))
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM" if policy else "SEQ_CLS",
    )  # fmt: skip
    with sessions.begin() as session:
        user, project = factories.make_user(session, "ann"), factories.make_project(session, "care: “shop”")
        factories.make_items(session, project, 2)
        used = [factories.make_annotation(session, project, user) for _ in range(2)]
        version = factories.make_version(session, project, kind, factories.make_snapshot(session, project, used))
        folder = home / str(version.folder)
        get_peft_model(model, config).save_pretrained(folder)
        if not policy:
            write_ensemble(folder, Ensemble(offsets=(0.5, -0.5), temperature=1.2))
        version.sha256, version.base_model = folder_sha256(folder), str(base)
        figure = {"value": 0.625, "low": 0.5, "high": 0.75, "n": 40}
        session.add(
            Evaluation(version_id=version.id, split=Split.TEST, metrics={"figures": {"win_rate": figure}, "notes": []})
        )
        annotations.withdraw(session, used[0].id, user)
        session.flush()
        return card_facts(session, session.get_one(ModelVersion, version.id, populate_existing=True))


def test_a_policy_loads_in_plain_transformers_and_peft(
    sessions: sessionmaker[Session], tiny_base: Path, home: Path, tmp_path: Path
) -> None:
    facts = made(sessions, tiny_base, home, ModelKind.POLICY)
    out = tmp_path / "new" / "policy-v1"
    exported = export_version(facts, home, out, merged=True)

    ids = torch.tensor([[5, 9, 14, 30]])
    bare = AutoModelForCausalLM.from_pretrained(tiny_base)
    unchanged = bare(ids).logits
    adapted = PeftModel.from_pretrained(bare, out / "adapter").eval()(ids).logits
    whole = AutoModelForCausalLM.from_pretrained(out / "merged")(ids).logits
    assert not torch.allclose(adapted, unchanged, atol=1e-2)
    assert torch.allclose(adapted, whole, atol=1e-4)
    for folder in ("adapter", "merged"):
        tokenizer = AutoTokenizer.from_pretrained(out / folder)
        assert "hello" in tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)

    card = (out / "README.md").read_text("utf-8")
    header = ModelCard(card).data  # as model hubs read it
    assert (header.base_model, header.pipeline_tag, header.library_name) == (str(tiny_base), "text-generation", "peft")
    assert header.license == "other", "its base model has no card"
    for said in ("# care: “shop”: policy-v1", "| Annotations | 2 |", "| win_rate | 0.625 | 0.5 | 0.75 | 40 |",
                 "1 of these annotations was withdrawn", str(facts.line.snapshot and facts.line.snapshot.content_hash),
                 '"learning_rate"'):  # fmt: skip
        assert said in card, said
    assert "ann" not in re.findall(r"\w+", card), "nobody is named"
    digest = hashlib.sha256((out / "README.md").read_bytes()).hexdigest()
    assert exported.files["README.md"] == digest
    assert set(exported.files) == {
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS"
    }
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)

    with pytest.raises(Conflict, match="there already"):
        export_version(facts, home, out)
    (home / str(facts.version.folder) / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelUnusable, match="changed or damaged"):
        export_version(facts, home, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []


def test_a_reward_model_keeps_its_heads_and_a_base_model_is_not_exported(
    sessions: sessionmaker[Session], tiny_base: Path, home: Path, tmp_path: Path
) -> None:
    facts = made(sessions, tiny_base, home, ModelKind.REWARD)
    export_version(facts, home, tmp_path / "out", merged=True)
    ids = torch.tensor([[5, 9, 14, 30]])
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "merged")
    bare = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=2)
    adapted = PeftModel.from_pretrained(bare, tmp_path / "out" / "adapter").eval()
    assert torch.allclose(whole(ids).logits, adapted(ids).logits, atol=1e-4)
    assert whole(ids).logits.shape == (1, 2)
    assert json.loads((tmp_path / "out" / "adapter" / "reward.json").read_text())["offsets"] == [0.5, -0.5]
    assert "ensemble of 2 heads" in (tmp_path / "out" / "README.md").read_text()
    with sessions.begin() as session:
        base = registry.base_version(session, factories.make_project(session), "starter")
        with pytest.raises(Invalid, match="nothing to export"):
            card_facts(session, base)


def test_the_licence_is_that_of_the_base_model_s_card(tmp_path: Path) -> None:
    assert licence_of("starter") == ModelCard.load(Path(resolve_base_model("starter")) / "README.md").data.license
    for card, licence in (
        ('---\nlanguage: en\nlicense: "llama3.1"\ntags: [a]\n---\n\n# Model\n', "llama3.1"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlanguage: en\n---\n\nlicense: mit\n", "other"),
        ("license: mit\n", "other"),
    ):
        (tmp_path / "README.md").write_bytes(card.encode())
        assert licence_of(str(tmp_path)) == licence
    assert licence_of("org/name") == "other"
