"""Rotary positions in config.json: one key since transformers 5, several before."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.errors import FileError
from pellucid.layers.config import Config

ORIGINAL = "original_max_position_embeddings"
FULL, SLIDING = "full_attention", "sliding_attention"
_OF_A_LENGTH = ("llama3", "yarn", "longrope")
"""Kinds of scaling that need the length of the texts in pretraining."""


@dataclass(frozen=True, kw_only=True)
class Rope:
    """A family's keys and defaults."""

    theta: float = 10_000.0
    part: float = 1.0
    """How much of a head is rotated."""
    theta_key: str = "rope_theta"
    part_key: str | None = "partial_rotary_factor"
    """None in a family that always rotates whole heads."""
    local_theta: float | None = None
    """Of layers with a window, in families that have two thetas."""
    local_key: str = "rope_local_base_freq"
    default: Mapping[str, Any] | None = None
    """The scaling where config.json has none."""
    renamed: Mapping[str, str] | None = None
    """Kinds of scaling under other names."""

    def says(self) -> Iterator[str]:
        """The fields of a config that the family can say."""
        yield from ("rope_theta", "rope_scaling")
        if self.part_key is not None:
            yield "rotary_dim"
        if self.local_theta is not None:
            yield "window_theta"

    def read(self, config: Mapping[str, Any], dim: int, positions: int | None) -> dict[str, Any]:
        """Fields of our config.

        Args:
            config: config.json.
            dim: of a head.
            positions: of the model, the default length in pretraining. With "dynamic" scaling, the
                texts may be longer by its factor.

        Raises:
            FileError: layers with a window have a scaling, or another part of a head, of their own.
        """
        rope = config.get("rope_scaling") or config.get("rope_parameters") or self.default or {}
        if isinstance(rope.get(FULL), Mapping) or isinstance(rope.get(SLIDING), Mapping):
            return self._of_two(config, dim, positions, rope)
        theta, scaling, rotated = self._of_one_kind(config, rope, positions, dim, self.theta_key)
        values: dict[str, Any] = {"rope_theta": theta, "rope_scaling": scaling}
        values["rotary_dim"] = rotated
        longer = dict(scaling)
        if longer.get("rope_type") == "dynamic" and type(longer.get("factor")) in (int, float):
            values["positions"] = positions and int(positions * longer["factor"])
        if self.local_theta is not None:
            local = float(config.get(self.local_key, self.local_theta))
            values["window_theta"] = local
        return values

    def _of_two(
        self, config: Mapping[str, Any], dim: int, positions: int | None, rope: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields, where layers with a window have a section of their own."""
        full = rope.get(FULL) or {}
        theta, scaling, rotated = self._of_one_kind(config, full, positions, dim, self.theta_key)
        local, sliding = rope.get(SLIDING) or {}, (theta, scaling, rotated)
        key = self.local_key if self.local_theta is not None else self.theta_key
        default = theta if self.local_theta is None else self.local_theta
        sliding = self._of_one_kind(config, {"rope_theta": default, **local}, positions, dim, key)
        if sliding[1] or sliding[2] != rotated:
            raise FileError(
                "its layers with a window stretch or rotate otherwise than the others, in more "
                "than rope_theta, which is not supported"
            )
        return {
            "rope_theta": theta,
            "rope_scaling": scaling,
            "rotary_dim": rotated,
            "window_theta": sliding[0],
        }

    def _of_one_kind(
        self,
        config: Mapping[str, Any],
        rope: Mapping[str, Any],
        positions: int | None,
        dim: int,
        theta_key: str,
    ) -> tuple[float, tuple[tuple[str, Any], ...], int | None]:
        """Theta, scaling and rotary_dim of one kind of layers."""
        scaling = {name: value for name, value in rope.items() if value is not None}
        theta = float(scaling.pop("rope_theta", config.get(theta_key, self.theta)))
        part = self.part if self.part_key is None else config.get(self.part_key, self.part)
        part = scaling.pop("partial_rotary_factor", part)
        kind = scaling.pop("rope_type", scaling.pop("type", "default"))
        scaling.pop("type", None)
        kind = (self.renamed or {}).get(kind, kind)
        rotated = None if part in (None, 1) else int(dim * part)
        if kind == "default":
            return theta, (), rotated
        if kind == "dynamic":
            scaling[ORIGINAL] = positions
        if kind in _OF_A_LENGTH:
            length = config.get(ORIGINAL) or scaling.get(ORIGINAL, positions)
            scaling[ORIGINAL] = length
        if kind == "yarn" and "factor" not in scaling and positions and scaling[ORIGINAL]:
            scaling["factor"] = positions / scaling[ORIGINAL]
        pairs = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in scaling.items()
        }
        return theta, (("rope_type", kind), *sorted(pairs.items())), rotated

    def write(self, config: Config) -> dict[str, Any]:
        """Their keys, as versions before 5 and since read them."""
        keys: dict[str, Any] = {self.theta_key: config.rope_theta}
        none = None if self.default is None else {"rope_type": "default"}
        keys["rope_scaling"] = scaling = dict(config.rope_scaling) or none
        if scaling and scaling["rope_type"] == "dynamic":
            keys["max_position_embeddings"] = scaling[ORIGINAL]
        if self.part_key is not None:
            part = config.rotated / config.dim
            # Their product with the size of a head is rounded down.
            keys[self.part_key] = part + 1e-9 if int(config.dim * part) < config.rotated else part
        if self.local_theta is not None:
            local = config.window_theta
            keys[self.local_key] = config.rope_theta if local is None else local
        return keys
