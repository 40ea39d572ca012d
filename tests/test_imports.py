"""Every module's imports point down the layers, and the light layers stay light."""

import ast
import subprocess
import sys

import pytest

GROUND = (
    "sgrl.errors",
    "sgrl.hub",
    "sgrl.telemetry",
    "sgrl.extras",
    "sgrl.progress",
    "sgrl.arguments",
    "sgrl.dotted",
    "sgrl.moved",
    "sgrl.terminal",
    "sgrl.process",
    "sgrl.files",
    "sgrl.plain",
    "sgrl.images",
    "sgrl.drawing",
    "sgrl.graph",
    "sgrl.boxes",
    "sgrl.run_lengths",
    "sgrl.tubes",
    "sgrl.linking",
    "sgrl.vocabulary",
    "sgrl.text",
    "sgrl.scores",
)
ROWS = ("sgrl.prompts", "sgrl.data", "sgrl.folds", "sgrl.picture", "sgrl.models.vlm.families")  # the last: a table
MACHINE = ("sgrl.command", "sgrl.precision", "sgrl.upstream")
BESIDE = ("sgrl.training", "sgrl.inference")  # on models, not on each other
OURS = ("sgrl", "rewards", "data_prep", "recipes", "tests", "benchmarks")
COMMANDS = ("sgrl.__main__", "sgrl.commands", "sgrl.doctor", "sgrl.inspect")  # found by `sgrl`; nobody imports them
HEAVY = ("torch", "transformers", "trl", "vllm", "datasets", "peft", "accelerate", "deepspeed", "pyarrow", "pandas")


