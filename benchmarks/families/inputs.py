"""What a model is given: two texts of which one is padded left and one right, images, sounds.

A model's forward says by the names of its parameters what it takes, and its configuration how large
that is. What it leaves open is tried one after another, and what its errors say is heeded.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.families import overrides
from benchmarks.families.shrinking import WIDTH

BATCH, TEXT, TARGET, PATCHES = 2, 13, 7, 16
LEFT, RIGHT = 3, 2
"""Tokens of padding: on the left of the first text, on the right of the second."""
MOST_PLACEHOLDERS = 4096
MISMATCH = re.compile(r"[Tt]okens:? (\d+),?\s*(?:and )?features:? (\d+)")
FRAMES = re.compile(r"of length (\d+), but found")
MATRICES = re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x")
SUMMANDS = re.compile(r"tensor a \((\d+)\) must match the size of tensor b \((\d+)\)")
KERNEL = re.compile(r"input to conv2d, but got input of size: \[\d+, \d+\]")
IMAGE = re.compile(r"doesn't match model \(?\[?(\d+)\s*[*,x]\s*(\d+)")

OFFERED = (
    "input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask", "pixel_values",
    "input_features", "input_values", "bbox", "image_grid_thw", "mm_token_type_ids",
    "image_sizes", "image_position_ids", "pixel_position_ids", "spatial_shapes",
    "pixel_attention_mask", "qformer_input_ids", "input_features_mask", "feature_attention_mask",
    "image_attention_mask", "image_embeds_position_mask", "target_sizes", "high_res_pixel_values",
    "visual_embeds", "visual_feats", "visual_pos", "flattened_patches", "past_values", "inputs",
    "entity_ids", "entity_attention_mask", "entity_position_ids", "input_points",
)  # fmt: skip
"""What is given where it may be given."""
BESIDES = {
    "image_sizes", "image_position_ids", "pixel_position_ids", "spatial_shapes", "input_points",
    "pixel_attention_mask", "input_features_mask", "feature_attention_mask",
}  # fmt: skip
"""What only some of those take that have a parameter for it."""
OF_TEXTS = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")


SAMPLED = ("samples", "samples of a channel", "frames of bins")
SPECTRAL = ("bins of frames", "frames of bins", "frames of bins of a channel")
"""How sounds may lie in memory, the outer axis first."""


@dataclass(frozen=True)
class Sizes:
    """What a configuration leaves open."""

    image: tuple[int, int] | None = None
    frames: int | None = None
    placeholders: int = 4
    """Tokens of a text that stand for an image or a sound."""
    sound: str = "samples"
    """One of SAMPLED or SPECTRAL."""
    images: int | None = None
    """Images of each text, where they have an axis of their own."""
    numbers: int | None = None
    """Of a patch, or of a frame of a sound, where the configuration tells another."""
    is_patched: bool = False
    """Whether images come as rows of patches."""
    is_padded: bool = True


def find(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these settings that a configuration or one inside it has."""
    for name in names:
        for one in _all(config):
            value = vars(one).get(name)
            if value is not None:
                return value
    return default


def _all(config: Any) -> Iterator[Any]:
    yield config
    for name in getattr(type(config), "sub_configs", {}):
        inner = getattr(config, name, None)
        if inner is not None and hasattr(inner, "to_dict"):
            yield from _all(inner)


def tries(model: Any, config: Any) -> Iterator[tuple[set[str], Sizes]]:
    """What to give, those that use most of a model first."""
    parameters = inspect.signature(model.forward).parameters
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    main = model.main_input_name
    first = {main} if isinstance(main, str) else set(main)
    offered = [name for name in OFFERED if name in parameters and name not in _unread(config)]
    images = {"pixel_values", "image_grid_thw", "image_sizes", "high_res_pixel_values"}
    sounds = {"input_features", "input_values", "feature_attention_mask", "input_features_mask"}
    selections = [
        [*offered, *required],
        [*(x for x in offered if x not in BESIDES), *required],
        [*(x for x in offered if x not in images), *required],
        [*(x for x in offered if x not in sounds), *required],
        [*(x for x in offered if x in OF_TEXTS), *required, *first],
        [*required, *first],
    ]
    done: list[set[str]] = []
    for chosen in selections:
        names = set(chosen) & parameters.keys()
        if names in done:
            continue
        done.append(names)
        for sizes in _open(names, find(config, "num_frames")):
            yield names, sizes
    if "use_cache" in parameters:
        yield {*selections[1], "use_cache"} & parameters.keys(), Sizes()


def _unread(config: Any) -> set[str]:
    """What a model has no part for that reads it."""
    missing: set[str] = set()
    if getattr(config, "vision_config", config) is None:
        missing |= {"pixel_values", "image_position_ids", "pixel_values_videos"}
    if getattr(config, "audio_config", config) is None:
        missing |= {"input_features", "input_features_mask"}
    return missing


