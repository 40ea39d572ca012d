"""vLLM as a server: settings that cannot work are refused, and rollouts agree with the trainer.

Weights go to a server by NCCL, which CPUs do not have, so here server and trainer hold the same weights all along;
what goes to the server and comes back is real. The sync itself is tested only where there are GPUs.
"""

import pytest

from sgrl.errors import SgrlError
from sgrl.training.rollouts import check_rollouts

SERVER = {"use_vllm": True, "vllm_mode": "server"}


def config(**settings):
    from trl import GRPOConfig

    return GRPOConfig(output_dir="unused", bf16=False, use_cpu=True, report_to="none", **settings)


@pytest.mark.parametrize(
    "settings, engine, gpu, words",
    [
        (SERVER, {}, False, "vllm_mode: server needs a GPU"),
        (SERVER | {"vllm_enable_sleep_mode": True}, {}, True, "vllm_enable_sleep_mode is for vllm_mode: colocate"),
        (SERVER, {"dtype": "bfloat16"}, True, r"vllm_engine_kwargs \(dtype\) do not reach a server"),
        (SERVER | {"vllm_tensor_parallel_size": 2}, {}, True, "--tensor-parallel-size 2"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 3}, {}, True, "which must divide the number of processes, 4"),
        ({"use_vllm": True, "vllm_enable_sleep_mode": True}, {}, False, "vllm_enable_sleep_mode needs a GPU"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, engine, gpu, words, monkeypatch):
    args = config(**settings)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SgrlError, match=words):
        check_rollouts(args, engine, gpu)


def test_settings_that_work_pass(monkeypatch):
    parallel = config(use_vllm=True, vllm_enable_sleep_mode=True, vllm_tensor_parallel_size=2)
    check_rollouts(config(**SERVER), {}, True)
    check_rollouts(config(use_vllm=True), {"dtype": "float32"}, False)
    check_rollouts(config(use_vllm=False, vllm_tensor_parallel_size=3), {}, False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_rollouts(parallel, {}, True)


@pytest.mark.slow
def test_rollouts_of_a_server_agree_with_the_trainer(vllm_training_server, toy, tmp_path, monkeypatch):
    from trl.generation.vllm_client import VLLMClient

    from sgrl.data import load
    from sgrl.models.vlm.processor import load_processor
    from sgrl.training import grpo
    from sgrl.training.model import load_model

    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", lambda self, metadata, weights: None)
    args = config(
        **SERVER,
        vllm_server_base_url=vllm_training_server,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=24,
        temperature=2.0,  # every token has its chance
        vllm_importance_sampling_mode="token_truncate",
        gradient_checkpointing=False,
        log_multimodal=False,
    )
    path = str(toy / "model")
    processor = load_processor(path)
    rows = load(toy / "data", "train").select_columns(["image", "prompt", "solution"])

    def no_reward(completions, **columns):
        return [0.0] * len(completions)

    trainer = grpo.SceneGraphGRPOTrainer(load_model(path, "all"), [no_reward], args, processor, train_dataset=rows)
    trainer.model.train()
    batch = [dict(rows[i]) for i in range(4) for _ in range(4)]
    sampled = set()
    for step in range(8):
        trainer.state.global_step = step  # so that prefix and feature caches are emptied each time
        inputs = trainer._generate_and_score_completions(batch)
        trainer.current_gradient_accumulation_steps = 1  # which its `train` sets
        trainer._compute_loss(trainer.model, inputs)
        assert trainer._metrics["train"]["sampling/sampling_logp_difference/mean"][-1] < 0.01
        sampled |= set(inputs["completion_ids"].flatten().tolist())
    image = processor.image_token_id
    assert (inputs["prompt_ids"] == image).sum(dim=1).tolist() == [36] * 16  # expanded once
    assert len(sampled) > 100 and not sampled & set(grpo.placeholder_ids(trainer.model.config, processor))

    # The server reads another processor than the trainer.
    processor.image_processor.size = {"shortest_edge": 64 * 64, "longest_edge": 64 * 64}
    trainer.state.global_step += 1
    with pytest.raises(SgrlError, match=r"makes \[36\] tokens of the images of a prompt, the trainer \[16\]"):
        trainer._generate_and_score_completions(batch)
