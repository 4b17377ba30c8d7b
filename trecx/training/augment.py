"""Augmentation on whole batches of tensors (N, C, H, W), with a draw of its own for every sample.

All randomness comes from the generator handed in, so a run repeats under its seed.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror left to right with probability 1/2."""
    mirror = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(mirror.to(x.device)[:, None, None, None], x.flip(3), x)


def crop(x: Tensor, generator: Generator, margin: float) -> Tensor:
    """Shift by up to `margin` whole pixels each way, filling with reflected pixels."""
    margin, (height, width) = int(margin), x.shape[2:]
    padded = F.pad(x, [margin] * 4, mode="reflect")
    rows, columns = torch.randint(0, 2 * margin + 1, (2, len(x), 1), generator=generator).to(x.device)
    rows = rows + torch.arange(height, device=x.device)  # (N, H)
    columns = columns + torch.arange(width, device=x.device)  # (N, W)
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return cropped.permute(0, 3, 1, 2)


def shift_rows(x: Tensor, generator: Generator, most: float) -> Tensor:
    """Shift in time by up to `most` whole rows (MFCC frames) each way, repeating the edge frame."""
    shift = torch.randint(-int(most), int(most) + 1, (len(x), 1), generator=generator)
    rows = (torch.arange(x.shape[2]) + shift).clamp(0, x.shape[2] - 1).to(x.device)
    sample = torch.arange(len(x), device=x.device)[:, None]
    return x.permute(0, 2, 3, 1)[sample, rows].permute(0, 3, 1, 2)


def mask_rows(x: Tensor, generator: Generator, most: float) -> Tensor:
    """Blank out up to `most` neighbouring rows (MFCC frames): time masking as in SpecAugment (Park et al. 2019).

    Length and place are drawn evenly; the rows take the sample's own mean, which says nothing about the word.
    """
    return _mask(x, generator, most, 2)


def mask_columns(x: Tensor, generator: Generator, most: float) -> Tensor:
    """Blank out up to `most` neighbouring columns (cepstral coefficients): frequency masking, as `mask_rows`."""
    return _mask(x, generator, most, 3)


def _mask(x: Tensor, generator: Generator, most: float, axis: int) -> Tensor:
    size = x.shape[axis]
    length = torch.randint(0, min(int(most), size) + 1, (len(x), 1), generator=generator)
    start = (torch.rand(len(x), 1, generator=generator) * (size - length + 1)).long()
    place = torch.arange(size)
    masked = ((place >= start) & (place < start + length)).to(x.device)  # (N, size)
    masked = masked[:, None, :, None] if axis == 2 else masked[:, None, None, :]
    return torch.where(masked, x.mean((1, 2, 3), keepdim=True), x)


def affine(x: Tensor, generator: Generator, degrees: float, shift: float, zoom: float) -> Tensor:
    """Rotate by up to `degrees`, shift by up to the share `shift` of the side, zoom each axis by 1 -+ `zoom`.

    Bilinear, edges repeated: Keras's ImageDataGenerator as the authors call it, vectorised.
    """
    angle, dy, dx, zy, zx = torch.rand(5, len(x), generator=generator) * 2 - 1
    angle = torch.deg2rad(angle * degrees)
    zy, zx = 1 + zoom * zy, 1 + zoom * zx
    cos, sin = angle.cos(), angle.sin()
    # Rows map output to input coordinates in [-1, 1]; a shift of the whole side is 2 there.
    matrix = torch.stack(
        [
            torch.stack([zx * cos, -zy * sin, 2 * shift * dx], 1),
            torch.stack([zx * sin, zy * cos, 2 * shift * dy], 1),
        ],
        1,
    ).to(x.device)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def colour(x: Tensor, generator: Generator, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, contrast and saturation of RGB images by factors of up to 1 -+ the given shares.

    Contrast is taken about an image's own mean grey, saturation about each pixel's grey (luma of Rec. 601), as in
    torchvision's ColorJitter. Nothing is clipped, so values may leave the range a little.
    """
    shares = torch.tensor([brightness, contrast, saturation])
    factors = 1 + shares[:, None] * (torch.rand(3, len(x), generator=generator) * 2 - 1)
    light, spread, vivid = factors.to(x.device)[:, :, None, None]  # (N, 1, 1) each
    # All three are affine in a pixel's colour, so one 3x3 matrix and one grey offset do their work in one pass.
    luma = x.new_tensor([0.299, 0.587, 0.114])  # Rec. 601
    matrix = light * spread * torch.lerp(luma.expand(3, 3), torch.eye(3, device=x.device), vivid)  # (N, 3, 3)
    grey = (x.mean((2, 3)) @ luma)[:, None, None]  # (N, 1, 1)
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H*W, 3)
    pixels = torch.baddbmm(light * (1 - spread) * grey, pixels, matrix.transpose(1, 2))
    return pixels.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def resized_crop(x: Tensor, generator: Generator, smallest: float, stretch: float) -> Tensor:
    """Cut out a random rectangle and resize it to the whole, bilinear (Szegedy et al. 2015, 'Inception crop').

    Its area is a share of the image's from `smallest` to 1, its aspect ratio from 1 / `stretch` to `stretch` (uniform
    in the logarithm), its place anywhere inside the image. A side that would be longer than the image is cut to it.
    """
    area, ratio, cy, cx = torch.rand(4, len(x), generator=generator)
    area = smallest + (1 - smallest) * area
    ratio = torch.exp((2 * ratio - 1) * math.log(stretch))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    none = torch.zeros_like(width)
    # Rows map output to input coordinates in [-1, 1], where the centre may lie up to 1 - side from the middle.
    matrix = torch.stack(
        [
            torch.stack([width, none, (1 - width) * (2 * cx - 1)], 1),
            torch.stack([none, height, (1 - height) * (2 * cy - 1)], 1),
        ],
        1,
    ).to(x.device)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "flip": flip,
    "crop": crop,
    "shift_rows": shift_rows,
    "mask_rows": mask_rows,
    "mask_columns": mask_columns,
    "affine": affine,
    "colour": colour,
    "resized_crop": resized_crop,
}
