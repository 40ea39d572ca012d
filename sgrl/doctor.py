"""Is everything ready: versions, processor and pixels, chat template, disk, devices; and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sgrl import data, shipped
from sgrl.arguments import Parser
from sgrl.errors import SgrlError
from sgrl.machine import (
    Finding,
    check_acceleration,
    check_devices,
    check_disk,
    check_memory,
    check_packages,
    check_versions,
)
from sgrl.terminal import printable

CONSTRAINTS = shipped.file("constraints.txt")

SAMPLE = 5000
"""So many images of a split are looked at."""
TRIED = 40
"""So many of their sizes, and the extremes, go through the processor."""


def check_model(path: str, dataset: str | None = None) -> Iterator[Finding]:
    """A model folder: complete, with a chat template that takes an image, and in agreement with a data set."""
    from sgrl.models.vlm.folder import check_model_folder, load_config
    from sgrl.models.vlm.processor import load_processor, pixel_budget
    from sgrl.models.vlm.template import check_template, template_arguments

    try:
        check_model_folder(path)
        processor = load_processor(path)
    except SgrlError as error:
        yield Finding("fail", str(error))
        return
    try:
        config = load_config(path)
    except SgrlError as error:
        yield Finding("fail", str(error))
        return
    yield from check_acceleration(config)
    yield check_memory(path)
    try:
        text = check_template(processor, config, template_arguments(processor), "Write.")
        yield Finding("ok", f"chat template: one placeholder for an image, ends with {text[-24:]!r}")
    except SgrlError as error:
        what, _, advice = str(error).partition("; ")
        yield Finding("fail", what, advice)
    if processor.tokenizer.eos_token_id is None:
        yield Finding("fail", "the tokenizer has no end token", "set eos_token in tokenizer_config.json")
    budget = pixel_budget(processor)
    if budget is not None:
        yield Finding("ok", f"pixel budget of {path}: {budget[0]:,} to {budget[1]:,}")
    if dataset is not None:
        yield from _check_pixels(dataset, processor, budget)


def _check_pixels(dataset: str, processor, budget: tuple[int, int] | None) -> Iterator[Finding]:
    """What the processor makes of the images of a data set, of many rows of each split. budget: see `pixel_budget`."""
    pixel_frame = data.read_metadata(dataset)["coords"] == "pixel"
    for split in data.splits(dataset):
        name = f"images of {dataset}, {split}"
        images = _Images(dataset, split, pixel_frame)
        if not images.looked_at:
            yield Finding("fail" if split == "train" else "warn", f"{name}: there is none", "convert it again")
            continue
        some = f" ({images.looked_at:,} of {images.count:,} looked at)" * (images.looked_at < images.count)
        for kind, found in images.wrong.items():
            yield Finding("fail", f"{name}: {len(found):,} {kind}, such as {found[0]}{some}", "convert it again")
        if images.sizes:
            yield from _check_sizes(f"{name}: ", some, images, processor, budget, pixel_frame)


class _Images:
    """The sizes of the images of a split: all of them, or as many as SAMPLE spread over it and the extremes.

    Attributes:
        count: of rows. looked_at: of them. sizes: (width, height) as seen -> how many, and one of their ids.
        wrong: what keeps rows from being used -> which rows.
    """

    def __init__(self, dataset: str, split: str, pixel_frame: bool):
        import numpy as np

        from sgrl.picture import encoded_images

        rows = data.load(dataset, split)
        self.count = len(rows)
        chosen = set(range(0, self.count, -(-self.count // SAMPLE) or 1))
        if pixel_frame and self.count > SAMPLE:
            width, height = (np.asarray(rows[name], np.float64) for name in ("width", "height"))
            for order in (width * height, width / height):
                chosen |= {int(order.argmin()), int(order.argmax())}
        self.looked_at = len(chosen)
        self.sizes: dict[tuple[int, int], tuple[int, str]] = {}
        self.wrong: dict[str, list[str]] = {}
        named = rows.select_columns(["image_id", "width", "height"])
        for i in sorted(chosen):
            row, (images,) = named[i], encoded_images(rows.select([i]))
            self._look(images, repr(row["image_id"]), (row["width"], row["height"]) if pixel_frame else None)

    def _look(self, images: list[dict], called: str, frame: tuple[int, int] | None) -> None:
        from sgrl.images import check_image

        for image in images:
            try:
                size = check_image(image, called)
            except SgrlError as error:
                self.wrong.setdefault("do not open", []).append(str(error))
                continue
            if frame not in (None, size):
                text = f"{called}, {_by(size)} with boxes in {_by(frame)}"
                self.wrong.setdefault("are of another size than the frame of their boxes", []).append(text)
            number, first = self.sizes.get(size, (0, called))
            self.sizes[size] = number + 1, first


def _check_sizes(name: str, some: str, images: _Images, processor, budget, pixel_frame: bool) -> Iterator[Finding]:
    """The most frequent sizes and the extremes, through the processor itself."""
    sizes = images.sizes
    order = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    oblong = max(order, key=lambda size: max(size) / min(size))
    frequent = sorted(order, key=lambda size: -sizes[size][0])[:TRIED]
    found, refused = {}, {}
    for size in dict.fromkeys([*frequent, order[0], order[-1], oblong]):
        try:
            found[size] = _becomes(processor, size)
        except Exception as error:  # whatever its code raises would end a run
            refused[size] = (str(error) or type(error).__name__).splitlines()[0]
    for size, reason in refused.items():
        number, first = sizes[size]
        yield Finding(
            "fail",
            f"{name}{_by(size)} ({number:,} of them, such as {first}), which the processor refuses: {reason}",
            "leave them out, or convert with another --resize",
        )
    several = f"{len(sizes):,} sizes from {_by(order[0])} to {_by(order[-1])}, the most oblong {_by(oblong)}"
    text = name + (several if len(sizes) > 1 else _by(order[0])) + some
    other = {size: seen for size, seen in found.items() if seen is not None and seen != size}
    if None in found.values():
        yield Finding("ok", f"{text}, which the processor cuts into tiles or scales to one size")
    elif other:
        shown = ", ".join(f"{_by(size)} becomes {_by(other[size])}" for size in _few(list(other)))
        number = sum(sizes[size][0] for size in other)
        what = f"{text}, which the processor resizes ({number:,}: {shown}{', ...' * (len(other) > 3)})"
        pixels = [width * height for width, height in other]
        advice = f"convert with --resize {'x'.join(map(str, next(iter(other.values()))))}"
        if budget and not budget[0] <= min(pixels) <= max(pixels) <= budget[1]:
            advice = (
                f"set max_pixels: {max(*pixels, budget[1])} and min_pixels: {min(*pixels, budget[0])}, or {advice}"
            )
        advice += "; boxes are in pixels of the stored image"
        yield Finding("warn", what, advice) if pixel_frame else Finding("ok", what)
    elif found:
        yield Finding("ok", f"{text}, seen as they are")


def _few(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Three at most: the most frequent one, which comes first, the smallest and the largest."""

    def area(size: tuple[int, int]) -> int:
        return size[0] * size[1]

    return list(dict.fromkeys([sizes[0], min(sizes, key=area), max(sizes, key=area)]))