def _open(names: set[str], frames: int | None) -> Iterator[Sizes]:
    sounds = SPECTRAL if "input_features" in names else SAMPLED
    has_sound = bool(names & {"input_features", "input_values"})
    for sound in sounds if has_sound else sounds[:1]:
        sizes = Sizes(sound=sound)
        yield sizes
        if names & {"pixel_values", "pixel_values_videos"}:
            yield replace(sizes, image=(64, 64))
            yield replace(sizes, image=(224, 224))
            if frames is not None:
                yield replace(sizes, images=frames)
            yield replace(sizes, images=1)
            yield replace(sizes, images=2)
            yield replace(sizes, is_patched=True)
        if has_sound:
            yield replace(sizes, frames=256)
    yield replace(Sizes(sound=sounds[0]), is_padded=False)


def mended(sizes: Sizes, error: Exception, width: int) -> Sizes | None:
    """Sizes that heed what an error says; None where it says nothing.

    Args:
        width: of a token's vector; some models count features by their numbers.
    """
    text = str(error)
    if match := MISMATCH.search(text):
        each, rest = divmod(int(match[2]), BATCH * width)
        wanted = (
            each if each and not rest and sizes.placeholders != each else int(match[2]) // BATCH
        )
        return replace(sizes, placeholders=wanted) if wanted < MOST_PLACEHOLDERS else None
    if match := FRAMES.search(text):
        return replace(sizes, frames=int(match[1]))
    if match := IMAGE.search(text):
        return replace(sizes, image=(int(match[1]), int(match[2])))
    match = MATRICES.search(text) or SUMMANDS.search(text)
    if match and sizes.numbers is None:
        return replace(sizes, numbers=int(match[2]))
    if KERNEL.search(text):
        return replace(sizes, is_patched=True)
    return None


