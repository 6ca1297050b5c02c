"""The families of transformers and their model classes."""

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

ALIKE = re.compile("attention|attn", re.IGNORECASE)
"""What the classes of attention have in their names."""


def families() -> list[str]:
    """The folders of transformers that have a model in PyTorch."""
    import transformers.models

    root = Path(inspect.getfile(transformers.models)).parent
    return sorted({path.parent.name for path in root.glob("*/modeling_*.py")} - {"auto"})


def classes(family: str) -> list[Any]:
    """The model classes of a family: the models themselves first, then those with a task."""
    from transformers.models.auto import modeling_auto

    bases: set[str] = set()
    for names in modeling_auto.MODEL_MAPPING_NAMES.values():
        bases.update([names] if isinstance(names, str) else names)
    package = importlib.import_module(f"transformers.models.{family}")
    assert package.__file__ is not None
    found: dict[str, Any] = {}
    for path in sorted(Path(package.__file__).parent.glob("modeling_*.py")):
        module = importlib.import_module(f"transformers.models.{family}.{path.stem}")
        for name in getattr(module, "__all__", []):
            if _is_model(kind := getattr(module, name)):
                found[name] = kind
    return sorted(found.values(), key=lambda kind: _rank(kind, bases))


def _is_model(kind: Any) -> bool:
    """Whether this is a model's class, and no base of such classes."""
    import transformers

    bases = getattr(kind, "__mro__", ())
    if transformers.PreTrainedModel not in bases or kind.__name__.endswith("PreTrainedModel"):
        return False
    return kind.config_class is not None and kind.forward is not nn.Module.forward


def _rank(kind: Any, bases: set[str]) -> tuple[int, int]:
    """Models as such and parts of them, then what writes or recognises, then other tasks."""
    name = kind.__name__
    if name in bases:
        return 0, not kind.config_class.sub_configs
    whole = ("ForConditionalGeneration", "ForCausalLM", "ForPreTraining", "ForObjectDetection")
    return (1, whole.index(ending)) if (ending := _ending(name, whole)) else (2, len(name))


def _ending(name: str, endings: tuple[str, ...]) -> str:
    return next((ending for ending in endings if name.endswith(ending)), "")


def attention_kinds(model: nn.Module) -> set[str]:
    """The classes of a model's parts that look like attention."""
    kinds = {type(part) for part in model.modules()}
    return {kind.__qualname__ for kind in kinds if ALIKE.search(kind.__name__)}


def running_kinds(model: nn.Module, run: Callable[[], Any]) -> set[str]:
    """Those of them that a run calls."""
    ran: set[str] = set()

    def note(part: nn.Module, given: Any, made: Any) -> None:
        ran.add(type(part).__qualname__)

    alike = [part for part in model.modules() if ALIKE.search(type(part).__name__)]
    hooks = [part.register_forward_hook(note) for part in alike]
    run()
    for hook in hooks:
        hook.remove()
    return ran
