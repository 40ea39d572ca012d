"""How fast do engines write graphs: one by one, in batches, and frame by frame over many videos?

    python benchmarks/engines.py --model build/demo/sft
    python benchmarks/engines.py --shape qwen3_5_0_8b --engines vllm --batch-size 256 --images 512 --max-new-tokens 280

Without --model it takes a tiny one with random weights, which writes tokens but no graph. Scenes and videos are those
of the toy world. Each engine runs in a process of its own, on images that it has not seen before, so that no cache
helps; the first batch is not counted. "Server" is vLLM's, asked over HTTP by as many requests at a time as a batch.

With --shape, for a GPU, weights are random, images noise of 640 x 480, and a graph is --max-new-tokens long (PSG's
have 280 on average). The last lines say how many tokens a second the memory allows: each step reads all weights of the
language model, and what each sequence has kept. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sgrl.process import run_command

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("transformers", "vllm", "server")
NAMES = {"transformers": "transformers", "vllm": "vLLM, offline", "server": "vLLM, server"}
STREAMED = 16  # frames of the live stream
ROUNDS = 4


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", help="model folder (default: a tiny one with random weights)")
    add("--shape", choices=sorted(SHAPES), help="random weights in the shape of a published model instead")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    add("--images", type=int, default=64, help="for each measurement (default: %(default)s)")
    add("--videos", type=int, default=16, help="at a time; 0: no videos (default: %(default)s)")
    add("--frames", type=int, default=8, help="of each video (default: %(default)s)")
    add("--batch-size", type=int, default=16, help="default: %(default)s")
    add("--max-new-tokens", type=int, default=80, help="limit of one graph (default: %(default)s)")
    add("--prompt-tokens", type=int, default=700, help="of text, with --shape (default: %(default)s)")
    add("--work-dir", type=Path, default=ROOT / "build/engines")
    add("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    return parser.parse_args()


################
# What is measured
################


def qwen3_5_0_8b(tokenizer):
    """The configuration of Qwen/Qwen3.5-0.8B, but for the ids of special tokens, which are the tokenizer's."""
    from transformers import Qwen3_5Config

    token_id = tokenizer.convert_tokens_to_ids
    return Qwen3_5Config(
        text_config={
            **{"vocab_size": 248320, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24},
            **{"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256},
            **{"linear_num_key_heads": 16, "linear_num_value_heads": 16},
            **{"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4},
            "layer_types": [*["linear_attention"] * 3, "full_attention"] * 6,
            "rope_parameters": {
                **{"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
                **{"mrope_section": [11, 11, 10], "mrope_interleaved": True},
            },
            **{"max_position_embeddings": 262144, "tie_word_embeddings": True},
            **{"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
        },
        vision_config={
            **{"depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12, "out_hidden_size": 1024},
            **{"patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 2304},
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )


SHAPES = {"qwen3_5_0_8b": qwen3_5_0_8b}


def build_shape(folder: Path, shape: str) -> None:
    """Save a model of this shape with random weights in bfloat16, and a processor that keeps 640 x 480 as it is."""
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig, Qwen2VLImageProcessor

    from sgrl.prompts import SHORT
    from sgrl.tiny.families import FAMILIES
    from sgrl.tiny.tokenizer import build_tokenizer

    family = FAMILIES["qwen3_5"]
    tokenizer = build_tokenizer(["circle"], ["above"], 96, [SHORT], family.chat)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(SHAPES[shape](tokenizer), dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=False)
    processor = family.processor(tokenizer, 640)
    processor.image_processor = Qwen2VLImageProcessor(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=640 * 480, max_pixels=640 * 480
    )
    part = folder.with_name(folder.name + ".part")
    model.save_pretrained(part)
    processor.save_pretrained(part)
    part.rename(folder)


def prepare(args: argparse.Namespace) -> None:
    """Models and scenes in the work folder, unless they are there."""
    args.work_dir.mkdir(parents=True, exist_ok=True)
    if args.shape:
        args.model = str(args.work_dir / args.shape)
        if not Path(args.model).exists():
            build_shape(Path(args.model), args.shape)
        return
    if not args.model:
        args.model = str(args.work_dir / "tiny")
        if not Path(args.model).exists():
            run("-m", "sgrl.tiny", "--output", args.model)
    # a third more than needed: scenes without a relation are left out
    for layout, count in (("psg", (2 * args.images + args.batch_size) * 4 // 3 + 8), ("pvsg", 2 * args.videos + 1)):
        target = data_folder(args, layout)
        if target.exists() or (layout == "pvsg" and not args.videos):
            continue
        world = args.work_dir / f"{target.name}-world"
        run("data_prep/toyworld.py", "--output", world, "--layout", layout, "--train", 1, "--test", count,
            *(["--frames", max(args.frames, STREAMED)] if layout == "pvsg" else []))  # fmt: skip
        run("data_prep/to_toon.py", "--layout", layout, "--root", world, "--output", target, "--resize", "keep",
            "--prompt", "short")  # fmt: skip


def data_folder(args: argparse.Namespace, layout: str) -> Path:
    size = args.images if layout == "psg" else f"{args.videos}x{max(args.frames, STREAMED)}"
    return args.work_dir / f"{layout}-{size}-{args.batch_size}"


def run(*words: object) -> None:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with status {done.returncode}:\n{done.stderr[-2000:]}")


def samples(args: argparse.Namespace) -> list[tuple]:
    """(image, prompt) of 2 * images + batch_size rows: to warm up, for one by one, for batches."""
    count = 2 * args.images + args.batch_size
    if not args.shape:
        from sgrl.inference.rows import DatasetRows

        rows = DatasetRows(str(data_folder(args, "psg")), "test")
        return [(row["image"], row["prompt"]) for row in map(rows.__getitem__, range(count))]
    import numpy as np
    from PIL import Image

    from sgrl.prompts import SHORT

    generator = np.random.default_rng(0)
    prompt = [{"role": "user", "content": " ".join([SHORT] * (args.prompt_tokens // 6))}]
    return [(Image.fromarray(generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)), prompt) for _ in range(count)]


################
# The measurements, in a process for each engine
################


def work(args: argparse.Namespace) -> dict:
    """Everything about one engine."""
    with engine_of(args) as engine:
        rows = samples(args)
        warm, rest = rows[: args.batch_size], rows[args.batch_size :]
        generate(engine, warm, args.batch_size)
        generate(engine, warm[:1], 1)
        found = {}
        step = max(args.images // ROUNDS, 1)
        for first in range(0, args.images, step):  # in turns: the machine may be busier at one time than at another
            last = min(first + step, args.images)
            add(found, "one", generate(engine, rest[first:last], 1))
            add(found, "batched", generate(engine, rest[args.images + first : args.images + last], args.batch_size))
        if args.worker == "vllm" and args.videos and not args.shape:
            found |= videos(args, engine)
    return found


def add(found: dict, name: str, part: dict[str, float]) -> None:
    before = found.setdefault(name, dict.fromkeys(part, 0))
    found[name] = {key: before[key] + value for key, value in part.items()}


def cpu_seconds() -> float:
    """Of this process and of those it has started, which on a busy machine tell more than the wall time."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def generate(engine, rows: Sequence[tuple], size: int) -> dict[str, float]:
    """Images, seconds and tokens of going through the rows `size` at a time."""
    start, cpu, done = time.perf_counter(), cpu_seconds(), []
    for first in range(0, len(rows), size):
        images, prompts = zip(*rows[first : first + size], strict=True)
        done += engine.generate(images, prompts)
    seconds = time.perf_counter() - start
    assert all(one.finish_reason != "error" for one in done), [one.error for one in done][:3]
    return {
        **{"images": len(done), "seconds": seconds, "cpu": cpu_seconds() - cpu},
        "tokens": sum(one.tokens for one in done),
        "prompt_tokens": sum(one.prompt_tokens for one in done),
    }


def videos(args: argparse.Namespace, engine) -> dict:
    """Frame by frame with the own graph of the frame before, as recipes/predict.py does it: one video at a time, many
    at a time (other ones), and a live stream."""
    from sgrl.inference import SceneGraphModel, SceneGraphStream
    from sgrl.inference.predict import Predictor, units_of
    from sgrl.inference.predictions import PredictionFolder
    from sgrl.inference.rows import DatasetRows
    from sgrl.task import Task

    rows = DatasetRows(str(data_folder(args, "pvsg")), "val")
    model = SceneGraphModel(engine, Task.of_dataset(rows.name))
    units = units_of(rows, "generated")
    found = {}
    for name, width, part in (
        ("one_video", 1, units[: args.videos]),
        ("many_videos", args.videos, units[args.videos : 2 * args.videos]),
    ):
        part = [unit[: args.frames] for unit in part]
        engine.batch_size = width
        output = args.work_dir / f"frames-{name}"
        shutil.rmtree(output, ignore_errors=True)
        options = argparse.Namespace(context="generated", output=output)
        folder = PredictionFolder(output, {}, ())
        start, cpu = time.perf_counter(), cpu_seconds()
        Predictor(options, rows, folder, model).run(part)
        found[name] = {"frames": sum(map(len, part)), "seconds": time.perf_counter() - start}
        found[name]["cpu"] = cpu_seconds() - cpu
        found[name] |= {key: sum(row[key] for row in folder) for key in ("tokens", "prompt_tokens")}
    stream = SceneGraphStream(model, "generated")
    for index in units[-1][:STREAMED]:
        stream.push(rows[index]["image"])
    return found | {"stream": stream.latency()}


@contextmanager
def engine_of(args: argparse.Namespace) -> Iterator:
    """The engine of this process, and its server."""
    from sgrl.inference import load_engine

    common = {"max_new_tokens": args.max_new_tokens, "batch_size": max(args.batch_size, args.videos)}
    if args.worker != "server":
        engine = load_engine(args.worker, args.model, max_model_length=4096, **common)
        yield engine
        engine.close()
        return
    with server(args, common["batch_size"]) as url:
        engine = load_engine("openai", "model", base_url=url, timeout=600, **common)
        yield engine
        engine.close()


@contextmanager
def server(args: argparse.Namespace, batch_size: int) -> Iterator[str]:
    """vLLM's server on a free port; its base URL."""
    import torch

    from sgrl.command import ENVIRONMENT

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "4096"]
    command += ["--max-num-seqs", str(batch_size), "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    if not torch.cuda.is_available():
        command += ["--enforce-eager", "--dtype", "float32"]
    with open(args.work_dir / "server.log", "w") as log:
        process = subprocess.Popen(command, env={**ENVIRONMENT, **os.environ}, stdout=log, stderr=log)
        try:
            while True:
                if process.poll() is not None:
                    sys.exit(f"the server ended; see {log.name}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


################
# The limit of memory
################


def limits(args: argparse.Namespace, found: dict) -> list[str]:
    """What the memory allows, as lines: tokens a second for one sequence and for a batch."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    text = config.get_text_config()
    language = [parameter for name, parameter in model.named_parameters() if ".visual." not in name]
    weights = 2 * sum(parameter.numel() for parameter in language)  # tied: the embedding is read whole as output
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    linear = sum(kind == "linear_attention" for kind in kinds)
    # A linear layer's state is read and written each step, in float32; a full one's keys and values are read.
    state = 2 * 4 * linear * getattr(text, "linear_num_value_heads", 0)
    state *= getattr(text, "linear_key_head_dim", 0) * getattr(text, "linear_value_head_dim", 0)
    keys = (len(kinds) - linear) * 2 * text.num_key_value_heads * text.head_dim * 2
    bandwidth = measured_bandwidth()
    lines = [
        f"Memory bandwidth {bandwidth / 1e9:,.0f} GB/s (copied); a step moves {weights / 1e9:.2f} GB of weights and "
        f"for each sequence {state / 1e6:.1f} MB and {keys / 1e3:.1f} kB for each of its tokens."
    ]
    for name in ("one", "batched"):
        row = found[name]
        size = 1 if name == "one" else args.batch_size
        context = (row["prompt_tokens"] + row["tokens"] / 2) / row["images"]
        limit = size * bandwidth / (weights + size * (state + keys * context))
        reached = row["tokens"] / row["seconds"]
        lines.append(
            f"At {size} at a time: {limit:,.0f} tokens/s at most; reached {reached:,.0f}, {reached / limit:.0%}."
        )
    return lines


def measured_bandwidth(size: int = 2**30) -> float:
    """Bytes a second that the GPU (or else this core) reads and writes in copying."""
    import torch

    cuda = torch.cuda.is_available()
    source = torch.zeros(size if cuda else size // 8, dtype=torch.uint8, device="cuda" if cuda else "cpu")
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() / best


################
# Output
################


def row_of(name: str, found: dict) -> str:
    one, batched = found["one"], found["batched"]
    cells = [NAMES[name], f"{one['seconds'] / one['images']:.3f}", f"{batched['images'] / batched['seconds']:.1f}"]
    cells[2:2] = [f"{one['tokens'] / one['seconds']:,.0f}", f"{one['cpu'] / one['images']:.3f}"]
    cells += [f"{batched['tokens'] / batched['seconds']:,.0f}", f"{batched['cpu'] / batched['images']:.3f}"]
    cells += [f"{one[key] / one['images'] / (batched[key] / batched['images']):.1f} x" for key in ("seconds", "cpu")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    args = parse_arguments()
    if args.worker:
        (args.work_dir / f"{args.worker}.json").write_text(json.dumps(work(args)))
        return
    prepare(args)
    words = [sys.executable, __file__, "--work-dir", args.work_dir]
    for name in ("images", "videos", "frames", "batch_size", "max_new_tokens", "prompt_tokens", "shape", "model"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", getattr(args, name)]
    print(
        f"{datetime.date.today()}, {device()}, Python {platform.python_version()}, batches of {args.batch_size}, ",
        end="",
    )
    print(f"at most {args.max_new_tokens} tokens a graph, model {args.shape or Path(args.model).name}.\n")
    heads = [
        "engine",
        "one by one: s/graph",
        "tokens/s",
        "CPU s/graph",
        "batched: graphs/s",
        "tokens/s",
        "CPU s/graph",
    ]
    print(f"| {' | '.join(heads)} | faster | in CPU time |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: |", flush=True)
    found = {}
    for name in args.engines:
        log = args.work_dir / f"{name}.log"
        with open(log, "w") as output:
            done = subprocess.run([*map(str, words), "--worker", name], cwd=ROOT, stdout=output, stderr=output)
        if done.returncode:
            sys.exit(f"{name} ended with status {done.returncode}; the end of {log}:\n{log.read_text()[-2000:]}")
        found[name] = json.loads((args.work_dir / f"{name}.json").read_text())
        print(row_of(name, found[name]), flush=True)
    vllm = found.get("vllm", {})
    if "one_video" in vllm:
        one, many = (vllm[name]["frames"] / vllm[name]["seconds"] for name in ("one_video", "many_videos"))
        stream = vllm["stream"]
        print(
            f"\nVideos of {args.frames} frames with the own graph of the frame before, vLLM offline: one at a time ",
            end="",
        )
        print(f"{one:.1f} frames/s, {args.videos} at a time {many:.1f} frames/s, {many / one:.1f} x", end="")
        print(f" ({vllm['one_video']['cpu'] / vllm['many_videos']['cpu']:.1f} x in CPU time).")
        print(f"A live stream: {stream['median']:.3f} s a frame (median), 95 % within {stream['p95']:.3f} s.")
    if args.shape and vllm:
        print("\n" + "\n".join(limits(args, vllm)))


def device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads"


if __name__ == "__main__":
    sys.exit(run_command("engines", main))  # a signal ends the server, too