def outline(inputs: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    """What tells inputs apart that are tried one after another."""
    return frozenset(
        (name, tuple(value.shape) if isinstance(value, Tensor) else str(value))
        for name, value in inputs.items()
    )


class Inputs:
    """Makes the inputs of one model."""

    def __init__(self, config: Any, sizes: Sizes, names: set[str]) -> None:
        self._config, self._sizes, self._names = config, sizes, names
        self._random = torch.Generator().manual_seed(5)
        self._text = overrides.LENGTHS.get(config.model_type, TEXT)

    def made(self) -> dict[str, Any]:
        found = {}
        for name in sorted(self._names):
            make = getattr(self, f"_make_{name}", None)
            value = None if make is None else make()
            if value is not None:
                found[name] = value
        return found

    # Texts

    def _make_input_ids(self) -> Tensor:
        ids = self._ids(self._text)
        marks = self._marks()
        if marks:
            row = torch.tensor(marks * self._sizes.placeholders).expand(BATCH, -1)
            ids = torch.cat([ids[:, :5], row, ids[:, 5:]], -1)
        pad = find(self._config, "pad_token_id", default=0)
        pad = pad if isinstance(pad, int) and pad >= 0 else 0
        return ids.masked_fill(self._mask(ids.shape[-1]) == 0, pad)

    def _marks(self) -> list[int]:
        """The token that stands for an image or a sound, where one is given."""
        names = []
        if self._names & {"pixel_values", "flattened_patches"}:
            names += ["image_token_id", "image_token_index", "media_placeholder_token_id"]
        if self._names & {"input_features", "input_values", "audio_input_ids"}:
            names += ["audio_token_id", "audio_token_index"]
        marks = [find(self._config, name) for name in names]
        return [mark for mark in dict.fromkeys(marks) if isinstance(mark, int)]

    def _ids(self, length: int) -> Tensor:
        text = getattr(self._config, "text_config", None) or self._config
        size = find(
            text, "vocab_size", "text_vocab_size", "src_vocab_size", "n_vocab", default=None
        )
        size = find(self._config, "vocab_size", default=100) if not isinstance(size, int) else size
        return torch.randint(size // 2, size, (BATCH, length), generator=self._random)

    def _mask(self, length: int) -> Tensor:
        mask = torch.ones(BATCH, length, dtype=torch.int64)
        if self._sizes.is_padded:
            mask[0, :LEFT] = 0
            mask[1, length - RIGHT :] = 0
        return mask

    def _make_attention_mask(self) -> Tensor | None:
        if "input_ids" in self._names:
            marks = self._marks()
            return self._mask(self._text + len(marks) * self._sizes.placeholders)
        if "input_values" in self._names and self._sizes.sound.startswith("samples"):
            mask = torch.ones(BATCH, self._frames(raw=True), dtype=torch.int64)
            mask[1, -800:] = 0
            return mask
        return None

    def _make_decoder_input_ids(self) -> Tensor:
        decoder = getattr(self._config, "decoder", None) or getattr(
            self._config, "decoder_config", None
        )
        size = find(decoder, "vocab_size") if decoder is not None else None
        if size is None:
            size = find(
                self._config, "decoder_vocab_size", "tgt_vocab_size", "vocab_size", default=100
            )
        return torch.randint(size // 2, size, (BATCH, TARGET), generator=self._random)

    def _make_mm_token_type_ids(self) -> Tensor | None:
        if "input_ids" not in self._names:
            return None
        ids = Inputs(self._config, self._sizes, self._names)._make_input_ids()
        kinds = torch.zeros_like(ids)
        for mark in self._marks():
            kinds[ids == mark] = 1
        return kinds

    def _make_task_inputs(self) -> Tensor:
        return torch.randint(0, 99, (BATCH, self._config.task_seq_len), generator=self._random)

    def _make_bbox(self) -> Tensor:
        corner = torch.randint(0, 50, (BATCH, self._text, 2), generator=self._random)
        return torch.cat([corner, corner + 20], -1)

    def _make_qformer_input_ids(self) -> Tensor:
        size = self._config.qformer_config.vocab_size
        return torch.randint(size // 2, size, (BATCH, self._text), generator=self._random)

    def _make_entity_ids(self) -> Tensor:
        return torch.tensor([[3, 4], [5, 6]])

    def _make_entity_attention_mask(self) -> Tensor:
        return torch.tensor([[1, 1], [1, 0]])

    def _make_entity_position_ids(self) -> Tensor:
        return torch.tensor([[[4, 5, -1], [6, -1, -1]], [[1, 2, 3], [4, -1, -1]]])

    # Images

    def _image(self) -> tuple[int, int]:
        if self._sizes.image is not None:
            return self._sizes.image
        vision = getattr(self._config, "vision_config", None) or self._config
        size = find(vision, "image_size", "input_size", "img_size", default=64)
        if isinstance(size, dict):
            size = list(size.values())
        if isinstance(size, list | tuple):
            size = [*size, *size][:2]
            return int(size[0]), int(size[1])
        return int(size), int(size)

    def _channels(self) -> int:
        vision = getattr(self._config, "vision_config", None) or self._config
        channels = find(vision, "num_channels", "in_channels", "in_chans", default=3)
        return channels if isinstance(channels, int) else 3

    def _is_flat(self) -> bool:
        return bool(self._names & {"image_grid_thw", "grid_thw"})

    def _grid(self) -> Tensor:
        return torch.tensor([[1, 4, 4]]).repeat(BATCH, 1)

    def _patches(self) -> Tensor:
        """(patches, numbers), as models take it that read images of any size."""
        vision = getattr(self._config, "vision_config", None) or self._config
        patch = find(vision, "patch_size", default=16)
        patch = patch[0] if isinstance(patch, list | tuple) else patch
        frames = find(vision, "temporal_patch_size", default=1)
        frames = frames[0] if isinstance(frames, list | tuple) else frames
        count = int(self._grid().prod(-1).sum())
        if self._sizes.is_patched:
            return self._normal(count, self._channels(), patch, patch)
        numbers = self._channels() * frames * patch**2
        return self._normal(count, self._sizes.numbers or numbers)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random)

    def _make_pixel_values(self) -> Tensor:
        if self._is_flat():
            return self._patches()
        if self._sizes.is_patched:
            return self._patches().flatten(1).view(BATCH, PATCHES, -1)
        several = () if self._sizes.images is None else (self._sizes.images,)
        return self._normal(BATCH, *several, self._channels(), *self._image())

    def _make_spatial_shapes(self) -> Tensor | None:
        return self._grid()[:, 1:] if self._sizes.is_patched else None

    def _make_target_sizes(self) -> Tensor:
        return self._grid()[:, 1:]

    def _make_pixel_attention_mask(self) -> Tensor | None:
        if self._sizes.is_patched:
            return torch.ones(BATCH, PATCHES, dtype=torch.int64)
        if self._sizes.images is not None:
            return torch.ones(BATCH, self._sizes.images, *self._image(), dtype=torch.int64)
        return None

    def _make_pixel_position_ids(self) -> Tensor | None:
        if not self._sizes.is_patched:
            return None
        side = torch.arange(4)
        return torch.cartesian_prod(side, side).expand(BATCH, -1, -1)

    def _make_image_position_ids(self) -> Tensor | None:
        return self._make_pixel_position_ids()

    def _make_image_attention_mask(self) -> Tensor | None:
        if self._sizes.images is None:
            return None
        return torch.ones(BATCH, self._text, self._sizes.images, dtype=torch.int64)

    def _make_image_embeds_position_mask(self) -> Tensor:
        mask = torch.zeros(BATCH, self._text, dtype=torch.bool)
        mask[:, 5 : 5 + find(self._config, "latent_query_num", default=4)] = True
        return mask

    def _make_high_res_pixel_values(self) -> Tensor:
        size = find(getattr(self._config, "high_res_vision_config", self._config), "image_size")
        return self._normal(BATCH, self._channels(), size, size)

    def _make_use_cache(self) -> bool:
        return False

    def _make_hidden_states(self) -> Tensor:
        return self._patches()

    def _make_image_grid_thw(self) -> Tensor | None:
        return self._grid() if "pixel_values" in self._names else None

    def _make_grid_thw(self) -> Tensor:
        return self._grid()

    def _make_image_sizes(self) -> Tensor | None:
        return torch.tensor([self._image()] * BATCH) if "pixel_values" in self._names else None

    def _make_pixel_values_videos(self) -> Tensor:
        frames = find(self._config, "num_frames", "frames_per_clip", default=2)
        return self._normal(BATCH, frames, self._channels(), *self._image())

    def _make_input_points(self) -> Tensor:
        return torch.tensor([[[[10.0, 20.0], [30.0, 12.0]]]] * BATCH)

    def _make_visual_embeds(self) -> Tensor:
        return self._normal(BATCH, 5, find(self._config, "visual_embedding_dim", default=64))

    def _make_visual_feats(self) -> Tensor:
        return self._normal(BATCH, 5, find(self._config, "visual_feat_dim", default=64))

    def _make_visual_pos(self) -> Tensor:
        return torch.rand(BATCH, 5, 4, generator=self._random)

    def _make_flattened_patches(self) -> Tensor:
        vision = getattr(self._config, "vision_config", None) or self._config
        patch = find(vision, "patch_size", default=16)
        places = torch.tensor([[row, col] for row in (1, 2, 3) for col in (1, 2, 3)]).float()
        numbers = self._normal(BATCH, 9, self._channels() * patch**2)
        return torch.cat([places.expand(BATCH, -1, -1), numbers], -1)

    # Sounds

    def _bins(self) -> int:
        audio = getattr(self._config, "audio_config", None) or self._config
        names = ("num_mel_bins", "feature_size", "input_feat_per_channel", "n_mels", "input_dim")
        more = ("feature_projection_input_dim", "mel_bins", "input_feat_size", "input_size")
        found = find(audio, *names, *more, default=80)
        return found if isinstance(found, int) else 80

    def _frames(self, raw: bool = False) -> int:
        if self._sizes.frames is not None:
            return self._sizes.frames * (16 if raw else 1)
        if raw:
            return 4000
        positions = find(self._config, "max_source_positions")
        longest = find(self._config, "max_length", default=0)
        if isinstance(positions, int):
            return 2 * positions
        return longest if isinstance(longest, int) and longest > 100 else 96

    def _sound(self) -> Tensor:
        bins = self._sizes.numbers or self._bins()
        frames, samples = self._frames(), self._frames(raw=True)
        shapes = {
            "samples": (samples,),
            "samples of a channel": (find(self._config, "audio_channels", default=1), samples),
            "bins of frames": (bins, frames),
            "frames of bins": (frames, bins),
            "frames of bins of a channel": (1, frames, bins),
        }
        return self._normal(BATCH, *shapes[self._sizes.sound])

    def _make_input_features(self) -> Tensor:
        return self._sound()

    def _make_input_values(self) -> Tensor:
        return self._sound()

    def _make_input_features_mask(self) -> Tensor | None:
        if "input_features" not in self._names:
            return None
        return torch.ones(BATCH, self._frames(), dtype=torch.int64)

    def _make_feature_attention_mask(self) -> Tensor | None:
        return self._make_input_features_mask()

    # Series

    def _make_inputs(self) -> Tensor:
        return self._normal(BATCH, self._text, find(self._config, "d_model", default=WIDTH))

    def _make_codes(self) -> Tensor:
        quantizers = find(self._config, "num_quantizers", default=4)
        return torch.randint(0, 60, (BATCH, quantizers, self._text), generator=self._random)

    def _make_past_values(self) -> Tensor:
        length = find(self._config, "context_length", default=32)
        lags = find(self._config, "lags_sequence")
        channels = find(self._config, "num_input_channels", default=1)
        if lags is not None:
            return self._normal(BATCH, length + max(lags))
        return self._normal(BATCH, length, channels)

    def _make_past_time_features(self) -> Tensor:
        lags = find(self._config, "lags_sequence", default=[0])
        length = find(self._config, "context_length", default=32) + max(lags)
        return self._normal(BATCH, length, find(self._config, "num_time_features", default=1))

    def _make_past_observed_mask(self) -> Tensor | None:
        return torch.ones(self._make_past_values().shape) if "past_values" in self._names else None