def _becomes(processor, size: tuple[int, int]) -> tuple[int, int] | None:
    """The (width, height) that the processor makes of an image, None for a family whose images have no one size."""
    from PIL import Image

    seen = processor.image_processor(images=[Image.new("RGB", size)], return_tensors="np")
    patch = getattr(processor.image_processor, "patch_size", None)
    if "image_grid_thw" not in seen or not isinstance(patch, int):
        return None
    _, rows, columns = seen["image_grid_thw"][0]
    return int(columns) * patch, int(rows) * patch


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def check_dataset(path: str) -> Iterator[Finding]:
    """A data set as `sgrl.data.load` checks it, each split."""
    try:
        metadata = data.read_metadata(path)
        for split in data.splits(path):
            count = len(data.load(path, split))
            yield Finding("ok" if count else "warn", f"{path}, {split}: {count:,} rows of {metadata['codec']}")
    except SgrlError as error:
        yield Finding("fail", str(error))


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl doctor")
    parser.add_argument("--model", help="the model folder that a run will start from")
    parser.add_argument("--dataset", help="the data set that it will train on")
    parser.add_argument("--output", default=".", help="where it will write (default: here)")
    parser.add_argument(
        "--constraints", default=CONSTRAINTS, help="file of the tested versions (default: those of this sgrl)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the findings; 1 if one of them is a "fail"."""
    args = parser().parse_args(arguments)
    findings = list(check_packages())
    loads = not findings
    findings += [*check_versions(args.constraints), *check_devices()]
    weights = sum(path.stat().st_size for path in Path(args.model).glob("*.safetensors")) if args.model else 0
    findings.append(check_disk(args.output, weights))
    dataset = list(check_dataset(args.dataset)) if args.dataset and loads else []
    findings += dataset
    if args.model and loads:
        whole = args.dataset if all(finding.level != "fail" for finding in dataset) else None
        findings += check_model(args.model, whole)
    elif loads:
        findings += check_acceleration()
        findings.append(check_memory())
    for finding in findings:
        print(f"{finding.level:<5}{printable(finding.what)}")
        if finding.advice:
            print(f"     -> {printable(finding.advice)}")
    failed = sum(finding.level == "fail" for finding in findings)
    if failed:
        print(f"\n{failed} problem{'s' * (failed != 1)} to solve first")
        return 1
    left = [f"--{name}" for name in ("model", "dataset") if not getattr(args, name)]
    print(f"\nready, as far as it was looked at; {' and '.join(left)} would say more" if left else "\nready")
    return 0
