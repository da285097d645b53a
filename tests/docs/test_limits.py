"""Files, functions and classes stay short enough to be read in one go."""

import ast

from tests import REPOSITORY

FILE_LINES = 300
NODE_LINES = {ast.FunctionDef: 50, ast.AsyncFunctionDef: 50, ast.ClassDef: 150}


def too_long(source: str) -> list[str]:
    """A line for the file if it is too long, and for each function and class that is, its decorators left out."""
    nodes = [node for node in ast.walk(ast.parse(source)) if type(node) in NODE_LINES]
    lengths = {node: node.end_lineno - node.lineno + 1 for node in nodes}
    lines = [f"{node.name}: {length}" for node, length in lengths.items() if length > NODE_LINES[type(node)]]
    count = len(source.splitlines())
    return lines if count <= FILE_LINES else [f"file: {count}", *lines]


def test_nothing_is_too_long():
    files = [*(REPOSITORY / "lib").rglob("*.py"), *REPOSITORY.glob("0*.py")]
    lines = {str(path): too_long(path.read_text(encoding="utf-8")) for path in files}
    assert len(files) > 100 and {path: found for path, found in lines.items() if found} == {}


def test_the_limits_are_of_functions_at_any_depth_classes_and_files():
    def body(lines: int, indent: int) -> str:
        return "\n".join([" " * indent + "pass"] * lines)

    assert too_long(f"def f():\n{body(49, 4)}\nclass C:\n{body(149, 4)}\n") == []
    assert too_long(f"def f():\n{body(50, 4)}\n") == ["f: 51"]
    assert too_long(f"class C:\n    async def g(self):\n{body(50, 8)}\n") == ["g: 51"]
    assert too_long(f"class C:\n{body(150, 4)}\n") == ["C: 151"]
    assert too_long("x = 1\n" * 300) == [] and too_long("x = 1\n" * 301) == ["file: 301"]