def belongs(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def allowed(module: str, imported: str) -> bool:
    """Whether `module` may import our module `imported`."""
    if imported == "sgrl":
        return True
    if belongs(imported, ("recipes", "tests", "benchmarks")):
        return False
    if belongs(module, GROUND):
        return belongs(imported, GROUND)
    if belongs(module, ROWS):
        return belongs(imported, GROUND + ROWS)
    if belongs(module, ("rewards",)):
        return belongs(imported, GROUND + ROWS + ("rewards",))
    if belongs(module, ("data_prep",)):
        return belongs(imported, GROUND + ROWS + ("data_prep",))
    if belongs(module, MACHINE):
        return belongs(imported, GROUND + MACHINE)
    if belongs(module, ("sgrl.models",)):
        return belongs(imported, GROUND + ROWS + MACHINE + ("sgrl.models",))
    if belongs(module, BESIDE) and belongs(imported, BESIDE):
        return module.split(".")[1] == imported.split(".")[1]
    if belongs(module, ("sgrl",)):
        return belongs(imported, ("sgrl",)) and not belongs(imported, COMMANDS)
    return True


def imports(tree: ast.AST, module: str, package: bool, *, top_level: bool) -> list[str]:
    """Absolute names of the modules that a parsed file imports, optionally only those run at its import."""
    found = []
    pending = [tree]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if top_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            pending.append(node)
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    parts = parts[: len(parts) - node.level + (1 if package else 0)]
                    base = ".".join(parts + ([node.module] if node.module else []))
                # `from package import name` may import a module of that name
                inner = belongs(base, OURS)
                found += [base] + [f"{base}.{alias.name}" for alias in node.names if inner]
    return found


def modules(root):
    for folder in ("sgrl", "rewards", "data_prep"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            package = parts[-1] == "__init__"
            yield ".".join(parts[:-1] if package else parts), package, ast.parse(path.read_text())


def test_dependencies_point_down(root):
    wrong = [
        f"{module} imports {imported}"
        for module, package, tree in modules(root)
        for imported in imports(tree, module, package, top_level=False)
        if belongs(imported, OURS) and not allowed(module, imported)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_a_wrong_import():
    tree = ast.parse("def f():\n    from rewards import GraphScorer\n")
    assert "rewards" in imports(tree, "sgrl.graph", False, top_level=False)
    assert not allowed("sgrl.graph", "rewards")
    assert not allowed("rewards.scorer", "sgrl.training.grpo")
    assert not allowed("sgrl.inspect", "rewards") and not allowed("sgrl.inspect", "data_prep")
    assert not allowed("sgrl.training.grpo", "sgrl.inspect")
    assert not allowed("sgrl.training.grpo", "sgrl.inference") and not allowed("sgrl.inference", "sgrl.training.model")
    assert allowed("sgrl.training.grpo", "sgrl.models.vlm.parts") and allowed("sgrl.inference.rows", "sgrl.inference")
    assert not allowed("sgrl.models.vlm.parts", "sgrl.training.launch") and not allowed("sgrl.upstream", "sgrl.models")
    assert imports(ast.parse("from . import boxes"), "sgrl.graph", False, top_level=True) == ["sgrl", "sgrl.boxes"]


def test_commands_import_what_is_heavy_when_they_run(root):
    """Not at module level, so that `python -m sgrl doctor` runs where the rest is broken."""
    for module, package, tree in modules(root):
        if module in COMMANDS:
            found = imports(tree, module, package, top_level=True)
            assert not [name for name in found if belongs(name, HEAVY)], module


def test_light_layers_import_nothing_heavy(root):
    """Outside functions, the ground floor needs numpy, `rewards` scipy besides, and neither anything more."""
    third_party = sys.stdlib_module_names | {"numpy", "sgrl", "rewards"}
    wrong = []
    for module, package, tree in modules(root):
        if belongs(module, GROUND + ("rewards",)):
            extra = {"scipy"} if belongs(module, ("rewards",)) else set()
            for imported in imports(tree, module, package, top_level=True):
                if imported.split(".")[0] not in third_party | extra:
                    wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_rewards_are_few_rooms_on_few_floors(root):
    """At the top at most 14, and none more than 8 floors above those that stand on the ground."""
    below = {
        module: {name for name in imports(tree, module, package, top_level=False) if belongs(name, ("rewards",))}
        for module, package, tree in modules(root)
        if belongs(module, ("rewards",)) and not package
    }
    assert len({module.split(".")[1] for module in below}) <= 14
    floors = {module: floor(module, below) for module in below}
    assert floors["rewards.matching"] == 1 and floors["rewards.scorer"] > floors["rewards.terms"] > 1
    assert max(floors.values()) <= 8, floors


def floor(module: str, below: dict[str, set[str]]) -> int:
    """1 for what imports no other, else one more than the highest that it imports."""
    return 1 + max((floor(name, below) for name in below[module] if name in below), default=0)


@pytest.mark.parametrize("statement", ["import rewards.trl", "from rewards import GraphScorer, SCENEGRAPHVLM, R1_SGG"])
def test_rewards_never_import_torch(statement):
    """Run in an interpreter in which the training libraries cannot be imported, as after a bare `pip install`."""
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in HEAVY)
    ground = "import rewards.metrics, sgrl.graph, sgrl.boxes, sgrl.vocabulary, sgrl.text"
    code = f"import sys\n{blocked}\n{statement}\n{ground}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_is_no_circle(root):
    """Each module can be read before those that import it. Imports within functions count too, and so does what the
    `__init__` of a package shows, for those that take it from there."""
    walked = {module: (package, tree) for module, package, tree in modules(root)}
    graph = {}
    for module, (package, tree) in walked.items():
        found = imports(tree, module, package, top_level=False)
        # of `from package import module`, the package is not what is wanted
        through = {name.rpartition(".")[0] for name in found if name in walked}
        shown = {name.rpartition(".")[0] for name in found if name not in walked}
        graph[module] = {name for name in found if name in walked and not (name in through and name not in shown)}
    assert circle(graph) is None


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Names of a graph that lead back to the first of them."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        pending = [(start, 0)]
        while pending:
            name, depth = pending.pop()
            del path[depth:]
            if name in path:
                return path[path.index(name) :] + [name]
            if name not in done:
                done.add(name)
                path.append(name)
                pending += [(following, depth + 1) for following in graph.get(name, ())]
    return None


def test_the_walk_sees_a_circle():
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"a"}}) == ["a", "b", "d", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
